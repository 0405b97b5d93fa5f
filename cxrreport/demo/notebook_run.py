"""The pipeline on few phantoms, for the notebooks.

    from pathlib import Path
    from cxrreport.demo import notebook_run

    scores = notebook_run.evaluated(Path("lesson"))

Each function calls the commands before it, which return at once if they have finished, so a
notebook can start anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxrreport import runs
from cxrreport.demo.phantoms.files import write_studies
from cxrreport.demo.pipeline import train_settings
from cxrreport.settings import EvaluateSettings, GenerateSettings, IngestSettings, TrackingSettings, TrainSettings

PATIENTS = 90
STEPS = 80


def studies(root: Path) -> Path:
    """A folder in the layout of MIMIC-CXR with DICOM files, reports and tables of about 115 phantom studies."""
    folder = root / "phantoms"
    write_studies(folder, patients=PATIENTS, seed=0, smallest=240, full_size=1, workers=1, progress=lambda *_: None)
    return folder


def ingested(root: Path) -> Path:
    """Output folder of `ingest`."""
    runs.ingest(IngestSettings(input=studies(root), output=root / "data"))
    return root / "data"


def recipe(root: Path) -> TrainSettings:
    """Training settings of the demo, with fewer steps."""
    few: dict[str, Any] = {"max_steps": STEPS, "batch_size": 8, "accumulation": 1, "eval_every": STEPS // 2}
    places: dict[str, Any] = {
        "data": root / "data",
        "output": root / "train",
        "tracking": TrackingSettings().model_dump(),
    }
    return train_settings(root, **places, **few)


def trained(root: Path) -> Path:
    """Adapter folder of the short training."""
    ingested(root)
    return runs.train(recipe(root)).result.adapter


def generated(root: Path, baseline: str = "none") -> Path:
    """Output folder of `generate` for the test split; `baseline` as in `GenerateSettings`."""
    output = root / ("reports" if baseline == "none" else f"reports-{baseline}")
    settings = {"input": root / "data", "output": output, "baseline": baseline, "batch_size": 32, "max_new_tokens": 128}
    runs.generate(GenerateSettings.model_validate(settings | {"adapter": trained(root)}))
    return output


def evaluation_settings(root: Path) -> EvaluateSettings:
    """Settings of an evaluation beside two baselines, with a metric for the findings of phantoms."""
    return EvaluateSettings(
        predictions=generated(root),
        references=root / "data",
        output=root / "scores",
        baselines={name: generated(root, name) for name in ("shuffled", "blank")},
        radgraph="tiny",
        metrics=("radgraph", "clinical", "bleu", "rouge_l", "cider", "cxrreport.demo.finding_metric:finding_f1"),
    )


def evaluated(root: Path) -> Path:
    """Output folder of `evaluate` for the short training, with shuffled and blank images as baselines."""
    runs.evaluate(evaluation_settings(root))
    return root / "scores"
