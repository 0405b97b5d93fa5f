"""The manifest: one row per included image, with its study and report; written by `ingest`, read by later commands."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cxrreport.dataset.covariates import COVARIATES, Covariates
from cxrreport.dataset.image_store import ImageStore
from cxrreport.errors import ManifestError
from cxrreport.records import REPORT_SECTIONS, Exclusion, Image, Report, Split, Study, View
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.parquet import read_columns, table_from_rows

SCHEMA_VERSION = "1"
MANIFEST, EXCLUSION_LOG, IMAGES = "manifest.parquet", "ledger.parquet", "images"

_COLUMNS = pa.schema(
    [
        ("image_id", pa.string()),
        ("study_id", pa.string()),
        ("patient_id", pa.string()),
        ("split", pa.string()),
        ("view", pa.string()),
        ("source", pa.string()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("notes", pa.list_(pa.string())),
        ("image_sha256", pa.string()),
        *((section, pa.string()) for section in REPORT_SECTIONS),
    ]
)
_EXCLUSION_COLUMNS = pa.schema([(name, pa.string()) for name in ("source", "study_id", "reason", "detail")])
_ROWS_AT_A_TIME = 4096
_NOT_CONTENT = frozenset({"source"})
"""Columns that may differ between copies of one data set: not part of the digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One included image with the report of its study; `image_sha256` is the hash of the model-ready pixels."""

    image: Image
    report: Report
    image_sha256: str
    covariates: Covariates | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as the columns of the manifest."""
        image = self.image
        return {
            "image_id": image.image_id,
            "study_id": image.study_id,
            "patient_id": image.patient_id,
            "split": image.split.value,
            "view": image.view.value,
            "source": image.source,
            "rows": image.rows,
            "columns": image.columns,
            "notes": list(image.notes),
            "image_sha256": self.image_sha256,
            **{section: getattr(self.report, section) for section in REPORT_SECTIONS},
            **(asdict(self.covariates) if self.covariates else {}),
        }


def content_digest(rows: Sequence[ManifestRow], preprocessing: dict[str, Any]) -> str:
    """Return the SHA-256 of ids, splits, views, notes, pixels, reports and preprocessing, in a fixed order.

    It does not depend on paths of the input or the output, shards, time, or versions of file formats.
    """
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    for row in sorted(rows, key=lambda row: row.image.image_id):
        content = {name: value for name, value in row.as_dict().items() if name not in _NOT_CONTENT}
        digest.update(json.dumps(content, sort_keys=True, ensure_ascii=True).encode())
    return digest.hexdigest()


def write_manifest(folder: Path, rows: Sequence[ManifestRow], preprocessing: dict[str, Any]) -> str:
    """Write `manifest.parquet` with the rows in the given order, and return its digest.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    digest = content_digest(rows, preprocessing)
    metadata = {
        "cxrreport.schema": SCHEMA_VERSION,
        "cxrreport.digest": digest,
        "cxrreport.preprocessing": json.dumps(preprocessing, sort_keys=True),
    }
    schema = _COLUMNS
    if any(row.covariates for row in rows):
        schema = pa.schema([*_COLUMNS, *((name, pa.string()) for name in COVARIATES)])
    schema = schema.with_metadata(metadata)
    with atomic_path(folder / MANIFEST) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            batch = [row.as_dict() for row in rows[start : start + _ROWS_AT_A_TIME]]
            writer.write_table(table_from_rows(batch, schema))
    return digest


def write_exclusion_log(folder: Path, exclusions: Sequence[Exclusion]) -> None:
    """Write `ledger.parquet`, one row per exclusion.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    rows = [
        {"source": row.source, "study_id": row.study_id, "reason": row.reason.value, "detail": row.detail}
        for row in exclusions
    ]
    with atomic_path(folder / EXCLUSION_LOG) as temporary:
        pq.write_table(table_from_rows(rows, _EXCLUSION_COLUMNS), temporary)


