"""Read PNG and JPEG radiographs, as in MIMIC-CXR-JPG and Open-i, into the same record as DICOM files."""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxrreport.errors import PixelError, RefusedImage
from cxrreport.ingestion.images.acceptance import refused_by_system, refused_unless
from cxrreport.ingestion.images.geometry import Geometry, of_exif
from cxrreport.ingestion.images.greyscale import GreyScale, luminance, to_grey
from cxrreport.ingestion.images.jpeg import decode_jpeg
from cxrreport.ingestion.images.radiograph import Radiograph
from cxrreport.ingestion.images.upright import orientation_notes
from cxrreport.records import Reason, View

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION = 274, 282, 283  # EXIF tags
_OTHER_BYTES = 1 << 24  # allowance for everything but pixels: profiles, thumbnails, texts
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAME_GREY = 3  # JPEG's colour transformation moves equal channels apart by this much at most


def is_picture(path: Path) -> bool:
    """Return whether the file name has a PNG or JPEG suffix."""
    return path.suffix.lower() in _SUFFIXES


def read_picture(path: Path, *, max_pixels: int, keep: Collection[str] = (), view: View = View.UNKNOWN) -> Radiograph:
    """Read one PNG or JPEG; its values are taken as display grey, bright is dense.

    It is turned and its pixels are made square as its EXIF data, pHYs chunk or JFIF header state (`Geometry`).
    Pictures of more than 8 bits are scaled between percentiles, as they carry no window (note `window-missing`).
    Colour pictures whose channels are equal are grey pictures (note `grey-as-colour`).

    Args:
        path: the file.
        max_pixels: largest rows x columns; checked before pixels are decoded.
        keep: as in `dicom.read_header`: `colour` and `multi-frame`.
        view: what is known of it; pictures have no header.

    Returns:
        A record without ids.

    Raises:
        RefusedImage: the file is no picture, cannot be opened, is too large, in colour, or of several frames;
            PixelError if its pixels cannot be decoded or are all equal.
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
                _check_integrity(path, image.format, max_pixels)
                values, more = _values(image, keep)
                geometry = _geometry(image)
                notes += more + geometry.notes
    except RefusedImage:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise RefusedImage(Reason.NOT_READABLE, "not a PNG or JPEG that Pillow reads") from None
    except (OSError, struct.error, SyntaxError, ValueError, EOFError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise refused_by_system(error) from None
        # What Pillow raises on truncated and corrupt data.
        raise PixelError(Reason.BAD_PIXELS, f"the picture cannot be decoded ({type(error).__name__})") from None
    grey, more = to_grey(values, GreyScale(bits_stored=8 * values.dtype.itemsize))
    # A picture of 8 bits is display grey by definition, so that a missing window is nothing to note.
    notes += more if values.dtype.itemsize > 1 else ()
    grey = geometry.apply(grey)
    return Radiograph(
        grey=grey,
        rows=grey.shape[0],
        columns=grey.shape[1],
        view=view,
        transposed=geometry.transpose,
        notes=notes + orientation_notes(grey, view),
    )


def _geometry(image: Image.Image) -> Geometry:
    """Orientation by EXIF, the shape of pixels by the format's own element and by EXIF."""
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION)
        ratios = [*_densities(image), *_resolutions(exif)]
    except (OSError, struct.error, SyntaxError, ValueError, TypeError, KeyError, EOFError, ZeroDivisionError):
        orientation, ratios = "cannot be read", list(_densities(image))
    return of_exif(orientation).with_pixels(ratios)


def _densities(image: Image.Image) -> Iterator[float | None]:
    """Pixel height by width: pHYs (PNG 11.3.4.3) or JFIF (ITU-T T.871 10.1), which state pixels per length."""
    if image.format == "JPEG":
        across, down = image.info.get("jfif_density", (0, 0))
        if (across, down, image.info.get("jfif_unit")) == (1, 1, 0):
            return  # what encoders write that know nothing
    else:
        across, down = image.info.get("aspect") or image.info.get("dpi") or (0, 0)
    if (across, down) != (0, 0):
        yield across / down if min(across, down) > 0 else None


def _resolutions(exif: Image.Exif) -> Iterator[float | None]:
    across, down = exif.get(_X_RESOLUTION), exif.get(_Y_RESOLUTION)
    if across is not None and down is not None:
        yield float(across) / float(down) if min(across, down) > 0 else None


def _check_integrity(path: Path, kind: str | None, max_pixels: int) -> None:
    """Find damage that Pillow conceals.

    Raises:
        RefusedImage: the file is larger than a picture of `max_pixels` can be.
        ValueError: a checksum of a PNG is wrong, or a JPEG is damaged.
        struct.error: a PNG is cut off.
    """
    if path.stat().st_size > 8 * max_pixels + _OTHER_BYTES:
        raise RefusedImage(Reason.TOO_LARGE, "the file is larger than max_pixels allows")
    data = path.read_bytes()
    if kind == "JPEG":
        decode_jpeg(data)
        return
    position, name = len(_PNG_SIGNATURE), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, position)
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(memoryview(data)[position + 4 : position + 8 + length]) != checksum:
            raise ValueError("a checksum of the PNG is wrong")
        position += 12 + length


def _values(image: Image.Image, keep: Collection[str]) -> tuple[NDArray[np.integer], tuple[str, ...]]:
    if image.mode == "L":
        return np.asarray(image), ()
    if image.mode == "1":
        return np.asarray(image.convert("L")), ()
    if image.mode in {"I;16", "I;16B", "I;16L"}:
        return np.asarray(image).astype(np.uint16), ()
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise PixelError(Reason.BAD_PIXELS, "values beyond 16 bits")
        return values.astype(np.uint16), ()
    colours = np.asarray(image.convert("RGB"))
    low, high = colours.min(axis=2), colours.max(axis=2)
    if int((high - low).max()) > _SAME_GREY:
        notes = refused_unless(keep, Reason.COLOUR, f"a colour picture (mode {image.mode})")
        return luminance(colours, "RGB"), notes
    return colours[:, :, 1].copy(), ("grey-as-colour",)
