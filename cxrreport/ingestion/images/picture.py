"""Read PNG and JPEG radiographs, as in MIMIC-CXR-JPG and Open-i, into the same record as DICOM files."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxrreport.errors import PixelError, RefusedImage
from cxrreport.ingestion.images.acceptance import refused_unless
from cxrreport.ingestion.images.greyscale import GreyScale, luminance, to_grey
from cxrreport.ingestion.images.radiograph import Radiograph
from cxrreport.records import Reason, View

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_SAME_GREY = 3  # JPEG's colour transformation moves equal channels apart by this much at most


def is_picture(path: Path) -> bool:
    """Return whether the file name has a PNG or JPEG suffix."""
    return path.suffix.lower() in _SUFFIXES


def read_picture(path: Path, *, max_pixels: int, keep: Collection[str] = ()) -> Radiograph:
    """Read one PNG or JPEG; its values are taken as display grey, bright is dense.

    Pictures of more than 8 bits are scaled between percentiles, as they carry no window (note `window-missing`).
    Colour pictures whose channels are equal are grey pictures (note `grey-as-colour`).

    Args:
        path: the file.
        max_pixels: largest rows x columns; checked before pixels are decoded.
        keep: as in `dicom.read_header`: `colour` and `multi-frame`.

    Returns:
        A record without ids and with an unknown view: pictures have no header.

    Raises:
        RefusedImage: the file is no picture, too large, in colour, or of several frames; PixelError where its pixels
            cannot be decoded or are all equal.
    """
    notes: tuple[str, ...] = ()
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would block
            raise RefusedImage(Reason.NOT_READABLE, "not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit warns below ours
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                columns, rows = image.size
                if rows * columns > max_pixels:
                    raise RefusedImage(Reason.TOO_LARGE, f"{rows} x {columns} pixels, and max_pixels is {max_pixels}")
                frames = getattr(image, "n_frames", 1)
                if frames > 1 and image.format == "PNG":
                    notes = refused_unless(keep, Reason.MULTI_FRAME, f"{frames} frames")
                values, more = _values(image, keep)
                notes += more
    except RefusedImage:
        raise
    except FileNotFoundError:
        raise RefusedImage(Reason.IMAGE_MISSING) from None
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise RefusedImage(Reason.NOT_READABLE, "not a PNG or JPEG that Pillow reads") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        # What Pillow raises on truncated and corrupt data.
        raise PixelError(Reason.BAD_PIXELS, f"the picture cannot be decoded ({type(error).__name__})") from None
    grey, more = to_grey(values, GreyScale(bits_stored=8 * values.dtype.itemsize))
    # A picture of 8 bits is display grey by definition, so that a missing window is nothing to note.
    notes += more if values.dtype.itemsize > 1 else ()
    return Radiograph(grey=grey, rows=rows, columns=columns, view=View.UNKNOWN, notes=notes)


def _values(image: Image.Image, keep: Collection[str]) -> tuple[NDArray[np.integer], tuple[str, ...]]:
    if image.mode == "L":
        return np.asarray(image), ()
    if image.mode == "1":
        return np.asarray(image.convert("L")), ()
    if image.mode in {"I;16", "I;16B", "I;16L", "I"}:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise PixelError(Reason.BAD_PIXELS, "values beyond 16 bits")
        return values.astype(np.uint16), ()
    colours = np.asarray(image.convert("RGB"))
    low, high = colours.min(axis=2), colours.max(axis=2)
    if int((high - low).max()) > _SAME_GREY:
        notes = refused_unless(keep, Reason.COLOUR, f"a colour picture (mode {image.mode})")
        return luminance(colours, "RGB"), notes
    return colours[:, :, 1].copy(), ("grey-as-colour",)
