"""Memory that allocators hold and nobody uses."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def release_unused_memory() -> None:
    """Return to the system what allocators keep after tables and images were read and weights loaded."""
    import pyarrow as pa  # not loaded by every process

    gc.collect()
    pa.default_memory_pool().release_unused()
    trim_heap()


def trim_heap() -> None:
    """Return to the system what was freed, in a few milliseconds.

    Between batches of different shapes: without it the heap keeps a little more with every new shape.
    """
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
