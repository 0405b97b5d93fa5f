"""Contain the warnings, log messages and exceptions of pydicom, and read single elements safely."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pydicom
import pydicom.config
from pydicom.dataset import Dataset

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.images.acceptance import refused_by_system
from cxrreport.records import Reason


@contextmanager
def translated(reason: Reason, detail: str, error: type[RefusedImage] = RefusedImage) -> Iterator[None]:
    """Turn whatever pydicom and its decoders raise on bad content into `error`.

    Broad on purpose: struct.error, KeyError, AttributeError, OverflowError, RecursionError, zlib.error and more have
    all been seen. The original is not chained, because its message may quote values of the file.
    """
    logger = logging.getLogger("pydicom")
    level, mode = logger.level, pydicom.config.settings.reading_validation_mode
    logger.setLevel(logging.CRITICAL + 1)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RefusedImage:
        raise
    except MemoryError:
        raise error(Reason.TOO_LARGE, "more memory was asked for than there is") from None
    except Exception as raised:
        if isinstance(raised, OSError) and raised.errno is not None:  # of the file system, not of the content
            raise refused_by_system(raised) from None
        raise error(reason, f"{detail} ({type(raised).__name__})") from None
    finally:
        logger.setLevel(level)
        pydicom.config.settings.reading_validation_mode = mode


def text(dataset: Dataset, keyword: str) -> str:
    """First value of an element without blanks; empty where the element is missing."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    if not isinstance(value, str) and isinstance(value, Sequence):
        value = value[0] if value else ""
    return str(value).strip().strip("\0")


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """All values of an element without blanks; none where the element is missing."""
    value = dataset.get(keyword)
    several = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    return [str(each).strip().strip("\0") for each in several if each is not None]


def whole(dataset: Dataset, keyword: str) -> int | None:
    """An element that is one integer; None where it is missing or anything else."""
    try:
        return int(dataset[keyword].value)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The values of a DS, US or SS element as finite floats; empty where the element is missing or holds no number."""
    try:
        value = dataset[keyword].value
        values = [value] if isinstance(value, (str, int, float)) else list(value or [])
        found = [float(each) for each in values]
    except (KeyError, TypeError, ValueError, OverflowError):
        return []
    return found if all(math.isfinite(number) for number in found) else []
