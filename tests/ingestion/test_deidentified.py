"""`texts.deidentify` in an ingest: all texts, before anything else reads them, and no text anywhere else."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cxrreport import runs
from cxrreport.dataset import Manifest
from cxrreport.errors import MissingExtraError
from cxrreport.ingestion.ingest import ingest
from cxrreport.ingestion.summary import IngestSummary
from cxrreport.records import Report
from cxrreport.reports.deidentify.identifiers import _recognizers
from cxrreport.settings import IngestSettings

REPORT = (
    "INDICATION: Mrs. Quackenbush, MRN 7654321, fever.\nCOMPARISON: {date}.\nFINDINGS: Clear lungs. Read with Dr. "
    "Featherstonhaugh of Mercy General Hospital at 4:35 p.m.\nIMPRESSION: Normal. Call 617-555-0112."
)
SECRETS = ("Quackenbush", "7654321", "Featherstonhaugh", "Mercy", "4:35", "555-0112", "03/14/2019", "03/20/2019")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two studies of one patient and one of another."""
    folder = tmp_path / "in"
    folder.mkdir()
    rows = []
    for number, (patient, date) in enumerate((("p1", "03/14/2019"), ("p1", "03/20/2019"), ("p2", "03/14/2019"))):
        ramp = np.tile(np.arange(200, dtype=np.uint8), (90, 1))
        ramp[:, number] = 255
        Image.fromarray(ramp).save(folder / f"{number}.png")
        text = REPORT.format(date=date)
        rows.append({"image": f"{number}.png", "study_id": f"s{number}", "patient_id": patient, "report": text})
    path = folder / "reports.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(table: Path, output: Path, mode: str, **settings: Any) -> IngestSummary:
    values = {"input": table, "output": output, "texts": {"deidentify": mode}, **settings}
    return ingest(IngestSettings.model_validate(values))


def reports(output: Path) -> list[Report]:
    return [study.report for study in Manifest.open(output).studies()]


@pytest.mark.parametrize("mode", ["mark", "surrogate"])
def test_no_file_contains_an_identifier(
    table: Path, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    summary = run(table, tmp_path / "out", mode, priors="keep")
    assert summary.identifiers == {"name": 6, "record": 3, "date": 3, "hospital": 3, "time": 3, "phone": 3}
    whole = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    texts = repr(reports(tmp_path / "out")) + caplog.text
    assert not [secret for secret in SECRETS if secret in texts or secret.encode() in whole]
    record = json.loads((tmp_path / "out/ingest.json").read_text())["deidentification"]
    assert record["deidentify"] == mode and record["presidio-analyzer"] and record["Faker"]


def test_marks_are_placeholders(table: Path, tmp_path: Path) -> None:
    run(table, tmp_path / "out", "mark", priors="keep")
    first = reports(tmp_path / "out")[0]
    assert first.indication == "Mrs. ___, MRN ___, fever." and first.comparison == "___."
    assert first.impression == "Normal. Call ___."
    run(table, tmp_path / "removed", "mark", priors="keep", placeholders="remove")
    assert not any("___" in repr(report) for report in reports(tmp_path / "removed"))


def test_surrogates_depend_on_patient_and_key(table: Path, tmp_path: Path) -> None:
    names = {}
    for name in ("none", "first", "second"):
        key = tmp_path / f"{name}.key"
        key.write_bytes(f"{name} 8sd7f68s7dgf87sdf6g87s6dfg".encode())
        run(table, tmp_path / name, "surrogate", priors="keep", pseudonymize=None if name == "none" else key)
        by_patient: dict[str, set[str]] = {}
        for study in Manifest.open(tmp_path / name).studies():
            by_patient.setdefault(study.patient_id, set()).add(study.report.indication)
        assert sorted(map(len, by_patient.values())) == [1, 1]  # both studies of a patient agree
        names[name] = frozenset().union(*by_patient.values())
        assert len(names[name]) == 2
    assert not names["none"] & names["first"] and not names["first"] & names["second"]


def test_a_rewriter_gets_the_edited_text(table: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def rewriter(text: str) -> str:
        seen.append(text)
        return text

    rewriter.remote = False  # type: ignore[attr-defined]
    values = {"input": table, "output": tmp_path / "out", "priors": "all", "texts": {"deidentify": "mark"}}
    ingest(IngestSettings.model_validate(values), rewriter=rewriter)
    assert seen and not [secret for secret in SECRETS if secret in repr(seen)]


def test_one_warning_names_the_option(table: Path, make_mimic: Callable[..., Path], tmp_path: Path) -> None:
    def warnings(root: Path, output: str, **settings: Any) -> list[str]:
        values = {"input": root, "output": tmp_path / output, "tracking": {"enabled": False}, **settings}
        found = runs.ingest(IngestSettings.model_validate(values)).warnings
        return [warning for warning in found if "texts.deidentify" in warning]

    assert len(warnings(table, "off")) == 1
    assert warnings(table, "mark", texts={"deidentify": "mark"}) == []
    assert warnings(make_mimic(2), "of-mimic") == []


def test_without_the_extra(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _recognizers.cache_clear()
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtraError, match=r"texts\.deidentify needs the extra 'deidentify'"):
        run(table, tmp_path / "out", "mark")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    _recognizers.cache_clear()
