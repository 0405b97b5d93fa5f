"""Fine-tuning, and what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrreport.records import Progress
from cxrreport.runs.command import Summary, first_process, flat, log_data, phantoms, silent, tracked
from cxrreport.settings import PlanSettings, TrackingSettings, TrainSettings

if TYPE_CHECKING:
    from cxrreport.training.planning.estimate import Offer
    from cxrreport.training.run import TrainResult, Validator


def train(
    settings: TrainSettings, *, progress: Progress | None = None, validate: Validator | None = None
) -> Summary[TrainResult]:
    """Fine-tune on the training split of an ingest folder, in one process or in those that `torchrun` started.

    Args:
        settings: of the run.
        progress: called with completed and total steps.
        validate: replaces RadGraph F1 on generated reports, see `training.finetune`.

    Raises:
        CxrReportError: see `training.finetune.train`.
    """
    from cxrreport.dataset import Manifest
    from cxrreport.model import checkpoints
    from cxrreport.training import finetune

    first = first_process()
    if not first:
        settings = settings.model_copy(update={"tracking": TrackingSettings(enabled=False)})
    report = progress if progress is not None and first else silent
    with tracked("train", settings) as (run, summarise):
        manifest = Manifest.open(settings.data)
        log_data(run, manifest, "training")
        if validate is None and settings.validation.radgraph != "none":
            from cxrreport.validation import ReportValidation

            reports = ReportValidation(settings, manifest, first=first, progress=report)
            validate = reports if reports.studies else None
        if validate is not None:
            run.tags({f"validation.{name}": str(value) for name, value in validate.conditions.items()})
        result = finetune.train(settings, manifest, log=run.metrics, progress=report, validate=validate)
        counts = ("samples", "cut_reports", "cut_prefixes", "without_text", "trained_parameters")
        facts = {
            **{name: getattr(result, name) for name in ("steps", "best_step", "loss")},
            **result.validation,
            "seconds_per_step": result.seconds_per_step,
            "peak_memory_mb": result.peak_memory / 2**20,
            **{name: getattr(result, name) for name in counts},
            "adapted_modules": len(result.adapted_modules),
            "adapter": str(result.adapter),
        }
        run.metrics({f"final/{name}": value for name, value in flat(facts).items()})
        run.dataset(result.adapter.name, checkpoints.fingerprint(result.adapter), "output", steps=result.steps)
        for name in ("train.json", "log.jsonl", "loss.png"):
            run.artifact(settings.output / name)
        if settings.lora is not None:  # after full fine-tuning it is gigabytes; its place is its folder
            run.artifact(result.adapter)
    return summarise(facts, result, phantoms(result.synthetic))


def plan(settings: PlanSettings) -> tuple[list[Offer], str]:
    """What a training run needs, on which card, for how long and at what cost; and what to take, in words.

    Nothing is run, so nothing is tracked.

    Raises:
        SettingsError: the GPU is not known.
        WeightsError: the checkpoint's configuration cannot be had.
    """
    from cxrreport.training.planning.estimate import answer
    from cxrreport.training.planning.estimate import plan as work

    offers = work(settings)
    return offers, answer(settings, offers)
