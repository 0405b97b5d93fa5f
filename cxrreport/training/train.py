"""The verb `train`: an ingest folder and a checkpoint to an adapter."""

from __future__ import annotations

import json
import math
import platform
import resource
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file

from cxrreport.errors import ManifestError, SettingsError, TrainingError
from cxrreport.model import adapters, checkpoints
from cxrreport.model.card import AdapterCard
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.checkpoints.writer import write_checkpoint
from cxrreport.model.prompt import IGNORED, PromptLayout
from cxrreport.records import Progress, Split
from cxrreport.settings import TrainSettings
from cxrreport.storage.files import OutputFolder, output_folder
from cxrreport.training.best_checkpoint import LOSS, Best
from cxrreport.training.distributed import Processes, joined, shard
from cxrreport.training.loss import suffix_loss
from cxrreport.training.samples import Augment, Collator, ImageSource, RunOrder, SplitSamples
from cxrreport.training.step_log import Log, StepLog, draw_loss, read_log
from cxrreport.training.trainer import ReportTrainer, core, discard_incomplete, load_trained, trained
from cxrreport.training.trainer import checkpoints as saved_checkpoints
from cxrreport.training.vision_features import VisionFeatures, autocast


class Validate(Protocol):
    """Adds metrics to the validation loss; with `best.SCORE` among them, that one decides which step is best."""

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What must be known to compare the metrics with others, as JSON values."""

    def __call__(self, loaded: LoadedModel, layout: PromptLayout, processes: Processes) -> dict[str, float]:
        """The metrics of a model in evaluation mode; called in all processes, and equal in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run of `train` made.

    Args:
        adapter: folder of the adapter; after full fine-tuning, of the whole checkpoint.
        steps: optimiser steps of the whole run.
        planned_steps: optimiser steps that there would have been without early stopping.
        best_step: whose weights are in the adapter: that of the best validation, or the last one where there was none.
        resumed_at: step that this call went on from, 0 for a new run.
        loss: mean over the last tenth of the steps, nats per token.
        validation: metrics of the best validation.
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
    planned_steps: int
    best_step: int
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

    The same settings, manifest and seed give the same loss curve on a CPU, whether the run was stopped or not, and in
    however many processes. Of these the first writes and logs; all return the result. The test split is never read.

    Args:
        settings: what to do; `settings.output` is made or gone on with.
        manifest: the opened ingest folder.
        log: takes metrics and their step; each step once, over all calls.
        progress: told about steps done and to do.
        validate: adds metrics to the validation loss, and may decide which step is best.

    Raises:
        OutputError: the output folder is in use or was made by other settings, or the disk is full.
        ManifestError: the ingest folder changed since the run began, or an image is gone.
        WeightsError: the checkpoint cannot be had or does not fit the images.
        SettingsError: the number of processes does not go with `accumulation` or `sharding`.
        TrainingError: an empty training split, or a loss that is not finite.
    """
    sharded = settings.sharding == "full"
    with ExitStack() as stack:
        processes = stack.enter_context(joined(settings.checkpoint, sharded=sharded))
        _check_processes(settings, processes)
        record = settings.model_dump(mode="json")
        folder = processes.once(
            lambda: stack.enter_context(output_folder(settings.output, verb="train", settings=record))
        )
        digest = folder.record.get("data_digest", manifest.digest)
        if digest != manifest.digest:
            raise ManifestError(
                f"{settings.data}: not the data that the run in {settings.output} began with "
                f"(digest {manifest.digest[:12]}, was {digest[:12]}); give a new output folder"
            )
        if folder.finished:
            return _from_record(folder)
        if processes.first:
            folder.update(data_digest=digest)
        run = _Run(settings, manifest, folder, processes, log, progress, validate)
        result = run.execute()
        if processes.first:
            facts = json.loads(json.dumps(asdict(result) | {"adapter": result.adapter.name}))
            folder.finish(**facts, conditions=run.conditions, versions=_versions())
        return result


def _check_processes(settings: TrainSettings, processes: Processes) -> None:
    if settings.accumulation % processes.count:
        raise SettingsError(
            f"accumulation: {settings.accumulation} forward passes cannot be shared by {processes.count} processes; "
            "take a multiple of their number, or another number of processes"
        )
    if processes.sharded and processes.count == 1:
        raise SettingsError(
            "sharding: full needs several processes (torchrun --nproc-per-node N -m cxrreport train ...), "
            "or take sharding: none"
        )


def _nothing(*_: Any) -> None:
    """What processes that do not report log and show."""


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
        processes: Processes,
        log: Log,
        progress: Progress,
        validate: Validate | None,
    ) -> None:
        self.settings = settings
        self.manifest = manifest
        self.folder = folder
        self.processes = processes
        self.progress = progress if processes.first else _nothing
        self.validate = validate
        self.conditions = dict(validate.conditions) if validate is not None else {}
        self.dtype = torch.float32 if settings.checkpoint.precision == "float32" else torch.bfloat16
        self.modules: tuple[str, ...] = ()
        self.validation_features: VisionFeatures | None = None
        self.loaded = self._load()
        self.layout = PromptLayout(self.loaded.tokenizer, settings.prompt, self.loaded.image_tokens)
        self.samples = SplitSamples(manifest, Split.TRAIN, self.layout, self.progress)
        has_validation = any(self.layout.suffix(study.report) for study in manifest.studies(Split.VALIDATE))
        self.validation = SplitSamples(manifest, Split.VALIDATE, self.layout, self.progress) if has_validation else None
        per_step = settings.batch_size * settings.accumulation
        per_epoch = math.ceil(len(self.samples) / per_step)
        self.steps = settings.max_steps or math.ceil(settings.epochs * len(self.samples) / per_step)
        self.eval_every = min(settings.eval_every or per_epoch, self.steps)
        self.save_every = min(settings.save_every or self.eval_every, self.steps)
        self.order = RunOrder(len(self.samples), self.steps * per_step, settings.seed)
        self.saved = folder.path / "checkpoints"
        self.log_file = folder.path / "log.jsonl"
        self.log: Log = _nothing
        self.checkpoint = processes.once(self._last_checkpoint)
        self.resumed_at = int(self.checkpoint.name) if self.checkpoint else 0
        if processes.first:
            self.log = StepLog(self.log_file, log, resumed_at=self.resumed_at)
        lines = processes.once(lambda: read_log(self.log_file))
        self.best = Best(self.saved / "best.safetensors", lines, settings.validation.patience)
        processes.wait()  # until all have read what the first may write again

    def _last_checkpoint(self) -> Path | None:
        discard_incomplete(self.saved)
        found = saved_checkpoints(self.saved)
        return found[-1] if found else None

    def _load(self) -> LoadedModel:
        settings = self.settings
        checkpoint = settings.checkpoint
        if settings.lora is None:
            # The weights themselves are trained: updates of bfloat16 weights would round to nothing.
            checkpoint = checkpoint.model_copy(update={"precision": "float32"})
        device = checkpoints.choose_device(checkpoint.device)
        if self.processes.sharded:
            checkpoint = checkpoint.model_copy(update={"device": "cpu"})
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
        if self.processes.sharded:
            shard(loaded.model, core(loaded.model).language_model, device)
            loaded = replace(loaded, device=device)
        return loaded

    def execute(self) -> TrainResult:
        """Train, write the adapter, sum up."""
        trainer = self._trainer()
        if self.checkpoint is not None and (self.resumed_at >= self.steps or self.best.exhausted):
            load_trained(self.loaded.model, self.checkpoint)
        else:
            self.progress(self.resumed_at, self.steps, "training")
            trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        state = load_file(self.best.path) if self.best.step else trained(self.loaded.model)
        return self.processes.once(lambda: self._finish(state))

    def _finish(self, state: dict[str, torch.Tensor]) -> TrainResult:
        lines = read_log(self.log_file)
        curve = [line for line in lines if "loss" in line]
        steps = int(curve[-1]["step"])
        loss = statistics.fmean(line["loss"] for line in curve[-max(1, steps // 10) :])
        draw_loss(lines, self.folder.path / "loss.png")
        best_step = self.best.step or steps
        return TrainResult(
            adapter=self._write(state, {"loss": loss, **self.best.metrics}, best_step, steps),
            steps=steps,
            planned_steps=self.steps,
            best_step=best_step,
            resumed_at=self.resumed_at,
            loss=loss,
            validation=self.best.metrics,
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
        tower_trains = any(p.requires_grad for p in core(self.loaded.model).vision_tower.parameters())
        if not tower_trains and not self.processes.sharded:  # no part of a sharded model runs by itself
            # Not worth it for a run that sees only part of the samples, nor possible where the images change.
            keep = not settings.augment and self.resumed_at < self.steps and len(self.order) >= len(self.samples)
            features = self._frozen(self.samples, keep=keep)
            if self.validation is not None:
                self.validation_features = self._frozen(self.validation, keep=self.resumed_at < self.steps)
        augment: Augment | None = None
        if settings.augment:
            # Loaded where it is used: MONAI takes seconds.
            from cxrreport.training.augmentation import Augmentation

            augment = Augmentation(self.manifest.resolution, settings.seed)
        self.trainer = ReportTrainer(
            self.loaded,
            settings,
            dtype=self.dtype,
            steps=self.steps,
            order=self.order,
            collator=Collator(self.samples, self.layout, images=features is None or not features.kept, augment=augment),
            features=features,
            folder=self.saved,
            save_every=self.save_every,
            eval_every=self.eval_every if self.validation is not None else None,
            record=self._record,
            validate=self._validate,
            processes=self.processes,
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

    def _validate(self, step: int) -> bool:
        if self.validation is None:
            return False
        metrics = {LOSS: self._validation_loss(self.validation)}
        if self.validate is not None:
            with autocast(self.loaded.device, self.dtype):
                metrics |= self.validate(self.loaded, self.layout, self.processes)
        if self.best.better(metrics, step):
            self.best.keep(trained(self.loaded.model), metrics, step, write=self.processes.first)
        self.log(metrics | {"best_step": self.best.step}, step)
        return self.best.exhausted

    def _validation_loss(self, samples: SplitSamples) -> float:
        features = self.validation_features
        collate = Collator(samples, self.layout, images=features is None or not features.kept)
        reduction, size = self.settings.loss, self.settings.batch_size

        def sums(batches: Sequence[range]) -> list[tuple[float, int]]:
            done = []
            for indices in batches:
                losses, labels = self.trainer.forward(self.loaded.model, collate([(i, i) for i in indices]), features)
                loss = suffix_loss(losses, labels, reduction=reduction, normaliser=1.0)
                weight = len(labels) if reduction == "per-example" else int((labels != IGNORED).sum())
                done.append((float(loss), weight))
            return done

        batches = [range(start, min(start + size, len(samples))) for start in range(0, len(samples), size)]
        found = self.processes.spread(sums, batches)
        total, weight = sum(loss for loss, _ in found), sum(weight for _, weight in found)
        if not math.isfinite(total):
            raise TrainingError(f"the validation loss is {total}; take a lower learning_rate or precision: float32")
        return total / weight

    def _write(self, state: dict[str, torch.Tensor], metrics: dict[str, float], step: int, steps: int) -> Path:
        loaded = self.loaded
        card = AdapterCard(
            checkpoint=self.settings.checkpoint,
            fingerprint=loaded.fingerprint,
            resolution=loaded.resolution,
            prompt=self.settings.prompt,
            lora=self.settings.lora,
            modules=self.modules,
            preprocessing=self.manifest.preprocessing,
            data_digest=self.manifest.digest,
            steps=step,
            trained_steps=steps,
            metrics=metrics,
            conditions=self.conditions,
            versions=_versions(),
            synthetic=loaded.synthetic,
        )
        if self.settings.lora is not None:
            folder = self.folder.path / "adapter"
            adapters.save(folder, loaded.model, card, state)
        else:
            folder = self.folder.path / "model"
            base = checkpoints.locate(self.settings.checkpoint)
            write_checkpoint(folder, loaded, card, base=base, state=state)
        return folder


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _versions() -> dict[str, str]:
    names = ("cxrreport", "torch", "transformers", "peft", "accelerate", "tokenizers")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
