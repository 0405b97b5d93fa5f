"""A contact sheet of what the model will see. It shows views and sizes; no id and no text of a patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxrreport.storage.atomic_files import atomic_path

COLUMNS, ROWS = 8, 6
_TILE, _LABEL, _GAP = 192, 16, 4  # pixels


def spread(count: int) -> list[int]:
    """At most `COLUMNS` x `ROWS` of the indices 0 to `count` - 1, evenly spread."""
    shown = min(count, COLUMNS * ROWS)
    return [index * count // shown for index in range(shown)]


def write_contact_sheet(path: Path, images: Sequence[tuple[NDArray[np.uint8], str]]) -> None:
    """Write a PNG with one tile per image.

    Args:
        path: the PNG.
        images: uint8[R, R] as the model sees it, and a label without patient data; at most `COLUMNS` x `ROWS`.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    columns = max(1, min(COLUMNS, len(images)))
    rows = max(1, -(-len(images) // columns))
    size = (columns * (_TILE + _GAP) + _GAP, rows * (_TILE + _LABEL + _GAP) + _GAP)
    sheet = Image.new("L", size, 32)
    draw = ImageDraw.Draw(sheet)
    for index, (image, label) in enumerate(images):
        left = _GAP + index % columns * (_TILE + _GAP)
        top = _GAP + index // columns * (_TILE + _LABEL + _GAP)
        sheet.paste(Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.BILINEAR), (left, top))
        draw.text((left, top + _TILE + 1), label, fill=224)
    with atomic_path(path) as temporary:
        sheet.save(temporary)
