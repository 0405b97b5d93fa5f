"""From stored pixel values to display grey: the DICOM grey-scale pipeline as one lookup table.

The order is that of PS3.3 C.7.6.3.1.2, C.11.1 and C.11.2: modality LUT or rescale, VOI LUT or window, polarity, and
padding last. Every step maps one value to one value, so for stored values of at most 16 bits the whole pipeline is
computed once per possible value and applied as a table; the same functions run on the pixels themselves otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from cxrreport.errors import PixelError
from cxrreport.records import Reason

Values = NDArray[np.float64]
Grey = NDArray[np.uint8]

PERCENTILES = (0.5, 99.5)
"""Modality values that become black and white where a file gives no usable window."""
_SAMPLE = 1 << 16  # pixels looked at for percentiles and for the check on blank windows
_ROWS = 32  # rows taken from the table at a time
_BLOCK = 1 << 20  # pixels per block where no table is possible: bounds the memory of the float arrays


_LUMINANCE = (299, 587, 114)  # thousandths of red, green and blue in Y of YBR_FULL (PS3.3 C.7.6.3.1.2)
_COLOUR_ROWS = 256  # rows per block: the sums take 8 bytes per pixel


class WindowFunction(StrEnum):
    """VOI LUT Function (0028,1056), PS3.3 C.11.2.1.3."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Window:
    """A window of usable width: at least 1 for LINEAR, above 0 for the others; modality units."""

    center: float
    width: float
    function: WindowFunction = WindowFunction.LINEAR

    def __post_init__(self) -> None:
        least = 1.0 if self.function is WindowFunction.LINEAR else np.nextafter(0.0, 1.0)
        if not (np.isfinite(self.center) and np.isfinite(self.width) and self.width >= least):
            raise ValueError(f"a window of width {self.width} is none for {self.function}")


@dataclass(frozen=True, slots=True)
class LookupTable:
    """One item of a Modality or VOI LUT Sequence (PS3.3 C.11.1.1, C.11.2.1.1).

    Args:
        first: input value of the first entry; values below take the first entry, values above the last.
        bits: bits per entry, 8 to 16: entries lie in [0, 2**bits - 1].
        entries: uint16[N].
    """

    first: int
    bits: int
    entries: NDArray[np.uint16]

    @property
    def narrow(self) -> bool:
        """The entries use two or more bits fewer than `bits`: at its word, the table would give a dark picture."""
        return 0 < int(self.entries.max()) < 1 << (self.bits - 2)

    @property
    def top(self) -> int:
        """The entry that is white: what `bits` can hold, or what the bits in use can, where the table is `narrow`."""
        return (1 << (int(self.entries.max()).bit_length() if self.narrow else self.bits)) - 1

    def __call__(self, values: Values) -> Values:
        """float64[...] to the entries, float64[...]."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        found: Values = self.entries[index].astype(np.float64)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyScale:
    """The transformations of a header from stored values to grey.

    Args:
        bits_stored: bits of a stored value.
        signed: stored values are two's complement.
        modality_lut: takes the place of slope and intercept where given.
        voi_lut: takes the place of the window where both are given.
        inverted: the lowest value is displayed white (MONOCHROME1, or an INVERSE presentation LUT).
        padding: inclusive range of stored values outside the image, displayed black (PS3.3 C.7.5.1.1.2).
    """

    bits_stored: int
    signed: bool = False
    modality_lut: LookupTable | None = None
    slope: float = 1.0
    intercept: float = 0.0
    voi_lut: LookupTable | None = None
    window: Window | None = None
    inverted: bool = False
    padding: tuple[int, int] | None = None

    def modality_values(self, stored: NDArray[np.integer]) -> Values:
        """Stored values to modality values, float64 of the same shape."""
        values = stored.astype(np.float64)
        return self.modality_lut(values) if self.modality_lut else values * self.slope + self.intercept

    @property
    def stored_range(self) -> tuple[int, int]:
        """Least and greatest value that `bits_stored` can hold."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


