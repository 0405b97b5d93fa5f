"""The manifest: one row per included image, with its study and report; written by `ingest`, read by later commands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cxrreport.dataset.columns import ByRow, Places, RowIndex, combined, each_ids, first_rows, lengths, numbers
from cxrreport.dataset.covariates import COVARIATES, Covariates
from cxrreport.dataset.image_store import ImageStore
from cxrreport.dataset.priors import PRIOR_COLUMNS, WITH_MENTIONS, PriorLinks, PriorReports
from cxrreport.errors import ManifestError
from cxrreport.records import REPORT_SECTIONS, Exclusion, Image, PriorStudy, Report, Split, Study, View
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.parquet import read_blocks, read_columns, read_schema, table_from_rows

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
        ("shard", pa.string()),
        ("shard_row", pa.int32()),
    ]
)
_EXCLUSION_COLUMNS = pa.schema([(name, pa.string()) for name in ("source", "study_id", "reason", "detail")])
_ROWS_AT_A_TIME = 4096
_TEXTS = (*REPORT_SECTIONS, *WITH_MENTIONS)
_PLACE = ("shard", "shard_row")
"""Where the image store has the image; a manifest of an earlier version lacks these columns."""
_OF_IMAGES = (*(name for name in _COLUMNS.names if name not in {*REPORT_SECTIONS, "image_sha256"}), *COVARIATES)
_NOT_CONTENT = frozenset({"source", *_PLACE})
"""Columns that may differ between copies of one data set: not part of the digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One included image with the report of its study.

    Args:
        image_sha256: of the model-ready pixels.
        shard: file of the image store that has the image, and `shard_row` its row there.
        prior_study_id: of the prior study; empty if there is none.
        prior_days: from the prior study to this one, as in `PriorStudy`; `None` if it is not known.
        report_with_mentions: with the sentences on earlier studies, as in `Study`; `None` if they were not kept.
    """

    image: Image
    report: Report
    image_sha256: str
    covariates: Covariates | None = None
    shard: str = ""
    shard_row: int = 0
    prior_study_id: str = ""
    prior_days: int | None = None
    report_with_mentions: Report | None = None

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
            "shard": self.shard,
            "shard_row": self.shard_row,
            **(asdict(self.covariates) if self.covariates else {}),
            **self._of_priors(),
        }

    def _of_priors(self) -> dict[str, Any]:
        """Columns on priors that have a value: without any, the digest is that of an earlier version."""
        values = {"prior_study_id": self.prior_study_id or None, "prior_days": self.prior_days}
        if (full := self.report_with_mentions) is not None:
            for name, section in WITH_MENTIONS.items():
                if (text := getattr(full, section)) != getattr(self.report, section):
                    values[name] = text
        return {name: value for name, value in values.items() if value is not None}


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
    schema = _schema_of(rows).with_metadata(metadata)
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

    Ids, splits and the places of the images are held as columns. Reports are read from the file when studies are asked
    for, one block after another.

    Args:
        folder: the output folder of `ingest`.
        table: the columns of the manifest.
        preprocessing: `resolution` (pixels), `resize`, `interpolation`.
        digest: SHA-256 of the content (`content_digest`), hexadecimal.
        reports: yields the report columns of all rows, in blocks.

    Raises:
        ManifestError: a value of the table is not valid, or images are missing.
    """

    def __init__(
        self,
        folder: Path,
        table: pa.Table,
        preprocessing: dict[str, Any],
        digest: str,
        reports: Callable[[], Iterator[pa.RecordBatch]] | None = None,
    ) -> None:
        self.folder = folder
        self.preprocessing = preprocessing
        self.digest = digest
        column = {name: combined(table[name]) for name in _OF_IMAGES if name in table.column_names}
        _check_values(folder, column)
        first = first_rows(column["study_id"])
        if first is None:
            order = table.select(["study_id"]).append_column("row", pa.array(np.arange(len(table))))
            order = order.sort_by([("study_id", "ascending"), ("row", "ascending")])["row"]
            if reports is not None:
                texts = pa.Table.from_batches(list(reports())).take(order)
                reports = texts.to_batches
            table = table.take(order)
            column = {name: combined(table[name]) for name in column}
            first = first_rows(column["study_id"])
        self._column = column
        self._first = np.zeros(0, np.int64) if first is None else first
        try:
            self._priors = PriorLinks.of_table(table, self._first)
        except KeyError as error:
            raise _invalid(folder, column["image_id"][error.args[0]].as_py()) from error
        self._reports = reports or table.to_batches
        self._covariates = COVARIATES[0] in table.column_names
        self._index = RowIndex(column["image_id"])
        self._store = self._image_store()

    def _image_store(self) -> ImageStore:
        column, folder = self._column, self.folder / IMAGES
        if not set(_PLACE) <= column.keys() or not all(column["shard"].unique().to_pylist()):
            store = ImageStore(folder)
            missing = [image_id for image_id in self._index if image_id not in store]
        else:
            places = Places(self._index, column["shard"], numbers(column["shard_row"]))
            there = {path.name for path in folder.glob("*.parquet")}
            missing = [column["image_id"][int(row)].as_py() for row in places.rows_in({*places.files} - there)]
            store = ImageStore(folder, places)
        if missing:
            raise ManifestError(
                f"{folder}: {len(missing)} of {len(self._index)} images of the manifest are missing, "
                f"{missing[0]} first; ingest into a new folder"
            )
        return store

    @classmethod
    def of_rows(cls, folder: Path, rows: Sequence[ManifestRow], preprocessing: dict[str, Any]) -> Self:
        """Rows that an unfinished ingest has saved in `folder`, as a manifest without a digest."""
        return cls(folder, table_from_rows([row.as_dict() for row in rows], _schema_of(rows)), preprocessing, "")

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
            schema, texts = read_schema(path), pa.table({})
            texts_of = [name for name in schema.names if name in _TEXTS]
            names = [name for name in schema.names if name not in _TEXTS]
            table = read_columns(path, *names) if names else texts
        except (OSError, pa.ArrowException) as error:
            raise ManifestError(f"{path}: cannot be read as Parquet; ingest into a new folder") from error
        metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        version = metadata.get("cxrreport.schema")
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"{path}: schema version {version or 'missing'}, but this version of cxrreport reads {SCHEMA_VERSION}; "
                "ingest into a new folder"
            )
        missing_parts = [name for name in _COLUMNS.names if name not in schema.names and name not in _PLACE]
        missing_parts += [key for key in ("cxrreport.digest", "cxrreport.preprocessing") if key not in metadata]
        if missing_parts:
            raise ManifestError(f"{path}: {', '.join(missing_parts)} is missing; ingest into a new folder")
        preprocessing = json.loads(metadata["cxrreport.preprocessing"])
        reports = partial(_report_blocks, path, texts_of)
        return cls(folder, table, preprocessing, metadata["cxrreport.digest"], reports)

    @property
    def resolution(self) -> int:
        """Side length of the square images in pixels."""
        return int(self.preprocessing["resolution"])

    @property
    def images(self) -> Mapping[str, Image]:
        """All included images by image id, in the order of the studies."""
        return ByRow(self._index, self._image)

    @property
    def covariates(self) -> Mapping[str, Covariates]:
        """Covariates by image id; empty unless `ingest` was asked to record them."""
        return ByRow(self._index, self._covariates_of) if self._covariates else {}

    def _image(self, row: int) -> Image:
        values = {name: self._column[name][row].as_py() for name in Image.__dataclass_fields__}
        try:
            return Image(
                **values
                | {"split": Split(values["split"]), "view": View(values["view"]), "notes": tuple(values["notes"])}
            )
        except (TypeError, ValueError) as error:
            raise _invalid(self.folder, str(values["image_id"])) from error

    def _covariates_of(self, row: int) -> Covariates:
        return Covariates(**{name: self._column[name][row].as_py() or "" for name in COVARIATES})

    def studies(self, split: Split | str | None = None, *, priors: bool = True) -> list[Study]:
        """Return the studies of one split, or all, sorted by study id, each with its best view first."""
        return list(self.each_study(split, priors=priors))

    def each_study(self, split: Split | str | None = None, *, priors: bool = True) -> Iterator[Study]:
        """Yield what `studies` returns, with one block of reports in memory, and the reports of priors packed.

        Without `priors`, studies have no prior, and the reports of priors are not read.
        """
        studies = np.arange(len(self._first))
        if split is not None:
            of_split = pa.compute.equal(self._column["split"], Split(split).value).to_numpy(zero_copy_only=False)
            studies = np.flatnonzero(of_split[self._first])
        links = self._priors if priors else PriorLinks.none(len(self._first))
        needed = self._each_report(links.priors_of(studies))
        reports = PriorReports((prior, full or report) for prior, report, full in needed)
        ids_of = partial(each_ids, self._column, self._first)
        linked = links.prior[studies]
        prior_ids = ids_of(np.array(linked[linked >= 0], np.int64))
        each = zip(self._each_report(studies), ids_of(studies), strict=True)
        for (study, report, full), (study_id, patient_id, of, image_ids) in each:
            prior = links.of(study)
            earlier = None
            if prior is not None:
                prior_id, _, _, prior_images = next(prior_ids)
                earlier = PriorStudy(
                    study_id=prior_id, days=links.days_of(study), image_ids=prior_images, report=reports[prior]
                )
            yield Study(
                study_id=study_id,
                patient_id=patient_id,
                split=Split(of),
                image_ids=image_ids,
                report=report,
                prior=earlier,
                report_with_mentions=full,
            )

    def _each_report(self, studies: NDArray[np.int64]) -> Iterator[tuple[int, Report, Report | None]]:
        """The reports of some studies, which are sorted: number, report, and the report with mentions if it differs."""
        rows = self._first[studies]
        start = place = 0
        for block in self._reports() if len(studies) else ():
            end = int(np.searchsorted(rows, start + len(block)))
            wanted = pa.array(rows[place:end] - start)
            texts = {
                name: block.column(name).take(wanted).to_pylist()
                for name in block.schema.names
                if name in {*REPORT_SECTIONS, *WITH_MENTIONS}
            }
            for at, study in enumerate(studies[place:end].tolist()):
                report = Report(**{name: texts[name][at] or "" for name in REPORT_SECTIONS})
                kept = {name: texts[of][at] for of, name in WITH_MENTIONS.items() if of in texts}
                kept = {name: text for name, text in kept.items() if text is not None}
                yield study, report, replace(report, **kept) if kept else None
            start, place = start + len(block), end

    def count(self) -> int:
        """Number of studies."""
        return len(self._first)

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """Return one image as grey uint8[R, R], R = `resolution`; dense tissue is bright.

        Raises:
            ManifestError: there is no image with this id, or it cannot be read.
        """
        return self._store[image_id]


