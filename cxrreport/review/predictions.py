"""Read what the page shows of predictions that have not been evaluated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cxrreport.errors import InputError
from cxrreport.review.content import Content, ReviewedStudy, ShownReport, sections
from cxrreport.review.marks import Piece
from cxrreport.storage.command_files import written_by

_COLUMNS = ("study_id", "text", "findings", "impression", "mean_logprob", "tokens", "finished", "abstained")


def read_predictions(folder: Path) -> Content:
    """Read `predictions.parquet` of an output folder of `generate`, least confident study first.

    Raises:
        InputError: the file is missing, unreadable, empty or lacks a column.
    """
    file = folder / "predictions.parquet"
    with written_by("generate", file):
        rows = pq.read_table(file, columns=list(_COLUMNS)).to_pylist()
    if not rows:
        raise InputError(f"{file}: contains no study")
    rows.sort(key=lambda row: (row["mean_logprob"], row["study_id"]))
    digest = hashlib.sha256(json.dumps([[row["study_id"], row["text"]] for row in rows]).encode())
    return Content(system="generated reports", studies=[_study(row) for row in rows], digest=digest.hexdigest())


def _study(row: dict[str, Any]) -> ReviewedStudy:
    parts = [(name.upper(), row[name]) for name in ("findings", "impression") if row[name]] or [("", row["text"])]
    notes = [f"mean log-probability {row['mean_logprob']:.3f}", *["abstained"] * row["abstained"]]
    notes += [] if row["finished"] else ["cut at the limit of tokens"]
    report = ShownReport(
        key="generated",
        title="Generated",
        judged=True,
        sections=[one for title, text in parts for one in sections([Piece(text)], [title], [0])],
    )
    scores = {name: row[name] for name in ("mean_logprob", "tokens")}
    return ReviewedStudy(study_id=row["study_id"], scores=scores, reports=(report,), notes=notes)
