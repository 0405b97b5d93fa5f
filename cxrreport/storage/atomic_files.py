"""Files that are either complete or absent, even if the process is stopped while it writes."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cxrreport.errors import OutputError

PARTIAL = ".partial-"
"""Prefix of incomplete files; hidden, so that programs that read a whole folder (PyArrow) skip them."""

_SUFFIX = 16
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems answer that have no fsync, or none of folders (some network and FUSE mounts)."""


def _disk_full(error: BaseException) -> bool:
    # Writers in Rust and C++ (safetensors, torch) raise other types, with the message of the system.
    return (isinstance(error, OSError) and error.errno in _FULL) or "No space left on device" in str(error)


def _sync(path: Path, flags: int) -> None:
    """Wait until a file or folder is on the disk, if its file system can tell."""
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def _partial_prefix(path: Path) -> str:
    # A hash, because the temporary name of a file with the longest possible name would be too long.
    return f"{PARTIAL}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}-"


def remove_partial(path: Path) -> None:
    """Remove the incomplete files that killed processes have left of `path`. The caller holds a lock for it."""
    former = f"{PARTIAL}*-{glob.escape(path.name)}*"
    for pattern in (f"{_partial_prefix(path)}*", former):
        for leftover in path.parent.glob(pattern):
            leftover.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` at the end of the block.

    The temporary name keeps the suffix of `path`, because some writers choose the format by it. The folder is created
    if necessary. If the block raises, the temporary file is removed and an existing file at `path` is unchanged.

    Raises:
        OutputError: the disk is full, or the file cannot be created or renamed. Other errors of the block propagate.
    """
    temporary = path.with_name(f"{_partial_prefix(path)}{secrets.token_hex(4)}{path.suffix[-_SUFFIX:]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary, os.O_RDWR)  # Windows refuses to sync what is open for reading only
        temporary.replace(path)
        if os.name != "nt":  # Windows cannot open folders
            _sync(path.parent, os.O_RDONLY)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if _disk_full(error):
            raise OutputError(
                f"{path}: the disk is full or its quota is reached; free some space and re-run the same command"
            ) from error
        if isinstance(error, OSError) and str(error.filename) in {str(temporary), str(path.parent)}:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented UTF-8 JSON, atomically.

    Raises:
        OutputError: as for `atomic_path`.
        ValueError: `value` contains NaN or an infinity, which JSON cannot represent.
    """
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
