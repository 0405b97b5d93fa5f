"""A cache of results on disk, so that what a model makes of a text is computed once.

A row of the SQLite file is a hash of the text and the result as JSON; the text itself is not stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from cxrreport.errors import OutputError

logger = logging.getLogger(__name__)

_ROWS = 500  # below the maximum number of variables of an SQLite statement


class ResultCache:
    """A cache that several processes can share: every read and write is one short transaction.

    Args:
        path: SQLite file; it and its folder are created if missing.
        maker: everything that a result depends on besides the text; part of every key.
        table: kind of the results.

    Raises:
        OutputError: the file cannot be created, or is not an SQLite file.
    """

    def __init__(self, path: Path, maker: str, table: Literal["graphs", "answers", "scores"]) -> None:
        self.path = path
        self._maker = maker
        self._table = table
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (key BLOB PRIMARY KEY, graph TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"{path}: cannot be used as a cache ({error}); remove it or choose another file"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # The default rollback journal, because WAL does not work on network file systems.
        return sqlite3.connect(self.path, timeout=60.0)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(json.dumps([self._maker, text]).encode()).digest()

    def read(self, texts: Iterable[str]) -> dict[str, Any]:
        """Return the cached results by text. A cache that cannot be read is logged as a warning and counts as empty."""
        keys = {self._key(text): text for text in texts}
        found: dict[str, Any] = {}
        hashes = list(keys)
        try:
            with closing(self._connect()) as connection:
                for first in range(0, len(hashes), _ROWS):
                    part = hashes[first : first + _ROWS]
                    query = f"SELECT key, graph FROM {self._table} WHERE key IN ({','.join('?' * len(part))})"  # noqa: S608
                    found |= {keys[key]: json.loads(result) for key, result in connection.execute(query, part)}
        except sqlite3.Error as error:
            logger.warning("%s: cannot be read, so its texts are computed again (%s)", self.path, error)
        return found

    def write(self, results: Mapping[str, Any]) -> None:
        """Add `results` by text; a failure is logged as a warning."""
        rows = [(self._key(text), json.dumps(result, separators=(",", ":"))) for text, result in results.items()]
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany(f"INSERT OR IGNORE INTO {self._table} VALUES (?, ?)", rows)  # noqa: S608
        except sqlite3.Error as error:
            logger.warning("%s: %d results were not stored (%s)", self.path, len(rows), error)
