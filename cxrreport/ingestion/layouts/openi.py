"""Open-i, the Indiana University collection, as published or as copied on Kaggle.

Images are PNG or JPEG files with the names of the collection, at any depth. Views come from `projections.csv`, reports
from `reports.csv` or from the XML files in `ecgen-radiology`.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from cxrreport.dataset import id_for_message
from cxrreport.errors import InputError
from cxrreport.ingestion.images import is_picture
from cxrreport.ingestion.layouts.base import (
    UNREADABLE,
    Document,
    Listing,
    Source,
    StudyRow,
    has_column,
    report_without_images,
    require_folder,
)
from cxrreport.ingestion.layouts.files import is_companion, is_regular, list_files
from cxrreport.ingestion.layouts.tables import MAX_REPORT, report_of, studies_of_table
from cxrreport.records import REPORT_SECTIONS, Exclusion, Reason, Report, View
from cxrreport.settings import IngestSettings
from cxrreport.storage.tables import read_text_table

_IMAGE = re.compile(r"^(?:CXR)?(?P<uid>\d+)_.*?(?P<image>IM-\d+(?:-\d+)*)", re.I)
_OPTIONAL = (*REPORT_SECTIONS, "images")


def recognises(settings: IngestSettings) -> bool:
    """True for the tables or the XML folder of Open-i."""
    table = _table(settings.input, "reports")
    return (table is not None and has_column(table, "uid", None)) or (settings.input / "ecgen-radiology").is_dir()


def list_images(settings: IngestSettings) -> Listing:
    """All PNG and JPEG files; the number of a report is the id of its study and patient. See `Layout`.

    `settings.reports` is a folder of XML reports, or a table of reports by study id (`CXR1` or `1`).
    """
    require_folder(settings, "openi")
    root = settings.input
    table = _table(root, "reports")
    by_study: dict[str, StudyRow] = {}
    reports: dict[str, Document] = {}
    listed: dict[str, str] = {}
    if settings.reports is None:
        reports, listed = _reports_of_table(table) if table else _reports_of_xml(root / "ecgen-radiology")
    elif settings.reports.is_dir():
        reports, listed = _reports_of_xml(settings.reports)
    else:
        by_study = studies_of_table(settings.reports, settings, _study_id)
    projections = _table(root, "projections")
    views: dict[str, View] = {}
    for row in read_text_table(projections, required=("uid", "filename", "projection")) if projections else ():
        image_id = _image_id(row["filename"])
        if image_id:
            # The collection distinguishes frontal from lateral, but not PA from AP.
            views[image_id] = View.LATERAL if row["projection"].lower() == "lateral" else View.UNKNOWN
            listed.setdefault(image_id, row["filename"])
    files = list_files(root, settings.output)
    sources, excluded = [], files.excluded
    found: set[str] = set()
    for path, source in files.files:
        if not is_picture(path):
            if not is_companion(source):
                files.exclude(source, Reason.NOT_DICOM, "not a file of Open-i")
            continue
        image_id = _image_id(path.name)
        if image_id is None:
            excluded.append(Exclusion(source=source, reason=Reason.NO_REPORT, detail="not an Open-i image name"))
            continue
        study_id = image_id.split("_")[0]
        sources.append(
            Source(
                path=path,
                source=source,
                image_id=image_id,
                study_id=study_id,
                patient_id=study_id,
                view=views.get(image_id, View.UNKNOWN),
                report=reports.get(study_id),
                notes=() if image_id in views else ("view-unknown",),
            )
        )
        found.add(image_id)
    for image_id in sorted(listed.keys() - found):
        study_id = image_id.split("_")[0]
        excluded.append(Exclusion(source=listed[image_id], reason=Reason.IMAGE_MISSING, study_id=study_id))
    for study_id in sorted(reports.keys() - {image_id.split("_")[0] for image_id in listed.keys() | found}):
        excluded.append(report_without_images(study_id))
    official = any(row.split is not None for row in by_study.values())
    return Listing(layout="openi", sources=sources, excluded=excluded, official_split=official, by_study=by_study)


def _study_id(text: str) -> str:
    number = re.sub(r"^CXR", "", text, flags=re.I)
    return f"CXR{int(number)}" if number.isdecimal() else text


def _image_id(name: str) -> str | None:
    """`CXR1_1_IM-0001-3001` and `1_IM-0001-3001.dcm.png` are one image, `CXR1_IM-0001-3001`."""
    match = _IMAGE.match(name)
    return f"CXR{int(match['uid'])}_{match['image'].upper()}" if match else None


def _table(root: Path, name: str) -> Path | None:
    return next((path for path in (root / f"{name}.csv", root / f"indiana_{name}.csv") if path.is_file()), None)


def _reports_of_table(path: Path) -> tuple[dict[str, Document], dict[str, str]]:
    reports: dict[str, Document] = {}
    listed: dict[str, str] = {}
    for row in read_text_table(path, required=("uid", "findings", "impression"), optional=_OPTIONAL):
        number = re.sub(r"^CXR", "", row["uid"], flags=re.I)
        report = report_of(row)
        if not number.isdecimal() or report is None:
            raise InputError(f"{path}: a uid is not of the form CXR123 or 123")
        if f"CXR{int(number)}" in reports:
            raise InputError(f"{path}: report {id_for_message('study', f'CXR{int(number)}')} is there twice")
        reports[f"CXR{int(number)}"] = report
        _add_listed(listed, row.get("images", "").split("|"))
    return reports, listed


def _reports_of_xml(folder: Path) -> tuple[dict[str, Document], dict[str, str]]:
    """The collection as published: one XML file per report, with its images as `parentImage`."""
    reports: dict[str, Document] = {}
    listed: dict[str, str] = {}
    for path in sorted(folder.glob("*.xml")):
        if not (path.stem.isdecimal() and is_regular(path)):
            continue
        study_id = f"CXR{int(path.stem)}"
        try:
            if path.stat().st_size > MAX_REPORT:
                raise ValueError
            # Expat bounds the expansion of entities to 100 times the size of the file.
            root = ElementTree.parse(path).getroot()  # noqa: S314
        except OSError as error:
            raise InputError(
                f"{path}: the report cannot be read ({error.strerror}); re-run the same command"
            ) from error
        except (ElementTree.ParseError, LookupError, ValueError):
            reports[study_id] = UNREADABLE
            continue
        texts: dict[str, str] = {}
        for element in root.iter("AbstractText"):
            texts[element.get("Label", "").lower()] = "".join(element.itertext())
        report = report_of({section: texts.get(section, "") for section in ("comparison", "indication")} | texts)
        reports[study_id] = report or Report()
        _add_listed(listed, [element.get("id", "") for element in root.iter("parentImage")])
    if not reports:
        raise InputError(f"{folder}: neither reports.csv nor XML reports (layout openi)")
    return reports, listed


def _add_listed(listed: dict[str, str], names: list[str]) -> None:
    for name in names:
        image_id = _image_id(name)
        if image_id:
            listed[image_id] = name
