"""Read the grey-scale transformations of a DICOM header: modality, VOI, polarity and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxrreport.errors import PixelError
from cxrreport.ingestion.dicom.elements import numbers, text, texts, translated, whole
from cxrreport.ingestion.images.greyscale import GreyScale, LookupTable, Window, WindowFunction
from cxrreport.records import Reason


def grey_scale(dataset: Dataset, choice: int | str = 0) -> tuple[GreyScale, tuple[str, ...]]:
    """Read the elements that take stored values to grey.

    Args:
        dataset: of a header that was found acceptable.
        choice: of several windows or VOI LUTs, which are alternative views (PS3.3 C.11.2.1): the index from 0, or the
            explanation that the file gives to one of them; the first where the file has none such.

    Returns:
        The grey scale, and notes: `presentation-lut-inverse`, `window-invalid`, `voi-lut-broken`, `voi-lut-bits`,
        `window-choice-missing`.

    Raises:
        PixelError: `bad-lut`.
    """
    allocated = whole(dataset, "BitsAllocated") or 0
    bits = whole(dataset, "BitsStored") or allocated
    photometric = text(dataset, "PhotometricInterpretation").upper()
    if not photometric.startswith("MONOCHROME"):
        # Of colours their luminance is taken, and no transformation means anything for them (C.11.2.1.2.1).
        return GreyScale(bits_stored=8 if photometric == "PALETTE COLOR" else allocated), ()
    signed = whole(dataset, "PixelRepresentation") == 1
    modality_lut, slope, intercept = None, 1.0, 0.0
    if items := _items(dataset, "ModalityLUTSequence"):
        modality_lut = _table_of_item(items[0], dataset, "ModalityLUTSequence", signed=signed)
    elif "RescaleSlope" in dataset or "RescaleIntercept" in dataset:
        slope = _rescale(dataset, "RescaleSlope", 1.0)
        intercept = _rescale(dataset, "RescaleIntercept", 0.0)
        if slope == 0.0:
            raise PixelError(Reason.BAD_LUT, "RescaleSlope is 0")
    # The input of a VOI LUT is the output of the modality transformation: signed only where that is (C.11.2.1.1).
    window, voi_lut, notes = _voi(dataset, choice, signed_input=modality_lut is None and (signed or intercept < 0))
    monochrome1 = photometric == "MONOCHROME1"
    inverse = text(dataset, "PresentationLUTShape").upper() == "INVERSE"
    if inverse and not monochrome1:
        # A MONOCHROME1 image of the DX module has to carry INVERSE (PS3.3 C.8.11.3.1.2): one inversion, not two.
        notes.append("presentation-lut-inverse")
    scale = GreyScale(
        bits_stored=bits,
        signed=signed,
        modality_lut=modality_lut,
        slope=slope,
        intercept=intercept,
        voi_lut=voi_lut,
        window=window,
        inverted=monochrome1 or inverse,
        padding=_padding(dataset, signed),
    )
    return scale, tuple(notes)


def _rescale(dataset: Dataset, keyword: str, default: float) -> float:
    if keyword not in dataset or dataset[keyword].value in (None, ""):
        return default
    found = numbers(dataset, keyword)
    if len(found) != 1:
        raise PixelError(Reason.BAD_LUT, f"{keyword} is not one finite number")
    return found[0]


def _voi(
    dataset: Dataset, choice: int | str, *, signed_input: bool
) -> tuple[Window | None, LookupTable | None, list[str]]:
    """Window and VOI LUT; a LUT goes first where both are there, unless a window was chosen by its explanation."""
    tables = _items(dataset, "VOILUTSequence")
    has_window = any(dataset.get(keyword) not in (None, "") for keyword in ("WindowCenter", "WindowWidth"))
    of_tables = [text(item, "LUTExplanation").casefold() for item in tables]
    of_windows = [each.casefold() for each in texts(dataset, "WindowCenterWidthExplanation")]
    notes: list[str] = []
    index = choice if isinstance(choice, int) else 0
    if isinstance(choice, str):
        wanted = choice.strip().casefold()
        if wanted in of_tables:
            index = of_tables.index(wanted)
        elif wanted in of_windows:
            index, tables = of_windows.index(wanted), []
        elif tables or has_window:
            notes.append("window-choice-missing")
    window, window_notes = _window(dataset, index) if has_window else (None, [])
    if tables:
        if index >= len(tables):
            index = 0
            notes.append("window-choice-missing")
        try:
            table = _table_of_item(tables[index], dataset, "VOILUTSequence", signed=signed_input)
        except PixelError:
            if window is None:
                raise
            notes.append("voi-lut-broken")
        else:
            return window, table, notes + (["voi-lut-bits"] if table.narrow else [])
    return window, None, notes + window_notes


def _window(dataset: Dataset, index: int) -> tuple[Window | None, list[str]]:
    """One of the windows, the first where there are not so many (PS3.3 C.11.2.1.2)."""
    centers, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    notes = []
    if index >= max(1, min(len(centers), len(widths))):
        index, notes = 0, ["window-choice-missing"]
    try:
        function = WindowFunction(text(dataset, "VOILUTFunction").upper() or "LINEAR")
        return Window(centers[index], widths[index], function), notes
    except (IndexError, ValueError):
        return None, [*notes, "window-invalid"]


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence of lookup tables; one with neither descriptor nor data is absent, not broken."""
    return [item for item in dataset.get(keyword) or () if item.get("LUTDescriptor") or item.get("LUTData")]


