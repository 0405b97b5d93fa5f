"""`demo --prior`: what the lateral view and the prior study add, through the public commands.

Its steps are the files of `configs/` whose names have `-demo-prior`, and its folder is as that of the demo. Phantom
patients have two studies with planted changes. One adapter reads frontal, lateral and prior study, another of the same
recipe the frontal view alone. The first also reports without the prior study and with that of another patient.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from cxrreport import runs, tracking
from cxrreport.demo import recipes, two_processes
from cxrreport.demo.steps import Steps, rounded
from cxrreport.records import Progress
from cxrreport.settings import (
    DemoSettings,
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    ReviewSettings,
    TrackingSettings,
    TrainSettings,
)
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.output_folder import output_folder

if TYPE_CHECKING:
    from cxrreport.evaluation.evaluate import Evaluation

PATIENTS = 800
SMALLEST = 256
"""Shortest side of the images, in pixels."""
TRAIN: dict[str, Any] = {}
"""Fields of the training files to replace."""
SYSTEMS = ("tuned", "no_prior", "shuffled_prior", "without")
HEADLINE = "radgraph_partial"


def run_prior_demo(settings: DemoSettings, progress: Progress) -> dict[str, Any]:
    """Make phantoms, ingest, train twice, generate, evaluate and review; write and return `summary.json`.

    Args:
        settings: output folder, patients and seed.
        progress: called with completed and total units of each step.

    Raises:
        CxrReportError: a step failed; run the same settings again to resume.
    """
    from cxrreport.demo.phantoms.files import write_planned
    from cxrreport.demo.phantoms.studies import plan_pairs

    root, seed = settings.output, settings.seed
    with output_folder(root, command="demo", settings=settings.model_dump(mode="json")) as folder:
        own = TrackingSettings(uri=tracking.sqlite_uri(root / "mlflow.db"), experiment="cxrreport-demo")
        with tracking.start("demo", settings, own, output=root / "phantoms") as parent:
            tracked = own.model_copy(update={"parent_run_id": parent.run_id}).model_dump()
            steps = Steps(folder, progress)
            with steps.timed("phantoms"):
                planned = plan_pairs(settings.patients or PATIENTS, seed, smallest=SMALLEST)
                write_planned(root / "phantoms", planned, workers=2, progress=progress)
            processes = min(2, two_processes.cores())
            for name in ("", "-without"):
                ingest = recipes.read(IngestSettings, f"ingest-demo-prior{name}", root, tracking=tracked)
                steps.run(f"ingest{name.replace('-', ' ')}", runs.ingest, ingest)
                changes = {**TRAIN, "seed": seed, "tracking": tracked}
                recipe = recipes.read(TrainSettings, f"train-demo-prior{name}", root, **changes)
                steps.run(f"train{name.replace('-', ' ')}", partial(two_processes.train, recipe, processes))
            for system in SYSTEMS:
                file = "generate-demo-prior" + ("" if system == "tuned" else f"-{system.replace('_', '-')}")
                generate = recipes.read(GenerateSettings, file, root, seed=seed, tracking=tracked)
                steps.run(f"generate {system}", runs.generate, generate)
            scored = recipes.read(EvaluateSettings, "evaluate-demo-prior", root, seed=seed, tracking=tracked)
            evaluation = steps.run("evaluate", runs.evaluate, scored)
            review = recipes.read(ReviewSettings, "review-demo-prior", root, tracking=tracked)
            steps.run("review", runs.review, review)
            summary = _summary(settings, evaluation) | {
                "seconds": steps.seconds,
                "peak_memory_mb": round(tracking.peak_memory_mb()),
                "run_ids": {"demo": parent.run_id, **steps.run_ids},
            }
            parent.metrics({f"{HEADLINE}/{s}": summary["radgraph_f1"][s]["value"] for s in SYSTEMS})
            parent.metrics({f"change_f1/{s}": one["value"] for s, one in summary["change_f1"].items()})
        write_json(root / "summary.json", summary)
        folder.finish()
    return summary


def _summary(settings: DemoSettings, evaluation: Evaluation) -> dict[str, Any]:
    from cxrreport.evaluation.evaluate import MAIN

    scores = {system: evaluation.systems[MAIN if system == "tuned" else system] for system in SYSTEMS}
    return {
        "synthetic": True,
        "resolution": settings.resolution,
        "seed": settings.seed,
        "studies": evaluation.counts["scored"],
        "patients": evaluation.counts["patients"],
        "change_f1": {system: rounded(one["change_f1"]) for system, one in scores.items()},
        "hallucinated_change": {"no_prior": rounded(scores["no_prior"]["hallucinated_change"])},
        "radgraph_f1": {system: rounded(one[HEADLINE]) for system, one in scores.items()},
        "radgraph_f1_above": {
            system: rounded(evaluation.differences[system][HEADLINE]) for system in SYSTEMS if system != "tuned"
        },
        "finding_f1": {system: rounded(one["finding_f1"]) for system, one in scores.items()},
    }
