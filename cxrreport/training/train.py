"""The verb `train`: an ingest folder and a checkpoint to an adapter."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cxrreport.errors import ManifestError, TrainingError
from cxrreport.files import OutputFolder, atomic_path, output_folder, write_json
from cxrreport.model import adapters, checkpoints
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import IGNORED, PromptLayout
from cxrreport.records import Progress, Split
from cxrreport.settings import TrainSettings
from cxrreport.training.data import Augment, Collator, ImageSource, RunOrder, SplitSamples
from cxrreport.training.features import VisionFeatures
from cxrreport.training.log import Log, StepLog, draw_loss, read_log
from cxrreport.training.loss import suffix_loss
from cxrreport.training.trainer import ReportTrainer, core, discard_incomplete, load_trained
from cxrreport.training.trainer import checkpoints as saved_checkpoints

Validate = Callable[[LoadedModel, PromptLayout], dict[str, float]]
"""Given the model in evaluation mode: more metrics to log, e.g. RadGraph F1 of reports for some validation studies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run of `train` made.

    Args:
        adapter: folder of the adapter; after full fine-tuning, of the whole checkpoint.
        steps: optimiser steps of the whole run.
        resumed_at: step that this call went on from, 0 for a new run.
        loss: mean over the last tenth of the steps, nats per token.
        validation: metrics of the last validation.
        seconds_per_step: median.
        peak_memory: largest resident size of the process, or allocation on the GPU, bytes.
        samples: of the training split.
        cut_reports: training samples whose report was longer than the limit.
        cut_prefixes: training samples whose indication was longer than the limit.
        without_text: images left out because their report has none of the sections.
        trained_parameters: numbers that are trained.
        adapted_modules: names of the layers with LoRA.
        synthetic: the checkpoint has seen nothing but phantoms.
    """

    adapter: Path
    steps: int
    resumed_at: int
    loss: float
    validation: dict[str, float]
    seconds_per_step: float
    peak_memory: int
    samples: int
    cut_reports: int
    cut_prefixes: int
    without_text: int
    trained_parameters: int
    adapted_modules: tuple[str, ...]
    synthetic: bool


def train(
    settings: TrainSettings,
    manifest: ImageSource,
    *,
    log: Log,
    progress: Progress,
    validate: Validate | None = None,
) -> TrainResult:
    """Fine-tune a checkpoint on the training split of an ingest folder; go on where an earlier call was stopped.

    The same settings, manifest and seed give the same loss curve on a CPU, whether the run was stopped or not. The
    test split is never read.

    Args:
        settings: what to do; `settings.output` is made or gone on with.
        manifest: the opened ingest folder.
        log: takes metrics and their step; each step once, over all calls.
        progress: told about steps done and to do.
        validate: adds metrics to the validation loss.

    Raises:
        OutputError: the output folder is in use or was made by other settings, or the disk is full.
        ManifestError: the ingest folder changed since the run began, or an image is gone.
        WeightsError: the checkpoint cannot be had or does not fit the images.
        TrainingError: an empty training split, or a loss that is not finite.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("started as one of several processes (WORLD_SIZE); training runs in one: start it once")
    with output_folder(settings.output, verb="train", settings=settings.model_dump(mode="json")) as folder:
        digest = folder.record.get("data_digest", manifest.digest)
        if digest != manifest.digest:
            raise ManifestError(
                f"{settings.data}: not the data that the run in {settings.output} began with "
                f"(digest {manifest.digest[:12]}, was {digest[:12]}); give a new output folder"
            )
        if folder.finished:
            return _from_record(folder)
        folder.update(data_digest=digest)
        run = _Run(settings, manifest, folder, log, progress, validate)
        result = run.execute()
        facts = json.loads(json.dumps(asdict(result) | {"adapter": result.adapter.name}))
        folder.finish(**facts, versions=_versions())
        return result


