"""Find damage that decoders conceal: JPEG 2000 tiles that are not there, RLE segments that lost bytes.

A decoder leaves a missing tile blank and takes the rest of a segment for padding. Both are seen in the structure of the
data alone. What nothing in the data gives away, such as a changed byte within a code block, is not found.
"""

from __future__ import annotations

import re
import struct
from itertools import pairwise

from cxrreport.ingestion.dicom.pixel_data.codestream import jpeg_2000_start

_RLE_HEADER = 64  # bytes: the number of segments and 15 offsets
_SOT, _SOD, _EOC, _COD, _COC, _POC = (bytes([0xFF, code]) for code in (0x90, 0x93, 0xD9, 0x52, 0x53, 0x5F))
_NO_DATA = re.compile(rb"\xff[\x90\x93-\xff]")  # SOP and EPH, FF91 and FF92, are between the packets
_ENDS = 16  # zero bytes at the ends of two packets


def jpeg_2000_fault(data: bytes) -> str:
    """What is wrong with the structure of a JPEG 2000 codestream (ITU-T T.800 A.4.2, B.10.1).

    Each tile has its tile-parts in order, as many as they state, and each is as long as it states. Packets hold no
    byte above 8F after FF, and no more zero bytes in a row than there are packets, because an empty one is a zero.

    Args:
        data: the codestream of one frame, also inside a JP2 file.

    Returns:
        The fault; an empty string if there is none, and for data of another kind.
    """
    start = jpeg_2000_start(data)
    if start is None or len(data) < start + 40:
        return ""
    right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", data, start + 8)
    if not width or not height:
        return "tiles without size"
    tiles = -(-(right - left) // width) * -(-(bottom - top) // height)
    position, coding = _markers(data, start + 2)
    if coding is None:
        return "no marker where one must be"
    zeros = re.compile(rb"\0{%d}" % (_ENDS + _packets(coding, min(width, right), min(height, bottom), data[start:])))
    parts: dict[int, int] = {}
    stated: dict[int, int] = {}
    while data[position : position + 2] == _SOT and position + 12 <= len(data):
        tile, length, part, of = struct.unpack_from(">HI2B", data, position + 4)
        if tile >= tiles or part != parts.get(tile, 0):
            return "tile-parts out of order"
        parts[tile] = part + 1
        stated[tile] = max(stated.get(tile, 0), of)
        # Without a length it is the last one, to the end.
        end = position + length if length else max(data.rfind(_EOC), position + 12)
        begin = _markers(data, position + 12)[0] + 2
        if (length and length < 14) or end > len(data):
            return "a tile-part is cut off"
        if _NO_DATA.search(data, begin, end) or zeros.search(data, begin, end):
            return "bytes that a packet cannot hold"
        position = end
    if data[position : position + 2] != _EOC and position < len(data.rstrip(b"\0")):  # some leave the end marker out
        return "a tile-part is longer than it states"
    if len(parts) < tiles:
        return f"{tiles - len(parts)} of {tiles} tiles are not there"
    return "a tile lacks a part" if any(parts[tile] < of for tile, of in stated.items()) else ""


def _markers(data: bytes, position: int) -> tuple[int, list[bytes] | None]:
    """Where a header ends, at SOT, SOD or EOC, and its coding styles; None if it is not made of marker segments."""
    coding = []
    while (marker := data[position : position + 2]) not in (_SOT, _SOD, _EOC):
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if len(marker) < 2 or marker[0] != 0xFF or length < 2:
            return position, None
        if marker in (_COD, _COC, _POC):
            coding.append(data[position : position + 2 + length])
        position += 2 + length
    return position, coding


def _packets(coding: list[bytes], width: int, height: int, head: bytes) -> int:
    """An upper bound of the packets of a tile, with the coding style of the main header (ITU-T T.800 A.6.1, B.12)."""
    cod = next((segment for segment in coding if segment.startswith(_COD) and len(segment) >= 14), None)
    if cod is None or any(segment.startswith(_COC) for segment in coding):
        return len(head)  # several styles: no bound
    layers, levels, own = int.from_bytes(cod[6:8], "big"), cod[9], cod[4] & 1
    components = int.from_bytes(head[40:42], "big")
    precincts = 0
    for level in range(levels + 1):
        size = cod[14 + level] if own and 14 + level < len(cod) else 0xFF
        shift = levels - level
        precincts += ((width >> shift >> (size & 15)) + 2) * ((height >> shift >> (size >> 4)) + 2) if own else 4
    return layers * components * precincts


def rle_fault(data: bytes, rows: int, columns: int) -> str:
    """What is wrong with the segments of an RLE frame (PS3.5 G.3, G.5), without expanding them.

    Each holds one byte per pixel. A run of two bytes expands to up to 128, and decoders expand a whole segment before
    they check its length. Encoders end a run at the end of a row; some run on at a few of them.

    Args:
        data: RLE header and segments.
        rows: of the image.
        columns: of the image.

    Returns:
        The fault; an empty string if there is none.
    """
    if len(data) < _RLE_HEADER:
        return "the RLE header is cut off"
    count, *offsets = struct.unpack("<16I", data[:_RLE_HEADER])
    bounds = [_RLE_HEADER, *offsets[:count], len(data)]
    if not 1 <= count <= len(offsets) or sorted(bounds) != bounds:
        return "the RLE header does not list segments in ascending order"
    for start, end in pairwise(bounds[1:]):
        length, crossing = _rle_length(data, start, end, rows * columns, columns)
        if length != rows * columns:
            return f"an RLE segment expands to {length} bytes instead of {rows * columns}"
        if 0 < crossing < rows // 2:
            return f"{crossing} of {rows} rows of an RLE segment do not end with a run"
    return ""


def _rle_length(data: bytes, position: int, end: int, wanted: int, columns: int) -> tuple[int, int]:
    """Bytes that a segment expands to without the zeros that pad it, and rows that end within a run."""
    length = crossing = 0
    while position < end and not (length == wanted and not any(data[position:end])):
        control = data[position]
        if control == 128:  # no operation
            position += 1
            continue
        more = control + 1 if control < 128 else 257 - control
        position += control + 2 if control < 128 else 2
        crossing += (length + more - 1) // columns - length // columns
        length += more
    return length if position <= end else length - (position - end), crossing
