"""How data sets lie on disk: each layout lists the images that there should be, with what is known of each.

| layout | images | ids, split and view | reports |
|---|---|---|---|
| `mimic-cxr` | `files/p10/p10000032/s50414267/<dicom_id>.dcm`, or `.jpg` (MIMIC-CXR-JPG) | `mimic-cxr-*-split.csv[.gz]`, `mimic-cxr-*-metadata.csv[.gz]`, else the path | `files/p10/p10000032/s50414267.txt` |
| `openi` | any PNG or JPEG below, named as in Open-i or as in its copy on Kaggle | the name, `projections.csv` | `reports.csv`, or the XML files |
| `folder` | every file below, or the one file given | the DICOM header | a table with `study_id` |
| `table` | column `image` | columns `study_id`, `patient_id`, and where they are there `image_id`, `split`, `view`, `sex`, `age`, `manufacturer` | columns of sections, or `report` |
"""  # noqa: E501 - a table

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cxrreport.dataset import Covariates, id_for_message, path_for_message, reduce_covariates
from cxrreport.errors import InputError
from cxrreport.ingestion.images.picture import is_picture
from cxrreport.ingestion.images.views import view_of
from cxrreport.ingestion.layouts.tables import report_of, split_of
from cxrreport.records import LeftOut, Reason, Report, Split, View
from cxrreport.reports.sections import parse_report
from cxrreport.settings import IngestSettings
from cxrreport.storage.tables import is_table, read_text_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One image that a layout lists. What is empty or None is to be found in the header of the file.

    Args:
        path: the file.
        source: its path relative to the input folder, with `/`; what manifest and ledger show.
        report: None where the layout has none for this study.
        covariates: what a table says on the patient, where it was asked for.
    """

    path: Path
    source: str
    image_id: str = ""
    study_id: str = ""
    patient_id: str = ""
    split: Split | None = None
    view: View | None = None
    report: Report | None = None
    covariates: Covariates | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """What a table of reports says on one study of the layout `folder`."""

    report: Report | None
    split: Split | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All images of an input.

    Args:
        layout: the name of the layout, never `auto`.
        sources: what there is, in a fixed order.
        left_out: what is listed somewhere but cannot be used.
        official_split: True where the data set says which image belongs to which split: images without one are then
            left out, where they otherwise get one by their patient.
        by_study: rows of a table of reports, keyed by study id, to be joined once headers have been read.
    """

    layout: str
    sources: list[Source]
    left_out: list[LeftOut] = field(default_factory=list)
    official_split: bool = False
    by_study: Mapping[str, StudyRow] = field(default_factory=dict)


def list_sources(settings: IngestSettings) -> Listing:
    """List the images of `settings.input`, in the layout that is named or found.

    Raises:
        InputError: the input is missing, is not of this layout, or one of its tables cannot be read.
    """
    if not settings.input.exists():
        raise InputError(f"{settings.input}: the input does not exist; give what holds the studies")
    if settings.reports is not None and not settings.reports.exists():
        raise InputError(f"{settings.reports}: the table of reports does not exist")
    layout = detect(settings) if settings.layout == "auto" else settings.layout
    if layout in {"mimic-cxr", "openi"} and not settings.input.is_dir():
        raise InputError(f"{settings.input}: the layout {layout} is a folder, and this is a file")
    return _LAYOUTS[layout](settings)


def detect(settings: IngestSettings) -> str:
    """Name of the layout that the input has: by the files that are a layout's own, else `folder`."""
    root = settings.input
    if root.is_file():
        return "table" if is_table(root) else "folder"
    if _newest(root, "mimic-cxr-*-split.csv*") or _newest(root, "mimic-cxr-*-metadata.csv*"):
        return "mimic-cxr"
    if any((root / "files").glob("p[0-9][0-9]/p[0-9]*/")):
        return "mimic-cxr"
    if settings.reports is not None and is_table(settings.reports):
        return "table" if _has_column(settings.reports, "image") else "folder"
    openi = _openi_table(root, "reports")
    if (openi is not None and _has_column(openi, "uid")) or (root / "ecgen-radiology").is_dir():
        return "openi"
    return "folder"


