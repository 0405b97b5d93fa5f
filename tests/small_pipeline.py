"""Studies of the tests of `runs`, and the commands that were run on them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from PIL import Image

from cxrreport import runs
from cxrreport.settings import (
    CheckpointSettings,
    PromptSettings,
    TrackingSettings,
)

SECRET = "ZEBRAFISH"
"""A word of every report: it must not be found in anything that MLflow holds."""
REPORTS = (
    f"The heart is enlarged. No pleural effusion. {SECRET}.",
    f"Small left pleural effusion. The heart is normal. {SECRET}.",
    f"Lungs are clear. No pneumothorax. {SECRET}.",
)
PROMPT = PromptSettings(max_suffix_tokens=24)
UNTRACKED = TrackingSettings(enabled=False)


def write_studies(folder: Path) -> Path:
    """Twelve studies of six patients as PNG files, with a table."""
    folder.mkdir()
    random = np.random.default_rng(0)
    with (folder / "studies.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "study_id", "patient_id", "split", "indication", "findings", "impression"])
        for number in range(12):
            name = f"{number:02}.png"
            Image.fromarray(random.integers(0, 256, (60, 50), dtype=np.uint8)).save(folder / name)
            split = ("train", "train", "train", "validate", "test", "test")[number // 2]
            report = REPORTS[number % 3]
            table.writerow([name, f"study{number:02}", f"SUBJECT{number // 2}", split, "cough", report, report])
    return folder


@dataclass(frozen=True)
class Pipeline:
    """The whole pipeline, run once."""

    folder: Path
    checkpoint: CheckpointSettings
    ingested: runs.Summary
    trained: runs.Summary
    generated: runs.Summary
    bare: runs.Summary
    evaluated: runs.Summary
    reviewed: runs.Summary

    def run(self, summary: runs.Summary) -> StoredRun:
        return MlflowClient(summary.tracking_uri).get_run(summary.run_id)

    def artifacts(self, summary: runs.Summary) -> set[str]:
        root = self.folder / "mlartifacts" / summary.run_id / "artifacts"
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
