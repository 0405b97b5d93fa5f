"""The demo: the whole pipeline on phantoms, through the public commands with ordinary settings.

Its folder is that of a real project: `phantoms`, `ingest`, `train`, `generate` and one folder per baseline, `evaluate`,
`review.html`, `mlflow.db`, and `summary.json` with the results. A stopped demo resumes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    TrackingSettings,
    TrainSettings,
    ValidationSettings,
)
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.output_folder import OutputFolder, output_folder

SYSTEMS = ("tuned", "no_adapter", "most_frequent", "shuffled", "blank")
HEADLINE = "radgraph_partial"
TERSE = PromptSettings(instruction="cap en", indication=False)
"""The prompt of the base model's pre-training."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Sizes that depend on the resolution; 4,096 image tokens cost a hundred times as much as 256."""

    checkpoint: CheckpointSettings
    patients: int
    smallest: int
    full_size: int
    max_steps: int
    batch_size: int
    texts_per_batch: int


SCALES = {
    224: _Scale(
        CheckpointSettings(name="tiny"),
        patients=960,
        smallest=360,
        full_size=4,
        max_steps=1200,
        batch_size=8,
        texts_per_batch=32,
    ),
    896: _Scale(
        CheckpointSettings(name="tiny-896"),
        patients=120,
        smallest=1000,
        full_size=2,
        max_steps=60,
        batch_size=4,
        texts_per_batch=8,
    ),
}


