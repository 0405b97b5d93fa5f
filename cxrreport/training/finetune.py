"""Fine-tune PaliGemma 2 on the training split of an ingest folder: build, fit, validate, save.

The loop is plain PyTorch. accelerate wraps the model for several processes (DDP); `distributed.shard` splits it across
them instead (FSDP2). Sample order, dropout and augmentation are functions of the seed and the step, so a resumed run
computes what an uninterrupted one does, in any number of processes.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from safetensors.torch import load_file

from cxrreport.dataset import Manifest
from cxrreport.errors import ManifestError, TrainingError
from cxrreport.model import adapters, checkpoints
from cxrreport.model.card import AdapterCard
from cxrreport.model.checkpoints.writer import write_checkpoint
from cxrreport.model.fused import fused
from cxrreport.model.prompt import IGNORED, PromptLayout
from cxrreport.records import Progress, Split
from cxrreport.settings import TrainSettings
from cxrreport.storage.memory import release_unused_memory
from cxrreport.storage.output_folder import output_folder
from cxrreport.training import checkpointing
from cxrreport.training.best_checkpoint import LOSS, SCORE, BestCheckpoint
from cxrreport.training.distributed import (
    ProcessGroup,
    check_processes,
    gathered,
    join,
    peak_memory,
    quiet_sharding,
)
from cxrreport.training.forward import forward, suffix_loss
from cxrreport.training.initial_model import load_model
from cxrreport.training.interruption import StopRequest
from cxrreport.training.optimization import build_optimizer, learning_rate
from cxrreport.training.run import Run, TrainResult, Validator, versions
from cxrreport.training.samples import Augment, Collator, SplitSamples, run_batches
from cxrreport.training.step_log import Log, StepLog, draw_loss, draw_reward, read_log
from cxrreport.training.vision_features import VisionFeatures, autocast, frozen_features

logger = logging.getLogger(__name__)


def train(
    settings: TrainSettings,
    manifest: Manifest,
    *,
    log: Log,
    progress: Progress,
    validate: Validator | None = None,
    fitting: Callable[[Run], str] | None = None,
) -> TrainResult:
    """Fine-tune a checkpoint, or resume a run that was stopped.

    The same settings, manifest and seed give the same loss curve on a CPU, resumed or not, in any number of processes.
    The first process writes and logs; all return the result. The test split is never read.

    Args:
        settings: `settings.output` is created, or resumed from.
        manifest: the opened ingest folder.
        log: takes metrics and their step, each step once over all calls.
        progress: called with completed and total steps.
        validate: adds metrics to the validation loss, and may select the best step.
        fitting: takes the place of `fit`, as `reward.fit` does.

    Raises:
        OutputError: the output folder is in use or was made with other settings, or the disk is full.
        ManifestError: the ingest folder changed since the run began, or an image is missing.
        WeightsError: the checkpoint is not available or does not fit the images.
        SettingsError: the number of processes does not fit `accumulation` or `sharding`.
        TrainingError: the training split is empty, or a loss is not finite.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGUSR1; the step that it came in is saved.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(join(settings.checkpoint, sharded=settings.sharding == "full"))
        check_processes(settings, processes)
        record = settings.model_dump(mode="json")
        folder = processes.on_first(
            lambda: stack.enter_context(output_folder(settings.output, command="train", settings=record))
        )
        digest = folder.record.get("data_digest", manifest.digest)
        if digest != manifest.digest:
            raise ManifestError(
                f"{settings.data}: the data have changed since the run in {settings.output} began "
                f"(digest {manifest.digest[:12]}, was {digest[:12]}); give a new output folder"
            )
        if folder.finished:
            return TrainResult.from_record(folder.path, folder.record)
        if processes.first:
            folder.update(data_digest=digest)
        run = build(settings, manifest, folder.path, processes, log=log, progress=progress, validate=validate)
        stopped = (fitting or fit)(run) if run.unfinished else ""
        result = save(run, stopped)
        if processes.first:
            folder.finish(**result.as_record(), conditions=run.conditions, versions=versions())
        return result


