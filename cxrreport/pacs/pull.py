"""The command `pull`: chest radiographs of an archive into a folder that `ingest` and `generate` read."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.dataset import write_exclusion_log
from cxrreport.errors import InputError, PeerError, RefusedImage
from cxrreport.pacs.peers import MB, Pace, Peer, Query, Record, attempted, header, is_uid, open_peer, unwanted
from cxrreport.records import Exclusion, Progress, Reason
from cxrreport.settings import PullSettings
from cxrreport.storage.atomic_files import atomic_path, file_sha256
from cxrreport.storage.output_folder import output_folder
from cxrreport.storage.parquet import table_from_rows
from cxrreport.storage.tables import read_table

DICOM = "dicom"
"""Folder of the images, in the output folder."""
_INCOMPLETE = "incomplete"
"""Folder of studies that are being retrieved; a complete one moves to `DICOM`."""
_TEXTS = ("study_id", "image_id", "file", "sha256")
PULLED = pa.schema([*((name, pa.string()) for name in _TEXTS), ("bytes", pa.int64())])
"""Schema of `pulled.parquet`: one row for each image that is there, with its path relative to the output folder."""
_WILDCARDS = frozenset("*?\\")
_FAILED_IN_A_ROW = 10
"""Studies that may fail one after another before the archive counts as gone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, with what stands for it in the exclusion log."""

    query: Query
    shown: str


def queries(settings: PullSettings) -> list[Asked]:
    """The queries of a command: one, or one for each row of its table.

    Raises:
        InputError: a row of the table has no id, or an id is not exact.
    """
    if settings.studies is None:
        dates = [f"{day:%Y%m%d}" if day else "" for day in (settings.since, settings.until)]
        for name in ("patient", "accession"):
            _check_exact(getattr(settings, name) or "", name)
        query = Query(
            study_uid=settings.study or "",
            patient_id=settings.patient or "",
            accession=settings.accession or "",
            dates="-".join(dates) if any(dates) else "",
            description=settings.description or "",
            modalities=settings.modalities,
        )
        return [Asked(query, "query")]
    table = read_table(settings.studies, columns=("study_id",))  # a column of accession numbers is read as such
    asked: dict[Query, Asked] = {}
    for number, row in enumerate(table.rows, start=1):
        where, value = f"{settings.studies}: row {number}", str(row.get("study_id") or "").strip()
        if not value:
            raise InputError(f"{where} has no study UID and no accession number; name the column study_id or accession")
        _check_exact(value, where)
        query = Query(study_uid=value) if is_uid(value) and "." in value else Query(accession=value)
        asked.setdefault(query, Asked(query, f"row {number}"))
    return list(asked.values())


def _check_exact(value: str, where: str) -> None:
    """Refuse what an archive would read as a pattern: it could match every patient."""
    if _WILDCARDS.intersection(value):
        raise InputError(f"{where}: an id with a wildcard (*, ?) or a backslash; write the exact id")


@dataclass(frozen=True, slots=True, kw_only=True)
class PullSummary:
    """Result of `pull`.

    Args:
        studies: studies that the archive lists.
        retrieved: studies with at least one image in the folder.
        instances: images in the folder.
        excluded: numbers of the other series, instances and rows by reason; they are rows of `ledger.parquet`.
        failed: studies of which not everything could be retrieved; the same command tries them again.
    """

    studies: int
    retrieved: int
    instances: int
    excluded: Mapping[str, int]
    failed: int


@dataclass(slots=True)
class _Outcome:
    study: Record
    instances: list[Record] = field(default_factory=list)
    excluded: list[Exclusion] = field(default_factory=list)
    error: PeerError | None = None

    def exclude(self, source: str, reason: Reason, detail: str) -> None:
        self.excluded.append(Exclusion(source=source, study_id=self.study.study_uid, reason=reason, detail=detail))


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def file_name(sop_uid: str) -> str:
    """The name of an image: a hash, so that no value of the network becomes a path. Folders of studies are alike."""
    return f"{_hash(sop_uid)}.dcm"


def pull(settings: PullSettings, progress: Progress) -> PullSummary:
    """Write images below `dicom`, `pulled.parquet` and `ledger.parquet`. The same command resumes.

    What the archive lists decides first: only series and instances that may be radiographs of the chest are retrieved.

    Raises:
        InputError: the table cannot be used.
        PeerError: the archive does not answer queries, or fails for one study after another.
        MissingExtraError, SettingsError: as `open_peer`.
        OutputError: the folder is in use, the disk is full, or a file cannot be written.
    """
    asked = queries(settings)
    recorded = settings.model_dump(mode="json")
    if settings.studies is not None:
        recorded["studies_sha256"] = file_sha256(settings.studies)
    volatile = ("tracking", "output", "workers", "per_second", "attempts")
    with output_folder(settings.output, command="pull", settings=recorded, volatile=volatile) as folder:
        if folder.finished:
            return PullSummary(**folder.record["summary"])
        work = _Pull(settings, folder.path)
        excluded: list[Exclusion] = []
        studies: dict[str, Record] = {}
        for done, one in enumerate(asked, start=1):
            found = work.find(one.query)
            if not found:
                detail = "the archive lists no study"
                excluded.append(Exclusion(source=one.shown, reason=Reason.STUDY_UNKNOWN, detail=detail))
            studies |= {study.study_uid: study for study in found}
            progress(done, len(asked), "queries")
        chosen = [studies[uid] for uid in sorted(studies)][: settings.limit]
        outcomes = work.retrieve_all(chosen, progress)
        rows = [row for outcome in outcomes for row in work.rows(outcome)]
        excluded += [row for outcome in outcomes for row in outcome.excluded]
        with atomic_path(folder.path / "pulled.parquet") as temporary:
            pq.write_table(table_from_rows(rows, PULLED), temporary)
        write_exclusion_log(folder.path, excluded)
        summary = PullSummary(
            studies=len(chosen),
            retrieved=len({row["study_id"] for row in rows}),
            instances=len(rows),
            excluded=dict(sorted(Counter(row.reason.value for row in excluded).items())),
            failed=sum(outcome.error is not None for outcome in outcomes),
        )
        if not summary.failed:
            folder.finish(summary=asdict(summary))
        return summary


class _Pull:
    """The studies of one command, retrieved by threads that have a connection each."""

    def __init__(self, settings: PullSettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._pace = Pace(settings.per_second)
        self._own = threading.local()

    @property
    def _peer(self) -> Peer:
        if not hasattr(self._own, "peer"):
            self._own.peer = open_peer(self._settings.archive, self._settings.limits)
        peer: Peer = self._own.peer
        return peer

    def find(self, query: Query) -> list[Record]:
        """The studies of a query."""
        return attempted(lambda: self._peer.studies(query), attempts=self._settings.attempts)

    def retrieve_all(self, studies: list[Record], progress: Progress) -> list[_Outcome]:
        """Retrieve all studies, in the given order of results.

        Raises:
            PeerError: several failed one after another.
        """
        if self._settings.archive.protocol == "dimse" and self._settings.archive.retrieve == "move":
            workers = 1  # one port receives
        else:
            workers = self._settings.workers
        outcomes: dict[str, _Outcome] = {}
        failed = 0
        with ThreadPoolExecutor(workers, thread_name_prefix="pull") as pool:
            waiting: list[Future[_Outcome]] = [pool.submit(self._retrieve, study) for study in studies]
            try:
                for done, future in enumerate(as_completed(waiting), start=1):
                    outcome = future.result()
                    outcomes[outcome.study.study_uid] = outcome
                    failed = 0 if outcome.error is None else failed + 1
                    if outcome.error is not None and failed >= _FAILED_IN_A_ROW:
                        raise PeerError(f"{outcome.error}; re-run the same command to resume")
                    progress(done, len(studies), "studies")
            finally:
                for future in waiting:
                    future.cancel()
        return [outcomes[study.study_uid] for study in studies]

    def _retrieve(self, study: Record) -> _Outcome:
        outcome, limits = _Outcome(study), self._settings.limits
        final, incomplete = (self._folder / name / _hash(study.study_uid) for name in (DICOM, _INCOMPLETE))
        try:
            wanted = self._listed(outcome)
            if len(wanted) > limits.study_instances:
                outcome.exclude("", Reason.TOO_LARGE, f"{len(wanted)} images, more than limits.study_instances")
                return outcome
            if final.is_dir():
                incomplete = final  # by an earlier run
            size = 0

            def save(content: bytes) -> None:
                nonlocal size
                size += len(content)
                if size > limits.study_mb * MB:
                    raise RefusedImage(Reason.TOO_LARGE, "more than limits.study_mb")
                self._save(content, wanted, outcome, incomplete)
                self._pace.wait()

            def missing() -> list[Record]:
                known = {row.source for row in outcome.excluded}
                return [
                    one
                    for uid, one in wanted.items()
                    if uid not in known and not (incomplete / file_name(uid)).exists()
                ]

            attempted(lambda: self._peer.retrieve(missing(), save), attempts=self._settings.attempts)
            if lost := missing():
                raise PeerError(f"{self._peer.name}: sent fewer instances than it lists ({len(lost)} of {len(wanted)})")
            if incomplete != final and incomplete.is_dir():
                final.parent.mkdir(exist_ok=True)
                incomplete.rename(final)
            outcome.instances = [one for uid, one in wanted.items() if (final / file_name(uid)).exists()]
        except RefusedImage as error:
            outcome.exclude("", Reason(error.reason), error.detail)
        except PeerError as error:
            outcome.error = error
            outcome.exclude("", Reason.NOT_RETRIEVED, str(error))
        return outcome

    def _listed(self, outcome: _Outcome) -> dict[str, Record]:
        """The instances to retrieve by UID; the others become rows."""
        wanted: dict[str, Record] = {}

        def choose(uid: str, record: Record) -> bool:
            refusal = unwanted(record)
            if refusal is not None:
                outcome.exclude(uid, *refusal)
            return refusal is None

        peer, attempts = self._peer, self._settings.attempts
        for series in attempted(lambda: peer.series(outcome.study.study_uid), attempts=attempts):
            if choose(series.series_uid, series):
                listed = attempted(lambda one=series: peer.instances(one), attempts=attempts)  # type: ignore[misc]
                wanted |= {one.sop_uid: one for one in listed if choose(one.sop_uid, one)}
        return wanted

    def _save(self, content: bytes, wanted: Mapping[str, Record], outcome: _Outcome, folder: Path) -> None:
        """Write an instance if it is one that was asked for.

        Raises:
            PeerError: it is another one, of another study or patient, or cannot be read.
        """
        try:
            found = header(content, self._settings.limits)
        except RefusedImage as error:
            raise PeerError(f"{self._peer.name}: sent what cannot be read as DICOM ({error.reason})") from None
        listed = wanted.get(found.sop_uid)
        if listed is None or (listed.study_uid, listed.series_uid) != (found.study_uid, found.series_uid):
            raise PeerError(f"{self._peer.name}: sent another instance than it was asked for", again=False)
        if outcome.study.patient_id and found.patient_id != outcome.study.patient_id:
            outcome.exclude(found.sop_uid, Reason.OTHER_PATIENT, "its patient id is not that of the study")
        elif (refusal := unwanted(found)) is not None:
            outcome.exclude(found.sop_uid, *refusal)
        else:
            with atomic_path(folder / file_name(listed.sop_uid)) as temporary:
                temporary.write_bytes(content)

    def rows(self, outcome: _Outcome) -> list[dict[str, object]]:
        """Rows of `pulled.parquet`."""
        found = []
        for one in outcome.instances:
            path = self._folder / DICOM / _hash(one.study_uid) / file_name(one.sop_uid)
            file = path.relative_to(self._folder).as_posix()
            row = {"study_id": one.study_uid, "image_id": one.sop_uid, "file": file}
            found.append(row | {"sha256": file_sha256(path), "bytes": path.stat().st_size})
        return found
