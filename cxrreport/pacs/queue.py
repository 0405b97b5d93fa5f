"""The durable queue of `listen`: studies, instances and documents in an SQLite file.

Every change is one transaction, on the disk before the call returns. Studies go received -> quiet -> generated -> sent,
or end as excluded (nothing to report) or given up; failed ones wait for another attempt. One process works on a queue;
others may read it and requeue.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cxrreport.errors import InputError, OutputError

FILE = "queue.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    study TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '',
    round INTEGER NOT NULL DEFAULT 1,
    made INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    received REAL NOT NULL,
    last REAL NOT NULL,
    ended REAL,
    purged INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS by_state ON studies (state, due, last);
CREATE TABLE IF NOT EXISTS instances (
    sop TEXT PRIMARY KEY,
    study TEXT NOT NULL REFERENCES studies,
    patient TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    file TEXT NOT NULL,
    sender TEXT NOT NULL,
    action TEXT NOT NULL,
    rule TEXT NOT NULL,
    round INTEGER NOT NULL,
    received REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS by_study ON instances (study, round);
CREATE TABLE IF NOT EXISTS documents (
    name TEXT PRIMARY KEY,
    study TEXT NOT NULL REFERENCES studies,
    kind TEXT NOT NULL,
    file TEXT NOT NULL,
    round INTEGER NOT NULL,
    sent REAL
);
CREATE TABLE IF NOT EXISTS refused (reason TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""


class State(StrEnum):
    """Where a study is."""

    RECEIVED = "received"
    QUIET = "quiet"
    GENERATED = "generated"
    SENT = "sent"
    FAILED = "failed"
    EXCLUDED = "excluded"
    GIVEN_UP = "given up"


WAITING = (State.RECEIVED, State.QUIET, State.GENERATED, State.FAILED)
ENDED = (State.SENT, State.EXCLUDED, State.GIVEN_UP)


class Outcome(StrEnum):
    """What became of an instance that arrived: `changed` is another content under a UID that is stored and kept, `late`
    is stored for another round of its study or ignored.
    """

    STORED, KNOWN, CHANGED, LATE = "stored", "known", "changed", "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance on disk.

    Args:
        patient: digest of the patient id.
        file: name below the folder of the queue.
        action: `report` or `ignore`, by `rule`.
    """

    sop: str
    study: str
    patient: str
    sha256: str
    bytes: int
    file: str
    sender: str
    action: str
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study of the queue; `made` says that the documents of this round exist."""

    study: str
    state: State
    reason: str
    detail: str
    round: int
    made: bool
    attempts: int
    received: float
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document to send. `name` follows from its content: an equal one is not sent twice."""

    name: str
    kind: str
    file: str


