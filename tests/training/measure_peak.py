"""A training run in a separate process; prints by how many bytes its peak exceeds the memory after the imports.

python measure_peak.py CHECKPOINT RESOLUTION BATCH PRECISION CHECKPOINTING FOLDER [POOL]

With POOL, a sample has a frontal, a lateral and the image of the prior study.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cxrreport.records import PriorStudy, Report, Split, Study, View
from cxrreport.settings import TrainSettings
from cxrreport.training.finetune import train

SUFFIX_TOKENS = 128


class Images:
    """Noise, and reports that are longer than the limit: every sample has as many tokens as it may."""

    preprocessing = {"resize": "squash", "interpolation": "bilinear"}  # noqa: RUF012
    digest = "0" * 64

    def __init__(self, resolution: int, count: int, *, several: bool) -> None:
        self.resolution = resolution
        self.count = count
        self.several = several
        views = (View.PA, View.LATERAL, View.PA)
        self.images = {
            str(3 * study + place): SimpleNamespace(view=view)
            for study in range(count)
            for place, view in enumerate(views)
        }

    def studies(self, split: Split | None = None) -> list[Study]:
        report = Report(findings="the heart is large . " * SUFFIX_TOKENS)
        found = []
        for number in range(self.count if split is Split.TRAIN else 0):
            name, (frontal, lateral, earlier) = str(number), (str(3 * number + place) for place in range(3))
            study = Study(study_id=name, patient_id=name, split=Split.TRAIN, image_ids=(frontal,), report=report)
            if self.several:
                prior = PriorStudy(study_id=f"before {name}", days=9, image_ids=(earlier,), report=Report())
                study = replace(study, image_ids=(frontal, lateral), prior=prior)
            found.append(study)
        return found

    def each_study(self, split: Split, **_: bool) -> Iterator[Study]:
        return iter(self.studies(split))

    def image(self, image_id: str) -> Any:
        side = (self.resolution, self.resolution)
        return np.random.default_rng(int(image_id)).integers(0, 256, side, dtype=np.uint8)


def memory(field: str) -> int:
    """Bytes. Not getrusage: its peak begins with that of the process that started this one."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def main() -> None:
    checkpoint, resolution, batch, precision, checkpointing, folder, *pool = sys.argv[1:]
    steps = 3
    imported = memory("VmRSS")
    shown = {"views": "frontal+lateral", "prior": "image", "pool": int(pool[0])} if pool else {}
    settings = TrainSettings.model_validate(
        {
            "data": folder,
            "output": folder,
            "checkpoint": {"name": checkpoint, "precision": precision, "device": "cpu"},
            "prompt": {"indication": False, "max_suffix_tokens": SUFFIX_TOKENS, **shown},
            "lora": {"rank": 8, "alpha": 16, "dropout": 0.0},
            "batch_size": int(batch),
            "accumulation": 1,
            "max_steps": steps,
            "gradient_checkpointing": checkpointing == "True",
        }
    )
    # More images than the run uses: the features of the frozen tower are not cached.
    images = Images(int(resolution), steps * int(batch) + 1, several=bool(pool))
    train(settings, images, log=lambda *_: None, progress=lambda *_: None)
    sys.stdout.write(f"{memory('VmHWM') - imported}\n")


if __name__ == "__main__":
    main()