def _has_column(table: Path, name: str) -> bool:
    return any(name in row for row in read_text_table(table)[:1])


def report_alone(study_id: str) -> LeftOut:
    """The row of the ledger for a report of which no image is known."""
    return LeftOut(source="", reason=Reason.IMAGE_MISSING, detail="a report without images", study_id=study_id)


# --- MIMIC-CXR and MIMIC-CXR-JPG ---

_MIMIC_IMAGE = re.compile(r"files/p\d+/p(?P<patient>\d+)/s(?P<study>\d+)/(?P<image>[^/]+)\.(?:dcm|jpe?g)$", re.I)


def _list_mimic_cxr(settings: IngestSettings) -> Listing:
    root = settings.input
    # MIMIC-CXR-JPG comes without the reports: they may lie in another folder of the same form.
    report_root = settings.reports if settings.reports is not None and settings.reports.is_dir() else root
    split_file, metadata_file = _newest(root, "mimic-cxr-*-split.csv*"), _newest(root, "mimic-cxr-*-metadata.csv*")
    splits = _by_dicom_id(split_file, "dicom_id", "study_id", "subject_id", "split")
    metadata = _by_dicom_id(metadata_file, "dicom_id", "study_id", "subject_id", "viewposition")
    on_disk: dict[str, tuple[Path, str, str, str]] = {}
    for path, source in _walk(root / "files", settings.output) if (root / "files").is_dir() else ():
        match = _MIMIC_IMAGE.search(f"files/{source}")
        if match and (match["image"] not in on_disk or path.suffix.lower() == ".dcm"):
            on_disk[match["image"]] = (path, f"files/{source}", match["study"], match["patient"])
    if not on_disk:
        raise InputError(f"{root}: no images at files/pNN/pNNNNNNNN/sNNNNNNNN/*.dcm or *.jpg (layout mimic-cxr)")
    reports: dict[str, Report | None] = {}
    sources, left_out = [], []
    for image_id, (path, source, study_id, patient_id) in sorted(on_disk.items()):
        row = splits.get(image_id, {})
        if row and (row["study_id"], row["subject_id"]) != (study_id, patient_id):
            named = id_for_message("image", image_id)
            raise InputError(f"{split_file}: image {named} is not in the study and patient that its path names")
        if study_id not in reports:
            reports[study_id] = _mimic_report(report_root, patient_id, study_id)
        sources.append(
            Source(
                path=path,
                source=source,
                image_id=image_id,
                study_id=study_id,
                patient_id=patient_id,
                split=split_of(row, str(split_file)),
                view=_mimic_view(metadata.get(image_id), path),
                report=reports[study_id],
            )
        )
    for image_id in sorted(splits.keys() - on_disk.keys()):
        row = splits[image_id]
        source = f"{_mimic_study(row['subject_id'], row['study_id'])}/{image_id}"
        left_out.append(LeftOut(source=source, reason=Reason.IMAGE_MISSING, study_id=row["study_id"]))
    return Listing(layout="mimic-cxr", sources=sources, left_out=left_out, official_split=split_file is not None)


def _by_dicom_id(path: Path | None, *required: str) -> dict[str, dict[str, str]]:
    return {row["dicom_id"]: row for row in read_text_table(path, required=required)} if path else {}


def _mimic_study(patient_id: str, study_id: str) -> str:
    return f"files/p{patient_id[:2]}/p{patient_id}/s{study_id}"


def _mimic_report(root: Path, patient_id: str, study_id: str) -> Report | None:
    try:
        text = (root / f"{_mimic_study(patient_id, study_id)}.txt").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        shown = id_for_message("study", study_id)
        raise InputError(f"the report of study {shown} cannot be read ({error.strerror})") from error
    return parse_report(text)


