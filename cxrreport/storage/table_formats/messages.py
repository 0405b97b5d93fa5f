"""Messages about what was taken from a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from cxrreport.storage.table_formats.column_names import column_name

logger = logging.getLogger(__name__)
_NAME = 40  # characters of a name that are shown


@cache
def say_once(path: Path, sentence: str, level: int = logging.INFO) -> None:
    """Log a sentence about a file once: a command may read a table several times."""
    logger.log(level, "%s: %s", path.name, sentence)


def what_was_taken(kind: str, rows: int, names: Mapping[str, str], note: str = "") -> str:
    """One sentence: the format of a table, its rows, and the columns that stand for others.

    Args:
        kind: the format, with what was detected of it.
        rows: their number.
        names: columns in the file with the names under which they are read.
        note: about the rows.
    """
    mapped = [
        f"{normal} from {'' if number else 'column '}'{shortened(name)}'"
        for number, (name, normal) in enumerate(
            (name, normal) for name, normal in names.items() if column_name(name) != normal
        )
    ]
    counted = "1 row" if rows == 1 else f"{rows:,} rows"
    return "; ".join([kind, counted + note, *([", ".join(mapped)] if mapped else [])])


def shortened(name: str) -> str:
    """A name from a file on one line, as a sentence can show it."""
    plain = " ".join(name.split())
    return plain if len(plain) <= _NAME else f"{plain[: _NAME - 3]}..."
