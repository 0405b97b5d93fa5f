"""Open a DICOM file before it is parsed: check its signature and size, and bound every read."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.images.acceptance import refused_by_system
from cxrreport.records import Reason

_OTHER_BYTES = 1 << 26  # allowance for everything but pixels: overlays, icons, private data
_MAX_READS = 1 << 18
"""Reads of one file: some for each data element, and one for 8 KiB of fragments."""
_MAX_ITEMS = 50_000
"""Items of all sequences and fragments of one file, which is read twice: an item of 8 bytes takes a kilobyte."""
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # (FFFE,E000) in either byte order

_ARCHIVES = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"\x28\xb5\x2f\xfd",
)
"""First bytes of ZIP, gzip, bzip2, xz, 7z, RAR and Zstandard; a tar file has its mark further on."""
_OFFICE = re.compile(rb"PK\x03\x04.{26}(?:\[Content_Types\]\.xml|_rels/|docProps/|xl/|word/)", re.S)
"""The first member of a ZIP archive that is a workbook or document of Office."""


class BoundedFile(io.RawIOBase):
    """A file that never allocates more for a read than it has left, whatever length an element claims.

    Files of very many data elements or items are refused while they are read.

    It has the methods that pydicom uses: `read`, `seek` and `tell`.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file = file
        self._size = size
        self._reads = self._items = 0

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, or the rest of the file.

        Raises:
            RefusedImage: `too-large`.
        """
        left = max(0, self._size - self._file.tell())
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._reads += 1
        self._items += sum(data.count(tag) for tag in _ITEMS)
        if self._reads > _MAX_READS or self._items > _MAX_ITEMS:
            raise RefusedImage(Reason.TOO_LARGE, "more data elements or items than a radiograph has")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, as `io.IOBase.seek` does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position from the start."""
        return self._file.tell()


@contextmanager
def opened(path: Path | bytes, max_pixels: int) -> Iterator[BoundedFile]:
    """Open a file that looks like DICOM and is not larger than a radiograph of `max_pixels` could be.

    Args:
        path: the file, or its content.
        max_pixels: largest rows x columns.

    Raises:
        RefusedImage: `not-dicom`, `too-large`, `not-readable`, or `unavailable` if the file system fails; also for
            errors of reading inside the block.
    """
    try:
        with _open(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(512)
            file.seek(0)
            if not looks_like_dicom(head, size):
                if _OFFICE.match(head):
                    raise RefusedImage(Reason.NOT_DICOM, "a workbook or document: name a table of reports as reports")
                if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
                    raise RefusedImage(Reason.NOT_DICOM, "an archive: unpack it and ingest again")
                raise RefusedImage(Reason.NOT_DICOM, "neither a DICOM preamble nor a DICOM data element at the start")
            # 8 bytes per pixel: the widest that pixels are stored in.
            if size > 8 * max_pixels + _OTHER_BYTES:
                raise RefusedImage(Reason.TOO_LARGE, f"the file has {size} bytes, more than max_pixels allows")
            yield BoundedFile(file, size)
    except OSError as error:
        raise refused_by_system(error) from None


def _open(path: Path | bytes) -> BinaryIO:
    if isinstance(path, bytes):
        return io.BytesIO(path)
    if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would block
        raise RefusedImage(Reason.NOT_READABLE, "not a regular file")
    return path.open("rb")


def looks_like_dicom(head: bytes, size: int) -> bool:
    """A preamble with `DICM`, or else a first element of group 2 or 8 that is plausible in one of the encodings."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 12:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}2H", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x2000:
            continue
        if head[4:6].isalpha() and head[4:6].isupper():
            return True
        if struct.unpack(f"{order}I", head[4:8])[0] <= min(size, 256):
            return True
    return False
