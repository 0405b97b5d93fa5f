"""From the text of a report to its sections.

A header is a known name at the start of a line, before a colon or alone; inside a line it must be in capitals, before
a colon, and not part of the sentence before it. Names that are not known (`LUNGS:`, `PA CHEST:`) are text of the
section in which they stand. Text removed for privacy (`___` in MIMIC-CXR, `XXXX` in Open-i) is kept as it is.
"""

from __future__ import annotations

import re

from cxrreport.records import REPORT_SECTIONS, Report

_OTHER = "other"
_NAMES = {
    "indication": (
        "indication, indications, indication for study, indication for exam, indication for examination, ndication, "
        "inidication, exam indication, clinical indication, clinical indications, history, clinical history, "
        "patient history, history of present illness, clinical information, clinical data, clinical statement, "
        "indication and history, history and indication, indications and history, reason, reason for exam, "
        "reason for examination, reason for study, reason for the study, reason for this examination, "
        "reason for this exam, reason for the exam, reason for consultation"
    ),
    "technique": "technique, techniques, technqiue, imaging technique, technical information",
    "comparison": (
        "comparison, comparisons, comparison study, comparison studies, comparison exam, comparison exams, "
        "comparison film, comparison films, comparison date, comparision, comparsion, compared to, prior studies, "
        "prior study, previous studies, previous examination"
    ),
    # One text that is both goes to the findings, so that it is there once.
    "findings": (
        "findings, finding, chest findings, findngs, finidngs, fidings, findings and impression, "
        "impression and findings, findings and impressions, findings and conclusion, report, description"
    ),
    "impression": (
        "impression, impressions, final impression, overall impression, impresion, impresson, imression, conclusion, "
        "conclusions, opinion, summary, interpretation, assessment"
    ),
    _OTHER: (
        "examination, exam, exams, study, study type, type of exam, procedure, wet read, wet read version, addendum, "
        "addenda, final addendum, final report, preliminary report, pfi, provisional findings impression, "
        "notification, notifications, recommendation, recommendations, communication, attestation, dictated by, "
        "signed by, electronically signed by, end of report, comment on notification"
    ),
}
_SECTION_OF = {name: section for section, names in _NAMES.items() for name in re.split(r",\s*", names)}
_GOES_ON = """
    a above additional an and as at below by change compared following for from given her his in into is its no of on
    or our per previous prior see the their these this those to under was were when which with without
"""
_WORDS_THAT_GO_ON = frozenset(_GOES_ON.split())
_NAME = r"[A-Za-z][A-Za-z /&,()]{0,48}[A-Za-z)]"  # bounded, so that long lines are not gone over again and again
_AT_START = re.compile(rf"^[\s*#]*(?P<name>{_NAME})[\s*]*(?P<end>:|\s-{{1,2}}\s|\.?\s*$)[\s*]*")
_INSIDE = re.compile(r"(?<=\S)\s+(?P<name>[A-Z][A-Z /&]{0,48}[A-Z])\s*:")
_RULE = re.compile(r"^[\s_\-=*]{8,}$")
_FINAL_REPORT = re.compile(r"^[ \t]*FINAL REPORT[ \t]*:?[ \t\r]*$", re.MULTILINE)


def parse_report(text: str) -> Report:
    """Split the text of one report into its sections.

    Several sections of one kind are joined in their order. What stands before `FINAL REPORT` (a wet read, an addendum)
    and an addendum after the findings or the impression are left out. Where no findings are named, they are the
    paragraphs that follow the first paragraph of the sections before the impression, or, without any header, the text.

    Args:
        text: a report as a data set gives it, lines wrapped or not.

    Returns:
        The sections, each on one line with single spaces; an absent one is empty.
    """
    starts = [match.end() for match in _FINAL_REPORT.finditer(text) if text[match.end() :].strip()]
    blocks = _blocks(text[starts[-1] if starts else 0 :])
    found: dict[str, list[str]] = {name: [] for name in REPORT_SECTIONS}
    loose: list[str] = []
    for section, lines in blocks:
        paragraphs = _paragraphs(lines)
        if section in found:
            found[section] += paragraphs
        if section == "":
            loose += [paragraph for paragraph in paragraphs if not _is_title(paragraph)]
        elif not found["impression"]:
            loose += paragraphs[1:]  # the first is what the header announces
    if not found["findings"] and loose:
        found["findings"] = loose
        for section in ("indication", "technique", "comparison"):
            found[section] = [paragraph for paragraph in found[section] if paragraph not in loose]
    return Report(**{section: " ".join(dict.fromkeys(paragraphs)) for section, paragraphs in found.items()})


