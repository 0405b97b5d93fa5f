"""A table with one row per image.

Columns `image`, `study_id` and `patient_id` (where empty, that of the header or of the image is used); optional
`image_id`, `split`, `view`, `sex`, `age`, `manufacturer`; `study_date` and `study_time`, or `study_order`, a number
that grows with time; and columns of sections, or `report`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cxrreport.dataset import reduce_covariates
from cxrreport.errors import InputError
from cxrreport.ingestion.images import is_picture, refused_by_system, view_of
from cxrreport.ingestion.layouts.base import Listing, Source, has_column
from cxrreport.ingestion.layouts.tables import (
    REPORT_COLUMNS,
    TIME_COLUMNS,
    renamed_columns,
    report_of,
    split_of,
    taken_of,
)
from cxrreport.records import Exclusion, Reason, View
from cxrreport.settings import IngestSettings
from cxrreport.storage.tables import is_table, read_text_table

_COVARIATE_COLUMNS = ("sex", "age", "manufacturer")
_OPTIONAL = ("view", *_COVARIATE_COLUMNS, *REPORT_COLUMNS, *TIME_COLUMNS)


def recognises(settings: IngestSettings) -> bool:
    """True for a table as input, or a table of reports with a column `image`."""
    if settings.input.is_file():
        return is_table(settings.input)
    return (
        settings.reports is not None
        and is_table(settings.reports)
        and has_column(settings.reports, "image", settings.sheet)
    )


def list_images(settings: IngestSettings) -> Listing:
    """The images that the table names. See `Layout`."""
    table = settings.input if settings.input.is_file() else settings.reports
    if table is None or table.is_dir():
        raise InputError(f"{settings.input}: the layout table needs a table: give it as input, or in the field reports")
    root = settings.input.parent if settings.input.is_file() else settings.input
    base = Path(os.path.normpath(root.absolute()))
    sources, excluded = [], []
    required = ("image", "study_id", "patient_id")
    renamed = renamed_columns(settings)
    for row in read_text_table(table, required=required, optional=_OPTIONAL, renamed=renamed, sheet=settings.sheet):
        if not row["image"]:
            excluded.append(_excluded(row, "", Reason.IMAGE_MISSING, "a row of the table without an image"))
            continue
        path = Path(os.path.normpath(base / row["image"]))
        if not path.is_relative_to(base):
            # A table may come from someone else; the user decides which folder it can read.
            detail = "a path out of the folder of the images; give a folder that holds them as input"
            excluded.append(_excluded(row, path.name, Reason.NOT_READABLE, detail))
            continue
        source = path.relative_to(base).as_posix()
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            excluded.append(_excluded(row, source, Reason.IMAGE_MISSING, ""))
            continue
        except OSError as error:
            if (refusal := refused_by_system(error)).reason == Reason.UNAVAILABLE:
                raise
            excluded.append(_excluded(row, source, Reason.NOT_READABLE, refusal.detail))
            continue
        if not regular:
            excluded.append(_excluded(row, source, Reason.NOT_READABLE, "a folder or a special file, not a file"))
            continue
        view = view_of(row.get("view", ""))
        sources.append(
            Source(
                path=path,
                source=source,
                image_id=row.get("image_id", "") or Path(source).with_suffix("").as_posix(),
                study_id=row["study_id"],
                patient_id=row["patient_id"],
                split=split_of(row, str(table)),
                view=None if view is View.UNKNOWN and not is_picture(path) else view,
                report=report_of(row),
                taken=taken_of(row),
                covariates=reduce_covariates(view=view, **{name: row.get(name, "") for name in _COVARIATE_COLUMNS})
                if settings.covariates
                else None,
            )
        )
    official = any(source.split is not None for source in sources)
    return Listing(layout="table", sources=sources, excluded=excluded, official_split=official)


def _excluded(row: Mapping[str, str], source: str, reason: Reason, detail: str) -> Exclusion:
    return Exclusion(source=source, reason=reason, detail=detail, study_id=row["study_id"])
