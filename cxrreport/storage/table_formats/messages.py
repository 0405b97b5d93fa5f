"""Messages about what was taken from a table."""

from __future__ import annotations

import logging
from functools import cache


@cache
def say_once(logger: logging.Logger, sentence: str, level: int = logging.INFO) -> None:
    """Log a sentence once: a command may read a table several times."""
    logger.log(level, "%s", sentence)
