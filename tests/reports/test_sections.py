"""Sections of reports written for the test in the style of MIMIC-CXR, and of reassembled Open-i reports."""

from __future__ import annotations

import csv
import random
import time
from pathlib import Path

import pytest

from cxrreport.records import Report
from cxrreport.reports.sections import parse_report, split_generated

FULL = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new fever  // pneumonia?

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 The lungs are clear.  There is no effusion
 or pneumothorax.

 The heart is normal.

 IMPRESSION:

 1. No pneumonia.
 2. Normal heart.
"""


def test_a_whole_report() -> None:
    assert parse_report(FULL) == Report(
        indication="___F with new fever // pneumonia?",
        technique="Chest PA and lateral",
        comparison="___",
        findings="The lungs are clear. There is no effusion or pneumothorax. The heart is normal.",
        impression="1. No pneumonia. 2. Normal heart.",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Report()),
        ("FINAL REPORT\n", Report()),
        (" \n\n", Report()),
        ("indication: cough\nand fever\nfindings: clear lungs.\nimpression: normal", Report(
            indication="cough and fever", findings="clear lungs.", impression="normal")),
        ("Indication: Fall.\nFindings: Clear.\nImpression: Normal.", Report(
            indication="Fall.", findings="Clear.", impression="Normal.")),
        ("FINDINGS\nClear.\n\nIMPRESSION\nNormal.", Report(findings="Clear.", impression="Normal.")),
        ("INDICATION: Cough. COMPARISON: None. FINDINGS: Clear. IMPRESSION: Normal.", Report(
            indication="Cough.", comparison="None.", findings="Clear.", impression="Normal.")),
        ("INDICATION: Cough FINDINGS: Clear", Report(indication="Cough", findings="Clear")),
        ("FINDINGS AND IMPRESSION: Clear lungs.", Report(findings="Clear lungs.")),
        ("FINDINGS/IMPRESSION:\n\n Clear lungs.", Report(findings="Clear lungs.")),
        ("IMPRESSION: One.\n\nNOTIFICATION: Called.\n\nMore.\n\nIMPRESSION: Two.", Report(impression="One. Two.")),
        ("IMPRESSION: One.\n\nIMPRESSION: One.", Report(impression="One.")),
        ("FINDINGS: Clear.\nCONCLUSION: Normal.", Report(findings="Clear.", impression="Normal.")),
        ("REASON FOR EXAM: Pain\n\nCLINICAL HISTORY: Smoker\n\nFINDINGS: Clear.", Report(
            indication="Pain Smoker", findings="Clear.")),
        ("NDICATION: Pain.\nFINDINGS: Clear.", Report(indication="Pain.", findings="Clear.")),
        ("FINDINGS: LUNGS: Clear.\nHEART: Normal.\nBONES: Intact.\n", Report(
            findings="LUNGS: Clear. HEART: Normal. BONES: Intact.")),
        ("INDICATION:  History: ___M with pain", Report(indication="History: ___M with pain")),
        ("FINDINGS: Clear.\nIMPRESSION: Normal.\nADDENDUM: Also this. IMPRESSION: Not this.", Report(
            findings="Clear.", impression="Normal.")),
        ("WET READ: ___ 8:01 PM\n Edema.  IMPRESSION: Early.\n__________\n FINAL REPORT\n FINDINGS: Clear.\n", Report(
            findings="Clear.")),
        ("COMPARISON: ___\n\nFINDINGS:\n\nIMPRESSION: Normal.", Report(comparison="___", impression="Normal.")),
        ("FINDINGS:\r\nClear.\r\n\r\nIMPRESSION:\r\nNormal.\r\n", Report(findings="Clear.", impression="Normal.")),
        ("RECOMMENDATION(S): CT.\n\nFINDINGS: XXXX mass.", Report(findings="XXXX mass.")),
    ],
)  # fmt: skip
def test_styles(text: str, expected: Report) -> None:
    assert parse_report(text) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "The impression: unchanged.",
        "Compared with the prior findings: no change.",
        "See IMPRESSION: below.",
        "There is no change as described in the\n findings: above.",
        "AS ABOVE FINDINGS: NONE.",
        "Clinical history of cough is given.",
        "Impression of the diaphragm on the liver.",
    ],
)
def test_names_inside_sentences_are_not_headers(sentence: str) -> None:
    report = parse_report(f"INDICATION: Pain.\n\nFINDINGS: {sentence}\n\nIMPRESSION: Normal.")
    assert report == Report(indication="Pain.", findings=" ".join(sentence.split()), impression="Normal.")


def test_findings_without_a_header() -> None:
    named = "FINAL REPORT\n CHEST RADIOGRAPH\n\n INDICATION: Thoracentesis.\n\n COMPARISON: ___.\n\n No pneumothorax.\n"
    assert parse_report(named) == Report(indication="Thoracentesis.", comparison="___.", findings="No pneumothorax.")
    bare = "FINAL REPORT\n AP CHEST\n\n The lungs are clear.\n\n No effusion.\n"
    assert parse_report(bare) == Report(findings="The lungs are clear. No effusion.")
    between = "HISTORY: Pain.\n\n PA AND LATERAL CHEST: Clear lungs.\n\n IMPRESSION: AP chest:\n\n Normal.\n"
    assert parse_report(between) == Report(indication="Pain.", findings="Clear lungs.", impression="AP chest: Normal.")


def test_text_after_the_impression_is_not_findings() -> None:
    text = "COMPARISON: ___\n\nIMPRESSION: Normal.\n\nNOTIFICATION: Called.\n\nDr. ___ agreed."
    assert parse_report(text) == Report(comparison="___", impression="Normal.")


def test_reassembled_open_i_reports(shared: Path) -> None:
    """3,365 reports with random headers, case, wrapping and indentation, from tables separate from the parser's."""
    with (shared / "openi/reports.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    headers = {
        "indication": ["INDICATION", "Indication", "CLINICAL HISTORY", "HISTORY", "Reason for exam"],
        "comparison": ["COMPARISON", "Comparison", "COMPARISONS"],
        "findings": ["FINDINGS", "Findings"],
        "impression": ["IMPRESSION", "Impression", "CONCLUSION"],
    }
    rng = random.Random(0)
    misses, count = [], 0
    for row in rows:
        given = {name: " ".join(row[name].split()) for name in headers}
        parts = []
        for name, names in headers.items():
            if given[name]:
                body, line = "", ""
                for word in given[name].split():
                    if len(line) > rng.randint(40, 90):
                        body, line = f"{body}{line}\n ", ""
                    line += f"{word} "
                parts.append(f"{rng.choice(names)}:{rng.choice([' ', '  ', chr(10) * 2 + ' '])}{body}{line}".rstrip())
        found = parse_report(rng.choice(["\n\n ", "\n ", "\n\n"]).join([" FINAL REPORT", *parts]))
        for name in headers:
            count += 1
            if getattr(found, name) != given[name]:
                misses.append((row["uid"], name))
    assert count == 4 * 3365
    assert len(misses) <= 0.005 * count, misses


