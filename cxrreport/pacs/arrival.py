"""What becomes of an instance that arrives, from a connection or by polling: checked, stored, routed, queued."""

from __future__ import annotations

import datetime
import hashlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrreport.errors import InputError, OutputError, PeerError, RefusedImage
from cxrreport.pacs.monitor import Audit
from cxrreport.pacs.peers import MB, Peer, Query, Record, header, open_peer, unwanted
from cxrreport.pacs.queue import Instance, Outcome, Queue
from cxrreport.records import Reason
from cxrreport.settings import LimitSettings, ListenSettings, PollSettings, RuleSettings
from cxrreport.storage.atomic_files import atomic_path

RECEIVED = "received"
"""Folder of the instances, in that of the queue."""
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
ALREADY_KEPT = 0xB006
"""Warning "elements discarded" (PS3.4 B.2.3): another content came under a UID that is stored."""

_META_LENGTH = slice(140, 144)  # value of (0002,0000) in a DICOM file
logger = logging.getLogger(__name__)


def hashed(uid: str) -> str:
    """The name of a folder or file for a UID: no value of the network becomes a path."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def rule_of(rules: Sequence[RuleSettings], otherwise: str, record: Record, sender: str) -> tuple[str, str]:
    """The action for an instance, and the rule that decides it (`rule 1`, or `otherwise`)."""
    values: Mapping[str, str] = {
        "sender": sender,
        "modality": record.modality,
        "body_part": record.body_part,
        "study_description": record.study_description,
        "series_description": record.series_description,
    }
    for number, rule in enumerate(rules, start=1):
        if rule.matches(values):
            return rule.action, f"rule {number}"
    return otherwise, "otherwise"


@dataclass(frozen=True, slots=True)
class Routed:
    """What the rules would do with a file."""

    file: str
    modality: str
    body_part: str
    description: str
    action: str
    rule: str


def dry_run(settings: ListenSettings, folder: Path, sender: str) -> Iterator[Routed]:
    """Apply the rules to the DICOM files below a folder, as if `sender` had sent them. Nothing is stored.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with DICOM files")
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        try:
            record = header(path, LimitSettings())
        except RefusedImage as error:
            yield Routed(path.relative_to(folder).as_posix(), "", "", "", "refused", error.reason)
            continue
        action, rule = rule_of(settings.rules, settings.otherwise, record, sender)
        description = record.series_description or record.study_description
        yield Routed(path.relative_to(folder).as_posix(), record.modality, record.body_part, description, action, rule)


