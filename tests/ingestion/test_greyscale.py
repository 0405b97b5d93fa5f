"""The grey-scale pipeline against the formulas of PS3.3 C.11, value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrreport.errors import PixelError
from cxrreport.ingestion.images.greyscale import GreyScale, LookupTable, Window, WindowFunction, apply_window, to_grey

VALUES = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def linear(value: float, center: float, width: float) -> float:
    """PS3.3 C.11.2.1.2.1, written as the standard writes it."""
    if value <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if value > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (value - (center - 0.5)) / (width - 1) + 0.5


@given(value=st.integers(-5000, 5000), center=st.floats(-3000, 3000), width=st.floats(1, 5000))
def test_linear_window_is_the_formula_of_the_standard(value: int, center: float, width: float) -> None:
    got = apply_window(np.array([float(value)]), Window(center, width))[0]
    if width == 1:
        assert got == float(value > center - 0.5)
    else:
        assert got == pytest.approx(linear(value, center, width), abs=1e-6)


def test_the_three_functions_differ_as_in_the_standard() -> None:
    values = np.array([0.0, 50.0, 100.0])
    exact = apply_window(values, Window(50.0, 100.0, WindowFunction.LINEAR_EXACT))
    assert exact.tolist() == [0.0, 0.5, 1.0]
    assert apply_window(values, Window(50.0, 100.0))[1] == pytest.approx(0.5 + 0.5 / 99)
    sigmoid = apply_window(values, Window(50.0, 100.0, WindowFunction.SIGMOID))
    assert sigmoid.tolist() == pytest.approx([1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-2))])
    far = apply_window(np.array([-1e9, 1e9]), Window(0.0, 1.0, WindowFunction.SIGMOID))
    assert far.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("width", [0.0, -1.0, 0.5, math.nan, math.inf])
def test_window_without_a_width_cannot_be_made(width: float) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(100.0, width)


def test_table_and_pixels_give_the_same() -> None:
    scale = GreyScale(bits_stored=12, slope=2.0, intercept=-1000.0, window=Window(3000.0, 6000.0), inverted=True)
    table, _ = to_grey(VALUES, scale)
    wide = VALUES.astype(np.int64)
    wide[0, 0] = 1 << 20  # forces the way without a table
    pixels, _ = to_grey(wide, scale)
    assert np.array_equal(table.ravel()[1:], pixels.ravel()[1:])


def test_signed_values_are_not_taken_for_large_ones() -> None:
    stored = (VALUES.astype(np.int32) - 2048).astype(np.int16)
    grey, _ = to_grey(stored, GreyScale(bits_stored=12, signed=True, window=Window(0.0, 4096.0)))
    assert (np.diff(grey.ravel().astype(int)) >= 0).all() and grey.min() == 0 and grey.max() == 255


def test_windowing_comes_before_the_flip_and_the_flip_is_on_the_fixed_range() -> None:
    window = Window(1000.0, 500.0)
    upright, _ = to_grey(VALUES, GreyScale(bits_stored=12, window=window))
    flipped, _ = to_grey(VALUES, GreyScale(bits_stored=12, window=window, inverted=True))
    assert np.array_equal(flipped, 255 - upright)
    # A brightest pixel below the top of the range must not move the flip.
    dim = VALUES[:20]
    assert np.array_equal(to_grey(dim, GreyScale(bits_stored=12, window=window, inverted=True))[0], flipped[:20])


def test_padding_is_black_on_either_polarity() -> None:
    stored = VALUES.copy()
    stored[:4] = 4000
    for inverted in (False, True):
        scale = GreyScale(bits_stored=12, window=Window(2048.0, 4096.0), inverted=inverted, padding=(4000, 4000))
        grey, _ = to_grey(stored, scale)
        assert (grey[:4] == 0).all()
        assert grey[40, 0] not in (0, 255)


def test_padding_does_not_move_the_percentiles() -> None:
    stored = VALUES // 4
    framed = np.pad(stored, 40, constant_values=4095)
    grey, notes = to_grey(framed, GreyScale(bits_stored=12, padding=(4095, 4095)))
    plain, _ = to_grey(stored, GreyScale(bits_stored=12))
    assert notes == ("window-missing",) and np.array_equal(grey[40:-40, 40:-40], plain)


def test_modality_lut_then_voi_lut() -> None:
    modality = LookupTable(0, 16, (np.arange(4096) // 2).astype(np.uint16))
    voi = LookupTable(100, 8, np.arange(256, dtype=np.uint16)[::-1].copy())
    grey, notes = to_grey(VALUES, GreyScale(bits_stored=12, modality_lut=modality, voi_lut=voi))
    expected = 255 - np.clip(VALUES.astype(int) // 2 - 100, 0, 255)
    assert np.array_equal(grey, expected) and notes == ()


def test_blank_window_falls_back_with_a_note() -> None:
    for window in (Window(60000.0, 100.0), Window(-60000.0, 100.0), Window(0.0, 1e7)):
        grey, notes = to_grey(VALUES, GreyScale(bits_stored=12, window=window))
        assert notes == ("window-blank",)
        assert grey.min() == 0 and grey.max() == 255 and 100 < grey.mean() < 155


def test_missing_window_is_robust_against_a_few_bright_pixels() -> None:
    stored = np.linspace(500, 1500, 10_000).reshape(100, 100).astype(np.uint16)
    stored[:2, :10] = 65535
    grey, notes = to_grey(stored, GreyScale(bits_stored=16))
    assert notes == ("window-missing",) and 110 < grey.mean() < 145


def test_eight_bits_without_window_stay_as_they_are() -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16) // 2
    grey, notes = to_grey(stored, GreyScale(bits_stored=8))
    assert np.array_equal(grey, stored) and notes == ("window-missing",)


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("window", [None, Window(128.0, 256.0)])
def test_constant_image_is_refused(value: int, window: Window | None) -> None:
    with pytest.raises(PixelError, match="constant-image"):
        to_grey(np.full((20, 20), value, dtype=np.uint8), GreyScale(bits_stored=8, window=window))


def test_nearly_constant_image_is_still_a_picture() -> None:
    stored = np.full((200, 200), 7, dtype=np.uint16)
    stored[100, 100:102] = 900
    grey, _ = to_grey(stored, GreyScale(bits_stored=12))
    assert grey[100, 100] == 255 and grey[0, 0] == 0
