"""Locks on files, which end with the process that holds them.

The operating system locks a file (`flock`). On a file system without such locks, as of some Lustre and NFS mounts, a
second file `NAME.soft` is the lock. It exists while the lock is held, and names the process and its machine. The soft
lock of a process that was killed ends when another process of the same machine asks for it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock

SOFT = ".soft"
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


def lock_file(path: Path, *, wait: bool = False) -> BaseFileLock:
    """Lock a file, which is created if necessary. The lock is released when the process ends.

    Args:
        path: the file; its content is not changed.
        wait: wait while another process holds the lock.

    Raises:
        filelock.Timeout: another process holds the lock.
        OSError: the file cannot be opened for writing.
    """
    if not issubclass(FileLock, SoftFileLock):  # a Python without fcntl has soft locks only
        lock = FileLock(path, blocking=wait, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        else:
            return lock
    soft = SoftFileLock(soft_file(path), blocking=wait, thread_local=False)
    soft.acquire()
    return soft


def soft_file(path: Path) -> Path:
    """The file that is the lock of `path` if the file system has no locks."""
    return path.with_name(path.name + SOFT)


@contextmanager
def locked_file(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file for the block; arguments and errors as for `lock_file`."""
    lock = lock_file(path, wait=wait)
    try:
        yield
    finally:
        lock.release()
