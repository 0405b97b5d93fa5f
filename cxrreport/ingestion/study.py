"""One study: its text, and its images from files to model-ready pixels."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from cxrreport.dataset import Covariates, ManifestRow, encode_png, reduce_covariates
from cxrreport.errors import PixelError, RefusedImage
from cxrreport.ingestion.dicom import read_covariates, read_radiograph
from cxrreport.ingestion.images import Radiograph, is_picture, read_picture, text_near_border, to_square
from cxrreport.ingestion.layouts import Source
from cxrreport.ingestion.study_plan import StudyPlan, exclude_copies, exclude_image, exclusion_of
from cxrreport.ingestion.texts import PreparedText, Proposals, prepare_text
from cxrreport.ingestion.workers import in_own_process
from cxrreport.records import Exclusion, Image, Reason, View
from cxrreport.settings import IngestSettings

Kept = tuple[ManifestRow, bytes]
"""A row of the manifest and its PNG."""

BURNED_IN_NOTE = "burned-in-text"


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Images of one or more studies: rows of the manifest with their PNGs, and rows of the exclusion log."""

    kept: list[Kept] = field(default_factory=list)
    excluded: list[Exclusion] = field(default_factory=list)
    texts: Counter[str] = field(default_factory=Counter)
    """Counts of the removal of mentions of prior studies (`texts.PreparedText`)."""

    def add(self, other: StudyResult) -> None:
        """Add the images and counts of further studies."""
        self.kept.extend(other.kept)
        self.excluded.extend(other.excluded)
        self.texts.update(other.texts)


@dataclass(frozen=True, slots=True)
class StudyTask:
    """A study to read.

    Args:
        text: if a function has prepared it.
        proposals: edits by a model; `None` without a model.
    """

    study: StudyPlan
    text: PreparedText | None = None
    proposals: Proposals | None = None

    def prepared_text(self, settings: IngestSettings) -> PreparedText:
        """The text of the study as it enters the manifest."""
        return self.text or prepare_text(self.study, settings, proposals=self.proposals)


def read_study(task: StudyTask, settings: IngestSettings, *, apart: bool = False) -> StudyResult:
    """Prepare the text of one study and read its images.

    If one frontal per study is wanted, read until the first that is usable, and likewise for a lateral beside it.

    Args:
        task: the study.
        settings: of the command.
        apart: read each file in a process of its own. For a study whose worker was killed, which a decoder may do and
            the text does not: other files of the study, and copies of the image, may be readable.
    """
    study, text = task.study, task.prepared_text(settings)
    result = StudyResult(texts=text.counts)
    if text.excluded is not None:
        for image in study.candidates:
            result.excluded.extend(exclude_image(image, *text.excluded))
        return result
    kept: set[bool] = set()
    """Whether a frontal (True) and a lateral were kept."""
    for image in study.candidates:
        frontal = (image.view or View.UNKNOWN).frontal
        if study.only_first and frontal in kept:
            result.excluded.extend(exclude_image(image, Reason.OTHER_VIEW_CHOSEN))
            continue
        if study.only_first and not (frontal or kept):
            result.excluded.extend(exclude_image(image, Reason.NOT_FRONTAL, "a lateral without a frontal"))
            continue
        files = [image, *image.copies]
        for index, source in enumerate(files, start=1):
            found = (_outcome_apart if apart else _outcome)(study, text, source, settings)
            if isinstance(found, Exclusion):
                result.excluded.append(found)
            else:
                result.kept.append(found)
                kept.add(frontal)
                result.excluded.extend(exclude_copies(files[index:], source))
                break
    return result


def _outcome(study: StudyPlan, text: PreparedText, source: Source, settings: IngestSettings) -> Kept | Exclusion:
    try:
        return _read_image(study, text, source, settings)
    except RefusedImage as error:
        return exclusion_of(source, error)


def _outcome_apart(study: StudyPlan, text: PreparedText, source: Source, settings: IngestSettings) -> Kept | Exclusion:
    try:
        return in_own_process(_outcome, study, text, source, settings)
    except BrokenProcessPool:
        return exclusion_of(source, PixelError(Reason.BAD_PIXELS, "the process that read this file died"))


def _read_image(study: StudyPlan, text: PreparedText, source: Source, settings: IngestSettings) -> Kept:
    view, budget, keep = source.view or View.UNKNOWN, settings.max_pixels, settings.keep
    if is_picture(source.path):
        radiograph = read_picture(source.path, max_pixels=budget, keep=keep, view=view)
    else:
        radiograph = read_radiograph(source.path, max_pixels=budget, window=settings.window, keep=keep, view=view)
    if source.identity and radiograph.identity != source.identity:
        raise RefusedImage(Reason.UNAVAILABLE, "another file has taken its place since its header was read")
    notes = radiograph.notes + source.notes
    if settings.burned_in != "ignore" and not radiograph.says_no_text and _has_text(radiograph):
        if settings.burned_in == "exclude":
            raise RefusedImage(Reason.BURNED_IN, "text seems to be burned in near a border")
        notes += (BURNED_IN_NOTE,)
    square = to_square(
        radiograph.grey,
        resolution=settings.resolution,
        resize=settings.resize,
        interpolation=settings.interpolation,
    )
    image = Image(
        image_id=source.image_id,
        study_id=study.study_id,
        patient_id=study.patient_id,
        split=study.split,
        view=view,
        source=source.source,
        rows=radiograph.rows,
        columns=radiograph.columns,
        notes=notes,
    )
    sha256 = hashlib.sha256(square.tobytes()).hexdigest()
    covariates = _covariates(source, settings) if settings.covariates else None
    row = ManifestRow(
        image=image,
        report=text.report,
        image_sha256=sha256,
        covariates=covariates,
        report_with_mentions=text.with_mentions,
    )
    return row, encode_png(square)


def _has_text(radiograph: Radiograph) -> bool:
    """Text near a border; it may have been written along the rows of the file or of the upright picture."""
    grey = radiograph.grey
    return text_near_border(grey) or (radiograph.transposed and text_near_border(np.ascontiguousarray(grey.T)))


def _covariates(source: Source, settings: IngestSettings) -> Covariates:
    """Covariates of the table, completed from the header."""
    view, given = source.view or View.UNKNOWN, source.covariates or Covariates()
    if is_picture(source.path):
        return replace(given, projection=given.projection or reduce_covariates(view=view).projection)
    header = read_covariates(source.path, max_pixels=settings.max_pixels, view=view)
    return replace(header, **{name: value for name, value in asdict(given).items() if value})
