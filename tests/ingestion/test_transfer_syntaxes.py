"""Every transfer syntax that pydicom has a decoder for, by every decoder that is installed."""

from __future__ import annotations

import io
from base64 import b85decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxrreport.ingestion.dicom import pixel_data as dicom_pixels
from cxrreport.ingestion.dicom.radiograph import read_radiograph

LOSSLESS = [JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless]
NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
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
RAMP_EXTENDED = b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y"
    "3k(Yi3<(Mf3je_X3k(1-04M<g5di<h02lxP0RaI40000000000000073<?Vk|HJ?_5C8xI1quZM1qA>A0000000s*HC^Dtu0R;yL"
    "2?`7q78nBr4Hp>#6cG{{8zmDbF*Zg2+5iXv0RR9$0E?5OB6JE`p!IHU5s%zT*5W(9-B;WA@cod<^kjN1YVrxbZS4NLRl=*UYP2rT"
    "I6ua$)LqK|01Hq4XNiwd>FKG|LDTgypx4T<iu4L$C)OSlx=}5j8CBz73ldZVcKf2UuB_G0;{L)(OccW)4@+@t6T|}l0DqtJjTfGN"
    "FE`0%?k3@adl^;7JSd77C$X7!xaWlt0|fQ5tB!b6&?&+DVz6<A_zWLK;a^4**w#tb>Liz|wwdR~NwUCNgI8;Gn`ZAXWIk=)P&F!O"
    "%{RCzUifJ|lQh-R=Gm56H2VyFVh?XA94m^$I5yXF@Q=&9zs=j*dp_Py!1-Ralb*BMfa=S|r%uV${*Ef`Mn5$g)#wBSqj26!MN~;g"
    "p{X(e%-Qdx4@o%A9`bbOrwPNG$M9gDwpDS@3L*vx>}6LR@S-4Kp2k&i&k9pE7$>onTysK*fr5J(RmVIih!`iam0WW|h@pad*^_II"
    "cu^2APg^Ru=Y=Vn3=`JMt~udEK*2q1$+gEkD2f;-v6WnNLWqHadl^;7JSd15C$W`Wb3&BOh6(ItR~+!7AYh)xRdLS>A_fWTWmg>V"
    "q99<Nwq)Alo)kq46WGeGIiX5sg9P=mtB!b45HL?;GVO8C3L=IH>}6LR@S-4Kp2k&i&k7<23F~E79Pp?A*#"
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


def by_gdcm(plain: Path, target: Path, kind: int) -> Path:
    """The same file in another transfer syntax."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


def in_syntax(dataset: Dataset, folder: Path, syntax: str) -> Path:
    plain, target = folder / "plain.dcm", folder / "other.dcm"
    dataset.save_as(plain, enforce_file_format=True)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax in NATIVE:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            dataset["PixelData"].VR = "OW"
            dataset.save_as(target, enforce_file_format=True, implicit_vr=False, little_endian=False)
            return target
    elif syntax == JPEGExtended12Bit:
        return encapsulated(dataset, target, syntax, RAMP_EXTENDED)
    else:
        return by_gdcm(plain, target, gdcm.TransferSyntax.GetTSType(str(syntax)))
    dataset.save_as(target, enforce_file_format=True)
    return target


def encapsulated(dataset: Dataset, path: Path, syntax: UID, codestream: bytes) -> Path:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path


def only(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def attempts(syntax: UID, plugins: list[str]) -> list[tuple[str, bool]]:
        assert plugin in plugins
        return [(plugin, plugin in ("gdcm", "pylibjpeg"))]

    monkeypatch.setattr(dicom_pixels, "_attempts", attempts)


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
