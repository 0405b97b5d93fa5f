"""The first frame of encapsulated pixel data, however it is cut into fragments (PS3.5 A.4).

Offset tables are often wrong: written per fragment, too short, or left from another file. They are only believed where
the fragments agree with them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from cxrreport.errors import PixelError
from cxrreport.records import Reason

_ITEM, _END = 0xE000FFFE, 0xE0DDFFFE
_SIGNATURES = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")  # JPEG and JPEG-LS, JPEG 2000, JP2

Item = tuple[int, memoryview]
"""Position and value of an item."""


def first_frame(data: bytes, frames: int, offsets: Sequence[int] = ()) -> bytes:
    """The codestream of the first frame. All fragments are that of a single frame, whatever tables say.

    Args:
        data: the value of PixelData: items, of which the first is the Basic Offset Table.
        frames: by Number of Frames (0028,0008).
        offsets: of the Extended Offset Table (7FE0,0001), which counts instead of the basic one.

    Raises:
        PixelError: the items are cut off, or there is no fragment.
    """
    items = _items(data)
    table: Sequence[int] = ()
    if items and not _begins_frame(items[0][1]):
        packed = items.pop(0)[1]
        table = struct.unpack(f"<{len(packed) // 4}I", packed[: len(packed) // 4 * 4])
    if not any(len(fragment) for _, fragment in items):
        raise PixelError(Reason.BAD_PIXELS, "the pixel data have no fragment")
    fragments = [fragment for _, fragment in items]
    count = len(fragments) if frames == 1 else _fragments_of_first(items, frames, list(offsets or table))
    return b"".join(fragments[:count])


def _items(data: bytes) -> list[Item]:
    """The items; a missing delimiter at the end is forgiven."""
    view, items, position = memoryview(data), [], 0  # values are not copied
    while position + 8 <= len(data):
        tag, length = struct.unpack_from("<2I", data, position)
        if tag == _END:
            break
        if tag != _ITEM or position + 8 + length > len(data):
            raise PixelError(Reason.BAD_PIXELS, "the fragments of the pixel data are cut off or damaged")
        items.append((position, view[position + 8 : position + 8 + length]))
        position += 8 + length
    return items


def _begins_frame(fragment: memoryview) -> bool:
    """True for the first fragment of a frame, and false for an offset table."""
    head = bytes(fragment[:64])
    if head.startswith(_SIGNATURES):
        return True
    if len(head) < 64:
        return False
    segments, first = struct.unpack_from("<2I", head)
    return bool(1 <= segments <= 15 and first == 64)  # the header of RLE, PS3.5 G.5


def _fragments_of_first(items: list[Item], frames: int, table: list[int]) -> int:
    """How many fragments the first of several frames has."""
    positions = [position - items[0][0] for position, _ in items]
    ascending = all(before < after for before, after in pairwise(table))
    if len(table) == frames and table[0] == 0 and ascending and set(table) <= set(positions):
        return positions.index(table[1])
    if len(items) == frames:
        return 1
    starts = [index for index, (_, fragment) in enumerate(items) if _begins_frame(fragment)]
    return starts[1] if len(starts) > 1 else len(items)