def _table_of_item(item: Dataset, dataset: Dataset, keyword: str, *, signed: bool) -> LookupTable:
    with translated(Reason.BAD_LUT, f"{keyword} cannot be read", PixelError):
        return lookup_table(item["LUTDescriptor"].value, item["LUTData"].value, dataset, keyword, signed=signed)


def lookup_table(described: Any, data: Any, dataset: Dataset, keyword: str, *, signed: bool) -> LookupTable:
    """A lookup table (PS3.3 C.11.1.1.1, C.7.6.3.1.5) of what its elements hold.

    Args:
        described: number of entries, first value, bits per entry.
        data: the entries, as pydicom gives OW or US.
        dataset: whose byte order they have.
        keyword: names the table in errors.
        signed: the values that go in may be negative.

    Raises:
        PixelError: `bad-lut`.
    """
    with translated(Reason.BAD_LUT, f"{keyword} cannot be read", PixelError):
        descriptor = [int(value) for value in described]
        if len(descriptor) != 3:
            raise PixelError(Reason.BAD_LUT, f"{keyword}: the descriptor has {len(descriptor)} values, not 3")
        count, first, bits = descriptor
        count %= 1 << 16  # 0 stands for 65536, and readers of SS make large counts negative
        count = count or 1 << 16
        # US and SS share their 16 bits; which is meant follows from the values that go in.
        first = (first + (1 << 15)) % (1 << 16) - (1 << 15) if signed else first % (1 << 16)
        if not 8 <= bits <= 16:
            raise PixelError(Reason.BAD_LUT, f"{keyword}: {bits} bits per entry, outside 8 to 16")
        if isinstance(data, bytes):
            entries = _entries_of_bytes(data, count, bits, little=dataset.original_encoding[1] is not False)
        else:
            words = np.asarray(data, dtype=np.int64).ravel() % (1 << 16)
            packed = words.astype("<u2").tobytes()
            entries = _entries_of_bytes(packed, count, bits, little=True)
        if entries is None:
            raise PixelError(Reason.BAD_LUT, f"{keyword}: the data do not hold {count} entries")
        return LookupTable(first, bits, entries)


def _entries_of_bytes(data: bytes, count: int, bits: int, *, little: bool) -> NDArray[np.uint16] | None:
    if len(data) >= 2 * count:
        return np.frombuffer(data, dtype="<u2" if little else ">u2", count=count).astype(np.uint16)
    if bits == 8 and len(data) >= count:  # two entries in one word
        packed = np.frombuffer(data, dtype=np.uint8)
        if not little:
            packed = packed[: len(packed) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
        return packed[:count].astype(np.uint16) if len(packed) >= count else None
    return None


def _padding(dataset: Dataset, signed: bool) -> tuple[int, int] | None:
    """Range of Pixel Padding Value (0028,0120) and Pixel Padding Range Limit (0028,0121), PS3.3 C.7.5.1.1.2."""
    values = [whole(dataset, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    known = [value for value in values if value is not None]
    if not known or values[0] is None:
        return None
    # US and SS share their 16 bits, as in LUT descriptors.
    known = [(value + (1 << 15)) % (1 << 16) - (1 << 15) if signed else value % (1 << 16) for value in known]
    return min(known), max(known)
