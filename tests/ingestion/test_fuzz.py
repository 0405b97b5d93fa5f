"""Mutated headers and bytes: never an exception outside our own tree, never more memory than the budget allows."""

from __future__ import annotations

import io
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.dicom.radiograph import read_radiograph
from cxrreport.ingestion.images.picture import read_picture
from cxrreport.records import Reason, Report
from cxrreport.reports.sections import parse_report

BUDGET = 1_200_000  # pixels
MEMORY = 64_000_000 + 60 * BUDGET  # bytes: what a file may hold beside its pixels, and the arrays of one picture
KEEP = ("not-a-radiograph", "not-a-chest", "colour", "multi-frame", "burned-in-annotation")  # so that all is decoded
EXAMPLES = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


REAL = Path(__file__).parents[3] / "shared" / "data" / "dicom"
REAL_NAMES = ("rsna_6904.dcm", "himl_constant_pixels.dcm", "mlut_18.dcm", "vlut_04.dcm")  # those of less than 1 MB


@pytest.fixture
def seeds(make_dataset: Callable[..., Dataset], ramp: Callable[..., np.ndarray]) -> list[bytes]:
    """One picture uncompressed, RLE, JPEG 2000, JPEG, JPEG-LS, in colour and of frames; and real files, if there."""
    eight = ramp(high=255).astype(np.uint8)
    found = []
    for syntax, format_ in ((None, ""), (RLELossless, ""), (JPEG2000Lossless, "JPEG2000"), (JPEGBaseline8Bit, "JPEG")):
        dataset = make_dataset() if not format_ else make_dataset(eight, BitsStored=8, HighBit=7, WindowWidth=None)
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        elif syntax is not None:
            buffer = io.BytesIO()
            Image.fromarray(eight).save(buffer, format_)
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.PixelData = encapsulate([buffer.getvalue()])
            dataset["PixelData"].is_undefined_length = True
        whole = io.BytesIO()
        dataset.save_as(whole, enforce_file_format=True)
        found.append(whole.getvalue())
    made = [make_dataset(), make_dataset(NumberOfFrames=2, PixelData=make_dataset().PixelData * 2)]
    made[0].compress(JPEGLSLossless)
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsStored": 8, "HighBit": 7}
    made.append(make_dataset(np.stack([eight] * 3, axis=2), PhotometricInterpretation="RGB", **colour))
    made.append(make_dataset(eight, PhotometricInterpretation="PALETTE COLOR", BitsStored=8, HighBit=7))
    for name in ("Red", "Green", "Blue"):
        setattr(made[-1], f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(made[-1], f"{name}PaletteColorLookupTableData", bytes(range(256)))
    for dataset in made:
        whole = io.BytesIO()
        dataset.save_as(whole, enforce_file_format=True)
        found.append(whole.getvalue())
    return found + [(REAL / name).read_bytes() for name in REAL_NAMES if (REAL / name).is_file()]


def outcome(read: Callable[..., Any], path: Path) -> Any:
    """The picture, or the reason; the memory of the process, decoders in C included, may not grow past the budget."""
    before = forget_peak()
    try:
        return read(path, max_pixels=BUDGET, keep=KEEP).grey
    except RefusedImage as error:
        return Reason(error.reason)
    finally:
        assert resident("VmHWM") - before < MEMORY


def forget_peak() -> int:
    """Start the peak of this process anew (proc(5), clear_refs), and say where it is now, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{name}:")[1].split()[0])


def test_the_peak_is_measured(tmp_path: Path) -> None:
    def hungry(path: Path, **options: Any) -> Any:
        np.full(2 * MEMORY, 7, np.uint8)
        raise RefusedImage(Reason.CONSTANT)

    with pytest.raises(AssertionError):
        outcome(hungry, tmp_path)


def test_the_seeds_are_read(seeds: list[bytes], folder: Path) -> None:
    for whole in seeds:
        (folder / "seed.dcm").write_bytes(whole)
        found = outcome(read_radiograph, folder / "seed.dcm")
        assert found is Reason.CONSTANT if isinstance(found, Reason) else min(found.shape) >= 40


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], None]]:
    """Count what came of the cases, and print it at the end, past pytest's capture."""
    outcomes: Counter[str] = Counter()
    yield lambda found: outcomes.update([found.value if isinstance(found, Reason) else "read"])
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        sys.stderr.write(f"\n{outcomes.total()} mutated files: {dict(outcomes.most_common())}\n")


NUMBERS = [0, 1, 2, 3, 8, 12, 16, 32, 64, 255, 0x7FFF, 0xFFFF]
TEXTS = "|0|-1|nan|inf|1e400|12,5|0\\0\\0|9999999999999999|1A|\\|INVERSE|MONOCHROME1|RGB|YBR_FULL_422|YES|SIGMOID"
LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD", b"UC", b"UR", b"OL"}


def elements(whole: bytes) -> list[tuple[int, int]]:
    """Begin and end of the elements after the meta information and before the pixels (PS3.5 7.1.2)."""
    found, at = [], 144 + int.from_bytes(whole[140:144], "little")
    while at + 12 < len(whole) and whole[at : at + 2] < b"\xe0\x7f":
        wide = whole[at + 4 : at + 6] in LONG
        length = int.from_bytes(whole[at + 8 : at + 12] if wide else whole[at + 6 : at + 8], "little")
        end = at + (12 if wide else 8) + length
        found.append((at, end))
        at = end
    return [(begin, end) for begin, end in found if end < len(whole)]


def with_odd_values(whole: bytes, anywhere: random.Random) -> bytes:
    """Some elements with values that they should not have, or taken out."""
    for _ in range(anywhere.randint(1, 3)):
        begin, end = anywhere.choice(elements(whole) or [(0, 0)])
        if anywhere.random() < 0.15 or whole[begin + 4 : begin + 6] in LONG:
            whole = whole[:begin] + whole[end:]
            continue
        value = anywhere.choice(TEXTS.split("|")).encode()
        if whole[begin + 4 : begin + 6] in (b"US", b"SS"):
            value = struct.pack("<H", anywhere.choice(NUMBERS)) * anywhere.choice([0, 1, 1, 1, 2])
        value += b" " * (len(value) % 2)
        whole = whole[: begin + 6] + struct.pack("<H", len(value)) + value + whole[end:]
    return whole


def mutate_and_read(seeds: list[bytes], folder: Path, data: st.DataObject, count: Callable[[Any], None]) -> None:
    seed = data.draw(st.sampled_from(seeds))
    anywhere = data.draw(st.randoms(use_true_random=False))  # Hypothesis itself likes the ends of ranges too much
    headers = data.draw(st.booleans())
    whole = bytearray(with_odd_values(seed, anywhere) if headers else seed)
    for _ in range(0 if headers else data.draw(st.integers(1, 3))):
        # Most of a file is pixels: the header gets its share.
        at = anywhere.randrange(132, min(len(whole), anywhere.choice([900, len(whole)])))
        change = anywhere.choice(["set", "set", "set", "set", "set", "cut", "insert", "length"])
        if change == "set":
            whole[at : at + 1] = data.draw(st.binary(min_size=1, max_size=4))
        elif change == "cut":
            del whole[at : at + data.draw(st.integers(1, 200))]
        elif change == "insert":
            whole[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            whole[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"]))
    path = folder / "mutated.dcm"
    path.write_bytes(whole)
    found = outcome(read_radiograph, path)
    assert isinstance(found, Reason) or (found.ndim == 2 and found.dtype == np.uint8 and found.size <= BUDGET)
    count(found)


FIXTURES_ARE_FINE = [HealthCheck.function_scoped_fixture]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=FIXTURES_ARE_FINE, derandomize=True)
@given(data=st.data())
def test_mutated_dicom(seeds: list[bytes], folder: Path, count: Callable[[Any], None], data: st.DataObject) -> None:
    mutate_and_read(seeds, folder, data, count)


@pytest.mark.slow
@settings(max_examples=25 * EXAMPLES, deadline=None, suppress_health_check=FIXTURES_ARE_FINE)
@given(data=st.data())
def test_mutated_dicom_for_long(
    seeds: list[bytes], folder: Path, count: Callable[[Any], None], data: st.DataObject
) -> None:
    mutate_and_read(seeds, folder, data, count)


@settings(max_examples=EXAMPLES // 2, deadline=None, derandomize=True)
@given(data=st.data())
def test_mutated_pictures(folder: Path, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    format_ = data.draw(st.sampled_from(["PNG", "JPEG"]))
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (90, 1))).save(buffer, format_)
    whole = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + 1] = data.draw(st.binary(max_size=3))
    (folder / "mutated.png").write_bytes(whole)
    found = outcome(read_picture, folder / "mutated.png")
    assert isinstance(found, Reason) or found.dtype == np.uint8


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["FINDINGS:", "IMPRESSION:", "\n", "\n\n", "findings", "FINAL REPORT", "ADDENDUM:", "___", ": "]
            ),
            st.text("aZ:. \n_é1", max_size=12),
        ),
        max_size=30,
    )
)
def test_any_text_has_sections(parts: list[str]) -> None:
    report = parse_report(" ".join(parts))
    assert isinstance(report, Report)
    assert "\n" not in report.findings + report.impression
