"""The first thing that the demo shows: a report by the shipped adapter, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrreport import assets, runs
from cxrreport.inference import INGESTED
from cxrreport.records import Progress
from cxrreport.settings import GenerateSettings, build

_PATIENTS = 16
_OTHER_PATIENTS = 1_000_000
"""Added to the seed: not the patients of the demo, with whom the adapter was trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstReport:
    """A generated report and its image.

    Args:
        image: uint8[R, R].
        findings: section of the generated report.
        impression: section of the generated report.
        contact_sheet: picture of all images.
    """

    image: NDArray[np.uint8]
    findings: str
    impression: str
    contact_sheet: Path


def first_report(root: Path, seed: int, tracked: Mapping[str, Any], progress: Progress) -> FirstReport:
    """Ingest a few phantoms and report them with the shipped adapter; returns the longest report.

    Everything is in `root/first-report`, with the DICOM files in `root/first-phantoms`.

    Raises:
        CxrReportError: as `runs.generate`.
    """
    from cxrreport.dataset import Manifest
    from cxrreport.demo.phantoms.files import write_studies

    phantoms, output = root / "first-phantoms", root / "first-report"
    write_studies(
        phantoms,
        patients=_PATIENTS,
        seed=_OTHER_PATIENTS + seed,
        smallest=360,
        full_size=0,
        workers=1,
        progress=progress,
    )
    values = {"input": phantoms, "output": output, "adapter": assets.adapter_folder(), "tracking": tracked}
    settings = build(GenerateSettings, values | {"batch_size": 32, "max_new_tokens": 128}, where="first report")
    runs.generate(settings, progress=progress)
    lines = (output / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    report = max(map(json.loads, lines), key=lambda one: len(one["findings"]))
    ingested = output / INGESTED
    return FirstReport(
        image=Manifest.open(ingested).image(report["image_ids"][0]),
        findings=report["findings"],
        impression=report["impression"],
        contact_sheet=ingested / "contact_sheet.png",
    )
