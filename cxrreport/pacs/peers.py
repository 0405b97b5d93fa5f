"""What the package asks of an archive, and what all connections share: credentials, certificates, attempts."""

from __future__ import annotations

import logging
import os
import re
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydicom.dataset import Dataset
from pydicom.uid import UID

from cxrreport.errors import MissingExtraError, PeerError, RefusedImage, SettingsError
from cxrreport.export.structured_report import NOTICE
from cxrreport.ingestion.dicom import identify, text
from cxrreport.ingestion.images import check_body_part, check_modality
from cxrreport.records import Reason
from cxrreport.settings import DimseSettings, LimitSettings, TlsSettings, WebSettings

T = TypeVar("T")
_KEYWORDS = {
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "sop_uid": "SOPInstanceUID",
    "sop_class": "SOPClassUID",
    "patient_id": "PatientID",
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
}


MB = 1 << 20
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_PAUSE = 3600.0
_LARGEST_SECRET = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an archive lists of a study, a series or an instance; what is not of its level is empty."""

    study_uid: str
    series_uid: str = ""
    sop_uid: str = ""
    sop_class: str = ""
    patient_id: str = ""
    accession: str = ""
    modality: str = ""
    body_part: str = ""
    study_description: str = ""
    series_description: str = ""
    instances: int = 0
    """Number of instances of a study; 0 if the archive does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which studies are asked for; empty for any. Dates are DICOM ranges (`20240101-20240131`)."""

    study_uid: str = ""
    patient_id: str = ""
    accession: str = ""
    dates: str = ""
    description: str = ""
    modalities: Sequence[str] = ()


class Search(Protocol):
    """The queries of one protocol."""

    def find(self, level: str, known: Mapping[str, str], wanted: Sequence[str]) -> list[Dataset]:
        """The rows of a level (`STUDY`, `SERIES`, `IMAGE`), with valid UIDs, each once.

        Args:
            level: of the rows.
            known: values that they must have, by keyword; UIDs of the levels above are among them.
            wanted: further elements.
        """


class Listings:
    """What both protocols read of the answers to queries; the methods of `Peer`."""

    def studies(self: Search, query: Query) -> list[Record]:
        """See `Peer`."""
        values = {
            "StudyInstanceUID": query.study_uid,
            "PatientID": query.patient_id,
            "AccessionNumber": query.accession,
            "StudyDate": query.dates,
            "StudyDescription": query.description,
        }
        known = {name: value for name, value in values.items() if value}
        wanted = ("PatientID", "AccessionNumber", "StudyDescription", "NumberOfStudyRelatedInstances")
        found: dict[str, Record] = {}
        # One query for each modality: servers read a list of them differently.
        for modality in query.modalities or ("",):
            for row in self.find("STUDY", known | ({"ModalitiesInStudy": modality} if modality else {}), wanted):
                uid, instances = text(row, "StudyInstanceUID"), text(row, "NumberOfStudyRelatedInstances")
                found[uid] = Record(
                    study_uid=uid,
                    patient_id=text(row, "PatientID"),
                    accession=text(row, "AccessionNumber"),
                    study_description=text(row, "StudyDescription"),
                    instances=int(instances) if instances.isdecimal() else 0,
                )
        return [found[uid] for uid in sorted(found)]

    def series(self: Search, study_uid: str) -> list[Record]:
        """See `Peer`."""
        wanted = ("Modality", "BodyPartExamined", "SeriesDescription")
        return [
            Record(
                study_uid=study_uid,
                series_uid=text(row, "SeriesInstanceUID"),
                modality=text(row, "Modality").upper(),
                body_part=text(row, "BodyPartExamined"),
                series_description=text(row, "SeriesDescription"),
            )
            for row in self.find("SERIES", {"StudyInstanceUID": study_uid}, wanted)
        ]

    def instances(self: Search, series: Record) -> list[Record]:
        """See `Peer`."""
        known = {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid}
        return [
            replace(
                series,
                sop_uid=text(row, "SOPInstanceUID"),
                sop_class=text(row, "SOPClassUID"),
                body_part=text(row, "BodyPartExamined") or series.body_part,
            )
            for row in self.find("IMAGE", known, ("SOPClassUID", "BodyPartExamined"))
        ]


LEVELS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
"""Keyword of the UID of each level."""


class Peer(Protocol):
    """An archive. Every method raises PeerError if the archive cannot be reached, refuses, or answers nonsense."""

    name: str
    """Address for messages."""

    def studies(self, query: Query) -> list[Record]:
        """The studies that match."""

    def series(self, study_uid: str) -> list[Record]:
        """The series of a study, with modality, body part and description."""

    def instances(self, series: Record) -> list[Record]:
        """The instances of a series, with SOP class."""

    def retrieve(self, instances: Sequence[Record], save: Callable[[bytes], None]) -> None:
        """Call `save` with the content of each instance, as a DICOM file."""

    def store(self, path: Path) -> None:
        """Store a DICOM file."""

    def can_read_back(self) -> bool:
        """Whether `retrieve` works for documents."""


def silence_libraries() -> None:
    """Keep values of elements and identifiers of queries out of logs and warnings, for the rest of the process."""
    for name in ("pydicom", "pynetdicom", "dicomweb_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


def open_peer(settings: WebSettings | DimseSettings, limits: LimitSettings) -> Peer:
    """Make a connection; it is used by one thread.

    Raises:
        MissingExtraError: the extra `pacs` is not installed.
        SettingsError: credentials or certificates cannot be read.
    """
    silence_libraries()
    try:  # imported late, so that other commands do not need the extra
        if isinstance(settings, WebSettings):
            from cxrreport.pacs.web import DicomwebPeer

            return DicomwebPeer(settings, limits)
        from cxrreport.pacs.dimse import DimsePeer
    except ImportError as error:
        raise MissingExtraError("a connection to a PACS", "pacs") from error
    return DimsePeer(settings, limits)


def is_uid(value: str) -> bool:
    """True for a UID that can be part of a URL or a query (PS3.5 9.1, leading zeros allowed)."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def unwanted(record: Record) -> tuple[Reason, str] | None:
    """Why a listed series or instance is not a radiograph of the chest; `None` if it may be one."""
    if record.series_description == NOTICE:
        return Reason.NOT_RADIOGRAPH, "a document of this package"
    kind = UID(record.sop_class)
    try:
        check_modality(
            sop_class=record.sop_class,
            sop_class_name=kind.name if kind.name != record.sop_class else "",
            modality=record.modality,
            is_image=True,
        )
        check_body_part(record.body_part)
    except RefusedImage as error:
        return Reason(error.reason), error.detail
    return None


