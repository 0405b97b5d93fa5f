"""How often the check on orientation is right: frontals of an ingest folder, and phantoms, in all eight orientations.

    python benchmarks/orientation.py data --half 1

The images of the folder have to be upright. Patients are divided into two halves by a hash of their ids: the thresholds
of `ingestion/images/upright.py` were chosen on half 0, `docs/results.md` has the rates of half 1.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrreport.dataset import Manifest
from cxrreport.demo.phantoms.drawing import draw, expose, sample_anatomy
from cxrreport.demo.phantoms.findings import sample_findings
from cxrreport.ingestion.images.geometry import Geometry
from cxrreport.ingestion.images.upright import orientation_notes
from cxrreport.records import View

_NAMES = (
    "upright",
    "mirrored",
    "upside down, mirrored",
    "upside down",
    "on its side, mirrored",
    "on its side",
    "on its other side",
    "on its other side, mirrored",
)


def _orientations() -> Iterator[Geometry]:
    for transpose in (False, True):
        for flip_rows in (False, True):
            for flip_columns in (False, True):
                yield Geometry(transpose=transpose, flip_rows=flip_rows, flip_columns=flip_columns)


def measure(pictures: list[NDArray[np.uint8]], what: str) -> None:
    """Print one row of a table for each orientation."""
    for name, geometry in zip(_NAMES, _orientations(), strict=True):
        found = Counter((orientation_notes(geometry.apply(grey), View.PA) or ("no note",))[0] for grey in pictures)
        shares = "; ".join(f"{note} {count / len(pictures):.1%}" for note, count in sorted(found.items()))
        print(f"{what} ({len(pictures)}) | {name} | {shares}")


def phantoms(count: int, seed: int) -> list[NDArray[np.uint8]]:
    """uint8[224, 224] each."""
    rng = np.random.default_rng(seed)
    drawings = (draw(sample_anatomy(rng), sample_findings(rng), 224, 224, seed + index).grey for index in range(count))
    return [np.rint(np.clip(expose(grey, rng, noise=0.012), 0, 1) * 255).astype(np.uint8) for grey in drawings]


def main() -> None:
    """Measure an ingest folder, then phantoms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="an ingest folder of upright radiographs")
    parser.add_argument("--half", type=int, choices=(0, 1), default=1)
    parser.add_argument("--phantoms", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        manifest = Manifest.open(arguments.folder)
        rows = [image for image in manifest.images.values() if image.view.frontal]
        patients = sorted({image.patient_id for image in rows}, key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen = set(patients[arguments.half :: 2])
        measure([manifest.image(image.image_id) for image in rows if image.patient_id in chosen], "radiographs")
    measure(phantoms(arguments.phantoms, 7 + arguments.half), "phantoms")


if __name__ == "__main__":
    main()
