"""The demo: the whole pipeline on phantoms, through the public commands with ordinary settings.

Its folder is that of a real project: `phantoms`, `ingest`, `train`, `generate` and one folder per baseline, `evaluate`,
`review.html`, `mlflow.db`, and `summary.json` with the results. A stopped demo resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from cxrreport import runs, tracking
from cxrreport.demo.findings import Name
from cxrreport.demo.text_findings import Keys, contradicts, read_findings
from cxrreport.records import Progress
from cxrreport.settings import (
    CheckpointSettings,
    DemoSettings,
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    LoraSettings,
    PromptSettings,
    ReviewSettings,
    ScoredSection,
    TrackingSettings,
    TrainSettings,
    ValidationSettings,
)
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.output_folder import OutputFolder, output_folder

if TYPE_CHECKING:
    from cxrreport.evaluation.evaluate import Evaluation
    from cxrreport.evaluation.metrics import Metric

R = TypeVar("R")
SYSTEMS = ("tuned", "no_adapter", "most_frequent", "shuffled", "blank")
HEADLINE = "radgraph_partial"
TERSE = PromptSettings(instruction="cap en", indication=False)
"""The prompt of the base model's pre-training."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Sizes that depend on the resolution; 4,096 image tokens cost a hundred times as much as 256."""

    checkpoint: str
    patients: int
    smallest: int
    full_size: int
    max_steps: int
    batch_size: int
    texts_per_batch: int


SCALES = {
    224: _Scale("tiny", patients=960, smallest=360, full_size=4, max_steps=1200, batch_size=8, texts_per_batch=32),
    896: _Scale("tiny-896", patients=120, smallest=1000, full_size=2, max_steps=60, batch_size=4, texts_per_batch=8),
}