def _from_record(folder: OutputFolder) -> TrainResult:
    values = {name: folder.record[name] for name in TrainResult.__dataclass_fields__}
    values["adapter"] = folder.path / values["adapter"]
    values["adapted_modules"] = tuple(values["adapted_modules"])
    return TrainResult(**values)


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        settings: TrainSettings,
        manifest: ImageSource,
        folder: OutputFolder,
        log: Log,
        progress: Progress,
        validate: Validate | None,
    ) -> None:
        self.settings = settings
        self.manifest = manifest
        self.folder = folder
        self.progress = progress
        self.validate = validate
        self.dtype = torch.bfloat16 if settings.checkpoint.precision == "bfloat16" else torch.float32
        self.modules: tuple[str, ...] = ()
        self.validation_features: VisionFeatures | None = None
        self.loaded = self._load()
        self.layout = PromptLayout(self.loaded.tokenizer, settings.prompt, self.loaded.image_tokens)
        self.samples = SplitSamples(manifest, Split.TRAIN, self.layout, progress)
        has_validation = any(self.layout.suffix(study.report) for study in manifest.studies(Split.VALIDATE))
        self.validation = SplitSamples(manifest, Split.VALIDATE, self.layout, progress) if has_validation else None
        per_step = settings.batch_size * settings.accumulation
        per_epoch = math.ceil(len(self.samples) / per_step)
        self.steps = settings.max_steps or math.ceil(settings.epochs * len(self.samples) / per_step)
        self.eval_every = min(settings.eval_every or per_epoch, self.steps)
        self.save_every = min(settings.save_every or self.eval_every, self.steps)
        self.order = RunOrder(len(self.samples), self.steps * per_step, settings.seed)
        discard_incomplete(folder.path / "checkpoints")
        found = saved_checkpoints(folder.path / "checkpoints")
        self.checkpoint = found[-1] if found else None
        self.resumed_at = int(self.checkpoint.name) if self.checkpoint else 0
        self.log = StepLog(folder.path / "log.jsonl", log, resumed_at=self.resumed_at)

    def _load(self) -> LoadedModel:
        settings = self.settings
        checkpoint = settings.checkpoint
        if settings.lora is None:
            # The weights themselves are trained: updates of bfloat16 weights would round to nothing.
            checkpoint = checkpoint.model_copy(update={"precision": "float32"})
        loaded = checkpoints.load(checkpoint, resolution=self.manifest.resolution)
        torch.manual_seed(settings.seed)
        if settings.lora is None:
            loaded.model.requires_grad_(True)
        else:
            model, self.modules = adapters.attach(loaded.model, settings.lora)
            loaded = replace(loaded, model=model)
        if settings.gradient_checkpointing:
            language = core(loaded.model).language_model
            # The name before transformers 5.2x; the language model alone, as the frozen tower keeps no activations.
            enable = getattr(language, "activation_checkpointing_enable", language.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
        return loaded

    def execute(self) -> TrainResult:
        """Train, write the adapter, sum up."""
        trainer = self._trainer()
        if self.checkpoint is not None and self.resumed_at >= self.steps:
            load_trained(self.loaded.model, self.checkpoint)
        else:
            self.progress(self.resumed_at, self.steps, "training")
            trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        self.loaded.model.eval()
        lines = read_log(self.folder.path / "log.jsonl")
        losses = [line["loss"] for line in lines if "loss" in line]
        validation = [line for line in lines if "validation_loss" in line]
        last = {name: value for name, value in validation[-1].items() if name != "step"} if validation else {}
        loss = statistics.fmean(losses[-max(1, self.steps // 10) :])
        draw_loss(lines, self.folder.path / "loss.png")
        return TrainResult(
            adapter=self._write({"loss": loss, **last}),
            steps=self.steps,
            resumed_at=self.resumed_at,
            loss=loss,
            validation=last,
            seconds_per_step=statistics.median(line["seconds"] for line in lines if "seconds" in line),
            peak_memory=_peak_memory(self.loaded.device),
            samples=len(self.samples),
            cut_reports=self.samples.cut_suffixes,
            cut_prefixes=self.samples.cut_prefixes,
            without_text=self.samples.without_text,
            trained_parameters=sum(p.numel() for p in self.loaded.model.parameters() if p.requires_grad),
            adapted_modules=self.modules,
            synthetic=self.loaded.synthetic,
        )

    def _trainer(self) -> ReportTrainer:
        settings = self.settings
        features: VisionFeatures | None = None
        if not any(p.requires_grad for p in core(self.loaded.model).vision_tower.parameters()):
            # Not worth it for a run that sees only part of the samples, nor possible where the images change.
            keep = not settings.augment and self.resumed_at < self.steps and len(self.order) >= len(self.samples)
            features = self._frozen(self.samples, keep=keep)
            if self.validation is not None:
                self.validation_features = self._frozen(self.validation, keep=self.resumed_at < self.steps)
        augment: Augment | None = None
        if settings.augment:
            # Loaded where it is used: MONAI takes seconds.
            from cxrreport.training.augment import Augmentation

            augment = Augmentation(self.manifest.resolution, settings.seed)
        self.trainer = ReportTrainer(
            self.loaded,
            settings,
            dtype=self.dtype,
            steps=self.steps,
            order=self.order,
            collator=Collator(self.samples, self.layout, images=features is None or not features.kept, augment=augment),
            features=features,
            folder=self.folder.path / "checkpoints",
            save_every=self.save_every,
            eval_every=self.eval_every if self.validation is not None else None,
            record=self._record,
            validate=self._validate,
        )
        return self.trainer

    def _frozen(self, samples: SplitSamples, *, keep: bool) -> VisionFeatures:
        tower = core(self.loaded.model).vision_tower
        keep = keep and VisionFeatures.fits(tower, samples, self.loaded.image_tokens, self.dtype)
        kept = samples if keep else None
        return VisionFeatures(tower, self.loaded, self.dtype, samples=kept, progress=self.progress)

    def _record(self, values: dict[str, float], step: int) -> None:
        self.log(values, step)
        self.progress(step, self.steps, "training")

    def _validate(self, step: int) -> None:
        if self.validation is None:
            return
        metrics = {"validation_loss": self._validation_loss(self.validation)}
        if self.validate is not None:
            metrics |= self.validate(self.loaded, self.layout)
        self.log(metrics, step)

    def _validation_loss(self, samples: SplitSamples) -> float:
        features = self.validation_features
        collate = Collator(samples, self.layout, images=features is None or not features.kept)
        total, weight, size = 0.0, 0, self.settings.batch_size
        for start in range(0, len(samples), size):
            batch = collate([(i, i) for i in range(start, min(start + size, len(samples)))])
            outputs, labels = self.trainer.forward(self.loaded.model, batch, features)
            loss = suffix_loss(outputs.logits, labels, reduction=self.settings.loss, normaliser=1.0)
            total += float(loss)
            weight += len(labels) if self.settings.loss == "per-example" else int((labels != IGNORED).sum())
        if not math.isfinite(total):
            raise TrainingError(f"the validation loss is {total}; take a lower learning_rate or precision: float32")
        return total / weight

    def _write(self, metrics: dict[str, float]) -> Path:
        loaded = self.loaded
        card = adapters.AdapterCard(
            checkpoint=self.settings.checkpoint,
            fingerprint=loaded.fingerprint,
            resolution=loaded.resolution,
            prompt=self.settings.prompt,
            lora=self.settings.lora,
            modules=self.modules,
            preprocessing=self.manifest.preprocessing,
            data_digest=self.manifest.digest,
            steps=self.steps,
            metrics=metrics,
            versions=_versions(),
            synthetic=loaded.synthetic,
        )
        if self.settings.lora is not None:
            folder = self.folder.path / "adapter"
            adapters.save(folder, loaded.model, card)
        else:
            folder = self.folder.path / "model"
            save_whole(folder, loaded, card)
        return folder


def save_whole(folder: Path, loaded: LoadedModel, card: adapters.AdapterCard) -> None:
    """Write a fully fine-tuned checkpoint as a folder that `checkpoint.name` and plain transformers take.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    state = {name: p.detach().cpu().contiguous() for name, p in loaded.model.named_parameters()}
    with atomic_path(folder / "model.safetensors") as path:
        save_file(state, path, metadata={"format": "pt"})
    with atomic_path(folder / "tokenizer.json") as path:
        loaded.tokenizer.backend_tokenizer.save(str(path))
    with atomic_path(folder / adapters.README) as path:
        path.write_text(adapters.model_card(card), encoding="utf-8")
    write_json(folder / adapters.CARD, card.model_dump(mode="json"))
    values: dict[str, Any] = json.loads(loaded.model.config.to_json_string(use_diff=False))
    write_json(folder / "config.json", values | {"synthetic": loaded.synthetic})


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _versions() -> dict[str, str]:
    names = ("cxrreport", "torch", "transformers", "peft", "accelerate", "tokenizers")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
