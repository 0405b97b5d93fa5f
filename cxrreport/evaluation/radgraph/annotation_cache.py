"""Annotations kept on disk, so that a reference is annotated once in its life.

One SQLite file. It holds no text: a row is a hash and the graph as token positions and labels, and the tokens come from
the text that is asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from cxrreport.errors import OutputError

logger = logging.getLogger(__name__)

Graph = list[tuple[int, int, str, list[tuple[str, int]]]]
"""Entities as (first token, last token, label, relations as (kind, index of the target))."""

_ROWS = 500  # below SQLite's limit on the variables of one statement


class AnnotationCache:
    """A cache that several processes may share: every read and every write is one short transaction.

    Args:
        path: the SQLite file; made, with its folder, when missing.
        maker: all that an annotation depends on beside the text; part of every key.

    Raises:
        OutputError: the file cannot be made, or is no SQLite file.
    """

    def __init__(self, path: Path, maker: str) -> None:
        self.path = path
        self._maker = maker
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                connection.execute("CREATE TABLE IF NOT EXISTS graphs (key BLOB PRIMARY KEY, graph TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"{path}: cannot be used as a cache of annotations ({error}); remove it, or name another file"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # The default rollback journal, not WAL: WAL does not work on network file systems, where caches often lie.
        return sqlite3.connect(self.path, timeout=60.0)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(json.dumps([self._maker, text]).encode()).digest()

    def read(self, texts: Iterable[str]) -> dict[str, Graph]:
        """The graphs that are there, by text. A cache that cannot be read costs time, not the run: it is logged."""
        keys = {self._key(text): text for text in texts}
        found: dict[str, Graph] = {}
        wanted = list(keys)
        try:
            with closing(self._connect()) as connection:
                for first in range(0, len(wanted), _ROWS):
                    part = wanted[first : first + _ROWS]
                    query = f"SELECT key, graph FROM graphs WHERE key IN ({','.join('?' * len(part))})"  # noqa: S608
                    found |= {keys[key]: json.loads(graph) for key, graph in connection.execute(query, part)}
        except sqlite3.Error as error:
            logger.warning("%s: cannot be read, so texts are annotated again (%s)", self.path, error)
        return found

    def write(self, graphs: Mapping[str, Graph]) -> None:
        """Add `graphs`, by text. As with `read`, a failure is logged."""
        rows = [(self._key(text), json.dumps(graph, separators=(",", ":"))) for text, graph in graphs.items()]
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR IGNORE INTO graphs VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            logger.warning("%s: %d annotations are not kept (%s)", self.path, len(rows), error)
