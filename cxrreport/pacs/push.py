"""The command `push`: documents into the studies that they are about, each read back, each once."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydicom import dcmread

from cxrreport.dataset import write_exclusion_log
from cxrreport.errors import InputError, PeerError, RefusedImage
from cxrreport.ingestion.dicom import text, translated
from cxrreport.pacs.peers import Peer, Query, Record, attempted, header, open_peer
from cxrreport.records import Exclusion, Progress, Reason
from cxrreport.settings import LimitSettings, ListenSettings, PushSettings
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.output_folder import finished_record, output_folder

FHIR = "imr"
"""Export format that goes to a FHIR server; the others are DICOM."""
DICOM = ("sr", "sc")
_SENT = "sent.jsonl"
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSummary:
    """Result of `push`.

    Args:
        documents: documents of formats that can be sent.
        sent: those that this command has sent, in this or an earlier run.
        present: those that the archive had already.
        refused: numbers of those that may not be sent, by reason; they are rows of `ledger.parquet`.
        failed: numbers of those that could not be sent; the same command tries them again.
    """

    documents: int
    sent: int
    present: int
    refused: Mapping[str, int]
    failed: Mapping[str, int]


def send_document(peer: Peer, path: Path, *, unknown_study: str) -> bool:
    """Store a document in the study that it is about, and read it back; false if the archive had it already.

    Raises:
        RefusedImage: `study-unknown`; `other-patient` if the study of the archive is of another patient.
        PeerError: the archive cannot be reached, refuses, or does not have the document although it said so.
    """
    own = header(path, LimitSettings())
    found = peer.studies(Query(study_uid=own.study_uid))
    if not found and unknown_study == "refuse":
        raise RefusedImage(Reason.STUDY_UNKNOWN, "the archive does not have the study")
    if found and found[0].patient_id != own.patient_id:
        raise RefusedImage(Reason.OTHER_PATIENT, "the study of the archive has another patient id")
    if found and (stored := _listed(peer, own)):
        _compare(peer, stored, path)
        return False
    peer.store(path)
    stored = _listed(peer, own)
    if stored is None:
        raise PeerError(f"{peer.name}: answered that a document is stored, and does not list it")
    _compare(peer, stored, path)
    return True


def _listed(peer: Peer, own: Record) -> Record | None:
    series = Record(study_uid=own.study_uid, series_uid=own.series_uid)
    return next((one for one in peer.instances(series) if one.sop_uid == own.sop_uid), None)


def _compare(peer: Peer, stored: Record, path: Path) -> None:
    """Check that what the archive has is the document; it may have changed other elements, for example names."""
    if not peer.can_read_back():
        return
    contents: list[bytes] = []
    peer.retrieve([stored], contents.append)
    with translated(Reason.NOT_STORED, "what the archive sends back cannot be parsed"):
        same = len(contents) == 1 and _essence(contents[0]) == _essence(path.read_bytes())
    if not same:
        raise RefusedImage(Reason.NOT_STORED, "the archive has another document under this UID")


def _essence(content: bytes) -> tuple[Any, ...]:
    dataset = dcmread(io.BytesIO(content))
    identity = tuple(text(dataset, keyword) for keyword in _IDENTITY)
    return (*identity, dataset.get("ContentSequence"), dataset.get("PixelData"))


def push(settings: PushSettings, progress: Progress) -> PushSummary:
    """Send the documents of an export, and write `ledger.parquet`. The same command tries again what failed.

    Raises:
        InputError: the export has not finished, or has no format that can be sent to the servers of the settings.
        MissingExtraError, SettingsError: as `open_peer`.
        OutputError: the folder is in use or cannot be written.
    """
    finished_record(settings.documents, "export")
    rows = pq.read_table(settings.documents / "exported.parquet").to_pylist()
    kinds = {*(DICOM if settings.archive is not None else ()), *((FHIR,) if settings.fhir is not None else ())}
    wanted = [row for row in rows if row["format"] in kinds]
    if rows and not wanted:
        raise InputError(
            f"{settings.documents}: holds none of the formats {', '.join(sorted(kinds))}; export them first"
        )
    with output_folder(settings.output, command="push", settings=settings.model_dump(mode="json")) as folder:
        if folder.finished:
            return PushSummary(**folder.record["summary"])
        sender = DocumentSender(settings)
        journal = _Journal(folder.path / _SENT)
        refused: list[Exclusion] = []
        failed: Counter[str] = Counter()
        for done, row in enumerate(wanted, start=1):
            if row["file"] not in journal.outcomes:
                try:
                    new = sender.send(row["format"], settings.documents / row["file"])
                    journal.add(row["file"], "sent" if new else "present")
                except (RefusedImage, PeerError) as error:
                    refusal = isinstance(error, RefusedImage)
                    reason = Reason(error.reason) if isinstance(error, RefusedImage) else Reason.NOT_STORED
                    detail = error.detail if isinstance(error, RefusedImage) else str(error)
                    refused.append(
                        Exclusion(source=row["file"], study_id=row["study_id"], reason=reason, detail=detail)
                    )
                    failed[reason.value] += not refusal
            progress(done, len(wanted), "documents")
        write_exclusion_log(folder.path, refused)
        outcomes = Counter(journal.outcomes.values())
        summary = PushSummary(
            documents=len(wanted),
            sent=outcomes["sent"],
            present=outcomes["present"],
            refused=dict(Counter(row.reason.value for row in refused) - failed),
            failed=dict(+failed),
        )
        if not summary.failed:
            folder.finish(summary=asdict(summary))
        return summary


class DocumentSender:
    """Sends documents to the servers of the settings of `push` or `listen`, one after another.

    Raises:
        MissingExtraError, SettingsError: as `open_peer`.
    """

    def __init__(self, settings: PushSettings | ListenSettings) -> None:
        self._settings = settings
        self._peer = None if settings.archive is None else open_peer(settings.archive, LimitSettings())
        self._fhir = None
        if settings.fhir is not None:
            open_peer(settings.fhir, LimitSettings())  # says which extra is missing
            from cxrreport.pacs.web import FhirServer

            self._fhir = FhirServer(settings.fhir)

    def send(self, kind: str, path: Path, *, attempts: int | None = None) -> bool:
        """Send a document of an export format; false if the archive had it already.

        Raises:
            RefusedImage, PeerError: as `send_document`.
        """
        number = attempts or self._settings.attempts
        if kind == FHIR and self._fhir is not None:
            server = self._fhir
            attempted(lambda: server.post(path.read_text(encoding="utf-8")), attempts=number)
            return True
        if self._peer is None:
            raise InputError(f"{path}: there is no archive for documents of format {kind}; set archive")
        peer, unknown = self._peer, self._settings.unknown_study
        return attempted(lambda: send_document(peer, path, unknown_study=unknown), attempts=number)


class _Journal:
    """What has been sent: a line for each document, on the disk before the next is sent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.outcomes: dict[str, str] = {}
        """`sent` or `present`, by file."""
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                row = parse_json(line)
            except ValueError:  # a process was killed within a line: its document is found in the archive
                continue
            self.outcomes[row["file"]] = row["outcome"]

    def add(self, file: str, outcome: str) -> None:
        """Record a document."""
        with self._path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"file": file, "outcome": outcome}) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.outcomes[file] = outcome
