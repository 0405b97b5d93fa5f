"""The demo: the whole pipeline on phantoms, through the public commands with ordinary settings.

Its steps are the files of `configs/` whose names have `-demo`. Its folder is that of a real project: `phantoms`,
`ingest`, `train`, `generate` and one folder per baseline, `evaluate`, `review.html`, `mlflow.db`, and `summary.json`
with the results. A stopped demo resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cxrreport import runs, tracking
from cxrreport.demo import recipes, two_processes
from cxrreport.demo.first_report import FirstReport, first_report
from cxrreport.demo.phantoms.findings import Name
from cxrreport.demo.phantoms.text_findings import Keys, contradicts, read_findings
from cxrreport.demo.steps import Steps, rounded
from cxrreport.records import Progress
from cxrreport.settings import (
    DemoSettings,
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    ReviewSettings,
    ScoredSection,
    TrackingSettings,
    TrainSettings,
)
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.output_folder import output_folder

if TYPE_CHECKING:
    from cxrreport.evaluation.evaluate import Evaluation

SYSTEMS = ("tuned", "no_adapter", "most_frequent", "shuffled", "blank")
HEADLINE = "radgraph_partial"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Sizes that depend on the resolution; 4,096 image tokens cost a hundred times as much as 256.

    Args:
        patients: number of patients.
        smallest: shortest side of most images, in pixels.
        full_size: number of studies with the image size of a detector.
        checkpoint: the base model.
        train: fields of `configs/train-demo.yaml` to replace.
        generate: fields of `configs/generate-demo*.yaml` to replace.
        processes: that train together, if there are as many cores.
    """

    patients: int
    smallest: int
    full_size: int
    checkpoint: str = "tiny"
    train: Mapping[str, Any] = field(default_factory=dict)
    generate: Mapping[str, Any] = field(default_factory=dict)
    processes: int = 2


SCALES = {
    224: _Scale(patients=960, smallest=360, full_size=4),
    896: _Scale(
        patients=120,
        smallest=1000,
        full_size=2,
        checkpoint="tiny-896",
        train={"max_steps": 60, "batch_size": 2, "eval_every": 20},
        generate={"batch_size": 8},
        processes=1,  # each needs 3 GB
    ),
}


def run_demo(
    settings: DemoSettings, progress: Progress, *, show: Callable[[FirstReport], None] = lambda _: None
) -> dict[str, Any]:
    """Make phantoms, ingest, fine-tune, generate, evaluate and review; write and return `summary.json`.

    Args:
        settings: output folder, resolution, patients and seed.
        progress: called with completed and total units of each step.
        show: called with a first report, some seconds after the start.

    Raises:
        CxrReportError: a step failed; run the same settings again to resume.
    """
    from cxrreport.demo.phantoms.files import read_truth, write_studies

    root, scale, seed = settings.output, SCALES[settings.resolution], settings.seed
    phantoms = root / "phantoms"
    with output_folder(root, command="demo", settings=settings.model_dump(mode="json")) as folder:
        own = TrackingSettings(uri=tracking.sqlite_uri(root / "mlflow.db"), experiment="cxrreport-demo")
        with tracking.start("demo", settings, own, output=phantoms) as parent:
            tracked = own.model_copy(update={"parent_run_id": parent.run_id}).model_dump()
            steps = Steps(folder, progress)
            with steps.timed("first report"):
                show(first_report(root, seed, tracked, progress))
            with steps.timed("phantoms"):
                write_studies(
                    phantoms,
                    patients=settings.patients or scale.patients,
                    seed=seed,
                    smallest=scale.smallest,
                    full_size=scale.full_size,
                    workers=2,
                    progress=progress,
                )
            truth = read_truth(phantoms)
            made = {"resolution": settings.resolution, "tracking": tracked}
            steps.run("ingest", runs.ingest, recipes.read(IngestSettings, "ingest-demo", root, **made))
            recipe = train_settings(root, settings.resolution, seed=seed, tracking=tracked)
            processes = min(scale.processes, two_processes.cores())
            steps.run("train", partial(two_processes.train, recipe, processes))
            for name in ("tuned", "no_adapter", "shuffled", "blank", "base_terse"):
                steps.run(f"generate {name}", runs.generate, _generation(name, settings, tracked))
            scored = recipes.read(EvaluateSettings, "evaluate-demo", root, seed=seed, tracking=tracked)
            evaluation = steps.run("evaluate", runs.evaluate, scored)
            steps.run("review", runs.review, recipes.read(ReviewSettings, "review-demo", root, tracking=tracked))
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


def train_settings(root: Path, resolution: int = 224, **changes: Any) -> TrainSettings:
    """`configs/train-demo.yaml` for a resolution and the demo in `root`, with `changes`."""
    scale = SCALES[resolution]
    values = {"checkpoint": {"name": scale.checkpoint}, **scale.train, **changes}
    return recipes.read(TrainSettings, "train-demo", root, **values)


def predictions_of(root: Path, name: str) -> Path:
    """Folder of the predictions of one system: `tuned`, or one of the baselines."""
    return root / ("generate" if name == "tuned" else f"generate-{name.replace('_', '-')}")


def _generation(name: str, settings: DemoSettings, tracked: Mapping[str, Any]) -> GenerateSettings:
    """The test split by one system."""
    scale = SCALES[settings.resolution]
    config = "generate-demo" if name == "tuned" else f"generate-demo-{name.replace('_', '-')}"
    base = {"checkpoint": {"name": scale.checkpoint}} if name in ("no_adapter", "base_terse") else {}
    changes = {**base, **scale.generate, "seed": settings.seed, "tracking": tracked}
    return recipes.read(GenerateSettings, config, settings.output, **changes)


def _summary(settings: DemoSettings, evaluation: Evaluation, truth: Mapping[str, Keys]) -> dict[str, Any]:
    from cxrreport.evaluation.evaluate import MAIN
    from cxrreport.evaluation.inputs.tables import read_predictions
    from cxrreport.evaluation.metrics import finding_scores

    def interval(scores: Mapping[str, Any], system: str, metric: str) -> dict[str, float]:
        return rounded(scores[MAIN if system == "tuned" else system][metric])

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
