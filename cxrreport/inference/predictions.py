"""The tables that `generate` writes from its shards, their counts, and pictures of boxes."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.dataset import Manifest
from cxrreport.inference.mix_prompts import draw_boxes
from cxrreport.inference.shards import Row, row_to_json
from cxrreport.inference.worker import resize_method
from cxrreport.records import Exclusion, Prediction
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.decoding import FORMULA
from cxrreport.storage.parquet import table_from_rows

_BOX = pa.struct([("label", pa.string()), *((edge, pa.float64()) for edge in ("top", "left", "bottom", "right"))])

PREDICTIONS = pa.schema(
    [
        *((name, pa.string()) for name in ("study_id", "patient_id")),
        *((name, pa.list_(pa.string())) for name in ("image_ids", "image_sha256")),
        *((name, pa.string()) for name in ("prompt", "text", "findings", "impression")),
        *((name, pa.float64()) for name in ("mean_logprob", "min_logprob")),
        ("tokens", pa.int32()),
        *((name, pa.bool_()) for name in ("finished", "abstained")),
        ("agreement", pa.float64()),
        ("prior_study_id", pa.string()),
        ("boxes", pa.list_(_BOX)),
    ]
)
"""Schema of `predictions.parquet`: the fields of `records.Prediction`. The metadata of the file hold `cxrreport.inputs`
(fingerprints, data, prompt, versions) and `cxrreport.settings`, both JSON."""

_REPORT_COLUMNS = ("study_id", "findings", "impression", "text", "mean_logprob", "finished", "abstained")

FAILED = pa.schema([(name, pa.string()) for name in ("source", "study_id", "reason", "detail")])
"""Schema of `failed.parquet`: the fields of `records.Exclusion`, as in the exclusion log of `ingest`."""


def counted(shards: Iterable[Sequence[Row]], counts: dict[str, Any]) -> Iterator[Sequence[Row]]:
    """Add up the rows of shards in `counts` while they are read: fields of `GenerateSummary`."""
    counts |= {"predictions": 0, "failed": 0, "unfinished": 0, "abstained": 0, "mean_logprob": 0.0}
    total = 0.0
    for rows in shards:
        for row in rows:
            if isinstance(row, Exclusion):
                counts["failed"] += 1
                continue
            counts["predictions"] += 1
            counts["unfinished"] += not row.finished
            counts["abstained"] += row.abstained
            total += row.mean_logprob
        counts["mean_logprob"] = total / max(1, counts["predictions"])
        yield rows


def write_tables(
    shards: Iterable[Sequence[Row]],
    folder: Path,
    metadata: Mapping[str, Any],
    draw: Callable[[Prediction], None] | None,
) -> None:
    """Write the predictions as Parquet, JSON lines and CSV, and `failed.parquet`, with one shard in memory at a time.

    `reports.csv` is for spreadsheets: a cell that one would run as a formula is prefixed with an apostrophe.
    `metadata` goes into the Parquet files as JSON. `draw` is called with every prediction that has boxes.
    """
    texts = {"cxrreport.schema": "1"} | {name: json.dumps(value) for name, value in metadata.items()}
    with ExitStack() as stack:
        # Renamed in reverse: predictions.parquet, by which other commands recognise the folder, comes last.
        predictions_path, lines_path, reports_path, failed_path = (
            stack.enter_context(atomic_path(folder / name))
            for name in ("predictions.parquet", "predictions.jsonl", "reports.csv", "failed.parquet")
        )
        reports = csv.writer(stack.enter_context(reports_path.open("w", encoding="utf-8-sig", newline="")))
        reports.writerow(_REPORT_COLUMNS)
        lines = stack.enter_context(lines_path.open("w", encoding="utf-8"))
        predictions_file = stack.enter_context(pq.ParquetWriter(predictions_path, PREDICTIONS.with_metadata(texts)))
        failed_file = stack.enter_context(pq.ParquetWriter(failed_path, FAILED.with_metadata(texts)))
        for rows in shards:
            predictions = [row for row in rows if isinstance(row, Prediction)]
            failed = [row for row in rows if isinstance(row, Exclusion)]
            lines.writelines(f"{row_to_json(row)}\n" for row in predictions)
            reports.writerows([_cell(getattr(row, name)) for name in _REPORT_COLUMNS] for row in predictions)
            predictions_file.write_table(table_from_rows([asdict(row) for row in predictions], predictions_file.schema))
            failed_file.write_table(table_from_rows([asdict(row) for row in failed], failed_file.schema))
            for row in predictions:
                if draw is not None and row.boxes:
                    draw(row)


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def write_picture(manifest: Manifest, folder: Path, prediction: Prediction) -> None:
    """Draw the boxes of a prediction into `<study>-<hash of study and prompt>.png`."""
    image_id = prediction.image_ids[0]
    picture = draw_boxes(
        manifest.image(image_id), manifest.images[image_id], prediction.boxes, resize=resize_method(manifest)
    )
    # A study id comes from a file or a table and may contain any character.
    name = re.sub(r"[^\w.-]+", "_", prediction.study_id, flags=re.ASCII).strip(".")[:64]
    number = hashlib.sha256(f"{prediction.study_id}\0{prediction.prompt}".encode()).hexdigest()[:8]
    with atomic_path(folder / f"{name}-{number}.png") as temporary:
        picture.save(temporary)