def train_settings(
    data: Path, output: Path, *, resolution: int = 224, seed: int = 0, tracked: TrackingSettings | None = None
) -> TrainSettings:
    """The recipe of the demo; `configs/train-demo.yaml` is the same at 224 pixels."""
    scale = SCALES[resolution]
    return TrainSettings(
        data=data,
        output=output,
        checkpoint=scale.checkpoint,
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

    root = settings.output
    with output_folder(root, command="demo", settings=settings.model_dump(mode="json")) as folder:
        times = _StepTimes(folder)
        own = TrackingSettings(uri=tracking.sqlite_uri(root / "mlflow.db"), experiment="cxrreport-demo")
        with tracking.start("demo", settings, own, output=root / "phantoms") as parent:
            tracked = own.model_copy(update={"parent_run_id": parent.run_id})
            scale = SCALES[settings.resolution]
            with times("phantoms"):
                write_studies(
                    root / "phantoms",
                    patients=settings.patients or scale.patients,
                    seed=settings.seed,
                    smallest=scale.smallest,
                    full_size=scale.full_size,
                    workers=2,
                    progress=progress,
                )
            truth = read_truth(root / "phantoms")
            commands = _Commands(settings, tracked, progress, times)
            commands.train()
            for name in ("tuned", "no_adapter", "shuffled", "blank", "base_terse"):
                commands.generate(name)
            evaluation = commands.evaluate(truth)
            summary = _summary(settings, evaluation, truth, commands, parent.run_id, times)
            parent.metrics({f"{HEADLINE}/{s}": summary["radgraph_f1"][s]["value"] for s in SYSTEMS})
            parent.metrics({f"finding_f1/{s}": one["value"] for s, one in summary["finding_f1"].items()})
        write_json(root / "summary.json", summary)
        folder.finish()
    return summary


class _StepTimes:
    """Seconds of each step; a step that an earlier call finished keeps its time."""

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder
        self.seconds: dict[str, float] = dict(folder.record.get("seconds", {}))

    def __call__(self, step: str) -> _StepTimes:
        self._step, self._begun = step, time.monotonic()
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._step not in self.seconds:
            self.seconds[self._step] = round(time.monotonic() - self._begun, 1)
            self._folder.update(seconds=self.seconds)


class _Commands:
    """The commands of the demo, and their results."""

    def __init__(
        self, settings: DemoSettings, tracked: TrackingSettings, progress: Progress, times: _StepTimes
    ) -> None:
        self.settings = settings
        self.root = settings.output
        self.tracked = tracked
        self.progress = progress
        self.times = times
        self.scale = SCALES[settings.resolution]
        self.run_ids: dict[str, str] = {}

    def train(self) -> None:
        """Ingest and fine-tune."""
        with self.times("ingest"):
            ingested = runs.ingest(
                IngestSettings(
                    input=self.root / "phantoms",
                    output=self.root / "ingest",
                    layout="mimic-cxr",
                    resolution=self.settings.resolution,
                    workers=2,
                    tracking=self.tracked,
                ),
                progress=self.progress,
            )
        with self.times("train"):
            recipe = train_settings(
                self.root / "ingest",
                self.root / "train",
                resolution=self.settings.resolution,
                seed=self.settings.seed,
                tracked=self.tracked,
            )
            trained = runs.train(recipe, progress=self.progress)
        self.run_ids |= {"ingest": ingested.run_id, "train": trained.run_id}

    def generate(self, name: str) -> None:
        """The test split by one system: `tuned`, or one of the baselines."""
        tuned = name in ("tuned", "shuffled", "blank")
        with self.times(f"generate {name}"):
            done = runs.generate(
                GenerateSettings(
                    input=self.root / "ingest",
                    output=self.predictions(name),
                    checkpoint=None if tuned else self.scale.checkpoint,
                    adapter=self.root / "train" / "adapter" if tuned else None,
                    prompt=TERSE if name == "base_terse" else None,
                    baseline="shuffled" if name == "shuffled" else "blank" if name == "blank" else "none",
                    batch_size=self.scale.texts_per_batch,
                    max_new_tokens=128,
                    seed=self.settings.seed,
                    tracking=self.tracked,
                ),
                progress=self.progress,
            )
        self.run_ids[f"generate {name}"] = done.run_id

    def predictions(self, name: str) -> Path:
        """Folder of the predictions of one system."""
        return self.root / ("generate" if name == "tuned" else f"generate-{name.replace('_', '-')}")

    def evaluate(self, truth: Mapping[str, Keys]) -> Any:
        """Scores and the page to read."""
        from cxrreport.evaluation.metrics import finding_scorer, metric

        known_findings = metric("finding_f1", conditions={"findings": "the phantoms' own", "reader": "demo.reader"})
        baselines = ("no_adapter", "shuffled", "blank", "base_terse")
        with self.times("evaluate"):
            judged = runs.evaluate(
                EvaluateSettings(
                    predictions=self.predictions("tuned"),
                    references=self.root / "ingest",
                    output=self.root / "evaluate",
                    baselines={name: self.predictions(name) for name in baselines},
                    radgraph="tiny",
                    seed=self.settings.seed,
                    tracking=self.tracked,
                ),
                progress=self.progress,
                extra_metrics=[known_findings(finding_scorer(read_findings, truth))],
            )
        with self.times("review"):
            page = runs.review(
                ReviewSettings(
                    evaluation=self.root / "evaluate",
                    data=self.root / "ingest",
                    output=self.root / "review.html",
                    tracking=self.tracked,
                ),
                progress=self.progress,
            )
        self.run_ids |= {"evaluate": judged.run_id, "review": page.run_id}
        return judged.result


def _summary(
    settings: DemoSettings,
    evaluation: Any,
    truth: Mapping[str, Keys],
    commands: _Commands,
    parent: str,
    times: _StepTimes,
) -> dict[str, Any]:
    from cxrreport.evaluation.evaluate import MAIN
    from cxrreport.evaluation.metrics import finding_scores
    from cxrreport.evaluation.tables import read_predictions

    def interval(scores: Mapping[str, Any], system: str, metric: str) -> dict[str, float]:
        one = scores[MAIN if system == "tuned" else system][metric]
        return {name: round(float(getattr(one, name)), 4) for name in ("value", "low", "high")}

    def read(system: str) -> dict[str, Keys]:
        texts = read_predictions(commands.predictions(system), "findings+impression").texts
        return {study: read_findings(text or "") for study, text in texts.items()}

    said = read("tuned")
    by_finding = finding_scores({study: truth[study] for study in said}, said, group=lambda key: key[0]).by_finding  # type: ignore[index]
    findings, impressions = (
        read_predictions(commands.predictions("tuned"), section).texts for section in ("findings", "impression")
    )
    clashes = sum(contradicts(findings[study] or "", impressions[study] or "") for study in findings)
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
        "contradictions": round(clashes / len(findings), 4),
        "seconds": times.seconds,
        "peak_memory_mb": round(tracking.peak_memory_mb()),
        "run_ids": {"demo": parent, **commands.run_ids},
    }