def _blocks(text: str) -> list[tuple[str, list[str]]]:
    """Section and lines, in order; the section is empty before the first header and `other` for headers of no use."""
    lines = _split_inside(text.replace("\r\n", "\n").replace("\r", "\n"))
    # A report whose headers are all in lower case cannot have them told from wrapped sentences by their case.
    all_lower = not any(_section(line) and _initial(line).isupper() for line in lines)
    blocks: list[tuple[str, list[str]]] = [("", [])]
    previous = ""
    for line in lines:
        if _RULE.match(line):
            line = ""
        section = _section(line)
        if section and not (_initial(line).isupper() and ":" in line):
            # In lower case, or alone on its line, it may be the wrapped rest of a sentence.
            told_by_case = _initial(line).isupper() or all_lower
            if _goes_on(previous) or not (told_by_case or _ended(previous)):
                section = ""
        if section:
            match = _AT_START.match(line)
            name = match["name"].lower() if match else ""
            if "addend" in name and any(block[0] in ("findings", "impression") and block[1] for block in blocks):
                break
            blocks.append((section, [line[match.end() :] if match else line]))
        else:
            blocks[-1][1].append(line)
        previous = line.strip()
    return blocks


def _split_inside(text: str) -> list[str]:
    """Lines, with a break put before every header that stands in capitals inside a line."""
    lines = []
    for line in text.split("\n"):
        start = 0
        for match in _INSIDE.finditer(line):
            # Of `CHEST COMPARISON:` only the end may be a name, and a name in a sentence in capitals is none.
            before = line[start : match.start()].rstrip()
            last = before.split()[-1] if before.split() else ""
            in_capitals = last.isupper() and last.isalpha() and not line[match.start() : match.start() + 2].isspace()
            if _section_of_name(match["name"]) and not _goes_on(before) and not (in_capitals and not _ended(before)):
                lines.append(line[start : match.start()])
                start = match.start("name")
        lines.append(line[start:])
    return lines


def _section_of_name(name: str) -> str:
    plain = re.sub(r"\([^)]*\)", " ", name.lower()).replace("/", " and ").replace("&", " and ").replace(",", " ")
    return _SECTION_OF.get(" ".join(plain.split()), "")


def _section(line: str) -> str:
    match = _AT_START.match(line)
    if not match:
        return ""
    section = _section_of_name(match["name"])
    if match["end"] != ":" and not (match["name"].isupper() or match["end"].strip() == ""):
        return ""
    return section


def _initial(line: str) -> str:
    return line.lstrip(" \t*#")[:1]


def _ended(line: str) -> bool:
    return not line or line[-1] in ".?!:;)]_"


def _goes_on(line: str) -> bool:
    """True where a sentence cannot end, so that what follows is no header."""
    words = line.lower().split()
    return bool(words) and (line[-1] in ",-/" or words[-1] in _WORDS_THAT_GO_ON)


def _paragraphs(lines: list[str]) -> list[str]:
    """Non-empty paragraphs, each on one line."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1] += line.split()
        else:
            paragraphs.append([])
    return [" ".join(words) for words in paragraphs if words]


def _is_title(paragraph: str) -> bool:
    """True for a line such as `CHEST RADIOGRAPH`: in capitals, short, and no sentence."""
    return paragraph.isupper() and paragraph[-1] not in ".!?:" and len(paragraph) < 80
