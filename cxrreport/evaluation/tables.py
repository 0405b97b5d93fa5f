"""Predictions and references from files, keyed by study id.

Predictions: an output folder of `generate`, or a table with `study_id` and `text` or sections. References: an output
folder of `ingest`, or a table with `study_id`, `patient_id`, sections and, where there are several, `split`. Tables are
JSONL, CSV (also gzipped) or Parquet; other columns are ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cxrreport.errors import InputError, ScoreError
from cxrreport.records import Split
from cxrreport.storage.tables import TABLE_SUFFIXES, Table, is_table, read_table

Section = Literal["findings", "impression", "findings+impression"]

MANIFEST = "manifest.parquet"
PREDICTIONS = "predictions.parquet"
GENERATED = "generate.json"
MAX_TOKENS = 800
"""Longest text that is scored, words and runs of punctuation. The graph model needs memory by the square of it, and
radiology reports stay far below; longer texts are left out and counted."""

_SECTIONS = ("findings", "impression")
CONFIDENCE = "mean_logprob"
"""Column by which `generate` says how sure the model is."""
_COLUMNS = ("study_id", "patient_id", "split", "text", *_SECTIONS, CONFIDENCE)
_LISTED = 5
_TOKEN = re.compile(r"\w+|[^\w\s]+")
_NAMES = "findings?|impressions?|conclusions?|indications?|history|technique|comparisons?|examination|recommendations?"
_HEADER = re.compile(rf"(?:^[ \t]*(?P<line>(?i:{_NAMES}))|\b(?P<caps>{_NAMES.upper()}))[ \t]*:", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What one system wrote.

    Args:
        texts: study id to the chosen section; None where the table holds no text for the study.
        without_headers: studies whose text has no section headers and is taken as the chosen section.
        source: the file that was read.
        sha256: of that file, hex.
        findings: study id to FINDINGS, where they are the first part of a text that goes on with IMPRESSION.
        confidences: study id to the mean log-probability of its tokens, where the table says it.
        inputs: what the system was given, in words; empty where `generate` has not left it beside the predictions.
        synthetic: written by a model that this project has made.
    """

    texts: Mapping[str, str | None]
    without_headers: int
    source: Path
    sha256: str
    findings: Mapping[str, str] = field(default_factory=dict)
    confidences: Mapping[str, float] = field(default_factory=dict)
    inputs: str = ""
    synthetic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What should have been written.

    Args:
        texts: study id to the chosen section, all splits.
        patients: study id to patient id.
        splits: study id to split; empty where the table has no splits.
        findings: study id to FINDINGS, where they are the first part of a text that goes on with IMPRESSION.
        source: the file that was read.
        digest: the manifest's digest, or the file's SHA-256, hex.
    """

    texts: Mapping[str, str]
    patients: Mapping[str, str]
    splits: Mapping[str, str]
    findings: Mapping[str, str]
    source: Path
    digest: str


def read_predictions(path: Path, section: Section) -> Predictions:
    """Read the predictions of one system.

    A row with sections gives the chosen ones; a row with only `text`, or with both sections empty, gives what stands
    under the headers in its text (`FINDINGS: ... IMPRESSION: ...`), and the whole text where there are none.

    Raises:
        InputError: the file is missing or unreadable, a column is missing, or a value is not text.
        ScoreError: a study occurs twice.
    """
    table = _read(path / PREDICTIONS if path.is_dir() else path, "the output folder of `generate`")
    table.require("study_id")
    if not {"text", *_SECTIONS}.intersection(table.columns):
        raise InputError(f"{table.path}: no column text, findings or impression; a table of predictions needs one")
    texts: dict[str, str | None] = {}
    findings: dict[str, str] = {}
    confidences: dict[str, float] = {}
    without_headers = 0
    for number, row in enumerate(table.rows, start=1):
        study_id = _identity(table, number, row, "study_id")
        sections = {name: _text(table, number, row, name) for name in _SECTIONS}
        whole = _text(table, number, row, "text")
        found = {name: value for name, value in sections.items() if value} or split_sections(whole or "")
        if found:
            text: str | None = choose(found, section)
            findings[study_id] = _before_impression(found, section)
        elif whole is None:
            text = None if all(value is None for value in sections.values()) else ""
        else:
            text = whole.strip()
            without_headers += bool(text)
        _add(texts, study_id, text, table)
        if (confidence := _number(table, number, row, CONFIDENCE)) is not None:
            confidences[study_id] = confidence
    made = _made(path / GENERATED) if path.is_dir() else {}
    return Predictions(
        texts=texts,
        without_headers=without_headers,
        source=table.path,
        sha256=_sha256(table.path),
        findings=findings,
        confidences=confidences,
        inputs=_inputs(made) if made else "",
        synthetic=bool(made.get("warning")),
    )


def read_references(path: Path, section: Section) -> References:
    """Read the references. A manifest has one row per image, and its studies are taken once.

    Raises:
        InputError: the file is missing or unreadable, a column is missing, or a value is not text.
        ScoreError: a study occurs with two patients, splits or reports, or twice in a table that is no manifest.
    """
    manifest = path.is_dir()
    table = _read(path / MANIFEST if manifest else path, "the output folder of `ingest`")
    table.require("study_id", "patient_id")
    if not set(_SECTIONS).intersection(table.columns):
        raise InputError(f"{table.path}: no column findings or impression; a table of references needs one")
    seen: dict[str, tuple[str, str, str]] = {}
    findings: dict[str, str] = {}
    for number, row in enumerate(table.rows, start=1):
        study_id = _identity(table, number, row, "study_id")
        patient_id = _identity(table, number, row, "patient_id")
        sections = {name: _text(table, number, row, name) or "" for name in _SECTIONS}
        split = _text(table, number, row, "split") or ""
        if split not in ("", *Split):
            raise InputError(f"{table.path}, row {number}: split must be one of {', '.join(Split)}")
        study = (choose(sections, section), patient_id, split)
        if study_id in seen and not (manifest and seen[study_id] == study):
            raise ScoreError(
                f"{table.path}: study {study_id} occurs twice"
                + (" with different patients, splits or reports; ingest again" if manifest else "; keep one row of it")
            )
        seen[study_id] = study
        findings[study_id] = _before_impression(sections, section)
    digest = table.metadata.get(b"cxrreport.digest")
    return References(
        texts={study_id: study[0] for study_id, study in seen.items()},
        patients={study_id: study[1] for study_id, study in seen.items()},
        splits={study_id: study[2] for study_id, study in seen.items() if study[2]},
        findings=findings,
        source=table.path,
        digest=digest.decode() if digest else _sha256(table.path),
    )


def most_frequent(references: References) -> str | None:
    """The most frequent text of the training split, of equals the first in the alphabet; None without that split."""
    counts = Counter(
        text for study_id, text in references.texts.items() if text and references.splits.get(study_id) == Split.TRAIN
    )
    return min(counts, key=lambda text: (-counts[text], text)) if counts else None


def choose(sections: Mapping[str, str], section: Section) -> str:
    """The text of the chosen sections, joined by a space."""
    return " ".join(part for name in section.split("+") if (part := sections.get(name, "").strip()))


def _before_impression(sections: Mapping[str, str], section: Section) -> str:
    """FINDINGS where `choose` puts IMPRESSION behind them, else nothing."""
    both = section == "findings+impression" and sections.get("impression", "").strip()
    return sections.get("findings", "").strip() if both else ""


def split_sections(text: str) -> dict[str, str]:
    """FINDINGS and IMPRESSION of a text with headers; empty where there is none.

    A header is a known name with a colon, in capitals or at the start of a line. Text before the first header counts as
    findings where FINDINGS has no header of its own. Plurals and CONCLUSION are taken for the same.
    """
    headers = list(_HEADER.finditer(text))
    if not headers:
        return {}
    sections: dict[str, str] = {}
    ends = [match.start() for match in headers[1:]] + [len(text)]
    for match, end in zip(headers, ends, strict=True):
        name = (match["line"] or match["caps"]).lower().rstrip("s")
        key = {"finding": "findings", "conclusion": "impression"}.get(name, name)
        if key in _SECTIONS:
            sections[key] = f"{sections.get(key, '')} {text[match.end() : end].strip()}".strip()
    if "findings" not in sections and (before := text[: headers[0].start()].strip()):
        sections["findings"] = before
    return sections


def too_long(text: str) -> bool:
    """True for texts of more than `MAX_TOKENS` words and runs of punctuation."""
    return sum(1 for _ in _TOKEN.finditer(text)) > MAX_TOKENS


def _made(path: Path) -> dict[str, Any]:
    """What `generate` says of its predictions; nothing where they were copied without it."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON; generate again") from error
    return made if isinstance(made, dict) else {}


