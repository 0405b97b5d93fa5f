"""CheXpert Plus (Chambon et al. 2024, arXiv 2405.19538).

Images are `train/patient1/study1/view1_frontal.png` (also JPEG, or DICOM), at any depth below the input. Reports,
views, splits and the order of the studies of a patient come from `df_chexpert_plus_*.csv`, which has no dates. Its
validation split is the one that ReXrank scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cxrreport.errors import InputError
from cxrreport.ingestion.images import is_picture, view_of
from cxrreport.ingestion.layouts.base import Document, Listing, Source, StudyRow, newest_table, require_folder
from cxrreport.ingestion.layouts.files import is_companion, list_files
from cxrreport.ingestion.layouts.tables import report_of, split_of, studies_of_table
from cxrreport.ingestion.moments import Moment
from cxrreport.records import Exclusion, Reason, View
from cxrreport.settings import IngestSettings
from cxrreport.storage.tables import read_text_table

_TABLE = "df_chexpert_plus_*.csv"
_IMAGE = re.compile(r"(?:^|/)(?P<key>[^/]+/(?P<patient>patient\d+)/(?P<study>study\d+)/(?P<view>[^/]+))\.[^/.]+$")
_SECTIONS = {
    "indication": ("section_clinical_history", "section_history"),
    "technique": ("section_technique",),
    "comparison": ("section_comparison",),
    "findings": ("section_findings",),
    "impression": ("section_impression",),
}
"""Section to the columns that have it, the first non-empty one."""
_ORDER = "patient_report_date_order"
_OPTIONAL = (_ORDER, "frontal_lateral", "ap_pa", "split", *(name for names in _SECTIONS.values() for name in names))


def recognises(settings: IngestSettings) -> bool:
    """True for the table of CheXpert Plus."""
    return newest_table(settings.input, _TABLE) is not None


def list_images(settings: IngestSettings) -> Listing:
    """Images of patients and studies, with reports and splits from the table; see `Layout`.

    A study is `patient1_study1`, and its report that of its first image. `settings.reports` is a table of reports by
    these ids.
    """
    require_folder(settings, "chexpert-plus")
    root = settings.input
    table = newest_table(root, _TABLE)
    if table is None:
        raise InputError(f"{root}: no {_TABLE} (layout chexpert-plus)")
    by_study: dict[str, StudyRow] = {}
    if settings.reports is not None:
        by_study = studies_of_table(settings.reports, settings)
    rows: dict[str, dict[str, str]] = {}
    reports: dict[str, Document | None] = {}
    for row in read_text_table(table, required=("path_to_image",), optional=_OPTIONAL):
        match = _IMAGE.search(row["path_to_image"])
        if match is None:
            raise InputError(f"{table}: a path_to_image is not of the form train/patient1/study1/view1_frontal.jpg")
        rows[match["key"]] = row
    # The images of a study can have copies of its report in which other surrogates were written.
    differ = set()
    for key in sorted(rows) if not by_study else ():
        study, report = _study(key), _report(rows[key])
        if reports.setdefault(study, report) != report:
            differ.add(study)
    files = list_files(root, settings.output)
    sources, excluded, found = [], files.excluded, set()
    for path, source in files.files:
        match = _IMAGE.search(source)
        if match is None or is_companion(source):
            if not is_companion(source):
                files.exclude(source, Reason.NOT_DICOM, "not a file of CheXpert Plus")
            continue
        row = rows.get(match["key"], {})
        study = _study(match["key"])
        found.add(match["key"])
        sources.append(
            Source(
                path=path,
                source=source,
                image_id=f"{study}_{match['view']}",
                study_id=study,
                patient_id=match["patient"],
                split=split_of(row, str(table)),
                view=_view(row, path),
                report=reports.get(study),
                notes=("reports-differ",) if study in differ else (),
                taken=_taken(row, match["study"]),
            )
        )
    for key in sorted(rows.keys() - found):
        excluded.append(Exclusion(source=key, reason=Reason.IMAGE_MISSING, study_id=_study(key)))
    return Listing(layout="chexpert-plus", sources=sources, excluded=excluded, official_split=True, by_study=by_study)


def _study(key: str) -> str:
    _, patient, study, _ = key.split("/")
    return f"{patient}_{study}"


def _report(row: Mapping[str, str]) -> Document | None:
    return report_of(
        {section: next((row[name] for name in names if row.get(name)), "") for section, names in _SECTIONS.items()}
    )


def _taken(row: Mapping[str, str], study: str) -> Moment:
    """The place of a study among those of the patient: the column of the table, without it the number of the study."""
    number = re.fullmatch(r"(\d{1,9})(?:\.0+)?", row.get(_ORDER, ""))
    return Moment(int(number[1] if number else study.removeprefix("study")), dated=False)


def _view(row: Mapping[str, str], path: Path) -> View | None:
    lateral = row.get("frontal_lateral", "").lower() == "lateral"
    view = View.LATERAL if lateral else view_of(row.get("ap_pa", ""))
    return None if view is View.UNKNOWN and not is_picture(path) else view
