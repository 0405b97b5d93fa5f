"""A folder of any structure, or a single file, with an optional table of reports by study id."""

from __future__ import annotations

from cxrreport.dataset import id_for_message
from cxrreport.errors import InputError
from cxrreport.ingestion.layouts.base import Listing, Source, StudyRow
from cxrreport.ingestion.layouts.files import Files, list_files
from cxrreport.ingestion.layouts.tables import report_of, split_of
from cxrreport.settings import IngestSettings
from cxrreport.storage.tables import read_text_table


def recognises(settings: IngestSettings) -> bool:  # noqa: ARG001 - the same for all layouts
    """True: any input can be read this way."""
    return True


def list_images(settings: IngestSettings) -> Listing:
    """Every file below the input, or the one file given; ids and views come from headers. See `Layout`."""
    root = settings.input
    by_study: dict[str, StudyRow] = {}
    if settings.reports is not None:
        for row in read_text_table(settings.reports, required=("study_id",)):
            if row["study_id"] in by_study:
                raise InputError(f"{settings.reports}: study {id_for_message('study', row['study_id'])} is there twice")
            split = split_of(row, str(settings.reports))
            by_study[row["study_id"]] = StudyRow(report=report_of(row), split=split)
        if by_study and all(row.report is None for row in by_study.values()):
            raise InputError(f"{settings.reports}: no column of a section (findings, impression, ...) and no report")
    found = Files(files=[(root, root.name)]) if root.is_file() else list_files(root, settings.output)
    table = settings.reports.resolve() if settings.reports is not None else None
    sources = [
        Source(path=path, source=source) for path, source in found.files if table is None or path.resolve() != table
    ]
    if not (sources or found.excluded):
        raise InputError(f"{root}: the folder holds no files")
    official = any(row.split is not None for row in by_study.values())
    return Listing(
        layout="folder", sources=sources, excluded=found.excluded, official_split=official, by_study=by_study
    )
