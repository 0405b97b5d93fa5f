"""A limit on the memory of this process for some work, set by the operating system.

Readers trust what a file states: a page of Parquet its size, the header of an archive its length, a codestream its
blocks. Only the system counts what they take.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ONE = threading.RLock()  # the limit is that of the process, and each block sets it back


def address_space() -> int:
    """Address space of this process, bytes; 0 where the operating system does not say (all but Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Limit the address space to `more` bytes than now for the block; no limit but on Linux.

    What takes more raises `MemoryError`, in other threads too.
    """
    now = address_space()
    try:
        import resource
    except ImportError:  # Windows
        now = 0
    if not now:
        yield
        return
    with _ONE:
        allowed, highest = resource.getrlimit(resource.RLIMIT_AS)
        limits = [now + more, *(limit for limit in (allowed, highest) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_AS, (min(limits), highest))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (allowed, highest))
