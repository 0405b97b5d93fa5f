"""More reports in the style of MIMIC-CXR, and Open-i reports reassembled with random layouts."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

import pytest

from cxrreport.records import Report
from cxrreport.reports.sections import parse_report

A, T, C, F, M = "___M with cough", "PA and lateral", "___", "The lungs are clear.", "No pneumonia."
WHOLE = Report(indication=A, technique=T, comparison=C, findings=F, impression=M)


def layout(headers: tuple[str, str, str, str, str], end: str, gap: str, indent: str) -> str:
    pairs = zip(headers, (A, T, C, F, M), strict=True)
    return gap.join(f"{indent}{header}{end}{body}" for header, body in pairs)


CAPITALS = ("INDICATION", "TECHNIQUE", "COMPARISON", "FINDINGS", "IMPRESSION")
TITLED = ("Indication", "Technique", "Comparison", "Findings", "Impression")
SYNONYMS = ("REASON FOR EXAM", "TECHNIQUE", "COMPARISONS", "FINDINGS", "CONCLUSION")
HISTORY = ("HISTORY", "TECHNIQUE", "COMPARISON STUDY", "FINDINGS", "IMPRESSIONS")
CLINICAL = ("CLINICAL HISTORY", "TECHNIQUE", "PRIOR STUDY", "FINDINGS", "FINAL IMPRESSION")
STYLES = [CAPITALS, TITLED, SYNONYMS, HISTORY, CLINICAL]


@pytest.mark.parametrize("headers", STYLES, ids=lambda names: names[0])
@pytest.mark.parametrize(("end", "gap", "indent"), [
    (": ", "\n", ""), (":  ", "\n\n ", " "), (":\n ", "\n \n", " "), (":\n\n ", "\n\n", "    "),
    (": ", "\r\n\r\n", ""), (":\t", "\n\n", "\t"),
])  # fmt: skip
def test_thirty_layouts(headers: tuple[str, str, str, str, str], end: str, gap: str, indent: str) -> None:
    assert parse_report(layout(headers, end, gap, indent)) == WHOLE
    assert parse_report("FINAL REPORT\n" + layout(headers, end, gap, indent) + "\n") == WHOLE


def documented() -> set[tuple[str, str]]:
    """The sections that `docs/reports.md` lists as parsed differently."""
    text = " ".join((Path(__file__).parents[2] / "docs/reports.md").read_text(encoding="utf-8").split())
    listed = text[text.index("The 12 others:") : text.index("nine of the ")]
    found = set()
    for part in re.split(r", (?=the )|, and (?=the )", listed):
        section = "indication" if "indications" in part else "comparison" if "comparison" in part else "impression"
        found |= {(uid, section) for uid in re.findall(r"CXR\d+", part)}
    return found


def joined(row: dict[str, str], rng: random.Random) -> tuple[str, dict[str, str]]:
    """One report as raw text with random header case, order, synonyms, punctuation, wrapping and indentation."""
    synonyms = {
        "indication": ["indication", "clinical history", "history", "reason for exam", "reason for examination"],
        "comparison": ["comparison", "comparisons", "comparison study"],
        "findings": ["findings"],
        "impression": ["impression", "impressions", "conclusion"],
    }
    given = {name: " ".join(row[name].split()) for name in synonyms}
    order = ["indication", "comparison"]
    rng.shuffle(order)
    case = rng.choice([str.upper, str.upper, str.capitalize])
    indent, mark = rng.choice(["", " ", "   "]), rng.choice([":", " :", ":"])
    gap = rng.choice(["\n\n", "\n \n", "\n"])
    parts = []
    for name in [*order, "findings", "impression"]:
        if not given[name]:
            continue
        width, lines, line = rng.randint(40, 90), [], ""
        for word in given[name].split():
            if line and len(line) + len(word) > width:
                lines, line = [*lines, line], ""
            line = f"{line} {word}".strip()
        start = rng.choice([" ", "  ", f"\n{indent}", f"\n\n{indent}"])
        parts.append(f"{indent}{case(rng.choice(synonyms[name]))}{mark}{start}" + f"\n{indent}".join([*lines, line]))
    title = rng.choice(["", "FINAL REPORT\n", "                 FINAL REPORT\n EXAMINATION: CHEST RADIOGRAPH\n\n"])
    return title + gap.join(parts), given


def test_open_i_reports_with_random_layouts(shared: Path) -> None:
    with (shared / "openi/reports.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rng = random.Random(4)
    misses, count = [], 0
    for row in rows:
        text, given = joined(row, rng)
        found = parse_report(text)
        for name, expected in given.items():
            count += 1
            if getattr(found, name) != expected:
                misses.append((row["uid"], name))
    assert count == 4 * 3365
    assert len(misses) <= 0.005 * count, misses
    assert set(misses) == documented()


@pytest.mark.parametrize(("text", "expected"), [
    ("INDICATION: Fever.\n\nFINDINGS: Left effusion.\n\nIMPRESSION: Effusion.\n\nRECOMMENDATION: CT.",
     Report(indication="Fever.", findings="Left effusion.", impression="Effusion.")),
    ("HISTORY: ___F, fall.\nTECHNIQUE: AP.\nFINDINGS: Rib fracture.\nIMPRESSION: Fracture.",
     Report(indication="___F, fall.", technique="AP.", findings="Rib fracture.", impression="Fracture.")),
    ("REASON FOR EXAMINATION: Line placement.\n\nFINDINGS: Tip in the SVC.",
     Report(indication="Line placement.", findings="Tip in the SVC.")),
    ("CLINICAL INFORMATION: Dyspnea.\n\nFINDINGS: Edema.\n\nOPINION: Heart failure.",
     Report(indication="Dyspnea.", findings="Edema.", impression="Heart failure.")),
    ("INDICATION: A.\n\nINDICATION: B.\n\nFINDINGS: Clear.", Report(indication="A. B.", findings="Clear.")),
    (("WET READ: ___ ___ 3:10 PM\n No pneumothorax.\n______________________________\n FINAL REPORT\n"
     " INDICATION: Tube out.\n\n IMPRESSION: No pneumothorax."),
     Report(indication="Tube out.", impression="No pneumothorax.")),
    ("FINAL REPORT\n INDICATION: A.\n\n FINDINGS: B.\n\n IMPRESSION: C.\n\n NOTIFICATION: Dr. ___ by phone.",
     Report(indication="A.", findings="B.", impression="C.")),
    ("FINDINGS: Clear.\n\nIMPRESSION:\n\n1. Clear.\n\n2. No fracture.",
     Report(findings="Clear.", impression="1. Clear. 2. No fracture.")),
    ("FINDINGS: Size 2.5 cm: unchanged ratio 1:2.\n\nIMPRESSION: Nodule.",
     Report(findings="Size 2.5 cm: unchanged ratio 1:2.", impression="Nodule.")),
    ("INDICATION: Question: pneumonia?\n\nFINDINGS: None.",
     Report(indication="Question: pneumonia?", findings="None.")),
    ("COMPARISON: Chest radiograph ___ at 05:30.\n\nFINDINGS: Stable.",
     Report(comparison="Chest radiograph ___ at 05:30.", findings="Stable.")),
    ("TECHNIQUE: Portable.\nCOMPARISON: None available.\nFINDINGS: Clear.\nIMPRESSION: Clear lungs.",
     Report(technique="Portable.", comparison="None available.", findings="Clear.", impression="Clear lungs.")),
    ("EXAMINATION: CHEST (PORTABLE AP)\n\nINDICATION: ETT.\n\nIMPRESSION: ETT 4 cm above the carina.",
     Report(indication="ETT.", impression="ETT 4 cm above the carina.")),
    ("**FINDINGS:** Clear.\n**IMPRESSION:** Normal.", Report(findings="Clear.", impression="Normal.")),
    ("FINDINGS: Heart: normal. Lungs: clear.\nIMPRESSION: Normal.",
     Report(findings="Heart: normal. Lungs: clear.", impression="Normal.")),
    ("FINDINGS AND IMPRESSIONS: Clear.\n", Report(findings="Clear.")),
    ("IMPRESSION: Edema, in\ncomparison with ___, worse.", Report(impression="Edema, in comparison with ___, worse.")),
    ("FINDINGS: The clinical history\nof cancer is known.\nIMPRESSION: Mass.",
     Report(findings="The clinical history of cancer is known.", impression="Mass.")),
    ("indication: pain.\nimpression: normal.", Report(indication="pain.", impression="normal.")),
    ("INDICATION:\n\nFINDINGS: Clear.\n\nIMPRESSION:", Report(findings="Clear.")),
    ("The lungs are clear.", Report(findings="The lungs are clear.")),
    ("FINDINGS: A.\n\nB.\n\nC.\n\nIMPRESSION: D.", Report(findings="A. B. C.", impression="D.")),
    ("CLINICAL HISTORY: Asthma. FINDINGS: Hyperinflation. IMPRESSION: Asthma.",
     Report(indication="Asthma.", findings="Hyperinflation.", impression="Asthma.")),
    ("FINDINGS: Clear.\n\nIMPRESSION: Normal.\n\nADDENDUM: Reviewed again.\n\nFINDINGS: Other.",
     Report(findings="Clear.", impression="Normal.")),
    ("REASON FOR THIS EXAMINATION:\n  fever\n\nFINDINGS:\n  clear", Report(indication="fever", findings="clear")),
    ("INDICATION: R/O PNA\nCOMPARISON: NONE\nFINDINGS: CLEAR LUNGS\nIMPRESSION: NO PNA",
     Report(indication="R/O PNA", comparison="NONE", findings="CLEAR LUNGS", impression="NO PNA")),
])  # fmt: skip
def test_more_reports(text: str, expected: Report) -> None:
    assert parse_report(text) == expected