# --- Build ---


def build(
    settings: TrainSettings,
    manifest: Manifest,
    folder: Path,
    processes: ProcessGroup,
    *,
    log: Log,
    progress: Progress,
    validate: Validator | None,
) -> Run:
    """Load the model and the samples, and find the checkpoint to resume from."""
    progress = progress if processes.first else _ignore
    loaded, modules = load_model(settings, manifest.resolution, processes)
    layout = PromptLayout(loaded.tokenizer, settings.prompt, loaded.image_tokens)
    training = SplitSamples(manifest, Split.TRAIN, layout, progress)
    has_validation = any(layout.suffix(study.report) for study in manifest.each_study(Split.VALIDATE, priors=False))
    validation = SplitSamples(manifest, Split.VALIDATE, layout, progress) if has_validation else None
    saved, log_file = folder / "checkpoints", folder / "log.jsonl"
    checkpoint = processes.on_first(lambda: checkpointing.latest(saved))
    resumed_at = int(checkpoint.name) if checkpoint else 0
    if processes.first:
        log = StepLog(log_file, log, resumed_at=resumed_at)
    lines = processes.on_first(lambda: read_log(log_file))
    best = BestCheckpoint(saved / "best.safetensors", lines, settings.validation.patience)
    processes.wait()  # until all have read the file that the first process may write next

    release_unused_memory()  # what reading manifest, texts and weights took for a moment
    per_step = settings.studies_per_step
    steps = settings.max_steps or math.ceil(settings.epochs * len(training) / per_step)
    eval_every = min(settings.eval_every or math.ceil(len(training) / per_step), steps)
    dtype = torch.float32 if settings.checkpoint.precision == "float32" else torch.bfloat16

    def features(samples: SplitSamples, *, keep: bool) -> VisionFeatures | None:
        if processes.sharded:
            return None  # no part of a sharded model can run alone
        return frozen_features(loaded, samples, dtype, keep=keep and resumed_at < steps, progress=progress)

    return Run(
        settings=settings,
        manifest=manifest,
        folder=folder,
        processes=processes,
        loaded=loaded,
        dtype=dtype,
        modules=modules,
        layout=layout,
        training=training,
        validation=validation,
        # Kept in memory if the run sees every sample, and sees it unchanged.
        training_features=features(training, keep=not settings.augment and steps * per_step >= len(training)),
        validation_features=features(validation, keep=True) if validation is not None else None,
        steps=steps,
        eval_every=eval_every,
        save_every=min(settings.save_every or eval_every, steps),
        checkpoint=checkpoint,
        resumed_at=resumed_at,
        best=best,
        log=log if processes.first else _ignore,
        progress=progress,
        validate=validate,
    )


# --- Fit ---