def _mimic_view(row: Mapping[str, str] | None, path: Path) -> View | None:
    row = row or {}
    view = view_of(row.get("viewposition", ""), row.get("viewcodesequence_codemeaning", ""))
    # A DICOM header may know more than an empty field of the table; a JPEG does not.
    return None if view is View.UNKNOWN and not is_picture(path) else view


# --- Open-i, the Indiana University collection ---

_OPENI_IMAGE = re.compile(r"^(?:CXR)?(?P<uid>\d+)_.*?(?P<image>IM-\d+(?:-\d+)*)", re.I)


def _list_openi(settings: IngestSettings) -> Listing:
    """One report per patient: the report's number is the study's and the patient's id."""
    root = settings.input
    table = _openi_table(root, "reports")
    reports, listed = _openi_reports_of_table(table) if table else _openi_reports_of_xml(root / "ecgen-radiology")
    projections = _openi_table(root, "projections")
    views: dict[str, View] = {}
    for row in read_text_table(projections, required=("uid", "filename", "projection")) if projections else ():
        image_id = _openi_image_id(row["filename"])
        if image_id:
            # The collection tells frontals from laterals, but not PA from AP.
            views[image_id] = View.LATERAL if row["projection"].lower() == "lateral" else View.UNKNOWN
            listed.setdefault(image_id, row["filename"])
    sources, left_out = [], []
    found: set[str] = set()
    for path, source in _walk(root, settings.output):
        if not is_picture(path):
            continue
        image_id = _openi_image_id(path.name)
        if image_id is None:
            left_out.append(LeftOut(source=source, reason=Reason.NO_REPORT, detail="not an Open-i image name"))
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
        left_out.append(LeftOut(source=listed[image_id], reason=Reason.IMAGE_MISSING, study_id=study_id))
    for study_id in sorted(reports.keys() - {image_id.split("_")[0] for image_id in listed.keys() | found}):
        left_out.append(report_alone(study_id))
    return Listing(layout="openi", sources=sources, left_out=left_out)


def _openi_image_id(name: str) -> str | None:
    """`CXR1_1_IM-0001-3001` and `1_IM-0001-3001.dcm.png` are one image, `CXR1_IM-0001-3001`."""
    match = _OPENI_IMAGE.match(name)
    return f"CXR{int(match['uid'])}_{match['image'].upper()}" if match else None


def _openi_table(root: Path, name: str) -> Path | None:
    return next((path for path in (root / f"{name}.csv", root / f"indiana_{name}.csv") if path.is_file()), None)


def _openi_reports_of_table(path: Path) -> tuple[dict[str, Report], dict[str, str]]:
    reports: dict[str, Report] = {}
    listed: dict[str, str] = {}
    for row in read_text_table(path, required=("uid", "findings", "impression")):
        number = re.sub(r"^CXR", "", row["uid"], flags=re.I)
        report = report_of(row)
        if not number.isdigit() or report is None:
            raise InputError(f"{path}: a uid is not of the form CXR123 or 123")
        if f"CXR{int(number)}" in reports:
            raise InputError(f"{path}: report {id_for_message('study', f'CXR{int(number)}')} is there twice")
        reports[f"CXR{int(number)}"] = report
        _add_listed(listed, row.get("images", "").split("|"))
    return reports, listed


def _openi_reports_of_xml(folder: Path) -> tuple[dict[str, Report], dict[str, str]]:
    """The collection as published: one XML file per report, with its images as `parentImage`."""
    reports: dict[str, Report] = {}
    listed: dict[str, str] = {}
    for path in sorted(folder.glob("*.xml")):
        try:
            root = ElementTree.parse(path).getroot()  # noqa: S314 - expat of today bounds entity expansion
        except (ElementTree.ParseError, OSError) as error:
            raise InputError(f"{path}: not a readable XML report ({type(error).__name__})") from None
        texts: dict[str, str] = {}
        for element in root.iter("AbstractText"):
            texts[element.get("Label", "").lower()] = element.text or ""
        if path.stem.isdigit():
            report = report_of({section: texts.get(section, "") for section in ("comparison", "indication")} | texts)
            reports[f"CXR{int(path.stem)}"] = report or Report()
            _add_listed(listed, [element.get("id", "") for element in root.iter("parentImage")])
    if not reports:
        raise InputError(f"{folder}: neither reports.csv nor XML reports (layout openi)")
    return reports, listed


