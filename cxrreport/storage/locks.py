"""Locks on files, which end with the process that holds them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from cxrreport.errors import OutputError

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


def lock_file(path: Path, *, wait: bool = False) -> FileLock:
    """Lock a file, which is created if necessary. The operating system releases the lock when the process ends.

    Args:
        path: the file; its content is not changed.
        wait: wait while another process holds the lock.

    Raises:
        filelock.Timeout: another process holds the lock.
        OutputError: the file system does not support locks.
        OSError: the file cannot be opened for writing.
    """
    lock = FileLock(path, blocking=wait, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise OutputError(
            f"{path.parent}: the file system does not support file locks ({os.strerror(error.errno or 0)}); "
            "choose a folder on a local disk, or mount the NFS share with locks"
        ) from error
    return lock


@contextmanager
def locked_file(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file for the block; arguments and errors as for `lock_file`."""
    lock = lock_file(path, wait=wait)
    try:
        yield
    finally:
        lock.release()
