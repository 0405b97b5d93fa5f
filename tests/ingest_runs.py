"""Ingests of the tests, and what they exclude."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cxrreport.ingestion.ingest import IngestSummary, ingest
from cxrreport.settings import IngestSettings


def run(source: Path, output: Path, **settings: Any) -> IngestSummary:
    summary = ingest(IngestSettings(input=source, output=output, **settings))
    assert summary.read == summary.kept + sum(summary.left_out.values())
    assert pq.read_metadata(output / "ledger.parquet").num_rows == sum(summary.left_out.values())
    assert not (output / ".parts").exists()
    return summary


def ledger(output: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = pq.read_table(output / "ledger.parquet").to_pylist()
    return rows


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