class Arrivals:
    """Stores instances in the queue; safe to use from several threads.

    Files whose row was not written, because the service was killed, are removed: their senders send them again.
    """

    def __init__(self, settings: ListenSettings, queue: Queue, audit: Audit) -> None:
        self._settings, self._queue, self._audit, self._folder = settings, queue, audit, settings.output
        self._limits = settings.receive.limits if settings.receive is not None else LimitSettings()
        self._lock = threading.Lock()
        self.stored = queue.stored_bytes()
        """Bytes of the instances on the disk."""
        self.waiting = queue.waiting()
        """Studies that had not ended when it was last counted."""
        self._seen: dict[str, int] = {}  # polled studies, with the number of instances listed
        known = queue.files()
        for path in (self._folder / RECEIVED).rglob("*.dcm"):
            if path.relative_to(self._folder).as_posix() not in known:
                path.unlink(missing_ok=True)

    def freed(self, size: int) -> None:
        """Instances of `size` bytes were removed."""
        with self._lock:
            self.stored = max(0, self.stored - size)

    def refuse_connection(self, what: str, sender: str, address: str) -> None:
        """Record a connection that was refused."""
        self._queue.refuse(f"connection: {what}")
        self._audit.write("refused", reason=what, sender=sender, address=address)

    def receive(self, content: bytes, sender: str) -> int:
        """Store an instance; the status of its C-STORE. Success means that file and row are on the disk."""
        try:
            outcome = self._store(content, sender)
        except RefusedImage as error:
            self._queue.refuse(error.reason)
            self._audit.write("refused", sender=sender, reason=error.reason)
            return CANNOT_UNDERSTAND
        except OutputError as error:
            logger.warning("%s", error)
            self._queue.refuse("out of resources")
            self._audit.write("refused", sender=sender, reason="out of resources")
            return OUT_OF_RESOURCES
        return ALREADY_KEPT if outcome is Outcome.CHANGED else SUCCESS

    def _store(self, content: bytes, sender: str) -> Outcome:
        """Write file and row of an instance.

        Raises:
            RefusedImage: it cannot be read, or is larger than the limits.
            OutputError: queue or disk are full.
        """
        if len(content) > self._limits.instance_mb * MB:
            raise RefusedImage(Reason.TOO_LARGE, "more than limits.instance_mb")
        record = header(content, self._limits)
        # Without the file meta information, which names who wrote the file.
        digest = hashlib.sha256(content[144 + int.from_bytes(content[_META_LENGTH], "little") :]).hexdigest()
        stored = self._queue.known(record.sop_uid)
        if stored is not None:
            outcome = Outcome.KNOWN if stored == digest else Outcome.CHANGED
            self._audit.write(
                "received", study=record.study_uid, instance=record.sop_uid, sender=sender, outcome=outcome
            )
            return outcome
        self._check_room(record.study_uid, len(content))
        file = f"{RECEIVED}/{hashed(record.study_uid)}/{hashed(record.sop_uid)}.dcm"
        with atomic_path(self._folder / file) as temporary:
            temporary.write_bytes(content)
        action, rule = rule_of(self._settings.rules, self._settings.otherwise, record, sender)
        instance = Instance(
            sop=record.sop_uid,
            study=record.study_uid,
            patient=self._audit.patient(record.patient_id),
            sha256=digest,
            bytes=len(content),
            file=file,
            sender=sender,
            action=action,
            rule=rule,
        )
        outcome = self._queue.add(instance, report_late=self._settings.late == "report")
        with self._lock:
            self.stored += len(content)
        self._audit.write("received", study=record.study_uid, instance=record.sop_uid, sender=sender, outcome=outcome)
        return outcome

    def _check_room(self, study: str, size: int) -> None:
        if self.stored + size > self._settings.disk_mb * MB:
            raise OutputError(
                f"{self._folder}: the received instances fill disk_mb; more are refused until some are sent"
            )
        number, total = self._queue.size_of(study)
        if number >= self._limits.study_instances or total + size > self._limits.study_mb * MB:
            raise RefusedImage(Reason.TOO_LARGE, "the study is larger than the limits")
        if not number and self.waiting >= self._settings.waiting_studies:
            raise OutputError(f"{self._folder}: {self.waiting} studies wait; more are refused until some are sent")

    def poll(self, poll: PollSettings, stop: threading.Event) -> None:
        """Retrieve what a server lists and the queue does not have. A study that fails is tried again by the next poll.

        Raises:
            PeerError: the server cannot be reached, or answers nonsense.
        """
        peer, today = open_peer(poll.archive, self._limits), datetime.date.today()
        first = today - datetime.timedelta(days=poll.days)
        found = peer.studies(Query(dates=f"{first:%Y%m%d}-{today:%Y%m%d}", modalities=poll.modalities))
        self._seen = {one.study_uid: self._seen[one.study_uid] for one in found if one.study_uid in self._seen}
        for study in found:
            if stop.is_set():
                return
            if study.instances and self._seen.get(study.study_uid) == study.instances:
                continue
            try:
                complete = self._retrieve(peer, study, poll.archive.url)
            except PeerError as error:
                logger.warning("poll: %s", error)
                self._queue.refuse("poll failed")
                continue
            if complete:
                self._seen[study.study_uid] = study.instances

    def _retrieve(self, peer: Peer, study: Record, sender: str) -> bool:
        """Retrieve the radiographs of a study that are new; whether all of them are stored."""
        statuses: list[int] = []
        for series in peer.series(study.study_uid):
            if unwanted(series) is None:
                wanted = [one for one in peer.instances(series) if unwanted(one) is None]
                new = [one for one in wanted if self._queue.known(one.sop_uid) is None]
                peer.retrieve(new, lambda content: statuses.append(self.receive(content, sender)))
        return OUT_OF_RESOURCES not in statuses
