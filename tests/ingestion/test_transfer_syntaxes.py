"""Every transfer syntax that pydicom has a decoder for, by every decoder that is installed."""

from __future__ import annotations

import io
from base64 import b85decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    AllTransferSyntaxes,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from transfer_syntaxes import NATIVE, encapsulated, in_syntax

from cxrreport.ingestion.dicom.pixel_data import decoding as dicom_pixels
from cxrreport.ingestion.dicom.radiograph import read_radiograph

LOSSLESS = [JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless]
HIGH_THROUGHPUT = [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K]
LOSSY = [JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000]
# The ramp, encoded by imagecodecs 2026.3.6, as nothing that is installed here does: of 8 bits by OpenJPH, reversible,
# and of 12 bits by libjpeg-turbo, quality 95.
RAMP_HTJ2K = b85decode(
    "|4;u>04YEK0000e0000m00000000000000e0000m0000000000009R90sl|{2mk^A00092QUDA90ssL31q1{@0smY86Cg-XP*6}%"
    "P*6}%P*6}vNJ#%=02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00002W&i>IlfWtfJ8>WW0D!arz!Ja`z!Ct*07G;DnE=6b0Q@I&"
    "0KgS61$+TkQlCTM1=xc%07?gs00IWV0K_jaL3=m=@E{@pAp8Ju!!-cF7K{OHKo*Dzi$tFa3IKoxJ0exl5SF<B5e%-r4FCWD2Cf6p"
    "{Qwbw0BiNilK_G`y#UH>-qQd85ReRFoynL&f0+Ql7gqpXv;lPBNI?Kw1ppAQv7-P;K!AuK1pEta&FZzbHVPZJ>uhndhpu^gPMiP$"
    "nRx+7z)z4MzyUUg9R&ac00dYIXaTLY7VH6$`6(BWTU4m(f16c%s-t$F%&MXg5%Xq02mmIZ0T39V0RRX9AOHve_y8<vw3l$L)Y{vd"
    "HCt|`+mM6>Ve@Ul0rz_Wz%NCBUq!$#V7vgpa<?)!v@ftR00000004m%OA2yXSY&L*s;L^Vf)=Y)Nnx;p7PVBC6a);apokDo;H6lK"
    "{~WOHFkT>F7|nOX(*wYlfb>8H00Mx5MFtSp06+i$AOsK~03m<?000625I_Y27y*DHAfX^2@E{2zk0g#fk~?xp?a3wA56A6S>u@}="
    "t!rDJsJQ*DeQsIX8rIpHdyT#`^<Saorr$IBTFtwZ`nBs{L&oL%wzavpcz;>yxE?e^H;N&)<+nEOdJ5)Ce@rkwhy>421_0R%0N_Xr"
    "0000000;m80RR910Q3Mr01uTmp{zFL1K9njz}&H|WI*;mYASA7(#TBP*zHiML(4i@q}jJ}wO0eG<7!&m+r7QZRYEebfgH`LYjV(Z"
    "C0f9O--JtB1pnC"
)
Make = Callable[..., Any]


def decoders(syntax: str) -> list[str]:
    return list(get_decoder(UID(syntax)).available_plugins)


def test_the_lists_are_complete() -> None:
    reached = []
    for syntax in AllTransferSyntaxes:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            continue
        assert decoder.is_available, syntax.name
        reached.append(syntax)
    assert sorted(reached) == sorted([*NATIVE, *LOSSLESS, *HIGH_THROUGHPUT, *LOSSY])


def read(path: Path) -> np.ndarray:
    grey: np.ndarray = read_radiograph(path, max_pixels=10**6).grey
    return grey


def only(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_order(syntax: UID, plugins: list[str]) -> list[str]:
        assert plugin in plugins
        return [plugin]

    monkeypatch.setattr(dicom_pixels, "_in_order", in_order)


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], ids=lambda syntax: syntax.keyword)
def test_lossless_syntaxes_give_the_same_image(
    make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID
) -> None:
    other = in_syntax(make_dataset(), tmp_path, syntax)
    assert syntax.keyword and np.array_equal(read(tmp_path / "plain.dcm"), read(other))
    for plugin in decoders(syntax) if syntax in LOSSLESS else ():
        if (syntax, plugin) != (JPEG2000Lossless, "pillow"):  # Pillow reads JPEG 2000 of 8 bits
            only(plugin, monkeypatch)
            assert np.array_equal(read(tmp_path / "plain.dcm"), read(other)), plugin


def eight_bits(make_dataset: Make, ramp: Callable[..., np.ndarray]) -> Dataset:
    pixels = ramp(high=255).astype(np.uint8)
    dataset: Dataset = make_dataset(pixels, BitsStored=8, HighBit=7, WindowCenter=None, WindowWidth=None)
    return dataset


@pytest.mark.parametrize("syntax", HIGH_THROUGHPUT, ids=lambda syntax: syntax.keyword)
def test_high_throughput_jpeg_2000(make_dataset: Make, ramp: Make, tmp_path: Path, syntax: UID) -> None:
    dataset = eight_bits(make_dataset, ramp)
    expected = np.frombuffer(dataset.PixelData, np.uint8).reshape(48, 40)
    assert np.array_equal(read(encapsulated(dataset, tmp_path / "a.dcm", syntax, RAMP_HTJ2K)), expected)


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda syntax: syntax.keyword)
def test_lossy_syntaxes_give_nearly_the_same_image(
    make_dataset: Make, ramp: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID
) -> None:
    if syntax == JPEGBaseline8Bit:
        dataset = eight_bits(make_dataset, ramp)
        dataset.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
        buffer = io.BytesIO()
        Image.fromarray(ramp(high=255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
        other = encapsulated(dataset, tmp_path / "other.dcm", syntax, buffer.getvalue())
    else:
        other = in_syntax(make_dataset(), tmp_path, syntax)
    plain = read(tmp_path / "plain.dcm").astype(int)
    assert np.abs(plain - read(other)).mean() < 2
    for plugin in decoders(syntax):
        if plugin == "pillow" and syntax != JPEGBaseline8Bit:
            continue
        only(plugin, monkeypatch)
        assert np.abs(plain - read(other)).mean() < 2, plugin


def test_threads_of_a_decoder_do_not_reach_the_limit_of_memory(
    make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = in_syntax(make_dataset(), tmp_path, JPEG2000)
    only("gdcm", monkeypatch)
    first = read(other)
    assert all(np.array_equal(read(other), first) for _ in range(60))