@pytest.mark.parametrize(
    "piece", ["A ", "word ", " ", "\n", "FINDINGS: ", "FINDINGS ", "A:", "(", " \t*#", "_", "A - ", "the findings: "]
)
def test_long_texts_take_linear_time(piece: str) -> None:
    started = time.process_time()
    parse_report(piece * 20_000)
    split_generated(piece * 20_000)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Findings: Clear. Impression: Normal.", {"": "", "findings": "Clear.", "impression": "Normal."}),
        ("Findings: Heart normal Impression: Normal", {"": "", "findings": "Heart normal", "impression": "Normal"}),
        (f"Clear{' ' * 30}IMPRESSION: Normal.", {"": "Clear", "impression": "Normal."}),
        ("Clear.IMPRESSION: Normal.", {"": "Clear.", "impression": "Normal."}),
        ("FINDINGS: See the impression: normal.", {"": "", "findings": "See the impression: normal."}),
        ("FINDINGS/IMPRESSION: Normal.", {"": "", "findings": "Normal."}),
        ("**FINDINGS:** A.\r\n\r\n**IMPRESSION:**\r\nB.", {"": "", "findings": "A.", "impression": "B."}),
        ("EXAM: Chest. FINDINGS: A.", {"": "", "other": "Chest.", "findings": "A."}),
        ("FINDINGS: A.\nB.\nIMPRESSION:", {"": "", "findings": "A.\nB.", "impression": ""}),
    ],
)
def test_generated_texts(text: str, expected: dict[str, str]) -> None:
    assert split_generated(text) == expected


