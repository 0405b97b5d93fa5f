"""Read predictions and references from files, keyed by study id.

Predictions are an output folder of `generate`, or a table with `study_id` and `text` or sections. References are an
output folder of `ingest`, or a table with `study_id`, `patient_id`, sections and optionally `split`. Tables are JSONL,
CSV (also gzipped), Excel or Parquet; other columns are ignored. JSON files are those of ReXrank (`rexrank`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from cxrreport.errors import InputError, ScoreError
from cxrreport.evaluation.inputs.rexrank import read_rexrank
from cxrreport.records import Split
from cxrreport.reports.plain_text import TooLongError, plain_text
from cxrreport.reports.sections import split_generated
from cxrreport.settings import ScoredSection, current_names
from cxrreport.storage.atomic_files import file_sha256
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.tables import TABLE_SUFFIXES, Table, is_table, read_table

MANIFEST = "manifest.parquet"
PREDICTIONS = "predictions.parquet"
GENERATED = "generate.json"
MAX_TOKENS = 800
"""Longest text that is scored, in words and runs of punctuation. The memory of the graph model grows with its square,
and radiology reports are far shorter. A study with a longer reference is excluded; a longer candidate is cut."""

_SECTIONS = ("findings", "impression")
CONFIDENCE = "mean_logprob"
"""Column of `generate` with the confidence of the model."""
AGREEMENT = "agreement"
"""Column of `generate` with the mean agreement of the kept sample with the others."""
PRIOR = "prior_study_id"
"""Column of `generate` with the prior study that was shown, empty if none. In a manifest, the prior study there is."""
_WITH_MENTIONS = "_with_mentions"
"""Ending of the columns of a manifest with the sections before mentions of prior studies were removed."""
_COLUMNS = (
    *("study_id", "patient_id", "split", "text", *_SECTIONS, CONFIDENCE, AGREEMENT, PRIOR),
    *(f"{name}{_WITH_MENTIONS}" for name in _SECTIONS),
)
NO_PRIOR, SHUFFLED_PRIOR = "no_prior", "shuffled_prior"
"""Baselines of `generate` that replace what is shown of the prior study."""
_LISTED = 5
_TOKEN = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """The predictions of one system.

    Args:
        texts: study id to the chosen section; `None` if the table has no text for the study.
        without_headers: number of texts without section headers, which are used as the chosen section.
        source: file that was read.
        sha256: SHA-256 of the file, hex.
        findings: study id to FINDINGS, if the text consists of FINDINGS and IMPRESSION.
        confidences: study id to the mean log-probability of its tokens, if the table has it.
        agreements: study id to the agreement of its report with other samples, if the table has it.
        priors: study id to the id of the prior study that was shown, empty if none; `None` if it is not known.
        inputs: description of the inputs of the system; empty for predictions without `generate.json`.
        synthetic: true if the model was trained by this project on phantoms.
    """

    texts: Mapping[str, str | None]
    without_headers: int
    source: Path
    sha256: str
    findings: Mapping[str, str] = field(default_factory=dict)
    confidences: Mapping[str, float] = field(default_factory=dict)
    agreements: Mapping[str, float] = field(default_factory=dict)
    priors: Mapping[str, str] | None = None
    inputs: str = ""
    synthetic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The reference reports.

    Args:
        texts: study id to the chosen section, all splits.
        patients: study id to patient id.
        splits: study id to split; empty if the table has no splits.
        findings: study id to FINDINGS, if the text consists of FINDINGS and IMPRESSION.
        with_mentions: study id to text and FINDINGS before mentions of prior studies were removed, where they were.
        source: file that was read.
        digest: digest of the manifest, or SHA-256 of the file, hex.
    """

    texts: Mapping[str, str]
    patients: Mapping[str, str]
    splits: Mapping[str, str]
    findings: Mapping[str, str]
    source: Path
    digest: str
    with_mentions: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def keeping_mentions(self, studies: Container[str]) -> tuple[References, int]:
        """The references with the mentions of prior studies in these studies, and the number of texts that differ."""
        kept = {study: texts for study, texts in self.with_mentions.items() if study in studies}
        return replace(
            self,
            texts={**self.texts, **{study: text for study, (text, _) in kept.items()}},
            findings={**self.findings, **{study: findings for study, (_, findings) in kept.items()}},
        ), len(kept)