def _schema_of(rows: Sequence[ManifestRow]) -> pa.Schema:
    schema = _COLUMNS
    if any(row.covariates for row in rows):
        schema = pa.schema([*schema, *((name, pa.string()) for name in COVARIATES)])
    if any(row.prior_study_id or row.report_with_mentions for row in rows):
        schema = pa.schema([*schema, *PRIOR_COLUMNS])
    return schema


def _report_blocks(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from read_blocks(path, *names)
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(f"{path}: cannot be read as Parquet; ingest into a new folder") from error


def _check_values(folder: Path, column: Mapping[str, pa.Array]) -> None:
    """Raise a `ManifestError` that names the image of a row with an empty id, or with an unknown split or view."""
    for name, kind in (("split", Split), ("view", View)):
        unknown = {*column[name].unique().to_pylist()} - {one.value for one in kind}
        if unknown:
            row = next(row for row, one in enumerate(column[name]) if one.as_py() in unknown)
            raise _invalid(folder, column["image_id"][row].as_py())
    for name in ("image_id", "study_id", "patient_id"):
        if column[name].null_count or not lengths(column[name]).all():
            row = next(row for row, one in enumerate(column[name]) if not one.as_py())
            raise _invalid(folder, column["image_id"][row].as_py())


def _invalid(folder: Path, image_id: str | None) -> ManifestError:
    return ManifestError(f"{folder / MANIFEST}: the row of image {image_id!r} is not valid")
