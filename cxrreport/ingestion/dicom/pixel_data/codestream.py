"""Read the size that a compressed codestream declares, before any decoder allocates memory for it.

Decoders trust the codestream, not the DICOM header, so a pixel budget that is checked on Rows and Columns alone does
not bound memory. JPEG (ITU-T T.81 B.2.2), JPEG-LS (ITU-T T.87 C.2.2) and JPEG 2000 (ITU-T T.800 A.5.1) all name their
size near the start. It is read where a decoder reads it, and searched for nowhere else: a file might hold a small size
for us and a large one for the decoder.
"""

from __future__ import annotations

import struct

_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_JP2_START = b"\0\0\0\x0cjP  "  # the signature box, ITU-T T.800 I.5.1; DICOM does not have it, some files do
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # SOFn and SOF55; not DHT, JPG, DAC
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})


def frame_size(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components that a JPEG, JPEG-LS or JPEG 2000 codestream declares.

    Args:
        data: the codestream of one frame, for JPEG 2000 also inside a JP2 file.

    Returns:
        (rows, columns, components), or None where no such declaration is found.
    """
    start = jpeg_2000_start(data)
    if start is not None:
        return _size_of_jpeg_2000(data, start)
    return _size_of_jpeg(data) if data.startswith(b"\xff\xd8") else None


def jpeg_2000_start(data: bytes) -> int | None:
    """Where a JPEG 2000 codestream begins, also inside a JP2 file; None for data of another kind."""
    if data.startswith(_JP2_START):
        return _codestream_box(data)
    return 0 if data.startswith(_J2K_START) else None


def _codestream_box(data: bytes) -> int:
    """Where the contents of the first contiguous codestream box begin, or the end of the data."""
    position = 0
    while position + 16 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        contents = position + 8
        if length == 1:  # the length is in the next 8 bytes
            length, contents = int.from_bytes(data[contents : contents + 8], "big"), contents + 8
        if kind == b"jp2c":
            return contents
        if length < contents - position:  # 0: to the end of the file
            break
        position += length
    return len(data)


def _size_of_jpeg_2000(data: bytes, start: int) -> tuple[int, int, int] | None:
    head = data[start : start + 42]
    if len(head) < 42 or not head.startswith(_J2K_START):
        return None
    right, bottom, left, top = struct.unpack(">4I", head[8:24])
    return bottom - top, right - left, int.from_bytes(head[40:42], "big")


def _size_of_jpeg(data: bytes) -> tuple[int, int, int] | None:
    position = _frame_header(data)
    return None if position is None else struct.unpack(">2HB", data[position + 5 : position + 10])


def _frame_header(data: bytes) -> int | None:
    """Where the frame header (SOF) of a JPEG or JPEG-LS codestream begins."""
    position = 2
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _FRAME_HEADERS:
            return position
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def sample_format(data: bytes) -> tuple[int, bool] | None:
    """Bits per sample, and whether samples have a sign, that a codestream with a `frame_size` declares.

    JPEG and JPEG-LS have no sign; of JPEG 2000 (ITU-T T.800 A.5.1) the first component counts.
    """
    if data.startswith((_JP2_START, _J2K_START)):
        start = _codestream_box(data) if data.startswith(_JP2_START) else 0
        declared = data[start + 42] if len(data) > start + 42 else 0xFF
        return (declared & 0x7F) + 1, bool(declared & 0x80)
    position = _frame_header(data)
    return None if position is None else (data[position + 4], False)