def read_predictions(path: Path, section: ScoredSection) -> Predictions:
    """Read the predictions of one system.

    The text of a study is taken from the section columns. If they are missing or empty, it is taken from the sections
    of `text` (`FINDINGS: ... IMPRESSION: ...`), or the whole `text` if it has no headers.

    Raises:
        InputError: the file is missing or unreadable, a column is missing, or a value is not text.
        ScoreError: a study occurs twice.
    """
    folder = path.is_dir()
    table = _read(path / PREDICTIONS if folder else path, "predictions", "the output folder of `generate`", own=folder)
    table.require("study_id")
    if not {"text", *_SECTIONS}.intersection(table.columns):
        raise InputError(f"{table.path}: no column text, findings or impression; a table of predictions needs one")
    texts: dict[str, str | None] = {}
    findings: dict[str, str] = {}
    confidences: dict[str, float] = {}
    agreements: dict[str, float] = {}
    priors: dict[str, str] = {}
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
        if PRIOR in table.columns:
            priors[study_id] = _text(table, number, row, PRIOR) or ""
        if (agreement := _number(table, number, row, AGREEMENT)) is not None:
            agreements[study_id] = agreement
    record = _record(path / GENERATED) if folder else {}
    return Predictions(
        texts=texts,
        without_headers=without_headers,
        source=table.path,
        sha256=file_sha256(table.path),
        findings=findings,
        confidences=confidences,
        agreements=agreements,
        # Folders without the column are of versions that showed no prior study.
        priors=priors if record or PRIOR in table.columns else None,
        inputs=_inputs(record) if record else "",
        synthetic=bool(record.get("warning")),
    )


def read_references(path: Path, section: ScoredSection) -> References:
    """Read the references. A manifest has one row per image; its studies are read once.

    Raises:
        InputError: the file is missing or unreadable, a column is missing, or a value is not text.
        ScoreError: a study has two patients, splits or reports, or occurs twice in a table other than a manifest.
    """
    manifest = path.is_dir()
    table = _read(path / MANIFEST if manifest else path, "references", "the output folder of `ingest`", own=manifest)
    table.require("study_id", "patient_id")
    if not set(_SECTIONS).intersection(table.columns):
        raise InputError(f"{table.path}: no column findings or impression; a table of references needs one")
    seen: dict[str, tuple[str, str, str]] = {}
    findings: dict[str, str] = {}
    with_mentions: dict[str, tuple[str, str]] = {}
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
                + (
                    " with different patients, splits or reports; run `ingest` again"
                    if manifest
                    else "; keep one row of it"
                )
            )
        seen[study_id] = study
        findings[study_id] = _before_impression(sections, section)
        before = {name: _text(table, number, row, f"{name}{_WITH_MENTIONS}") for name in _SECTIONS}
        if edited := {name: value for name, value in before.items() if value is not None}:
            sections |= edited
            with_mentions[study_id] = choose(sections, section), _before_impression(sections, section)
    digest = table.metadata.get(b"cxrreport.digest")
    return References(
        texts={study_id: study[0] for study_id, study in seen.items()},
        patients={study_id: study[1] for study_id, study in seen.items()},
        splits={study_id: study[2] for study_id, study in seen.items() if study[2]},
        findings=findings,
        source=table.path,
        digest=digest.decode() if digest else file_sha256(table.path),
        with_mentions=with_mentions,
    )


def most_frequent(references: References) -> str | None:
    """The most frequent text of the training split, ties in alphabetical order; `None` without a training split."""
    counts = Counter(
        text for study_id, text in references.texts.items() if text and references.splits.get(study_id) == Split.TRAIN
    )
    return min(counts, key=lambda text: (-counts[text], text)) if counts else None


def choose(sections: Mapping[str, str], section: ScoredSection) -> str:
    """The text of the chosen sections, joined by a space."""
    return " ".join(part for name in section.split("+") if (part := sections.get(name, "").strip()))


def _before_impression(sections: Mapping[str, str], section: ScoredSection) -> str:
    """FINDINGS, if `choose` appends IMPRESSION to it; empty otherwise."""
    both = section == "findings+impression" and sections.get("impression", "").strip()
    return sections.get("findings", "").strip() if both else ""


