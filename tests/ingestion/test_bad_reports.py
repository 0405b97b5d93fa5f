"""Reports as hospitals store and paste them: each becomes a report or a row with a reason."""

from __future__ import annotations

import csv
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrreport.dataset import Manifest
from cxrreport.errors import InputError
from cxrreport.ingestion.ingest import ingest
from cxrreport.ingestion.study_plan import StudyPlan
from cxrreport.ingestion.summary import IngestSummary
from cxrreport.ingestion.texts import prepare_text
from cxrreport.records import Reason, Split
from cxrreport.settings import IngestSettings

WANTED = ("Clear lungs. Heart < 15 cm.", "Normal.")
REPORTS = {
    "plain": "FINDINGS: Clear lungs. Heart < 15 cm.\nIMPRESSION: Normal.",
    "one line": "FINDINGS: Clear lungs. Heart < 15 cm. IMPRESSION: Normal.",
    "rtf": r"{\rtf1{\fonttbl{\f0 Arial;}}\b FINDINGS:\b0  Clear lungs. Heart < 15 cm.\par IMPRESSION: Normal.\par}",
    "html": "<p><b>FINDINGS:</b> Clear lungs. Heart &lt; 15&nbsp;cm.<br>IMPRESSION: Normal.</p>",
    "marks of direction": "\u202bFINDINGS:\u202c Clear\u200b lungs. Heart\u00a0< 15 cm.\n\u200fIMPRESSION: Normal.",
    "control characters": "\x02FINDINGS:\x07 Clear lungs. Heart < 15 cm.\x0cIMPRESSION: Normal.\x1a",
    "escaped breaks": "FINDINGS: Clear lungs. Heart < 15 cm.\\nIMPRESSION: Normal.",
    "HL7": "FINDINGS: Clear lungs. Heart < 15 cm.\\.br\\IMPRESSION: Normal.",
}
EXCLUDED = {
    "empty sections": "FINDINGS:\n\nIMPRESSION:\n",
    "only marks": "\u200b\u202e",
    "a megabyte": "FINDINGS: " + "Clear lungs. " * 80_000,
    "a megabyte of one word": "FINDINGS: " + "a" * 1_000_000,
}
XML_CANNOT_HOLD = ("control characters",)


@pytest.fixture
def write(make_mimic: Callable[..., Path], tmp_path: Path) -> Callable[[str, dict[str, str]], Path]:
    """Write a data set with these reports by name, and return the input; the names are the study ids."""

    def as_files(texts: dict[str, str]) -> Path:
        root = make_mimic((len(texts) + 1) // 2)
        for path, text in zip(sorted(root.rglob("s*.txt")), texts.values(), strict=False):
            path.write_text(text, encoding="utf-8", newline="")
        return root

    def as_xml(texts: dict[str, str]) -> Path:
        root = tmp_path / "openi"
        (root / "ecgen-radiology").mkdir(parents=True)
        for number, text in enumerate(texts.values(), start=1):
            picture(root / f"CXR{number}_IM-0001-0001.png", number)
            body = f'<a><AbstractText Label="FINDINGS">{escape(text)}</AbstractText></a>'
            (root / f"ecgen-radiology/{number}.xml").write_text(body, encoding="utf-8")
        return root

    def as_table(kind: str, texts: dict[str, str]) -> Path:
        rows = [
            {"image": f"{number}.png", "study_id": f"s{number}", "patient_id": f"p{number}", "report": text}
            for number, text in enumerate(texts.values())
        ]
        for number in range(len(rows)):
            picture(tmp_path / f"table/{number}.png", number)
        path = tmp_path / f"table/reports.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        return path

    def picture(path: Path, number: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        ramp = np.tile(np.arange(200, dtype=np.uint8), (90, 1))
        ramp[:, number % 200] = 255
        Image.fromarray(ramp).save(path)

    ways = {"files": as_files, "xml": as_xml}
    return lambda way, texts: ways[way](texts) if way in ways else as_table(way, texts)


def run(root: Path, output: Path, **settings: Any) -> IngestSummary:
    return ingest(IngestSettings(input=root, output=output, priors="keep", **settings))


@pytest.mark.parametrize("way", ["files", "xml", "csv", "tsv", "jsonl", "parquet"])
def test_every_way_reads_every_kind(way: str, write: Callable[..., Path], tmp_path: Path) -> None:
    texts = {name: text for name, text in REPORTS.items() if way != "xml" or name not in XML_CANNOT_HOLD}
    summary = run(write(way, texts | EXCLUDED), tmp_path / "out")
    studies = Manifest.open(tmp_path / "out").studies()
    found = [(study.report.findings, study.report.impression) for study in studies]
    # XML and section columns have one section each, in which headers are text.
    wanted = (f"FINDINGS: {WANTED[0]} IMPRESSION: {WANTED[1]}", "") if way == "xml" else WANTED
    assert found.count(wanted) == len(texts)
    assert summary.left_out["no-report"] == summary.texts["too_long"] == 2
    assert summary.left_out["empty-sections"] == (1 if way == "xml" else 2)


@pytest.mark.parametrize("name", ["reports.xlsx", "reports.xls", "reports.csv", "reports.ods", "REPORTS.XLSX"])
def test_an_archive_is_no_table(name: str, tmp_path: Path) -> None:
    """Whatever its name says; of a folder, as a table of reports, or as the input."""
    path = tmp_path / "in" / name
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("content.xml", "<office/>")
    for settings in ({"root": path}, {"root": path.parent, "reports": path}):
        with pytest.raises(InputError, match=r"OpenDocument.*XLSX.*CSV"):
            run(output=tmp_path / "out", **settings)


def test_markup_alone_is_no_text_for_one_of_several_images(write: Callable[..., Path], tmp_path: Path) -> None:
    """Images of one study have their own rows; the reports are compared as they are read, without markup."""
    path = write(
        "csv", {"a": REPORTS["rtf"], "b": r"{\rtf1{\fonttbl{\f0 Arial;}}}", "c": REPORTS["html"], "d": "a" * 120_000}
    )
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"study_id": "s", "patient_id": "p"} for row in rows)
    summary = run(path, tmp_path / "out")
    assert summary.kept == 1 and summary.left_out["empty-sections"] == summary.left_out["no-report"] == 1


