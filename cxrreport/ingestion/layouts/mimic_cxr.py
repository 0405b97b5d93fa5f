"""MIMIC-CXR and MIMIC-CXR-JPG.

Images are `files/p10/p10000032/s50414267/<dicom_id>.dcm` or `.jpg`, reports `files/p10/p10000032/s50414267.txt`. Splits
come from `mimic-cxr-*-split.csv[.gz]`, views and dates from `mimic-cxr-*-metadata.csv[.gz]`, ids also from the path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cxrreport.dataset import id_for_message
from cxrreport.errors import InputError
from cxrreport.ingestion.images import is_picture, view_of
from cxrreport.ingestion.layouts.base import Document, Listing, Source, newest_table, require_folder
from cxrreport.ingestion.layouts.files import is_companion, is_regular, list_files
from cxrreport.ingestion.layouts.tables import MAX_REPORT, report_in_file, split_of, studies_of_table
from cxrreport.ingestion.moments import moment_in_table
from cxrreport.records import Exclusion, Reason, View
from cxrreport.settings import IngestSettings
from cxrreport.storage.tables import read_text_table

_VIEW_CODE = "viewcodesequence_codemeaning"
_OPTIONAL = (_VIEW_CODE, "study_date", "study_time")
_IMAGE = re.compile(r"(?:^|/)files/p\d+/p(?P<patient>\d+)/s(?P<study>\d+)/(?P<image>[^/]+)\.(?:dcm|jpe?g)$", re.I)


def recognises(settings: IngestSettings) -> bool:
    """True for the tables or the folders of MIMIC-CXR."""
    root = settings.input
    tables = newest_table(root, "mimic-cxr-*-split.csv*") or newest_table(root, "mimic-cxr-*-metadata.csv*")
    return tables is not None or any((root / "files").glob("p[0-9][0-9]/p[0-9]*/"))


def list_images(settings: IngestSettings) -> Listing:
    """Images of `files/`, with splits and views from the tables; see `Layout`.

    `settings.reports` is a folder with the reports, or a table of reports by study id, whose ids may begin with `s`.
    """
    require_folder(settings, "mimic-cxr")
    root = settings.input
    # MIMIC-CXR-JPG has no reports; they may be in another folder of the same structure.
    report_root, by_study = root, {}
    if settings.reports is not None and settings.reports.is_dir():
        report_root = settings.reports
    elif settings.reports is not None:
        by_study = studies_of_table(settings.reports, settings, lambda study_id: study_id.removeprefix("s"))
    split_file, metadata_file = (
        newest_table(root, "mimic-cxr-*-split.csv*"),
        newest_table(root, "mimic-cxr-*-metadata.csv*"),
    )
    splits = _by_dicom_id(split_file, "dicom_id", "study_id", "subject_id", "split")
    metadata = _by_dicom_id(metadata_file, "dicom_id", "study_id", "subject_id", "viewposition")
    found = list_files(root, settings.output)
    excluded = found.excluded
    on_disk: list[tuple[str, str, str, str, Path]] = []
    for path, source in found.files:
        match = _IMAGE.search(source)
        if match:
            on_disk.append((match["image"], source, match["study"], match["patient"], path))
        elif not is_companion(source):
            found.exclude(source, Reason.NOT_DICOM, "not a file of MIMIC-CXR")
    if not on_disk:
        raise InputError(f"{root}: no images at files/pNN/pNNNNNNNN/sNNNNNNNN/*.dcm or *.jpg (layout mimic-cxr)")
    reports: dict[str, Document | None] = {}
    sources = []
    for image_id, source, study_id, patient_id, path in sorted(on_disk):
        row, stated = splits.get(image_id, {}), metadata.get(image_id, {})
        if row and (row["study_id"], row["subject_id"]) != (study_id, patient_id):
            named = id_for_message("image", image_id)
            raise InputError(f"{split_file}: image {named} is not in the study and patient that its path names")
        if study_id not in reports and not by_study:
            reports[study_id] = _read_report(report_root, patient_id, study_id)
        sources.append(
            Source(
                path=path,
                source=source,
                image_id=image_id,
                study_id=study_id,
                patient_id=patient_id,
                split=split_of(row, str(split_file)),
                view=_view(stated, path),
                report=reports.get(study_id),
                # Times are numbers here: 85143.156 is 08:51:43. Dates are shifted, by the same time for a patient.
                taken=moment_in_table(stated.get("study_date", ""), stated.get("study_time", ""), padded=True),
            )
        )
    for image_id in sorted(splits.keys() - {image_id for image_id, *_ in on_disk}):
        row = splits[image_id]
        source = f"{_study_path(row['subject_id'], row['study_id'])}/{image_id}"
        excluded.append(Exclusion(source=source, reason=Reason.IMAGE_MISSING, study_id=row["study_id"]))
    official = split_file is not None or any(row.split is not None for row in by_study.values())
    return Listing(layout="mimic-cxr", sources=sources, excluded=excluded, official_split=official, by_study=by_study)


def _by_dicom_id(path: Path | None, *required: str) -> dict[str, dict[str, str]]:
    rows = read_text_table(path, required=required, optional=_OPTIONAL) if path else ()
    return {row["dicom_id"]: row for row in rows}


def _study_path(patient_id: str, study_id: str) -> str:
    return f"files/p{patient_id[:2]}/p{patient_id}/s{study_id}"


def _read_report(root: Path, patient_id: str, study_id: str) -> Document | None:
    path = root / f"{_study_path(patient_id, study_id)}.txt"
    try:
        if not is_regular(path):
            return None
        with path.open("rb") as file:
            data = file.read(MAX_REPORT + 1)
    except OSError as error:
        named = id_for_message("study", study_id)
        raise InputError(f"the report of study {named} cannot be read ({error.strerror})") from error
    return report_in_file(data)


def _view(row: Mapping[str, str], path: Path) -> View | None:
    view = view_of(row.get("viewposition", ""), row.get(_VIEW_CODE, ""))
    # A DICOM header may state the view if the table does not; a JPEG has none.
    return None if view is View.UNKNOWN and not is_picture(path) else view