def split_sections(text: str) -> dict[str, str]:
    """FINDINGS and IMPRESSION of a text with headers; empty without headers.

    Text before the first header counts as findings if there is no FINDINGS header.
    """
    parts = split_generated(text)
    before = parts.pop("", "")
    if parts and before:
        parts.setdefault("findings", before)
    return {name: parts[name] for name in _SECTIONS if name in parts}


def too_long(text: str) -> bool:
    """True if the text has more than `MAX_TOKENS` words and runs of punctuation."""
    return cut(text) != text


def cut(text: str) -> str:
    """The text up to its `MAX_TOKENS`-th word or run of punctuation; the text itself if it is not longer."""
    beyond = next(islice(_TOKEN.finditer(text), MAX_TOKENS, None), None)
    return text if beyond is None else text[: beyond.start()].rstrip()


def _record(path: Path) -> dict[str, Any]:
    """The content of `generate.json`; empty if the predictions were copied without it."""
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a JSON file; run `generate` again") from error
    return current_names(record) if isinstance(record, dict) else {}


def _inputs(record: Mapping[str, Any]) -> str:
    """Describe the inputs of `generate`: images and their size, replaced images, the prior study, the indication."""
    try:
        prompt, baseline = record["inputs"]["prompt"], record["baseline"]
        resolution = record["checkpoint"]["resolution"]
        images = f"{prompt.get('max_images', 1)} image of {resolution} pixels"
    except (KeyError, TypeError) as error:
        raise InputError(f"{GENERATED} has no {error}: the run is not finished; run `generate` again") from error
    if baseline == "nearest":
        return f"{images} (report of the nearest training image)"
    replaced = baseline not in ("none", NO_PRIOR, SHUFFLED_PRIOR)
    given = [f"{images} ({baseline})" if replaced else images]
    if prompt.get("views", "frontal") != "frontal":
        given.append("lateral")
    if (prior := prompt.get("prior", "none")) != "none" and baseline != NO_PRIOR:
        given.append(f"prior study ({prior}{', of another patient' if baseline == SHUFFLED_PRIOR else ''})")
    return " and ".join([*given, *(["indication"] if prompt["indication"] else [])])


def _add(texts: dict[str, str | None], study_id: str, text: str | None, table: Table) -> None:
    if study_id in texts:
        counts = Counter(str(row["study_id"]).strip() for row in table.rows)
        repeated = sorted(name for name, count in counts.items() if count > 1)
        more = f" and {len(repeated) - _LISTED} more" if len(repeated) > _LISTED else ""
        raise ScoreError(f"{table.path}: studies occur twice: {', '.join(repeated[:_LISTED])}{more}; keep one row each")
    texts[study_id] = text


def _identity(table: Table, number: int, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise InputError(
            f"{table.path}, row {number}: {name} is {'missing' if value is None else 'no id'}; ids are texts or "
            "integers (floating-point numbers lose digits: write the column as text)"
        )
    return str(value).strip()


def _text(table: Table, number: int, row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if isinstance(value, str):
        try:
            return plain_text(value)
        except TooLongError:
            return value  # is cut where it is scored
    if value is None:
        return None
    if isinstance(value, float) and value != value:  # NaN: a missing text of a data frame
        return None
    raise InputError(f"{table.path}, row {number}: {name} has type {type(value).__name__}, expected text")


def _number(table: Table, number: int, row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    try:
        # CSV columns are read as text; NaN is a missing value of a data frame.
        read = None if value is None or value == "" else float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{table.path}, row {number}: {name} is not a number") from error
    return read if read is not None and math.isfinite(read) else None


def _read(path: Path, part: Literal["references", "predictions"], folder: str, *, own: bool) -> Table:
    rexrank = path.suffix.lower() == ".json"
    if not rexrank and not is_table(path):
        endings = ", ".join((*TABLE_SUFFIXES, ".json (ReXrank)"))
        raise InputError(f"{path}: expected {folder}, or a table with the ending {endings}")
    if not path.exists():
        raise InputError(f"{path}: not found; expected {folder}, or a table")
    table = read_rexrank(path, part) if rexrank else read_table(path, columns=_COLUMNS, own=own)
    if not table.rows:
        raise InputError(f"{path}: has no rows")
    return table