def header(content: bytes | Path, limits: LimitSettings) -> Record:
    """What the header of an instance states.

    Raises:
        RefusedImage: it cannot be parsed, or has no valid UIDs.
    """
    values = identify(content, tuple(_KEYWORDS.values()), max_pixels=limits.instance_mb * MB)
    found: dict[str, Any] = {name: values[keyword] for name, keyword in _KEYWORDS.items()}
    record = Record(**found)
    if not all(is_uid(uid) for uid in (record.study_uid, record.series_uid, record.sop_uid)):
        raise RefusedImage(Reason.NOT_READABLE, "a UID of study, series or instance is missing or not valid")
    return record


def read_credentials(source: str) -> str:
    """The secret that `env:NAME` or `file:PATH` refers to.

    Raises:
        SettingsError: there is none; the message does not hold it.
    """
    kind, _, name = source.partition(":")
    if kind == "env":
        value = os.environ.get(name, "")
    else:
        try:
            with Path(name).expanduser().open(encoding="utf-8") as file:
                value = file.read(_LARGEST_SECRET)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"credentials: {name} cannot be read ({type(error).__name__})") from None
    if not value.strip():
        raise SettingsError(f"credentials: {source} is empty; write user:password or a token there")
    return value.strip()


def tls_context(tls: TlsSettings, *, server: bool) -> ssl.SSLContext:
    """TLS 1.2 or newer with verification. A server asks for certificates if it has an authority.

    Raises:
        SettingsError: a file cannot be read, or a server has no certificate.
    """
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    if server and tls.certificate is None:
        raise SettingsError("tls: a server needs certificate")
    try:
        context = ssl.create_default_context(purpose, cafile=None if tls.authority is None else str(tls.authority))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"tls: a certificate, key or authority cannot be read ({type(error).__name__})") from None
    if server and tls.authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def pause_after(attempt: int, first: float) -> float:
    """Seconds to wait after the given failed attempt, counted from 1: doubled each time, up to an hour."""
    return min(first * 2.0 ** min(attempt - 1, 30), _LONGEST_PAUSE)


def attempted(action: Callable[[], T], *, attempts: int, first_pause: float = 0.5) -> T:
    """The result of an action that is repeated, with growing pauses, while a peer fails in a way that may pass.

    Raises:
        PeerError: the last attempt failed, or one failed for good.
    """
    for attempt in range(1, attempts):
        try:
            return action()
        except PeerError as error:
            if not error.again:
                raise
            time.sleep(pause_after(attempt, first_pause))
    return action()


class Pace:
    """Limits how often threads do something.

    Args:
        per_second: most times a second; `None` for no limit.
    """

    def __init__(self, per_second: float | None) -> None:
        self._gap = 0.0 if per_second is None else 1.0 / per_second
        self._lock, self._next = threading.Lock(), 0.0

    def wait(self, times: int = 1) -> None:
        """Return when it may be done `times` times."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + times * self._gap
        if start > now:
            time.sleep(start - now)
