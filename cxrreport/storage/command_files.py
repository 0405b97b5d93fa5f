"""Files that one command wrote and another reads: what is missing or damaged is an error that names the command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.errors import InputError
from cxrreport.storage.decoding import parse_json

_CURRENT = {
    "invented": "hallucinated",
    "invented_findings": "hallucinated_findings",
    "invented_priors": "hallucinated_priors",
    "looks": "image_reliance_gap",
    "any omitted or invented finding": "any omitted or hallucinated finding",
    "sentences that mention an earlier study, by the rules of ingest; invented: the reference has none": (
        "sentences that mention a prior study, by the rules of ingest; hallucinated: the reference has none"
    ),
    "counts as there": "counted as present",
}
"""Names that earlier versions wrote into the output folder of `evaluate`, and their current names."""


@contextmanager
def written_by(command: str, file: Path) -> Iterator[None]:
    """Translate the errors of the block, which reads `file` of an output folder of `command`.

    Raises:
        InputError: the file is missing, cannot be read, or lacks what the block reads.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{file}: not found; pass the output folder of a finished `{command}`") from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read as a file of `{command}`; run `{command}` again") from error


def read_scores(evaluation: Path) -> dict[str, Any]:
    """Read the `scores.json` in an output folder of `evaluate`, also of earlier versions.

    Raises:
        InputError: see `written_by`.
    """
    file = evaluation / "scores.json"
    with written_by("evaluate", file):
        scores: dict[str, Any] = current(parse_json(file.read_text(encoding="utf-8")))
        scores["conditions"] = dict(scores["conditions"])
    return scores


def read_evaluated(file: Path, *required: str) -> pa.Table:
    """Read a table in an output folder of `evaluate`, also of earlier versions, whose columns are renamed.

    Raises:
        InputError: see `written_by`; or a `required` column is missing.
    """
    with written_by("evaluate", file):
        table = pq.read_table(file)
    table = table.rename_columns(current(table.column_names))
    if missing := [name for name in required if name not in table.column_names]:
        raise InputError(f"{file}: no column {', '.join(missing)}; run `evaluate` again")
    return table


def current(value: Any) -> Any:
    """Replace old names in nested JSON values: keys of objects, and texts that are an old name as a whole."""
    if isinstance(value, Mapping):
        return {current(name): current(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [current(item) for item in value]
    return _CURRENT.get(value, value) if isinstance(value, str) else value
