"""Detect text burned into the pixels near a border of a radiograph: a name, a date or a number.

This is a heuristic, not character recognition. Letters are small marks of even brightness that stand out sharply from
their surroundings, several beside each other, of one height, on one line. Side markers ("L", "R", "AP") are too short
to count, and anatomy is too smooth. `docs/data-governance.md` gives the measured rates; a person has to check the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHARACTERS = 5
"""Fewest characters in a line: a side marker with its technician's initials has less."""
BORDER = 0.22
"""Depth of the border that is looked at, as a part of the shorter side."""
_LONGEST = 1536  # pixels: larger images are reduced, so that letters of all sizes are a few to a few dozen pixels high
_HEIGHTS = (5, 64)
_STROKE = 15  # pixels: what is wider is no stroke of a letter
_CONTRAST = 48  # of 255: the least by which letters stand out


def text_near_border(grey: NDArray[np.uint8]) -> bool:
    """Return whether a line of text seems to be near a border.

    Args:
        grey: uint8[H, W], as it is displayed; letters may be bright on dark or dark on bright.
    """
    picture = _reduced(grey)
    depth = max(24, round(BORDER * min(picture.shape)))
    if min(picture.shape) <= 2 * depth:
        strips = [picture]
    else:
        strips = [picture[:depth], picture[-depth:], picture[depth:-depth, :depth], picture[depth:-depth, -depth:]]
    return any(_has_line(strip) or _has_line(255 - strip) for strip in strips)


def _reduced(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of every square block, so many that the longer side is `_LONGEST` at most."""
    factor = -(-max(grey.shape) // _LONGEST)
    if factor == 1:
        return grey
    rows, columns = (side // factor * factor for side in grey.shape)
    blocks = grey[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    total = blocks.sum(axis=3, dtype=np.uint16).sum(axis=1, dtype=np.uint16)
    reduced: NDArray[np.uint8] = (total // (factor * factor)).astype(np.uint8)
    return reduced


def _has_line(strip: NDArray[np.uint8]) -> bool:
    """Return whether a strip has a line of bright letters."""
    from scipy import ndimage  # 0.1 s to load, which the other users of this package do not need

    # What is bright and narrow: brighter than the picture without anything narrower than 15 pixels.
    opened = ndimage.maximum_filter1d(ndimage.minimum_filter1d(strip, _STROKE, axis=1), _STROKE, axis=1)
    labels, count = ndimage.label(strip - opened > _CONTRAST)
    if not count >= CHARACTERS:
        return False
    boxes = ndimage.find_objects(labels)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    letters = []
    for (rows, columns), area in zip(boxes, areas, strict=True):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        low, high = _HEIGHTS
        if low <= height <= high and width <= 1.6 * height and 0.12 <= area / (height * width) <= 0.98:
            letters.append((rows.start, rows.stop, columns.start, columns.stop))
    return _longest_line(letters) >= CHARACTERS


def _longest_line(letters: list[tuple[int, int, int, int]]) -> int:
    """Most letters in one line: neighbours of like height, on one base line, less than 1.6 heights apart."""
    letters = sorted(letters, key=lambda box: box[2])
    length = [1] * len(letters)
    for index, (top, bottom, left, _) in enumerate(letters):
        height = bottom - top
        for before in range(index - 1, -1, -1):
            other_top, other_bottom, other_left, other_right = letters[before]
            other = other_bottom - other_top
            if left - other_left > 5 * max(_HEIGHTS):
                break
            gap = left - other_right
            if (
                -1 <= gap <= 1.6 * max(height, other)
                and max(height, other) <= 1.5 * min(height, other) + 1
                and abs(bottom - other_bottom) <= max(1, 0.2 * height)
            ):
                length[index] = max(length[index], length[before] + 1)
    return max(length, default=0)