def test_other_headers_are_text_if_not_requested() -> None:
    text = "FINDINGS: A. RECOMMENDATION: CT."
    assert split_generated(text, headers_of=("findings",)) == {"": "", "findings": "A. RECOMMENDATION: CT."}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A title of the examination begins the findings, with or without a blank line, in any case, also inside a line.
        (
            " COMPARISON:  None.\n CHEST, TWO VIEWS:  The lungs are clear.\n IMPRESSION: Normal.",
            {"comparison": "None.", "findings": "The lungs are clear.", "impression": "Normal."},
        ),
        (
            "COMPARISON: None.\n\nPA AND LATERAL CHEST RADIOGRAPHS: The lungs are clear.",
            {"comparison": "None.", "findings": "The lungs are clear."},
        ),
        ("HISTORY: Fall.\r\nSingle frontal view of the chest: Clear.", {"indication": "Fall.", "findings": "Clear."}),
        ("COMPARISON: None. PORTABLE CHEST: Clear.", {"comparison": "None.", "findings": "Clear."}),
        ("AP CHEST, 5:12 A.M. ON ___:\n\nHISTORY: Fall.\n\nClear.", {"indication": "Fall.", "findings": "Clear."}),
        ("FINDINGS:\nXR CHEST 2 VIEWS: Clear.", {"findings": "Clear."}),
        ("EXAM:\nCHEST PA AND LATERAL\nIMPRESSION: Normal.", {"impression": "Normal."}),
        # `Chest:` inside findings is a region of a report on several.
        (
            "FINDINGS: Heart normal.\nChest: Clear.\nPelvis: Normal.",
            {"findings": "Heart normal. Chest: Clear. Pelvis: Normal."},
        ),
        # Administrative headers are not findings.
        (
            "TYPE OF EXAMINATION: CXR\nDATE: 1/2/2020\nACCESSION 123\nDOCTOR: A\nMRN #: 4\nIMPRESSION: Normal.",
            {"impression": "Normal."},
        ),
        # Other names.
        (
            "CLINICAL DETAILS: Cough.\nREFERENCE EXAM: 2019.\nFINDINGS: Clear.",
            {"indication": "Cough.", "comparison": "2019.", "findings": "Clear."},
        ),
        ("COMPARED WITH: 2019.\nCOMMENT: Clear.", {"comparison": "2019.", "findings": "Clear."}),
        (
            "FINDINGS: Clear.\nIMPRESSION: Normal.\nNOTE: Dr. A was told.",
            {"findings": "Clear.", "impression": "Normal."},
        ),
        # Misspelled: a letter missing, doubled or exchanged.
        (
            "INDCATION: Cough.\nFINDIGNS: Clear.\nIMPPRESSION: Normal.",
            {
                "indication": "Cough.",
                "findings": "Clear.",
                "impression": "Normal.",
            },
        ),
        # One line, as in exported tables; a byte-order mark; line ends of other systems.
        ("Findings: Clear. Impression: Normal.", {"findings": "Clear.", "impression": "Normal."}),
        ("findings: clear. impression: normal.", {"findings": "clear.", "impression": "normal."}),
        ("\ufeffFINDINGS: Clear.\x85IMPRESSION: Normal.", {"findings": "Clear.", "impression": "Normal."}),
    ],
)
def test_layouts_of_hospitals(text: str, expected: dict[str, str]) -> None:
    assert parse_report(text) == Report(**expected)


@pytest.mark.parametrize(
    "line",
    [
        "IMPRESSIVE: no.",
        "The comparison: none.",
        "No change in the chest: stable.",
        "Views: none.",
    ],
)
def test_text_that_resembles_a_header_is_text(line: str) -> None:
    assert line.split(":")[0].lower() in parse_report(f"FINDINGS: Clear.\n{line}").findings.lower()
