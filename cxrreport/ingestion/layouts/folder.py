"""A folder of any structure, or a single file, with an optional table of reports by study id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cxrreport.errors import InputError
from cxrreport.ingestion.images import is_picture
from cxrreport.ingestion.layouts.base import Listing, Source, StudyRow
from cxrreport.ingestion.layouts.files import Files, list_files
from cxrreport.ingestion.layouts.tables import studies_of_table
from cxrreport.records import View
from cxrreport.settings import IngestSettings

MOST_PICTURES_OF_STUDY = 8
"""A folder with more pictures is a collection, as data sets are downloaded, and not a study."""


def recognises(settings: IngestSettings) -> bool:  # noqa: ARG001 - the same for all layouts
    """True: any input can be read this way."""
    return True


def list_images(settings: IngestSettings) -> Listing:
    """Every file below the input, or the one file given; ids and views come from headers. See `Layout`.

    PNG and JPEG files have no header: their ids come from their path (`_picture`).
    """
    root = settings.input
    by_study = studies_of_table(settings.reports, settings) if settings.reports is not None else {}
    found = Files(files=[(root, root.name)]) if root.is_file() else list_files(root, settings.output)
    table = settings.reports.resolve() if settings.reports is not None else None
    pictures = Counter(path.parent for path, _ in found.files if is_picture(path))
    sources = [
        _picture(path, source, by_study, pictures[path.parent] <= MOST_PICTURES_OF_STUDY)
        if is_picture(path)
        else Source(path=path, source=source)
        for path, source in found.files
        if table is None or path.resolve() != table
    ]
    if not (sources or found.excluded):
        raise InputError(f"{root}: the folder holds no files")
    official = any(row.split is not None for row in by_study.values())
    return Listing(
        layout="folder", sources=sources, excluded=found.excluded, official_split=official, by_study=by_study
    )


def _picture(path: Path, source: str, by_study: Mapping[str, StudyRow], folder_is_study: bool) -> Source:
    """A PNG or JPEG file with ids from its path.

    The image id is the path without its ending. The study is the row of the table of reports with this path or file
    name as its id, otherwise the folder; the patient is the folder above it, if there is one. A file in the input
    folder itself is a study and a patient. In a folder with many pictures each is a study, and the folder the patient.
    """
    name = PurePosixPath(source).with_suffix("")
    folders = name.parts[:-1]
    own = next((study_id for study_id in (name.as_posix(), name.name) if study_id in by_study), None)
    if folder_is_study:
        study_id = own or "/".join(folders) or name.name
        patient_id = "/".join(folders[:-1] or folders) or study_id
    else:
        study_id = own or name.as_posix()
        patient_id = "/".join(folders) or study_id
    return Source(
        path=path,
        source=source,
        image_id=name.as_posix(),
        study_id=study_id,
        patient_id=(by_study[study_id].patient_id if study_id in by_study else "") or (own or patient_id),
        view=View.UNKNOWN,
        notes=("view-unknown",),
    )