def apply_window(values: Values, window: Window) -> Values:
    """Map modality values to [0, 1] (PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2); polarity is untouched.

    Args:
        values: float64[...], modality units.
        window: center and width in modality units.

    Returns:
        float64[...] in [0, 1].
    """
    center, width = window.center, window.width
    if window.function is WindowFunction.SIGMOID:
        # exp overflows to infinity far below the window, and 1 / (1 + inf) is the right 0.
        with np.errstate(over="ignore"):
            return 1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))
    if window.function is WindowFunction.LINEAR:
        center, width = center - 0.5, width - 1.0
    if width == 0.0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def to_grey(stored: NDArray[np.integer], scale: GreyScale) -> tuple[Grey, tuple[str, ...]]:
    """Stored values to grey as it is displayed: bright is dense, padding is black.

    Where the header names no VOI transformation, values of at most 8 bits without a modality transformation are taken
    as they are (secondary captures come ready for display); other values are scaled between their `PERCENTILES`. The
    same is done where the VOI transformation leaves hardly any middle greys.

    Args:
        stored: integer[H, W], decoded and within `scale.bits_stored`.
        scale: the transformations of the header.

    Returns:
        uint8[H, W], and notes: `window-missing`, `window-blank`.

    Raises:
        PixelError: every pixel has one value (`constant-image`), before or after the modality LUT.
    """
    if stored.ndim != 2 or stored.size == 0:
        raise PixelError(Reason.BAD_PIXELS, f"expected pixels in two dimensions, got shape {stored.shape}")
    step = max(1, isqrt(stored.size // _SAMPLE))
    sample = stored[::step, ::step]
    if scale.padding is not None:
        inside = sample[(sample < scale.padding[0]) | (sample > scale.padding[1])]
        sample = inside if inside.size else sample
    notes: tuple[str, ...] = ()
    curve = _voi_curve(scale)
    if curve is None:
        notes = ("window-missing",)
        curve = _identity(scale) or _percentile_curve(sample, stored, scale)
    elif _is_blank(curve(scale.modality_values(sample))):
        notes = ("window-blank",)
        curve = _percentile_curve(sample, stored, scale)
    grey = _map(stored, scale, curve)
    if grey.min() == grey.max():
        raise PixelError(Reason.CONSTANT, "every pixel has the same grey")
    return grey, notes


Curve = Callable[[Values], Values]


def _voi_curve(scale: GreyScale) -> Curve | None:
    lut, window = scale.voi_lut, scale.window
    if lut is not None:
        return lambda values: np.minimum(lut(values) / lut.top, 1.0)
    if window is not None:
        return lambda values: apply_window(values, window)
    return None


def _identity(scale: GreyScale) -> Curve | None:
    if scale.bits_stored > 8 or scale.modality_lut or (scale.slope, scale.intercept) != (1.0, 0.0):
        return None
    low, high = scale.stored_range
    return lambda values: np.clip((values - low) / (high - low), 0.0, 1.0)


def _percentile_curve(sample: NDArray[np.integer], stored: NDArray[np.integer], scale: GreyScale) -> Curve:
    low, high = (float(bound) for bound in np.percentile(scale.modality_values(sample), PERCENTILES))
    if low == high:
        # Nearly all pixels are equal: the rest of them still makes a picture, if there is a rest.
        ends = scale.modality_values(np.array([stored.min(), stored.max()]))
        low, high = float(ends.min()), float(ends.max())
    if low == high:
        raise PixelError(Reason.CONSTANT, "every pixel has the same value")
    return lambda values: np.clip((values - low) / (high - low), 0.0, 1.0)


def _is_blank(unit: Values) -> bool:
    """True for a picture in which 98% of the pixels are black or white, or nearly all pixels are alike."""
    middle = np.count_nonzero((unit > 0.002) & (unit < 0.998)) / unit.size
    low, high = np.percentile(unit, (1, 99))
    return bool(middle < 0.02 or high - low < 0.04)


def _map(stored: NDArray[np.integer], scale: GreyScale, curve: Curve) -> Grey:
    if stored.dtype.itemsize > 2:
        low, high = int(stored.min()), int(stored.max())
        if low >= 0 and high < 1 << 16:
            stored = stored.astype(np.uint16)
        elif low >= -(1 << 15) and high < 1 << 15:
            stored = stored.astype(np.int16)
        else:
            return _map_pixels(stored, scale, curve)
    codes: NDArray[np.unsignedinteger] = stored.view(np.uint8 if stored.dtype.itemsize == 1 else np.uint16)
    every = np.arange(1 << (8 * codes.dtype.itemsize), dtype=codes.dtype).view(stored.dtype)
    table = _quantised(every, scale, curve)
    grey = np.empty(codes.shape, dtype=np.uint8)
    for start in range(0, len(codes), _ROWS):
        # In blocks that stay in the cache: taking needs an index of 8 bytes per pixel.
        np.take(table, codes[start : start + _ROWS], out=grey[start : start + _ROWS], mode="clip")
    return grey


def _map_pixels(stored: NDArray[np.integer], scale: GreyScale, curve: Curve) -> Grey:
    grey = np.empty(stored.shape, dtype=np.uint8)
    rows = max(1, _BLOCK // stored.shape[1])
    for start in range(0, stored.shape[0], rows):
        grey[start : start + rows] = _quantised(stored[start : start + rows], scale, curve)
    return grey


def _quantised(stored: NDArray[np.integer], scale: GreyScale, curve: Curve) -> Grey:
    grey = np.rint(curve(scale.modality_values(stored)) * 255.0).astype(np.uint8)
    if scale.inverted:
        # After rounding, so that an image and its inverse differ by exactly that.
        grey = 255 - grey
    if scale.padding is not None:
        grey[(stored >= scale.padding[0]) & (stored <= scale.padding[1])] = 0
    return grey


def luminance(pixels: NDArray[np.integer], photometric: str) -> NDArray[np.integer]:
    """The luminance of decoded pixels.

    Args:
        pixels: unsigned[rows, columns, 3].
        photometric: what they are: RGB, or one of YBR, whose first sample is the luminance.

    Returns:
        unsigned[rows, columns] of the same type.
    """
    if photometric.startswith("YBR"):
        return pixels[:, :, 0].copy()
    grey = np.empty(pixels.shape[:2], pixels.dtype)
    weights = np.array(_LUMINANCE, np.uint64)
    for start in range(0, len(grey), _COLOUR_ROWS):  # in blocks, as the sums are 8 bytes wide
        grey[start : start + _COLOUR_ROWS] = (pixels[start : start + _COLOUR_ROWS] @ weights + 500) // 1000
    return grey