class Manifest:
    """An ingest folder, opened for reading with `Manifest.open`.

    Args:
        folder: the output folder of `ingest`.
        images: all included images, keyed by image id, in the order of the manifest.
        preprocessing: `resolution` (pixels), `resize`, `interpolation`.
        digest: SHA-256 of the content (`content_digest`), hexadecimal.
        covariates: covariates by image id; empty unless `ingest` was asked to record them.
    """

    def __init__(
        self,
        folder: Path,
        images: dict[str, Image],
        reports: dict[str, Report],
        preprocessing: dict[str, Any],
        digest: str,
        covariates: dict[str, Covariates] | None = None,
    ) -> None:
        self.folder = folder
        self.images = images
        self.preprocessing = preprocessing
        self.digest = digest
        self.covariates = covariates or {}
        self._store = ImageStore(folder / IMAGES)
        missing = [image_id for image_id in images if image_id not in self._store]
        if missing:
            raise ManifestError(
                f"{folder / IMAGES}: {len(missing)} of {len(images)} images of the manifest are missing, "
                f"{missing[0]} first; ingest into a new folder"
            )
        ids: dict[str, list[str]] = defaultdict(list)
        for image in images.values():
            ids[image.study_id].append(image.image_id)
        self._studies = [
            Study(
                study_id=study_id,
                patient_id=images[image_ids[0]].patient_id,
                split=images[image_ids[0]].split,
                image_ids=tuple(image_ids),
                report=reports[study_id],
            )
            for study_id, image_ids in sorted(ids.items())
        ]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the output folder of a finished `ingest`.

        Raises:
            ManifestError: the folder is missing, incomplete or has another schema version, or images are missing.
        """
        path = folder / MANIFEST
        if not folder.is_dir():
            raise ManifestError(f"{folder}: no such folder; pass the output folder of `cxrreport ingest`")
        if not path.is_file():
            started = (folder / "ingest.json").is_file()
            raise ManifestError(
                f"{folder}: ingest has not finished; re-run the same ingest command"
                if started
                else f"{folder}: no {MANIFEST}; pass the output folder of `cxrreport ingest`"
            )
        try:
            table = read_columns(path)
        except (OSError, pa.ArrowException) as error:
            raise ManifestError(f"{path}: cannot be read as Parquet; ingest into a new folder") from error
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        version = metadata.get("cxrreport.schema")
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"{path}: schema version {version or 'missing'}, but this version of cxrreport reads {SCHEMA_VERSION}; "
                "ingest into a new folder"
            )
        missing_parts = [name for name in _COLUMNS.names if name not in table.column_names]
        missing_parts += [key for key in ("cxrreport.digest", "cxrreport.preprocessing") if key not in metadata]
        if missing_parts:
            raise ManifestError(f"{path}: {', '.join(missing_parts)} is missing; ingest into a new folder")
        images: dict[str, Image] = {}
        reports: dict[str, Report] = {}
        covariates: dict[str, Covariates] = {}
        for row in table.to_pylist():
            try:
                images[row["image_id"]] = Image(
                    split=Split(row["split"]),
                    view=View(row["view"]),
                    notes=tuple(row["notes"]),
                    **{name: row[name] for name in ("image_id", "study_id", "patient_id", "source", "rows", "columns")},
                )
            except (TypeError, ValueError) as error:
                raise ManifestError(f"{path}: the row of image {row['image_id']!r} is not valid") from error
            reports[row["study_id"]] = Report(**{section: row[section] or "" for section in REPORT_SECTIONS})
            if COVARIATES[0] in row:
                covariates[row["image_id"]] = Covariates(**{name: row.get(name) or "" for name in COVARIATES})
        preprocessing = json.loads(metadata["cxrreport.preprocessing"])
        return cls(folder, images, reports, preprocessing, metadata["cxrreport.digest"], covariates)

    @property
    def resolution(self) -> int:
        """Side length of the square images in pixels."""
        return int(self.preprocessing["resolution"])

    def studies(self, split: Split | str | None = None) -> list[Study]:
        """Return the studies of one split, or all, sorted by study id, each with its best view first."""
        wanted = None if split is None else Split(split)
        return [study for study in self._studies if wanted is None or study.split is wanted]

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """Return one image as grey uint8[R, R], R = `resolution`; dense tissue is bright.

        Raises:
            ManifestError: there is no image with this id, or it cannot be read.
        """
        return self._store[image_id]