def _inputs(made: Mapping[str, Any]) -> str:
    """The inputs of `generate` in words: how many images of what size, other images, and the indication."""
    try:
        prompt, resolution, control = made["inputs"]["prompt"], made["checkpoint"]["resolution"], made["control"]
        images = f"{prompt.get('max_images', 1)} image of {resolution} pixels"
    except (KeyError, TypeError) as error:
        raise InputError(f"{made.get('verb')}.json lacks {error}: the run is not finished; generate again") from error
    if control == "nearest":
        return f"{images} (report of the nearest training image)"
    given = [images if control == "none" else f"{images} ({control})"]
    return " and ".join([*given, *(["indication"] if prompt["indication"] else [])])


def _add(texts: dict[str, str | None], study_id: str, text: str | None, table: Table) -> None:
    if study_id in texts:
        counts = Counter(str(row["study_id"]) for row in table.rows)
        twice = sorted(name for name, count in counts.items() if count > 1)
        more = f" and {len(twice) - _LISTED} more" if len(twice) > _LISTED else ""
        raise ScoreError(f"{table.path}: studies occur twice: {', '.join(twice[:_LISTED])}{more}; keep one row each")
    texts[study_id] = text


def _identity(table: Table, number: int, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise InputError(
            f"{table.path}, row {number}: {name} is {'missing' if value is None else 'no id'}; ids are texts or whole "
            "numbers (a table that went through floating point lost them: write the column as text)"
        )
    return str(value).strip()


def _text(table: Table, number: int, row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value != value:  # NaN, the way data frames write a missing text
        return None
    raise InputError(f"{table.path}, row {number}: {name} is of type {type(value).__name__}, and must be text")


def _number(table: Table, number: int, row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    try:
        # CSV columns are read as text; NaN is how data frames write what is missing.
        read = None if value is None or value == "" else float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{table.path}, row {number}: {name} is no number") from error
    return read if read is not None and math.isfinite(read) else None


def _read(path: Path, folder: str) -> Table:
    if not is_table(path):
        raise InputError(f"{path}: expected {folder}, or a table ending in {', '.join(TABLE_SUFFIXES)}")
    if not path.exists():
        raise InputError(f"{path}: not found; expected {folder}, or a table")
    table = read_table(path, columns=_COLUMNS)
    if not table.rows:
        raise InputError(f"{path}: holds no row")
    return table


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
