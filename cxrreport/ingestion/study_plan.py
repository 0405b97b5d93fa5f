"""Group listed images into studies: ids, splits, reports, and the choice of views.

Decisions use headers and tables only, in an order that depends only on the input, so a resumed run makes the same plan.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from cxrreport.errors import InputError, RefusedImage
from cxrreport.ingestion.dicom import Header, read_header
from cxrreport.ingestion.images import is_picture, preference
from cxrreport.ingestion.layouts.base import UNREADABLE, Document, Listing, Source, report_without_images
from cxrreport.ingestion.moments import Moment, earliest
from cxrreport.records import Exclusion, Reason, Report, Split, View
from cxrreport.reports.plain_text import MOST_CHARACTERS, TooLongError, plain_text
from cxrreport.reports.sections import parse_report
from cxrreport.settings import IngestSettings

LONG_REPORT = f"the report has more than {MOST_CHARACTERS} characters"
_UNREADABLE = "~"  # sorts after every digest


_KINDS = {
    "UIDs": re.compile(r"\d+(?:\.\d+)+"),
    "numbers, for example accession numbers": re.compile(r"\d+"),
    "letters with numbers, for example accession numbers": re.compile(r"[A-Za-z]{1,6}[-_ ]?\d+"),
}
"""What ids look like, for the error of a table that matches nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """A study to read.

    Args:
        report: as the layout has it; whoever reads the study prepares it.
        candidates: images, best view first.
        only_first: keep only the first frontal that can be read and, beside it, the first lateral.
        seed: of the surrogates for the identifiers of this patient.
    """

    study_id: str
    patient_id: str
    split: Split
    report: Document
    candidates: tuple[Source, ...]
    only_first: bool
    seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All studies, sorted by study id, and what was left out on the way here.

    Args:
        read: everything that the input has or lists: each is a candidate of one study, or left out.
        moments: when a study was made, by its id, where that is stated; `None` if its images state several dates.
        with_lateral: ids of the studies that have a lateral, whether it is a candidate or not.
    """

    studies: list[StudyPlan]
    excluded: list[Exclusion]
    read: int
    moments: Mapping[str, Moment | None]
    with_lateral: Set[str]


def read_header_of(source: Source, max_pixels: int, keep: Collection[str]) -> Header | Exclusion:
    """The header of a DICOM file, or its row of the exclusion log."""
    try:
        return read_header(source.path, max_pixels=max_pixels, keep=keep)
    except RefusedImage as error:
        return exclusion_of(source, error)


def exclusion_of(source: Source, error: RefusedImage) -> Exclusion:
    """The row of the exclusion log for a refused image."""
    return Exclusion(source=source.source, reason=Reason(error.reason), detail=error.detail, study_id=source.study_id)


def exclude_image(source: Source, reason: Reason, detail: str = "") -> list[Exclusion]:
    """The rows of the exclusion log for an image and its copies."""
    row = Exclusion(source=source.source, reason=reason, detail=detail, study_id=source.study_id)
    return [row, *exclude_copies(source.copies, source)]


def exclude_copies(copies: Iterable[Source], image: Source) -> list[Exclusion]:
    """The rows of the exclusion log for copies of an image."""
    detail = f"the same image as {image.source}"
    return [
        Exclusion(source=copy.source, reason=Reason.DUPLICATE, detail=detail, study_id=copy.study_id) for copy in copies
    ]


def needs_header(source: Source) -> bool:
    """True if ids, view or date have to be read from the file."""
    incomplete = not (source.image_id and source.study_id and source.patient_id)
    incomplete |= source.view is None or source.taken is None
    return incomplete and not is_picture(source.path)


def make_plan(settings: IngestSettings, listing: Listing, headers: Iterable[Header | Exclusion]) -> Plan:
    """Group the images of a listing into studies.

    Args:
        settings: views, and whether a report is required.
        listing: images of the layout.
        headers: one for each source of `listing` that `needs_header`, in their order.

    Returns:
        A plan in which every source is a candidate or excluded.

    Raises:
        InputError: a patient is in two splits, or a table gives one id to two images.
    """
    excluded = list(listing.excluded)
    sources, known = _with_headers(listing, iter(headers), excluded)
    if settings.require_report and sources and listing.by_study and not known:
        raise _no_match(listing, sources)
    sources = _without_duplicates(listing, sources)
    sources, split_of_study = _with_splits(listing, sources, excluded)
    groups: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        reason, detail = _unwanted(source, settings)
        if reason is not None:
            excluded += exclude_image(source, reason, detail)
        else:
            groups[source.study_id].append(source)
    studies = []
    for study_id, group in sorted(groups.items()):
        group.sort(key=lambda source: (preference(source.view or View.UNKNOWN), source.image_id))
        if settings.require_report and len({source.report for source in group}) > 1:
            group = _with_text(group, excluded)
        if not group:
            continue
        studies.append(
            StudyPlan(
                study_id=study_id,
                patient_id=group[0].patient_id,
                split=split_of_study[study_id],
                report=group[0].report or Report(),
                candidates=tuple(group),
                only_first=settings.views.startswith("best-frontal"),
            )
        )
    alone = [report_without_images(study_id) for study_id in sorted(listing.by_study.keys() - known)]
    read = len(listing.sources) + len(listing.excluded) + len(alone)
    return Plan(
        studies=studies,
        excluded=excluded + alone,
        read=read,
        moments=_moments(sources),
        with_lateral={source.study_id for source in sources if source.view is View.LATERAL},
    )


def split_by_patient(patient_id: str) -> Split:
    """80% train, 10% validate, 10% test, by a hash of the patient id: the same on every machine and in every run."""
    share = int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") / 2**64
    if share < 0.8:
        return Split.TRAIN
    return Split.VALIDATE if share < 0.9 else Split.TEST


def _moments(sources: Iterable[Source]) -> dict[str, Moment | None]:
    moments: dict[str, list[Moment]] = defaultdict(list)
    for source in sources:
        if source.taken is not None:
            moments[source.study_id].append(source.taken)
    return {study_id: earliest(found) for study_id, found in moments.items()}


def _no_match(listing: Listing, sources: list[Source]) -> InputError:
    return InputError(
        f"0 of {len(listing.by_study)} reports of the table match a study: its ids look like "
        f"{_kind(listing.by_study)}, those of the studies like {_kind(source.study_id for source in sources)}; name "
        "the column with StudyInstanceUID or AccessionNumber with --id-column"
    )


def _kind(ids: Iterable[str]) -> str:
    some = list(islice(ids, 20))
    for kind, pattern in _KINDS.items():
        if all(pattern.fullmatch(one) for one in some):
            return kind
    return "other texts"


def _with_headers(
    listing: Listing, headers: Iterable[Header | Exclusion], excluded: list[Exclusion]
) -> tuple[list[Source], set[str]]:
    """Complete ids, views and dates from headers, and reports, splits, patients and dates from the table of reports.

    Returns:
        The sources, and the ids of the table that belong to one of them. An id may be an accession number.
    """
    result = []
    known: set[str] = set()
    remaining = iter(headers)
    for source in listing.sources:
        header = next(remaining) if needs_header(source) else None
        if isinstance(header, Exclusion):
            excluded.append(header)
            continue
        complete = _with_ids(listing, source, header)
        key = _key(listing, complete.study_id, header)
        row = listing.by_study.get(key)
        if row is not None:
            known.add(key)
            complete = replace(
                complete,
                report=row.report,
                split=row.split or complete.split,
                taken=source.taken or row.taken or complete.taken,
            )
        if complete.report is UNREADABLE:
            complete = replace(complete, notes=(*complete.notes, "report-unreadable"))
        result.append(complete)
    return result, known


def _key(listing: Listing, study_id: str, header: Header | None) -> str:
    """The id of a study in the table of reports."""
    if header is not None and study_id not in listing.by_study and header.accession in listing.by_study:
        return header.accession
    return study_id


def _with_ids(listing: Listing, source: Source, header: Header | None) -> Source:
    """Ids and view of the layout or the header; a missing study is the image, a missing patient the study."""
    image_id, notes = source.image_id or (header.image_id if header else ""), source.notes
    if not image_id:
        image_id = f"file-{hashlib.sha256(source.source.encode()).hexdigest()[:16]}"
        notes += ("image-id-missing",)
    study_id = source.study_id or (header.study_id if header else "")
    if not study_id:
        study_id, notes = image_id, (*notes, "study-id-missing")
    row = listing.by_study.get(_key(listing, study_id, header))
    patient_id = source.patient_id or (header.patient_id if header else "") or (row.patient_id if row else "")
    if not patient_id:
        patient_id, notes = study_id, (*notes, "patient-id-missing")
    return replace(
        source,
        image_id=image_id,
        study_id=study_id,
        patient_id=patient_id,
        view=source.view or (header.view if header else View.UNKNOWN),
        notes=notes,
        identity=header.identity if header else "",
        taken=source.taken or (header.taken if header else None),
    )


def _without_duplicates(listing: Listing, sources: list[Source]) -> list[Source]:
    """One image per id, with the other files of this id, or of the same content, as its copies.

    The first is a DICOM file if there is one, of a study with a report if there is one, and then has the smallest
    SHA-256, so that file names do not matter.
    """
    groups: dict[str, list[Source]] = defaultdict(list)
    same_content = _ids_by_content(listing, sources)
    for source in sources:
        groups[same_content.get(source.image_id, source.image_id)].append(source)
    result = []
    for image_id, group in groups.items():
        if len(group) > 1:
            if listing.layout == "table":
                raise InputError(f"the table gives the image id {image_id} to two rows")
            group.sort(key=lambda source: (is_picture(source.path), source.report is None, _sha256(source.path)))
        result.append(replace(group[0], copies=tuple(group[1:])))
    return result


def _ids_by_content(listing: Listing, sources: list[Source]) -> dict[str, str]:
    """For files whose ids come from their names: image id to the first image id with the same content.

    Without it, a picture under two names would be two patients, perhaps in two splits.
    """
    by_size: dict[int, list[Source]] = defaultdict(list)
    for source in sources if listing.layout == "folder" else ():
        if is_picture(source.path) or "image-id-missing" in source.notes:
            with suppress(OSError):
                by_size[source.path.stat().st_size].append(source)
    result = {}
    for group in by_size.values():
        first: dict[str, str] = {}
        for source in group if len(group) > 1 else ():
            digest = _sha256(source.path)
            if digest != _UNREADABLE:
                result[source.image_id] = first.setdefault(digest, source.image_id)
    return result


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return _UNREADABLE


def _with_splits(
    listing: Listing, sources: list[Source], excluded: list[Exclusion]
) -> tuple[list[Source], dict[str, Split]]:
    patients: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        patients[source.study_id].add(source.patient_id)
    usable = []
    split_of_patient: dict[str, Split] = {}
    split_of_study: dict[str, Split] = {}
    conflicts = set()
    for source in sources:
        if len(patients[source.study_id]) > 1:
            # Whichever patient it belongs to, it may not be on both sides of a split.
            detail = "the images of this study name several patients"
            excluded += exclude_image(source, Reason.PATIENT_CONFLICT, detail)
            continue
        split = source.split if listing.official_split else split_by_patient(source.patient_id)
        if split is None:
            excluded += exclude_image(source, Reason.NO_SPLIT)
            continue
        if split_of_patient.setdefault(source.patient_id, split) is not split:
            conflicts.add(source.study_id)
        split_of_study[source.study_id] = split
        usable.append(source)
    if conflicts:
        some = ", ".join(sorted(conflicts)[:5])
        raise InputError(
            f"{len(conflicts)} studies belong to a patient who is in another split too: {some}; "
            "correct the table of splits, every patient may be in one split only"
        )
    return usable, split_of_study


def _with_text(group: list[Source], excluded: list[Exclusion]) -> list[Source]:
    """The images with findings or impression, of a study whose images have different reports in a table."""
    usable = []
    for source in group:
        try:
            report = read_report(source.report)
        except TooLongError:
            excluded += exclude_image(source, Reason.NO_REPORT, LONG_REPORT)
            continue
        if has_text(report):
            usable.append(source)
        else:
            excluded += exclude_image(source, Reason.EMPTY_SECTIONS)
    return usable


def read_report(report: str | Report | None) -> Report:
    """The sections of a report as plain text.

    Raises:
        TooLongError: the report, or a section of a table, has too many characters.
    """
    if isinstance(report, str):
        return parse_report(plain_text(report))
    texts = {name: plain_text(text) for name, text in asdict(report or Report()).items()}
    return Report(**{name: " ".join(text.split()) for name, text in texts.items()})


def has_text(report: Report) -> bool:
    """True if a report has findings or an impression."""
    return bool(report.findings or report.impression)


def _unwanted(source: Source, settings: IngestSettings) -> tuple[Reason | None, str]:
    """Why an image is excluded, with a detail; `None` if it is not."""
    if settings.views in ("best-frontal", "frontal") and source.view is View.LATERAL:
        return Reason.NOT_FRONTAL, ""
    if settings.require_report:
        if source.report is None:
            return Reason.NO_REPORT, ""
        if source.report is UNREADABLE:
            return Reason.NO_REPORT, "the report is no text in a known encoding, or was decoded with loss before"
    return None, ""
