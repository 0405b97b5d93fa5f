"""A cache of annotations on disk, so that every reference is annotated once.

The SQLite file contains no report text: a row is a hash of the text and the graph as token positions and labels.
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
"""Entities as (first token, last token, label, relations), a relation as (kind, index of the target)."""

_ROWS = 500  # below the maximum number of variables of an SQLite statement


class AnnotationCache:
    """A cache that several processes can share: every read and write is one short transaction.

    Args:
        path: SQLite file; it and its folder are created if missing.
        maker: everything that an annotation depends on besides the text; part of every key.

    Raises:
        OutputError: the file cannot be created, or is not an SQLite file.
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
                f"{path}: cannot be used as an annotation cache ({error}); remove it or choose another file"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # The default rollback journal, because WAL does not work on network file systems.
        return sqlite3.connect(self.path, timeout=60.0)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(json.dumps([self._maker, text]).encode()).digest()

    def read(self, texts: Iterable[str]) -> dict[str, Graph]:
        """Return the cached graphs by text. A cache that cannot be read is logged as a warning and counts as empty."""
        keys = {self._key(text): text for text in texts}
        found: dict[str, Graph] = {}
        hashes = list(keys)
        try:
            with closing(self._connect()) as connection:
                for first in range(0, len(hashes), _ROWS):
                    part = hashes[first : first + _ROWS]
                    query = f"SELECT key, graph FROM graphs WHERE key IN ({','.join('?' * len(part))})"  # noqa: S608
                    found |= {keys[key]: json.loads(graph) for key, graph in connection.execute(query, part)}
        except sqlite3.Error as error:
            logger.warning("%s: cannot be read, so its texts are annotated again (%s)", self.path, error)
        return found

    def write(self, graphs: Mapping[str, Graph]) -> None:
        """Add `graphs` by text; a failure is logged as a warning."""
        rows = [(self._key(text), json.dumps(graph, separators=(",", ":"))) for text, graph in graphs.items()]
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR IGNORE INTO graphs VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            logger.warning("%s: %d annotations were not stored (%s)", self.path, len(rows), error)