def fit(run: Run) -> str:
    """Train from the checkpoint, or from the beginning, to the last step or until early stopping.

    Returns:
        Why the run was stopped before the last step, where that is not early stopping; here always empty.
    """
    settings, processes, device = run.settings, run.processes, run.loaded.device
    saved = run.folder / "checkpoints"
    network = run.loaded.model
    optimizer = build_optimizer(network, settings)
    if run.checkpoint is not None:
        checkpointing.load_weights(run.checkpoint, network)
        checkpointing.load_optimizer(run.checkpoint, network, optimizer, processes)
    options = DistributedDataParallelKwargs(find_unused_parameters=False)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[options])
    model = network if processes.sharded else accelerator.prepare_model(network, device_placement=False)
    batches = iter(
        run_batches(
            collator(run, run.training, run.training_features, training=True),
            settings,
            first_step=run.resumed_at,
            steps=run.steps,
            rank=processes.rank,
            processes=processes.count,
        )
    )
    run.progress(run.resumed_at, run.steps, "training")
    if run.resumed_at and processes.first:
        logger.info("%s: resuming from step %d of %d", run.folder, run.resumed_at, run.steps)
    language = adapters.paligemma(network).language_model
    softcap, compiled = run.loaded.softcap, settings.compile
    with quiet_sharding(), fused(network, language, softcap=softcap, compiled=compiled), StopRequest() as stop:
        started = saved_at = time.monotonic()
        for step in range(run.resumed_at + 1, run.steps + 1):
            passes = [next(batches) for _ in range(settings.accumulation // processes.count)]
            tokens = processes.total(sum(int((batch["labels"] != IGNORED).sum()) for batch in passes))
            network.train()
            loss = torch.zeros((), device=device)
            for batch in passes:
                torch.manual_seed(settings.seed * 1_000_003 + int(batch["position"][0]))
                # Gradients of several processes are averaged once per step, after the last pass.
                averaged = processes.sharded or batch is passes[-1]
                with nullcontext() if averaged else accelerator.no_sync(model):
                    losses, labels = forward(run.loaded, model, batch, run.training_features, run.dtype)
                    # The average over processes turns each one's share of the step into the mean over the step.
                    share = tokens / processes.count if settings.loss == "per-token" else len(labels) * len(passes)
                    part = suffix_loss(losses, labels, reduction=settings.loss, normaliser=share)
                    torch.autograd.backward(part)
                loss += part.detach()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
            values = {"loss": processes.mean(loss), "grad_norm": float(gathered(norm))}
            if not_finite := [name for name, value in values.items() if not math.isfinite(value)]:
                raise TrainingError(
                    f"step {step}: {not_finite[0]} is {values[not_finite[0]]}; the checkpoints in {saved} are from "
                    "before; use a lower learning_rate or precision: float32, and a new output folder"
                )
            rate = learning_rate(step, run.steps, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            run.log(values | {"learning_rate": rate, "seconds": time.monotonic() - started}, step)
            run.progress(step, run.steps, "training")
            if step == run.steps or step % run.eval_every == 0:
                validate(run, step)
            saved_at = checkpointing.save_if_due(run, step, optimizer, stop, saved_at)
            if run.best.exhausted:
                break
            started = time.monotonic()
    return ""


# --- Validate ---


def validate(run: Run, step: int) -> None:
    """Compute the validation metrics, and keep the weights if they are the best so far.

    Training on the metric makes the reference reports less likely, so only their scores select its weights.
    """
    if run.validation is None:
        return
    network = run.loaded.model
    network.eval()
    with torch.no_grad():
        metrics = {LOSS: _validation_loss(run, run.validation)}
        if run.validate is not None:
            with autocast(run.loaded.device, run.dtype):
                metrics |= run.validate(run.loaded, run.layout, run.processes)
    if run.processes.sharded:
        network.reshard()  # after a forward pass the outermost part waits, unsharded, for a backward pass
    if run.settings.objective == "reward" and SCORE not in metrics:
        run.log(metrics, step)
        return
    if run.best.improves(metrics, step):
        run.best.keep(checkpointing.trained_weights(network, run.processes), metrics, step, write=run.processes.first)
    run.log(metrics | {"best_step": run.best.step or 0}, step)


def _validation_loss(run: Run, samples: SplitSamples) -> float:
    reduction, size = run.settings.loss, run.settings.batch_size
    collate = collator(run, samples, run.validation_features)

    def losses_of(batches: Sequence[range]) -> list[tuple[float, int]]:
        found = []
        for indices in batches:
            batch = collate([(index, index) for index in indices])
            losses, labels = forward(run.loaded, run.loaded.model, batch, run.validation_features, run.dtype)
            weight = len(labels) if reduction == "per-example" else int((labels != IGNORED).sum())
            found.append((float(suffix_loss(losses, labels, reduction=reduction, normaliser=1.0)), weight))
        return found

    batches = [range(start, min(start + size, len(samples))) for start in range(0, len(samples), size)]
    found = run.processes.distribute(losses_of, batches)
    total, weight = sum(loss for loss, _ in found), sum(weight for _, weight in found)
    if not math.isfinite(total):
        raise TrainingError(f"the validation loss is {total}; use a lower learning_rate or precision: float32")
    return total / weight


def collator(run: Run, samples: SplitSamples, features: VisionFeatures | None, *, training: bool = False) -> Collator:
    """Make the collator of a split, without pixels if the features of its images are in memory.

    `training` adds what only training does to its samples: augmentation, and prior studies that are not shown.
    """
    settings = run.settings
    change: Augment | None = None
    if training and settings.augment:
        from cxrreport.training.augmentation import Augmentation  # MONAI takes seconds to import

        change = Augmentation(run.manifest.resolution, settings.seed)
    return Collator(
        samples,
        run.layout,
        images=features is None or not features.kept,
        augment=change,
        prior_dropout=settings.prior_dropout if training else 0.0,
        seed=settings.seed,
    )


# --- Save ---


def save(run: Run, stopped: str = "") -> TrainResult:
    """Write the adapter with the best weights, or the whole checkpoint after full fine-tuning."""
    network = run.loaded.model
    if run.checkpoint is not None and not run.unfinished and run.best.step is None:
        checkpointing.load_weights(run.checkpoint, network)
    # Gathered in all processes, and kept by the first.
    weights = {} if run.best.step is not None else checkpointing.trained_weights(network, run.processes)
    return run.processes.on_first(lambda: _write(run, weights or load_file(run.best.path), stopped))


def _write(run: Run, weights: dict[str, torch.Tensor], stopped: str) -> TrainResult:
    lines = read_log(run.folder / "log.jsonl")
    draw = draw_reward if run.settings.objective == "reward" else draw_loss
    draw(lines, run.folder / "loss.png")
    curve = [line for line in lines if "loss" in line]
    steps = int(curve[-1]["step"])
    loss = statistics.fmean(line["loss"] for line in curve[-max(1, steps // 10) :])
    loaded, best_step = run.loaded, steps if run.best.step is None else run.best.step
    cut_prefixes, cut_reports = run.training.cut()
    card = AdapterCard(
        checkpoint=run.settings.checkpoint,
        fingerprint=loaded.fingerprint,
        resolution=loaded.resolution,
        prompt=run.settings.prompt,
        lora=run.settings.lora,
        modules=run.modules,
        preprocessing=run.manifest.preprocessing,
        data_digest=run.manifest.digest,
        steps=best_step,
        trained_steps=steps,
        metrics={"loss": loss, **run.best.metrics},
        conditions=run.conditions,
        versions=versions(),
        synthetic=loaded.synthetic,
    )
    if run.settings.lora is not None:
        folder = run.folder / "adapter"
        adapters.save(folder, loaded.model, card, weights)
    else:
        folder = run.folder / "model"
        write_checkpoint(folder, loaded, card, base=checkpoints.locate(run.settings.checkpoint), state=weights)
    return TrainResult(
        adapter=folder,
        steps=steps,
        planned_steps=run.steps,
        best_step=best_step,
        resumed_at=run.resumed_at,
        loss=loss,
        validation=run.best.metrics,
        seconds_per_step=statistics.median(line["seconds"] for line in lines if "seconds" in line),
        peak_memory=peak_memory(loaded.device),
        samples=len(run.training),
        cut_reports=cut_reports,
        cut_prefixes=cut_prefixes,
        without_text=run.training.without_text,
        trained_parameters=sum(p.numel() for p in loaded.model.parameters() if p.requires_grad),
        adapted_modules=run.modules,
        synthetic=loaded.synthetic,
        stopped=stopped,
    )


def _ignore(*_: Any) -> None:
    """Log and progress of all processes but the first."""
