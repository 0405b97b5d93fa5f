"""What the model of `listen` reads of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pacs.conftest import OFF
from pydicom import dcmread
from untrained_adapter import write_adapter

from cxrreport.demo.phantoms.dicom import to_dicom
from cxrreport.demo.phantoms.studies import plan_studies
from cxrreport.pacs.reporting import IMAGES, ModelReporter
from cxrreport.settings import ListenSettings, build


@pytest.mark.parametrize(
    ("prompt", "images", "words"),
    [
        ({}, 1, ""),
        ({"views": "frontal+lateral", "prior": "report+image", "pool": 2}, 2, " images: frontal, lateral."),
    ],
)
def test_the_lateral_of_a_study_is_read_and_no_prior_study(
    prompt: dict[str, Any], images: int, words: str, tmp_path: Path
) -> None:
    """A study comes alone from the modality; a model of the prior study reports it as one without."""
    work = tmp_path / "work"
    (work / IMAGES).mkdir(parents=True)
    (study, *_) = plan_studies(1, 4, smallest=96, full_size=0)
    for lateral in (True, False):
        to_dicom(study, lateral=lateral).save_as(work / IMAGES / f"{lateral}.dcm", enforce_file_format=True)
    write_adapter(tmp_path / "adapter", **prompt)
    given = {"output": tmp_path / "out", "archive": "ARCHIVE@127.0.0.1:104", "receive": {"port": 0, "peers": []}}
    given |= {"adapter": tmp_path / "adapter", "formats": ("sr",), "max_new_tokens": 12, "tracking": OFF}
    reporter = ModelReporter(build(ListenSettings, given, where="test"))
    ((kind, document),) = reporter.report(work)
    (row,) = map(json.loads, (work / "reports/predictions.jsonl").read_text().splitlines())
    frontal = str(dcmread(work / IMAGES / "False.dcm").SOPInstanceUID)
    assert (len(row["image_ids"]), row["image_ids"][0], row["prior_study_id"]) == (images, frontal, "")
    assert row["prompt"].endswith(words)
    (evidence,) = dcmread(document).CurrentRequestedProcedureEvidenceSequence
    referred = [one for series in evidence.ReferencedSeriesSequence for one in series.ReferencedSOPSequence]
    assert (kind, len(referred)) == ("sr", images)