def test_long_reports_with_nothing_to_edit(write: Callable[..., Path], tmp_path: Path) -> None:
    summary = run(write("jsonl", {"a": EXCLUDED["a megabyte"], "b": "Clear."}), tmp_path / "out", require_report=False)
    assert summary.kept == 2 and summary.texts == {"too_long": 1}


def test_other_languages_are_counted(write: Callable[..., Path], tmp_path: Path) -> None:
    german = "FINDINGS: Zentrale pulmonalvenöse Stauung mit Pleuraergüssen beidseits. Kein Pneumothorax."
    summary = run(write("csv", {"a": german, "b": "FINDINGS: Clear lungs."}), tmp_path / "out")
    assert summary.kept == 2 and summary.texts == {"other_language": 1} and summary.mentions == {}


def plan(text: str) -> StudyPlan:
    return StudyPlan(
        study_id="s", patient_id="p", split=Split.TRAIN, report=text, candidates=(), only_first=True, seed="p"
    )


def settings(deidentify: str) -> IngestSettings:
    return IngestSettings.model_validate(
        {"input": "in", "output": "out", "placeholders": "remove", "texts": {"deidentify": deidentify}}
    )


SEEDS = (
    *REPORTS.values(),
    "COMPARISON: 3/4/2019, Dr. Smith.\nCHEST, TWO VIEWS:\nUnchanged ___ effusion, 5:12 a.m.\n\n1. No change since ___.",
    "WET READ: a FINAL REPORT\n  INDICATION: 91 F, MRN 1234567, Mercy Hospital.\nFindings: no new XXXX. Impression: x",
    "Kein Pleuraerguss. Keine Infiltrate.",
)
PIECES = (
    "{", "}", "\\par", "\\'e", "\\u-1?", "<", "</p>", "<!--", "&#0;", "&#x110000;", "&lt;", "\x00", "\u202e", "\ud800",
    "\n\n", "FINDINGS:", "IMPRESSION", ":", "___", "Dr. ", "Smith, MD", "12/", "31/12/99", "May ", "0000", "@", "+1 (",
    "no longer ", "since ", "é", "漢", "😀", " " * 300, "(" * 50, "." * 100, "1." * 30,
)  # fmt: skip


def mutated(random_: random.Random) -> str:
    text = random_.choice(SEEDS)
    for _ in range(random_.randint(1, 8)):
        at = random_.randrange(len(text) + 1)
        until = at + random_.choice((0, 0, 1, 5, 40))
        text = text[:at] + random_.choice((*PIECES, text[at:until] * random_.choice((2, 50)))) + text[until:]
    return text


def check(count: int, seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(count):
        text = mutated(random_)
        prepared = prepare_text(plan(text), settings(random_.choice(("mark", "surrogate"))))
        assert prepared.excluded is None or prepared.excluded[0] in (Reason.EMPTY_SECTIONS, Reason.NO_REPORT)
        "".join(asdict(prepared.report).values()).encode()


def test_mutated_reports() -> None:
    check(500, seed=1)


@pytest.mark.slow
def test_mutated_reports_for_long() -> None:
    check(20_000, seed=2)
