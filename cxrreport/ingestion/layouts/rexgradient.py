"""ReXGradient-160K (Zhang et al. 2025, arXiv 2505.00228).

Images are `deid_png/<patient>/<accession>/studies/.../<instance>.png`. `<split>_metadata_view_position.json`, in the
input folder or in `metadata/` or `download/metadata/` below it, lists studies with their dates, and images with views.
Reports are there or in `<split>_metadata.csv`, by the column `id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrreport.errors import InputError
from cxrreport.ingestion.images import is_picture, view_of
from cxrreport.ingestion.layouts.base import Document, Listing, Source, StudyRow, require_folder
from cxrreport.ingestion.layouts.files import is_companion, list_files
from cxrreport.ingestion.layouts.tables import report_of, studies_of_table
from cxrreport.ingestion.moments import Moment, moment_in_table
from cxrreport.records import REPORT_SECTIONS, Exclusion, Reason, Split, View
from cxrreport.settings import IngestSettings
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.tables import read_text_table

_SPLITS = {"train": Split.TRAIN, "valid": Split.VALIDATE, "test": Split.TEST}
_FOLDERS = ("", "metadata", "download/metadata")
_IMAGE = re.compile(r"(?:^|/)deid_png/(?P<key>.+)\.png$", re.I)


def recognises(settings: IngestSettings) -> bool:
    """True for a table of images of ReXGradient-160K."""
    return any(_metadata(settings.input, split) is not None for split in _SPLITS)


def list_images(settings: IngestSettings) -> Listing:
    """Images of `deid_png/`, with views, splits and reports from the metadata; see `Layout`.

    The patient of a study is the part of its id before `_`. `settings.reports` is a table of reports by study id.
    """
    require_folder(settings, "rexgradient")
    root = settings.input
    by_study: dict[str, StudyRow] = {}
    if settings.reports is not None:
        by_study = studies_of_table(settings.reports, settings)
    listed: dict[str, tuple[str, Split, View]] = {}
    reports: dict[str, Document | None] = {}
    taken: dict[str, Moment | None] = {}
    for name, split in _SPLITS.items():
        path = _metadata(root, name)
        if path is None:
            continue
        studies = _read(path)
        others = _read_reports(path.with_name(f"{name}_metadata.csv"))
        for study, entry in studies.items():
            places, views = entry.get("ImagePath"), entry.get("ImageViewPosition")
            if not isinstance(places, list) or not isinstance(views, list) or len(places) != len(views):
                raise InputError(f"{path}: a study does not have as many ImageViewPosition as ImagePath")
            for place, view in zip(places, views, strict=True):
                match = _IMAGE.search(str(place))
                if match is None:
                    raise InputError(f"{path}: an ImagePath is not of the form ../deid_png/.../name.png")
                listed[match["key"]] = (study, split, view_of(str(view)))
            taken[study] = moment_in_table(_text(entry, "StudyDate"), _text(entry, "StudyTime"))
            if not by_study:
                reports[study] = _report(entry) or others.get(study)
    if not listed:
        raise InputError(f"{root}: no *_metadata_view_position.json (layout rexgradient)")
    files = list_files(root, settings.output)
    sources, excluded, found = [], files.excluded, set()
    for path, source in files.files:
        match = _IMAGE.search(source)
        if match is None:
            if not is_companion(source):
                files.exclude(source, Reason.NOT_DICOM, "not a file of ReXGradient-160K")
            continue
        if match["key"] not in listed:
            files.exclude(source, Reason.NO_REPORT, "not in the metadata")
            continue
        study, split, view = listed[match["key"]]
        found.add(match["key"])
        sources.append(
            Source(
                path=path,
                source=source,
                image_id=match["key"].rpartition("/")[2],
                study_id=study,
                patient_id=study.partition("_")[0],
                split=split,
                view=None if view is View.UNKNOWN and not is_picture(path) else view,
                report=reports.get(study),
                taken=taken[study],
            )
        )
    for key in sorted(listed.keys() - found):
        excluded.append(Exclusion(source=f"deid_png/{key}.png", reason=Reason.IMAGE_MISSING, study_id=listed[key][0]))
    return Listing(layout="rexgradient", sources=sources, excluded=excluded, official_split=True, by_study=by_study)


def _metadata(root: Path, split: str) -> Path | None:
    name = f"{split}_metadata_view_position.json"
    return next((path for folder in _FOLDERS if (path := root / folder / name).is_file()), None)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        studies = parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file; download it again") from error
    if not isinstance(studies, dict) or not all(isinstance(entry, dict) for entry in studies.values()):
        raise InputError(f"{path}: expected an object with one object for each study id")
    return studies


def _read_reports(path: Path) -> dict[str, Document | None]:
    if not path.is_file():
        return {}
    return {row["id"]: _report(row) for row in read_text_table(path, required=("id",), optional=REPORT_SECTIONS)}


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return "" if value is None else str(value)


def _report(entry: Mapping[str, Any]) -> Document | None:
    """The report of an entry; `None` if it has no sections. A missing section is NaN."""
    named = {str(name).lower(): value for name, value in entry.items()}
    if not {"findings", "impression"} & named.keys():
        return None
    return report_of({name: value if isinstance(value := named.get(name), str) else "" for name in REPORT_SECTIONS})