class Queue:
    """The queue in a folder.

    Args:
        folder: the folder; the file is created if necessary.

    Raises:
        InputError: there is no queue, and `create` is false.
        OutputError: the file is not a queue, or cannot be written.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self.folder = folder
        file = folder / FILE
        if not create and not file.is_file():
            raise InputError(f"{folder}: no {FILE}; pass the output folder of `cxrreport listen`")
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # acknowledged means on the disk
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise OutputError(f"{file}: cannot be used as a queue ({error}); choose a new folder") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise OutputError(f"{self.folder / FILE}: cannot be written ({error}); free space") from error
                raise

    def _rows(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    # --- Arrival ---

    def known(self, sop: str) -> str | None:
        """SHA-256 of the stored content of an instance."""
        rows = self._rows("SELECT sha256 FROM instances WHERE sop = ?", (sop,))
        return str(rows[0]["sha256"]) if rows else None

    def add(self, instance: Instance, *, report_late: bool) -> Outcome:
        """Add an instance whose file is on the disk.

        An instance of a study that is being reported, or was, opens another round, or is only a row.
        """
        now = time.time()
        with self._transaction() as connection:
            stored = self.known(instance.sop)
            if stored is not None:
                return Outcome.KNOWN if stored == instance.sha256 else Outcome.CHANGED
            study = self.study(instance.study)
            number, outcome = 1, Outcome.STORED
            if study is None:
                connection.execute(
                    "INSERT INTO studies (study, state, received, last) VALUES (?, ?, ?, ?)",
                    (instance.study, State.RECEIVED, now, now),
                )
            elif study.state is State.RECEIVED or (study.state is State.FAILED and not study.made):
                number = study.round
                connection.execute(
                    "UPDATE studies SET state = ?, last = ? WHERE study = ?", (State.RECEIVED, now, instance.study)
                )
            else:
                number, outcome = study.round + 1, Outcome.LATE
                if report_late and study.state in ENDED:
                    self._next_round(instance.study, now)
                elif not report_late:
                    number = -1  # never part of a round
            values = (*(getattr(instance, name) for name in Instance.__slots__), number, now)
            connection.execute(f"INSERT INTO instances VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
            return outcome

    def _next_round(self, study: str, now: float) -> None:
        self._connection.execute(
            "UPDATE studies SET state = ?, reason = '', detail = '', round = round + 1, made = 0, attempts = 0, "
            "last = ?, ended = NULL, purged = 0 WHERE study = ?",
            (State.RECEIVED, now, study),
        )

    def refuse(self, reason: str) -> None:
        """Count what was refused on arrival."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO refused VALUES (?, 1) ON CONFLICT (reason) DO UPDATE SET count = count + 1", (reason,)
            )

    def size_of(self, study: str) -> tuple[int, int]:
        """Number and bytes of the instances of a study."""
        (row,) = self._rows("SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM instances WHERE study = ?", (study,))
        return int(row[0]), int(row[1])

    def waiting(self) -> int:
        """Studies that have not ended."""
        return sum(count for state, count in self.counts().items() if state in WAITING)

    def stored_bytes(self) -> int:
        """Bytes of the instances on the disk."""
        return int(self._rows("SELECT COALESCE(SUM(bytes), 0) FROM instances WHERE file != ''")[0][0])

    # --- Work ---

    def study(self, uid: str) -> Study | None:
        """A study."""
        rows = self._rows("SELECT * FROM studies WHERE study = ?", (uid,))
        return _study(rows[0]) if rows else None

    def next_to_generate(self, quiet_s: float) -> Study | None:
        """The study to report: one that was interrupted, then the one that has been due longest."""
        return self._next(
            "state = 'quiet' OR (made = 0 AND state = 'failed' AND due <= :now) "
            "OR (state = 'received' AND last <= :quiet)",
            quiet_s,
        )

    def next_to_send(self) -> Study | None:
        """The study whose documents are to be sent."""
        return self._next("state = 'generated' OR (made = 1 AND state = 'failed' AND due <= :now)", 0)

    def _next(self, condition: str, quiet_s: float) -> Study | None:
        now = time.time()
        order = "state = 'quiet' DESC, CASE state WHEN 'failed' THEN due ELSE last END"
        query = f"SELECT * FROM studies WHERE {condition} ORDER BY {order} LIMIT 1"  # noqa: S608
        rows = self._rows(query, {"now": now, "quiet": now - quiet_s})
        return _study(rows[0]) if rows else None

    def instances(self, study: Study) -> list[Instance]:
        """The instances of the rounds of a study so far that are still kept."""
        query = "SELECT * FROM instances WHERE study = ? AND round BETWEEN 1 AND ? AND file != '' ORDER BY sop"
        rows = self._rows(query, (study.study, study.round))
        return [Instance(**{name: row[name] for name in Instance.__slots__}) for row in rows]

    def patients(self, study: str) -> int:
        """How many patient ids the instances of a study have named."""
        query = "SELECT COUNT(DISTINCT patient) FROM instances WHERE study = ? AND round > 0"
        return int(self._rows(query, (study,))[0][0])

    def set_quiet(self, study: Study) -> None:
        """Begin to report a study."""
        with self._transaction() as connection:
            connection.execute("UPDATE studies SET state = ? WHERE study = ?", (State.QUIET, study.study))

    def set_generated(self, study: Study, documents: Sequence[Document]) -> None:
        """Record the documents of a round. Those that another round has sent stay sent."""
        with self._transaction() as connection:
            for one in documents:
                connection.execute(
                    "INSERT OR IGNORE INTO documents (name, study, kind, file, round) VALUES (?, ?, ?, ?, ?)",
                    (one.name, study.study, one.kind, one.file, study.round),
                )
            connection.execute(
                "UPDATE studies SET state = ?, made = 1, attempts = 0 WHERE study = ?", (State.GENERATED, study.study)
            )

    def unsent(self, study: Study) -> list[Document]:
        """The documents of a study that are still to be sent."""
        rows = self._rows("SELECT * FROM documents WHERE study = ? AND sent IS NULL ORDER BY name", (study.study,))
        return [Document(name=row["name"], kind=row["kind"], file=row["file"]) for row in rows]

    def set_document_sent(self, document: Document) -> None:
        """Record that a document is where it belongs."""
        with self._transaction() as connection:
            connection.execute("UPDATE documents SET sent = ? WHERE name = ?", (time.time(), document.name))

    def end(self, study: Study, state: State, reason: str = "", detail: str = "") -> None:
        """End a round: sent, excluded or given up. Instances that arrived meanwhile open the next one."""
        now = time.time()
        with self._transaction() as connection:
            connection.execute(
                "UPDATE studies SET state = ?, reason = ?, detail = ?, ended = ? WHERE study = ?",
                (state, reason, detail, now, study.study),
            )
            late = "SELECT MAX(received) FROM instances WHERE study = ? AND round > ?"
            (last,) = connection.execute(late, (study.study, study.round)).fetchone()
            if last is not None:
                self._next_round(study.study, float(last))

    def fail(self, study: Study, reason: str, detail: str, due: float) -> None:
        """Record a failed attempt; the next is at `due`."""
        change = (
            "UPDATE studies SET state = ?, reason = ?, detail = ?, due = ?, attempts = attempts + 1 WHERE study = ?"
        )
        with self._transaction() as connection:
            connection.execute(change, (State.FAILED, reason, detail, due, study.study))

    def requeue(self, study: str | None = None) -> int:
        """Let studies that were given up be tried again, one or all; returns how many."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE studies SET state = iif(made, 'generated', 'received'), attempts = 0, ended = NULL "
                "WHERE state = 'given up' AND purged = 0 AND (study = :study OR :study IS NULL)",
                {"study": study},
            )
            return done.rowcount

    def expired(self, keep_s: float, keep_given_up_s: float) -> list[str]:
        """Studies whose files may be removed, because they ended longer ago than this many seconds."""
        query = "SELECT study FROM studies WHERE purged = 0 AND ended <= iif(state = 'given up', ?, ?)"
        now = time.time()
        return [str(row[0]) for row in self._rows(query, (now - keep_given_up_s, now - keep_s))]

    def set_purged(self, study: str) -> None:
        """Record that the files of a study are removed; its rows stay, so that nothing is reported twice."""
        with self._transaction() as connection:
            connection.execute("UPDATE studies SET purged = 1 WHERE study = ?", (study,))
            connection.execute("UPDATE instances SET file = '' WHERE study = ?", (study,))

    # --- Looking ---

    def counts(self) -> dict[str, int]:
        """Studies in each state."""
        found = {row[0]: int(row[1]) for row in self._rows("SELECT state, COUNT(*) FROM studies GROUP BY state")}
        return {state.value: found.get(state.value, 0) for state in State}

    def refusals(self) -> dict[str, int]:
        """What was refused on arrival, by reason."""
        return {row[0]: int(row[1]) for row in self._rows("SELECT reason, count FROM refused ORDER BY reason")}

    def reasons(self) -> dict[str, int]:
        """Studies that failed, were excluded or were given up, by reason."""
        query = "SELECT reason, COUNT(*) FROM studies WHERE reason != '' GROUP BY reason ORDER BY reason"
        return {row[0]: int(row[1]) for row in self._rows(query)}

    def totals(self) -> dict[str, int]:
        """Instances received and documents sent since the queue was made."""
        (row,) = self._rows(
            "SELECT (SELECT COUNT(*) FROM instances), (SELECT COUNT(*) FROM documents WHERE sent IS NOT NULL)"
        )
        return {"instances": int(row[0]), "documents_sent": int(row[1])}

    def ended_since(self, moment: float) -> int:
        """Studies that ended after a moment, in seconds since 1970."""
        return int(self._rows("SELECT COUNT(*) FROM studies WHERE ended >= ?", (moment,))[0][0])

    def in_state(self, *states: State) -> list[Study]:
        """The studies in these states, oldest first."""
        marks = ", ".join("?" * len(states))
        rows = self._rows(f"SELECT * FROM studies WHERE state IN ({marks}) ORDER BY received, study", states)  # noqa: S608
        return [_study(row) for row in rows]

    def files(self) -> set[str]:
        """Files of instances that are kept."""
        return {row[0] for row in self._rows("SELECT file FROM instances WHERE file != ''")}


def _study(row: sqlite3.Row) -> Study:
    values = {name: row[name] for name in Study.__slots__}
    return Study(**values | {"state": State(row["state"]), "made": bool(row["made"])})