def _add_listed(listed: dict[str, str], names: list[str]) -> None:
    for name in names:
        image_id = _openi_image_id(name)
        if image_id:
            listed[image_id] = name


# --- Folders and tables ---


def _list_folder(settings: IngestSettings) -> Listing:
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
    files = [(root, root.name)] if root.is_file() else _walk(root, settings.output)
    table = settings.reports.resolve() if settings.reports is not None else None
    sources = [Source(path=path, source=source) for path, source in files if table is None or path.resolve() != table]
    if not sources:
        raise InputError(f"{root}: the folder holds no files")
    official = any(row.split is not None for row in by_study.values())
    return Listing(layout="folder", sources=sources, official_split=official, by_study=by_study)


_COVARIATE_COLUMNS = ("sex", "age", "manufacturer")


def _list_table(settings: IngestSettings) -> Listing:
    table = settings.input if settings.input.is_file() else settings.reports
    if table is None or table.is_dir():
        raise InputError(f"{settings.input}: the layout table needs a table: give it as input, or in the field reports")
    root = settings.input.parent if settings.input.is_file() else settings.input
    sources = []
    for row in read_text_table(table, required=("image", "study_id", "patient_id")):
        if not row["image"]:
            raise InputError(f"{table}: no image for study {id_for_message('study', row['study_id']) or '(none)'}")
        path = root / row["image"]
        if is_picture(path) and not (row["study_id"] and row["patient_id"]):
            raise InputError(f"{table}: no study_id or patient_id for image {path_for_message(row['image'])}")
        inside = path.resolve().is_relative_to(root.resolve())
        view = view_of(row.get("view", ""))
        sources.append(
            Source(
                path=path,
                source=row["image"] if inside and not Path(row["image"]).is_absolute() else path.name,
                image_id=row.get("image_id", "") or Path(row["image"]).with_suffix("").as_posix(),
                study_id=row["study_id"],
                patient_id=row["patient_id"],
                split=split_of(row, str(table)),
                view=None if view is View.UNKNOWN and not is_picture(path) else view,
                report=report_of(row),
                covariates=reduce_covariates(view=view, **{name: row.get(name, "") for name in _COVARIATE_COLUMNS})
                if settings.covariates
                else None,
            )
        )
    official = any(source.split is not None for source in sources)
    return Listing(layout="table", sources=sources, official_split=official)


_LAYOUTS: dict[str, Callable[[IngestSettings], Listing]] = {
    "mimic-cxr": _list_mimic_cxr,
    "openi": _list_openi,
    "folder": _list_folder,
    "table": _list_table,
}


def _newest(root: Path, pattern: str) -> Path | None:
    """The table of the latest version, for names that carry one."""
    return max((path for path in root.glob(pattern) if is_table(path)), default=None) if root.is_dir() else None


def _walk(root: Path, output: Path) -> Iterator[tuple[Path, str]]:
    """Every file below `root` in a fixed order, with its relative path; what lies in `output` is left alone."""
    skipped = output.resolve()

    def refuse(error: OSError) -> Any:
        where = _shown_below(root, error.filename)
        raise InputError(f"{where}: the folder cannot be listed ({error.strerror})") from error

    for folder, folders, names in os.walk(root, onerror=refuse):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if (here / name).resolve() != skipped)
        for name in sorted(names):
            path = here / name
            # A name that is not UTF-8 must still go into tables.
            yield path, os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", errors="replace")


def _shown_below(root: Path, path: str | bytes | None) -> str:
    """A path as a message may show it: the root as it was given, what is below as names may be shown."""
    below = os.path.relpath(os.fsdecode(path or b""), root)
    return f"{root}/{path_for_message(below)}"
