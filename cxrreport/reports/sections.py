"""Section parser for reports and for texts that a model wrote.

A header is a known name at the start of a line, before a colon or alone on the line; the main ones may be misspelled.
Inside a line of a report it must be before a colon and not part of a sentence. Unknown names (`LUNGS:`) are text of the
section they are in. A title of the examination (`CHEST, TWO VIEWS:`, see `titles`) begins the findings. Placeholders
(`___` in MIMIC-CXR, `XXXX` in Open-i) are kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from cxrreport.records import REPORT_SECTIONS, Report
from cxrreport.reports.headers import COMMENT, NAMES, OTHER, TITLE, is_title, misspelled

_SECTION_OF = {name: section for section, names in NAMES.items() for name in re.split(r",\s*", names)}
_ALL = (*REPORT_SECTIONS, OTHER)
_IN_REPORTS = (*_ALL, TITLE, COMMENT)
_MAIN = ("findings", "impression", "indication", "comparison")
_CONTINUING_WORDS = """
    a above additional an and as at below by change compared following for from given her his in into is its no of on
    or our per previous prior see the their these this those to under was were when which with without
"""
_CONTINUES = frozenset(_CONTINUING_WORDS.split())
_NAME = r"[A-Za-z][A-Za-z0-9 /&,().#']{0,48}[A-Za-z0-9).#]"  # bounded, so that long lines take linear time
_AT_START = re.compile(rf"^[\s*#]*(?P<name>{_NAME})[\s*]*(?P<end>:|\s-{{1,2}}\s|\.?\s*$)[\s*]*")
_INSIDE_REPORT = re.compile(r"(?<=\S)\s+(?P<name>[A-Z][A-Z /&]{0,48}[A-Z])\s*:")
_INSIDE_ANY_CASE = re.compile(rf"(?<=\S)\s(?P<name>{'|'.join((*_MAIN, 'conclusion', 'technique'))})\s*:", re.I)
_INSIDE_TITLE = re.compile(r"(?<=[.;:)\]_])\s+(?P<name>[A-Z0-9][A-Z0-9 ,/&()_-]{2,98})\s*:")
_ADMINISTRATIVE = re.compile(r"^\s*(?:ACCESSION|MRN|DOB|DOCTOR|DATE)\b[ #]*[\w./-]*\s*$")
_LONGEST_FIRST = "|".join(sorted(_SECTION_OF, key=len, reverse=True))
_INSIDE_GENERATED = re.compile(rf"(?<![a-z/&])(?<![/&] )(?P<name>{_LONGEST_FIRST})\s*:", re.IGNORECASE)
_SENTENCE_END = ".?!:;)]_"
_BEFORE = 200
_RULE = re.compile(r"^[\s_\-=*]{8,}$")
_FINAL_REPORT = re.compile(r"^[ \t]*FINAL REPORT[ \t]*:?[ \t\r]*$", re.MULTILINE)


def parse_report(text: str) -> Report:
    """Split a radiologist's report into its sections.

    Sections of one kind are joined in order. Text before `FINAL REPORT` (a wet read, an addendum) and an addendum after
    the findings or the impression are dropped. Without a findings header, the findings are the paragraphs that follow
    the first paragraph of each section before the impression, or, without any header, the whole text.

    Args:
        text: a report of a data set, with wrapped or unwrapped lines.

    Returns:
        The sections, each on one line with single spaces; absent sections are empty.
    """
    starts = [match.end() for match in _FINAL_REPORT.finditer(text) if text[match.end() :].strip()]
    blocks = _blocks(text[starts[-1] if starts else 0 :], _IN_REPORTS)
    has_findings = any(section == "findings" for section, _ in blocks)
    found: dict[str, list[str]] = {name: [] for name in REPORT_SECTIONS}
    untitled: list[str] = []
    current = ""
    for section, lines in blocks:
        paragraphs = _paragraphs(lines)
        if section in (TITLE, COMMENT):
            section = _section_after(section, current, paragraphs, has_findings)
        current = section or current
        found.get(section, []).extend(paragraphs)
        if section == "":
            untitled += [paragraph for paragraph in paragraphs if not _is_title(paragraph)]
        elif not found["impression"]:
            untitled += paragraphs[1:]  # the first belongs to the header
    if not found["findings"] and untitled:
        found["findings"] = untitled
        for section in ("indication", "technique", "comparison"):
            found[section] = [paragraph for paragraph in found[section] if paragraph not in untitled]
    return Report(**{section: " ".join(dict.fromkeys(paragraphs)) for section, paragraphs in found.items()})


def _section_after(kind: str, current: str, paragraphs: list[str], has_findings: bool) -> str:
    """The section that a title or a comment begins or continues; `current` is the section before it."""
    if current == "findings" or (current == "impression" and kind == TITLE):
        return current
    text = " ".join(paragraphs)
    if current == "impression" or not re.search(r"[a-z]{3}", text, re.IGNORECASE):
        return OTHER  # a note on whom was told, or a date
    return OTHER if has_findings and text[-1] not in ".!?" else "findings"


def split_generated(text: str, headers_of: Collection[str] = _ALL) -> dict[str, str]:
    """Split a text that a model wrote at its headers.

    Unlike in a report, a header inside a line may follow an unfinished sentence, and FINDINGS and IMPRESSION may be in
    any case unless a word such as "the" is before them.

    Args:
        text: `FINDINGS: ... IMPRESSION: ...`, on one line or several.
        headers_of: sections whose headers split the text; other headers are text of the section they are in.

    Returns:
        Section to text, in order of appearance, with the text before the first header under the empty string. Sections
        of one kind are joined by a space. A section without header is absent; one without text is empty.
    """
    sections: dict[str, str] = {}
    for section, lines in _blocks(text, headers_of, generated=True):
        sections[section] = f"{sections.get(section, '')} {chr(10).join(lines).strip()}".strip()
    return sections


def _blocks(text: str, headers_of: Collection[str], *, generated: bool = False) -> list[tuple[str, list[str]]]:
    """Section and lines, in order; the section is empty before the first header, and may be `other`."""
    text = text.lstrip("\ufeff\u200b")
    lines = [part for line in text.splitlines() for part in _split_inside(line, headers_of, generated)] or [""]
    # If no header begins with a capital, the case does not distinguish headers from wrapped sentences.
    all_lower = not any(_header(line, headers_of)[0] and _initial(line).isupper() for line in lines)
    blocks: list[tuple[str, list[str]]] = [("", [])]
    previous = ""
    has_reading = False
    for line in lines:
        if _RULE.match(line):
            line = ""
        section, rest = _header(line, headers_of)
        if section and not (":" in line and (generated or _initial(line).isupper())):
            # In lower case, or alone on its line, it may be the rest of a wrapped sentence.
            capital = _initial(line).isupper() or all_lower
            if _continues(previous) or not (capital or _ended(previous)):
                section = ""
        if section == TITLE and has_reading and line.strip().lower().startswith("chest:"):
            section = ""  # a region, in a report of several
        if (
            section == TITLE
            and not rest.strip()
            and blocks[-1][0] not in ("", "findings", "impression", TITLE)
            and not any(map(str.strip, blocks[-1][1]))
        ):
            section = ""  # `EXAM:` with the title on the next line
        if section:
            is_addendum = "addend" in line[: len(line) - len(rest)].lower()
            if is_addendum and has_reading:
                break
            blocks.append((section, [rest]))
            has_reading = has_reading or section in ("findings", "impression")
        else:
            blocks[-1][1].append(line)
        previous = line.strip()
    return blocks


def _split_inside(line: str, headers_of: Collection[str], generated: bool) -> list[str]:
    """Break a line before every header inside it."""
    parts = []
    start, end, first = 0, 0, len(line) - len(line.lstrip(" \t*#"))
    matches = list((_INSIDE_GENERATED if generated else _INSIDE_REPORT).finditer(line))
    if TITLE in headers_of:
        opening, rest = _header(line, headers_of)
        end = len(line) - len(rest) if opening else 0
        matches += [match for match in _INSIDE_TITLE.finditer(line) if is_title(match["name"])]
        matches += [
            match
            for match in _INSIDE_ANY_CASE.finditer(line)
            if match["name"][0].isupper() or (opening and not _initial(line).isupper())
        ]
        matches.sort(key=lambda match: match.start("name"))
    for match in matches:
        at = match.start("name")
        # What is before a header decides on it; the whole line would make the time quadratic.
        before = line[max(start, match.start() - _BEFORE) : match.start()].rstrip()
        if at < end or (_section_of_name(match["name"]) not in headers_of and match.re is not _INSIDE_TITLE):
            continue
        if match.re is _INSIDE_ANY_CASE:
            reading = bool(opening) and match["name"].lower() in ("findings", "impression", "conclusion")
            accepted = not _continues(before) and (reading or _ended(before))
        elif match.re is _INSIDE_TITLE:
            accepted = True
        elif generated:
            any_case = match["name"].lower().startswith(("finding", "impression"))
            before = line[max(start, at - 20) : at].rstrip()
            accepted = at > first and (match["name"].isupper() or (any_case and not _continues(before)))
        else:
            # `CHEST COMPARISON:` ends in a known name, and so may a sentence in capitals.
            last = before.split()[-1] if before.split() else ""
            in_capitals = last.isupper() and last.isalpha() and not line[match.start() : match.start() + 2].isspace()
            accepted = not _continues(before) and not (in_capitals and not _ended(before))
        if accepted:
            parts.append(line[start : match.start()])
            start, end = at, match.end()
    return [*parts, line[start:]]


def _section_of_name(name: str) -> str:
    plain = re.sub(r"\([^)]*\)", " ", name.lower()).replace("/", " and ").replace("&", " and ")
    return _SECTION_OF.get(" ".join(re.sub(r"[^a-z ]", " ", plain).split()), "")


def _header(line: str, headers_of: Collection[str]) -> tuple[str, str]:
    """Section of a possible header at the start of a line, and the text after it; empty without one."""
    if TITLE in headers_of:
        if _ADMINISTRATIVE.match(line):
            return OTHER, line
        title = _title(line)
        if title is not None:
            return TITLE, title
    match = _AT_START.match(line)
    if not match or (match["end"].strip() not in (":", "") and not match["name"].isupper()):
        return "", line
    name = match["name"]
    section = _section_of_name(name)
    if not section and TITLE in headers_of and name.isalpha() and (match["end"] == ":" or name.isupper()):
        section = next((main for main in _MAIN if misspelled(name.lower(), main)), "")
    return (section, line[match.end() :]) if section in headers_of else ("", line)


def _title(line: str) -> str | None:
    """The text after a title of the examination at the start of a line; `None` if there is no title."""
    start = line.lstrip(" \t*#")
    for match in re.finditer(r":(?!\d)", start[:101]):
        if is_title(start[: match.start()].rstrip(" *")):
            return start[match.end() :].lstrip("* ")
    return "" if start.isupper() and is_title(start.rstrip(" *.")) and len(start.split()) > 1 else None


def _initial(line: str) -> str:
    return line.lstrip(" \t*#")[:1]


def _ended(line: str) -> bool:
    return not line or line[-1] in _SENTENCE_END


def _continues(line: str) -> bool:
    """True if a sentence cannot end here, so that no header can follow."""
    words = line.lower().split()
    return bool(words) and (line[-1] in ",-/" or words[-1] in _CONTINUES)


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
    """True for a line such as `CHEST RADIOGRAPH`: in capitals, short, and not a sentence."""
    return paragraph.isupper() and paragraph[-1] not in ".!?:" and len(paragraph) < 80
