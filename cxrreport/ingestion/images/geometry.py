"""Turn a picture upright and make its pixels square, as its file states.

A frontal is displayed with the patient's right on the left of the picture and the head up: rows run to the left of the
patient (L), columns to the feet (F). A lateral is displayed with the head up. It is only rotated for that, never
mirrored: neither the standard nor practice prescribes where it faces, and letters in it must remain readable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TURNED, UNCLEAR, DOUBTFUL = "orientation-applied", "orientation-unclear", "orientation-doubtful"
NOT_SQUARE, SHAPE_UNCLEAR = "pixels-not-square", "pixel-shape-unclear"

_LARGEST_RATIO = 4.0
"""Largest ratio of the sides of a pixel that is believed; interlaced captures have 2."""
_SQUARE = 0.01
"""Relative difference of the sides of a pixel that is ignored: one pixel in a hundred."""
_AXES = {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}
_EXIF = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""Orientation (tag 274) to `transpose`, `flip_rows` and `flip_columns` (EXIF 3.0, 4.6.5.1.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a stored picture is displayed: transposed, then flipped, then resampled to square pixels.

    Args:
        transpose: rows become columns.
        flip_rows: upside down, after the transposition.
        flip_columns: left to right, after the transposition.
        aspect: height of a displayed pixel, before resampling, as a multiple of its width.
        notes: `orientation-applied`, `orientation-unclear`, `orientation-doubtful`, `pixels-not-square`,
            `pixel-shape-unclear`.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    aspect: float = 1.0
    notes: tuple[str, ...] = ()

    def size(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of the displayed picture. The number of pixels remains about the same."""
        if self.transpose:
            rows, columns = columns, rows
        if self.aspect == 1.0:
            return rows, columns
        stretch = math.sqrt(self.aspect)
        return max(1, round(rows * stretch)), max(1, round(columns / stretch))

    def apply(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8[rows, columns] as stored to uint8[rows, columns] as displayed."""
        turned = grey.T if self.transpose else grey
        turned = np.ascontiguousarray(turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1])
        rows, columns = self.size(*grey.shape)
        if turned.shape == (rows, columns):
            return turned
        return np.asarray(Image.fromarray(turned).resize((columns, rows), Image.Resampling.BILINEAR))

    def unturned(self) -> Geometry:
        """Without the orientation, for what has no convention of display; `orientation-unclear` if it was turned."""
        aspect = 1 / self.aspect if self.transpose else self.aspect
        return Geometry(aspect=aspect, notes=tuple(UNCLEAR if note == TURNED else note for note in self.notes))

    def with_pixels(self, ratios: Iterable[float | None]) -> Geometry:
        """The same orientation with the shape of the pixels.

        Args:
            ratios: height of a stored pixel as a multiple of its width, one for each statement of the file, the most
                authoritative first; `None` for a statement that is invalid.
        """
        stated = list(ratios)
        valid = [ratio for ratio in stated if ratio is not None and 1 / _LARGEST_RATIO <= ratio <= _LARGEST_RATIO]
        notes = self.notes
        if len(valid) < len(stated) or any(abs(ratio / valid[0] - 1) > _SQUARE for ratio in valid):
            notes += (SHAPE_UNCLEAR,)
        if not valid or abs(valid[0] - 1) <= _SQUARE:
            return replace(self, notes=notes)
        ratio = 1 / valid[0] if self.transpose else valid[0]
        return replace(self, aspect=ratio, notes=(*notes, NOT_SQUARE))


def _turn(transpose: bool, flip_rows: bool, flip_columns: bool) -> Geometry:
    notes = (TURNED,) if transpose or flip_rows or flip_columns else ()
    return Geometry(transpose=transpose, flip_rows=flip_rows, flip_columns=flip_columns, notes=notes)


def of_directions(directions: Sequence[str]) -> Geometry:
    """The orientation that Patient Orientation (0020,0020) states (PS3.3 C.7.6.1.1.1).

    Args:
        directions: of the rows and of the columns, each one to three of the letters A, P, R, L, H and F, the dominant
            one first; none if the file states nothing.
    """
    if not directions:
        return Geometry()
    axes = [_axes(direction) for direction in directions]
    # Without head and feet (a picture from above) nothing says what is up.
    if len(axes) != 2 or not all(axes) or axes[0][0] == axes[1][0] or "z" not in (axes[0][0], axes[1][0]):
        return Geometry(notes=(UNCLEAR,))
    transpose = axes[0][0] == "z"
    across, down = (direction[0] for direction in (directions[::-1] if transpose else directions))
    flip_rows = down == "H"
    # A rotation is an even number of transpositions and flips.
    flip_columns = across == "R" if _AXES[across] == "x" else transpose != flip_rows
    return _turn(transpose, flip_rows, flip_columns)


def _axes(direction: str) -> str:
    """The axes of the letters of one direction, empty if it is not valid."""
    axes = "".join(_AXES.get(letter, "") for letter in direction)
    return axes if len(axes) == len(direction) == len(set(axes)) else ""


def of_exif(orientation: object) -> Geometry:
    """The orientation of the EXIF tag 274 (`None` if the file has none)."""
    if orientation is None:
        return Geometry()
    turn = _EXIF.get(orientation) if isinstance(orientation, int) else None
    return Geometry(notes=(UNCLEAR,)) if turn is None else _turn(*turn)