def train_settings(
    data: Path, output: Path, *, resolution: int = 224, seed: int = 0, tracked: TrackingSettings | None = None
) -> TrainSettings:
    """The recipe of the demo; `configs/train-demo.yaml` is the same at 224 pixels."""
    scale = SCALES[resolution]
    return TrainSettings(
        data=data,
        output=output,
        checkpoint=CheckpointSettings(name=scale.checkpoint),
        lora=LoraSettings(rank=16, alpha=32, dropout=0.0, targets="language+projector"),
        max_steps=scale.max_steps,
        learning_rate=3e-3,
        batch_size=scale.batch_size,
        accumulation=1,
        gradient_checkpointing=False,
        eval_every=max(1, scale.max_steps // 3),
        validation=ValidationSettings(radgraph="tiny", studies=128),
        seed=seed,
        tracking=tracked or TrackingSettings(),
    )


def run_demo(settings: DemoSettings, progress: Progress) -> dict[str, Any]:
    """Make phantoms, ingest, fine-tune, generate, evaluate and review; write and return `summary.json`.

    Raises:
        CxrReportError: a step failed; run the same settings again to resume.
    """
    from cxrreport.demo.studies import read_truth, write_studies

    root, scale = settings.output, SCALES[settings.resolution]
    phantoms, data, scores = root / "phantoms", root / "ingest", root / "evaluate"
    with output_folder(root, command="demo", settings=settings.model_dump(mode="json")) as folder:
        own = TrackingSettings(uri=tracking.sqlite_uri(root / "mlflow.db"), experiment="cxrreport-demo")
        with tracking.start("demo", settings, own, output=phantoms) as parent:
            tracked = own.model_copy(update={"parent_run_id": parent.run_id})
            steps = _Steps(folder, progress)
            with steps.timed("phantoms"):
                write_studies(
                    phantoms,
                    patients=settings.patients or scale.patients,
                    seed=settings.seed,
                    smallest=scale.smallest,
                    full_size=scale.full_size,
                    workers=2,
                    progress=progress,
                )
            truth = read_truth(phantoms)
            ingestion = IngestSettings(
                input=phantoms,
                output=data,
                layout="mimic-cxr",
                resolution=settings.resolution,
                workers=2,
                tracking=tracked,
            )
            steps.run("ingest", runs.ingest, ingestion)
            recipe = train_settings(
                data, root / "train", resolution=settings.resolution, seed=settings.seed, tracked=tracked
            )
            adapter = steps.run("train", runs.train, recipe).adapter
            for name in ("tuned", "no_adapter", "shuffled", "blank", "base_terse"):
                steps.run(f"generate {name}", runs.generate, _generation(name, settings, adapter, tracked))
            evaluation = steps.run(
                "evaluate",
                runs.evaluate,
                EvaluateSettings(
                    predictions=predictions_of(root, "tuned"),
                    references=data,
                    output=scores,
                    baselines={
                        name: predictions_of(root, name) for name in ("no_adapter", "shuffled", "blank", "base_terse")
                    },
                    radgraph="tiny",
                    seed=settings.seed,
                    tracking=tracked,
                ),
                extra_metrics=[known_findings(truth)],
            )
            page = ReviewSettings(evaluation=scores, data=data, output=root / "review.html", tracking=tracked)
            steps.run("review", runs.review, page)
            summary = _summary(settings, evaluation, truth) | {
                "seconds": steps.seconds,
                "peak_memory_mb": round(tracking.peak_memory_mb()),
                "run_ids": {"demo": parent.run_id, **steps.run_ids},
            }
            parent.metrics({f"{HEADLINE}/{s}": summary["radgraph_f1"][s]["value"] for s in SYSTEMS})
            parent.metrics({f"finding_f1/{s}": one["value"] for s, one in summary["finding_f1"].items()})
        write_json(root / "summary.json", summary)
        folder.finish()
    return summary


class _Steps:
    """Seconds and MLflow run of each step; a step that an earlier call finished keeps its time."""

    def __init__(self, folder: OutputFolder, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self.seconds: dict[str, float] = dict(folder.record.get("seconds", {}))
        self.run_ids: dict[str, str] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        if step not in self.seconds:
            self.seconds[step] = round(time.monotonic() - started, 1)
            self._folder.update(seconds=self.seconds)

    def run(self, step: str, command: Callable[..., runs.Summary[R]], settings: Any, **options: Any) -> R:
        with self.timed(step):
            done = command(settings, progress=self._progress, **options)
        self.run_ids[step] = done.run_id
        return done.result


def predictions_of(root: Path, name: str) -> Path:
    """Folder of the predictions of one system: `tuned`, or one of the baselines."""
    return root / ("generate" if name == "tuned" else f"generate-{name.replace('_', '-')}")


def _generation(name: str, settings: DemoSettings, adapter: Path, tracked: TrackingSettings) -> GenerateSettings:
    """The test split by one system."""
    scale = SCALES[settings.resolution]
    tuned = name in ("tuned", "shuffled", "blank")
    return GenerateSettings(
        input=settings.output / "ingest",
        output=predictions_of(settings.output, name),
        checkpoint=None if tuned else CheckpointSettings(name=scale.checkpoint),
        adapter=adapter if tuned else None,
        prompt=TERSE if name == "base_terse" else None,
        baseline="shuffled" if name == "shuffled" else "blank" if name == "blank" else "none",
        batch_size=scale.texts_per_batch,
        max_new_tokens=128,
        seed=settings.seed,
        tracking=tracked,
    )


def known_findings(truth: Mapping[str, Keys]) -> Metric:
    """The metric that compares the findings of a text with those of its phantom."""
    from cxrreport.evaluation.metrics import finding_scorer, metric

    conditions = {"findings": "the phantoms' own", "reader": "demo.text_findings"}
    return metric("finding_f1", conditions=conditions)(finding_scorer(read_findings, truth))


def _summary(settings: DemoSettings, evaluation: Evaluation, truth: Mapping[str, Keys]) -> dict[str, Any]:
    from cxrreport.evaluation.evaluate import MAIN
    from cxrreport.evaluation.inputs.tables import read_predictions
    from cxrreport.evaluation.metrics import finding_scores

    def interval(scores: Mapping[str, Any], system: str, metric: str) -> dict[str, float]:
        one = scores[MAIN if system == "tuned" else system][metric]
        return {name: round(float(getattr(one, name)), 4) for name in ("value", "low", "high")}

    texts = {
        section: read_predictions(predictions_of(settings.output, "tuned"), section).texts
        for section in get_args(ScoredSection)
    }
    said = {study: read_findings(text or "") for study, text in texts["findings+impression"].items()}
    by_finding = finding_scores({study: truth[study] for study in said}, said, group=lambda key: key[0]).by_finding  # type: ignore[index]
    pairs = zip(texts["findings"].values(), texts["impression"].values(), strict=True)
    clashes = sum(contradicts(findings or "", impression or "") for findings, impression in pairs)
    return {
        "synthetic": True,
        "resolution": settings.resolution,
        "seed": settings.seed,
        "studies": evaluation.counts["scored"],
        "patients": evaluation.counts["patients"],
        "radgraph_f1": {system: interval(evaluation.systems, system, HEADLINE) for system in SYSTEMS},
        "radgraph_f1_above": {
            system: interval(evaluation.differences, system, HEADLINE) for system in SYSTEMS if system != "tuned"
        },
        "finding_f1": {
            system: interval(evaluation.systems, system, "finding_f1") for system in (*SYSTEMS, "base_terse")
        },
        "finding_f1_by_finding": {
            name.value: round(by_finding[name.value].f1, 4) for name in Name if name.value in by_finding
        },
        "contradictions": round(clashes / len(said), 4),
    }
