"""What a compressed codestream says on its own size, read before any decoder allocates memory for it.

Decoders believe the codestream, not the DICOM header, so a pixel budget that is checked on Rows and Columns alone does
not bound memory. JPEG (ITU-T T.81 B.2.2), JPEG-LS (ITU-T T.87 C.2.2) and JPEG 2000 (ITU-T T.800 A.5.1) all name their
size near the start.
"""

from __future__ import annotations

import struct

_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # SOFn and SOF55; not DHT, JPG, DAC
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})


def frame_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 codestream declares.

    Args:
        data: the codestream of one frame, for JPEG 2000 also inside a JP2 box.

    Returns:
        (rows, columns), or None where no such declaration is found.
    """
    start = data.find(_J2K_START, 0, 4096)
    if start >= 0:
        if len(data) < start + 24:
            return None
        right, bottom, left, top = struct.unpack(">4I", data[start + 8 : start + 24])
        return bottom - top, right - left
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _FRAME_HEADERS:
            rows, columns = struct.unpack(">2H", data[position + 5 : position + 9])
            return rows, columns
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
