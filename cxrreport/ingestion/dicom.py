"""One DICOM file to one grey image, or a reason why not. The only importer of pydicom in this room.

What is decided from the header is decided before any pixel is read, and memory is bounded by the pixel budget whatever
the file promises. pydicom raises almost any exception on broken content; here each becomes a `RefusedImage` whose text
names no value of the file, as those may be a patient's.
"""

from __future__ import annotations

import logging
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pydicom
import pydicom.config
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from cxrreport.errors import PixelError, RefusedImage
from cxrreport.ingestion.acceptance import check_body_part, check_modality
from cxrreport.ingestion.codestream import frame_size
from cxrreport.ingestion.decoder_process import DecoderProcess
from cxrreport.ingestion.dicom_file import BoundedFile, opened
from cxrreport.ingestion.greyscale import GreyScale, LookupTable, Window, WindowFunction, to_grey
from cxrreport.ingestion.views import view_of
from cxrreport.records import Reason, View

_PIXEL_TAGS = frozenset({b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"})  # (7FE0,0010) in either byte order
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_HEADER_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "BodyPartExamined", "ViewPosition"),
    *("ViewCodeSequence", "PatientOrientation", "BurnedInAnnotation", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
]
_IN_PROCESS = ("pylibjpeg", "pyjpegls", "pydicom", "pillow")  # decoders that raise on corrupt data, preferred first
_ISOLATED = "gdcm"  # ... and the one that aborts
_HELPER = DecoderProcess()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the header of an acceptable radiograph says.

    Args:
        patient_id: PatientID, study_id: StudyInstanceUID, image_id: SOPInstanceUID; an empty string where missing.
        rows: height, pixels; within the budget, as is `columns`.
        notes: `bodypart-missing`, `bodypart-unclear`, `modality-missing`, `for-processing`.
    """

    patient_id: str
    study_id: str
    image_id: str
    view: View
    rows: int
    columns: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiograph:
    """One radiograph as it is displayed.

    Args:
        grey: uint8[rows, columns]; bright is dense, whatever the polarity of the file.
        patient_id: as in `Header`, as are `study_id` and `image_id`.
        notes: those of `Header`, and `presentation-lut-inverse`, `window-missing`, `window-invalid`, `window-blank`,
            `voi-lut-broken`.
    """

    grey: NDArray[np.uint8]
    rows: int
    columns: int
    view: View
    patient_id: str = ""
    study_id: str = ""
    image_id: str = ""
    notes: tuple[str, ...] = ()


def read_header(path: Path, *, max_pixels: int) -> Header:
    """Check the header of a DICOM file; no pixel is read.

    Args:
        path: the file.
        max_pixels: largest Rows x Columns.

    Raises:
        RefusedImage: with the reason that goes into the ledger. It is the only exception for a bad file.
    """
    with opened(path, max_pixels) as file:
        return _check(_parse(file, pixels=False), max_pixels)


def read_radiograph(path: Path, *, max_pixels: int) -> Radiograph:
    """Read one file: check its header, decode it, and take its values to display grey (`greyscale.to_grey`).

    Args:
        path: the file.
        max_pixels: largest Rows x Columns; checked before pixels are read or decoded.

    Raises:
        RefusedImage: the file is not an acceptable radiograph; PixelError where pixels or grey scale are the reason.
    """
    with opened(path, max_pixels) as file:
        header = _check(_parse(file, pixels=False), max_pixels)
        begins_pixels = file.read(4) in _PIXEL_TAGS
        file.seek(0)
        dataset = _parse(file, pixels=True)
        if begins_pixels and not any(keyword in dataset for keyword in _PIXELS):
            raise PixelError(Reason.BAD_PIXELS, "the pixel data are cut off")
    with _translated(Reason.BAD_LUT, "the grey-scale transformations cannot be read", PixelError):
        scale, notes = _grey_scale(dataset)
    stored = _decode(dataset, header)
    with _translated(Reason.BAD_PIXELS, "the pixel values cannot be brought to grey", PixelError):
        grey, more = to_grey(stored, scale)
    return Radiograph(
        grey=grey,
        rows=header.rows,
        columns=header.columns,
        view=header.view,
        patient_id=header.patient_id,
        study_id=header.study_id,
        image_id=header.image_id,
        notes=header.notes + notes + more,
    )


# --- The door: nothing of pydicom's warnings, messages and exceptions goes past these lines. ---


@contextmanager
def _translated(reason: Reason, detail: str, error: type[RefusedImage] = RefusedImage) -> Iterator[None]:
    """Turn whatever pydicom and its decoders raise on bad content into `error`.

    Broad on purpose: struct.error, KeyError, AttributeError, OverflowError, RecursionError, zlib.error and more have
    all been seen. The original is not chained, because its message may quote values of the file.
    """
    logger = logging.getLogger("pydicom")
    level, mode = logger.level, pydicom.config.settings.reading_validation_mode
    logger.setLevel(logging.CRITICAL + 1)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RefusedImage:
        raise
    except MemoryError:
        raise error(Reason.TOO_LARGE, "more memory was asked for than there is") from None
    except Exception as raised:
        raise error(reason, f"{detail} ({type(raised).__name__})") from None
    finally:
        logger.setLevel(level)
        pydicom.config.settings.reading_validation_mode = mode


def _parse(file: BoundedFile, *, pixels: bool) -> Dataset:
    tags: list[Any] = [*_HEADER_TAGS, *(_PIXELS if pixels else ())]
    with _translated(Reason.NOT_READABLE, "the data set cannot be parsed"):
        _check_inflated_size(file)
        # pydicom asks for no more than read, seek and tell.
        source: Any = file
        return pydicom.dcmread(source, stop_before_pixels=not pixels, force=True, specific_tags=tags)


def _check_inflated_size(file: BoundedFile) -> None:
    """Refuse a deflated data set that would grow past any size a radiograph has (a compression bomb)."""
    source: Any = file
    if source.read(132)[128:] != b"DICM":
        source.seek(0)
        return
    meta = pydicom.filereader._read_file_meta_info(source)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        inflater, packed, total = zlib.decompressobj(-zlib.MAX_WBITS), source.read(), 0
        while packed and not inflater.eof:
            total += len(inflater.decompress(packed, 1 << 20))
            packed = inflater.unconsumed_tail
            if total > 1 << 29:
                raise RefusedImage(Reason.TOO_LARGE, "the deflated data set inflates to more than 512 MiB")
    source.seek(0)


# --- The header ---


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    if not isinstance(value, str) and isinstance(value, Sequence):
        value = value[0] if value else ""
    return str(value).strip().strip("\0")


def _whole(dataset: Dataset, keyword: str) -> int | None:
    try:
        return int(dataset[keyword].value)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _check(dataset: Dataset, max_pixels: int) -> Header:
    with _translated(Reason.NOT_READABLE, "a header element cannot be read"):
        sop_class = UID(_text(dataset, "SOPClassUID"))
        notes = check_modality(
            sop_class=str(sop_class),
            sop_class_name=sop_class.name if sop_class.name != str(sop_class) else "",
            modality=_text(dataset, "Modality").upper(),
            is_image=dataset.get("Rows") is not None,
        ) + check_body_part(_text(dataset, "BodyPartExamined"))
        rows, columns = _check_shape(dataset, max_pixels)
        if _text(dataset, "BurnedInAnnotation").upper() == "YES":
            raise RefusedImage(Reason.BURNED_IN, "BurnedInAnnotation is YES")
        codes = dataset.get("ViewCodeSequence") or [Dataset()]
        orientation = dataset.get("PatientOrientation") or []
        return Header(
            patient_id=_text(dataset, "PatientID"),
            study_id=_text(dataset, "StudyInstanceUID"),
            image_id=_text(dataset, "SOPInstanceUID"),
            view=view_of(
                _text(dataset, "ViewPosition"),
                _text(codes[0], "CodeMeaning"),
                [] if isinstance(orientation, str) else [str(part) for part in orientation],
            ),
            rows=rows,
            columns=columns,
            notes=notes,
        )


def _check_shape(dataset: Dataset, max_pixels: int) -> tuple[int, int]:
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    if rows is None or columns is None:
        raise RefusedImage(Reason.NO_PIXELS, "no Rows or no Columns")
    if rows < 1 or columns < 1:
        raise PixelError(Reason.BAD_PIXELS, f"{rows} rows and {columns} columns")
    photometric = _text(dataset, "PhotometricInterpretation").upper()
    samples = _whole(dataset, "SamplesPerPixel") or 1
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2", ""}:
        raise RefusedImage(Reason.COLOUR, f"{samples} samples per pixel, not MONOCHROME1 or MONOCHROME2")
    if not photometric:
        raise PixelError(Reason.BAD_PIXELS, "PhotometricInterpretation is missing: black and white cannot be told")
    frames = _whole(dataset, "NumberOfFrames") or 1
    if frames > 1:
        raise RefusedImage(Reason.MULTI_FRAME, f"{frames} frames")
    if rows * columns > max_pixels:
        raise RefusedImage(Reason.TOO_LARGE, f"{rows} x {columns} pixels, and max_pixels is {max_pixels}")
    allocated = _whole(dataset, "BitsAllocated") or 0
    stored = _whole(dataset, "BitsStored") or allocated
    high = _whole(dataset, "HighBit")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high not in (None, stored - 1):
        raise PixelError(Reason.BAD_PIXELS, f"{allocated} bits allocated, {stored} stored, high bit {high}")
    if min(rows, columns) < 2:
        raise PixelError(Reason.BAD_PIXELS, f"{rows} rows and {columns} columns are no picture")
    return rows, columns


# --- Grey scale and pixels ---


def _numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The values of a DS, US or SS element as finite floats; empty where the element is missing or holds no number."""
    try:
        value = dataset[keyword].value
        values = [value] if isinstance(value, (str, int, float)) else list(value or [])
        numbers = [float(each) for each in values]
    except (KeyError, TypeError, ValueError, OverflowError):
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def _grey_scale(dataset: Dataset) -> tuple[GreyScale, tuple[str, ...]]:
    notes: list[str] = []
    bits = _whole(dataset, "BitsStored") or _whole(dataset, "BitsAllocated") or 0
    signed = _whole(dataset, "PixelRepresentation") == 1
    modality_lut, slope, intercept = None, 1.0, 0.0
    if dataset.get("ModalityLUTSequence"):
        modality_lut = _lookup_table(dataset, "ModalityLUTSequence", signed=signed)
    elif "RescaleSlope" in dataset or "RescaleIntercept" in dataset:
        slope = _rescale(dataset, "RescaleSlope", 1.0)
        intercept = _rescale(dataset, "RescaleIntercept", 0.0)
        if slope == 0.0:
            raise PixelError(Reason.BAD_LUT, "RescaleSlope is 0")
    window, window_notes = _window(dataset)
    voi_lut = None
    if dataset.get("VOILUTSequence"):
        try:
            # Its input is the output of the modality transformation: signed only where that is (PS3.3 C.11.2.1.1).
            signed_input = modality_lut is None and (signed or intercept < 0)
            voi_lut = _lookup_table(dataset, "VOILUTSequence", signed=signed_input)
        except PixelError:
            if window is None:
                raise
            notes.append("voi-lut-broken")
    if voi_lut is None:
        notes += window_notes
    monochrome1 = _text(dataset, "PhotometricInterpretation").upper() == "MONOCHROME1"
    inverse = _text(dataset, "PresentationLUTShape").upper() == "INVERSE"
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
    numbers = _numbers(dataset, keyword)
    if len(numbers) != 1:
        raise PixelError(Reason.BAD_LUT, f"{keyword} is not one finite number")
    return numbers[0]


def _window(dataset: Dataset) -> tuple[Window | None, list[str]]:
    """The first window, which is the default view of several (PS3.3 C.11.2.1.2)."""
    if dataset.get("WindowCenter") in (None, "") and dataset.get("WindowWidth") in (None, ""):
        return None, []
    centers, widths = _numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth")
    try:
        function = WindowFunction(_text(dataset, "VOILUTFunction").upper() or "LINEAR")
        return Window(centers[0], widths[0], function), []
    except (IndexError, ValueError):
        return None, ["window-invalid"]


def _lookup_table(dataset: Dataset, keyword: str, *, signed: bool) -> LookupTable:
    """First item of a LUT sequence (PS3.3 C.11.1.1.1): descriptor entries, first value, bits; and its data."""
    with _translated(Reason.BAD_LUT, f"{keyword} cannot be read", PixelError):
        item: Dataset = dataset[keyword].value[0]
        descriptor = [int(value) for value in item["LUTDescriptor"].value]
        if len(descriptor) != 3:
            raise PixelError(Reason.BAD_LUT, f"{keyword}: LUTDescriptor has {len(descriptor)} values, not 3")
        count, first, bits = descriptor
        count %= 1 << 16  # 0 stands for 65536, and readers of SS make large counts negative
        count = count or 1 << 16
        # US and SS share their 16 bits; which is meant follows from the values that go in.
        first = (first + (1 << 15)) % (1 << 16) - (1 << 15) if signed else first % (1 << 16)
        if not 8 <= bits <= 16:
            raise PixelError(Reason.BAD_LUT, f"{keyword}: {bits} bits per entry, outside 8 to 16")
        data = item["LUTData"].value
        if isinstance(data, bytes):
            entries = _entries_of_bytes(data, count, bits, little=dataset.original_encoding[1] is not False)
        else:
            words = np.asarray(data, dtype=np.int64).ravel() % (1 << 16)
            packed = words.astype("<u2").tobytes()
            entries = _entries_of_bytes(packed, count, bits, little=True)
        if entries is None:
            raise PixelError(Reason.BAD_LUT, f"{keyword}: LUTData does not hold {count} entries")
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
    values = [_whole(dataset, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    known = [value for value in values if value is not None]
    if not known or values[0] is None:
        return None
    # US and SS share their 16 bits, as in LUT descriptors.
    known = [(value + (1 << 15)) % (1 << 16) - (1 << 15) if signed else value % (1 << 16) for value in known]
    return min(known), max(known)


def _transfer_syntax(dataset: Dataset) -> UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax:
        return UID(str(syntax))
    # A file without meta information: pydicom has found out how it is written.
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _decode(dataset: Dataset, header: Header) -> NDArray[np.integer]:
    """Decode the single frame, integer[rows, columns], memory bounded by `header`."""
    if "PixelData" not in dataset:
        if any(keyword in dataset for keyword in _PIXELS):
            raise PixelError(Reason.BAD_PIXELS, "floating point pixels")
        raise RefusedImage(Reason.NO_PIXELS, "no PixelData")
    allocated = _whole(dataset, "BitsAllocated") or 0
    pixels: NDArray[np.integer]
    with _translated(Reason.BAD_PIXELS, "the pixel data cannot be decoded", PixelError):
        if not dataset.PixelData:
            raise RefusedImage(Reason.NO_PIXELS, "PixelData is empty")
        syntax = _transfer_syntax(dataset)
        if not hasattr(dataset, "file_meta"):
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        if dataset.get("BitsStored") is None:
            dataset.BitsStored = allocated
        dataset.PixelRepresentation = dataset.get("PixelRepresentation") or 0
        dataset.SamplesPerPixel = 1
        name = syntax.name if syntax.name != str(syntax) else "an unknown transfer syntax"
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            raise PixelError(Reason.BAD_PIXELS, f"{name} is not a transfer syntax of images") from None
        if not decoder.is_available:
            raise PixelError(Reason.BAD_PIXELS, f"no installed decoder reads {name}")
        needed = header.rows * header.columns * allocated // 8
        if syntax.is_encapsulated:
            _check_codestream(get_frame(dataset.PixelData, 0, number_of_frames=1), header, syntax, needed)
            pixels = _decode_encapsulated(dataset, syntax, decoder.available_plugins, name)
        else:
            if len(dataset.PixelData) < needed:
                raise PixelError(Reason.BAD_PIXELS, f"{len(dataset.PixelData)} of {needed} bytes of pixels")
            pixels = decoder.as_array(dataset, raw=True)[0]
    if pixels.shape != (header.rows, header.columns) or pixels.dtype.kind not in "iu":
        raise PixelError(Reason.BAD_PIXELS, f"decoded to shape {pixels.shape} of {pixels.dtype}")
    return pixels


def _decode_encapsulated(dataset: Dataset, syntax: UID, plugins: Sequence[str], name: str) -> NDArray[np.integer]:
    """Try the installed decoders in turn: each refuses some variants of what its transfer syntax allows."""
    options = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": _text(dataset, "PhotometricInterpretation"),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsStored),
        "pixel_representation": int(dataset.PixelRepresentation),
        "pixel_keyword": "PixelData",
    }
    refused = PixelError(Reason.BAD_PIXELS, f"no installed decoder reads {name}")
    for plugin in (*_IN_PROCESS, _ISOLATED):
        if plugin not in plugins:
            continue
        try:
            if plugin == _ISOLATED:
                return _HELPER.decode(str(syntax), plugin, dataset.PixelData, options)
            with _translated(Reason.BAD_PIXELS, f"{name} pixel data cannot be decoded", PixelError):
                return decode_encapsulated(syntax, plugin, dataset.PixelData, options)
        except PixelError as error:
            refused = error
    raise refused


def decode_encapsulated(syntax: str, plugin: str, data: bytes, options: dict[str, Any]) -> NDArray[np.integer]:
    """Decode the value of an encapsulated PixelData with one of pydicom's decoders.

    Args:
        syntax: UID of the transfer syntax.
        plugin: name of the decoder in pydicom.
        data: the value of PixelData.
        options: pydicom's `DecodeOptions`.

    Returns:
        integer[rows, columns].

    Raises:
        Exception: of any type, as decoders raise it.
    """
    pixels: NDArray[np.integer] = get_decoder(UID(syntax)).as_array(
        data, raw=True, decoding_plugin=plugin, **cast(Any, options)
    )[0]
    return pixels


def _check_codestream(frame: bytes, header: Header, syntax: UID, needed: int) -> None:
    if syntax == RLELossless:
        # Runs may grow 64-fold, but no encoder writes more than 1 byte per 128 above the raw size (PS3.5 G.3).
        if len(frame) > needed + needed // 64 + 4096:
            raise PixelError(Reason.BAD_PIXELS, f"{len(frame)} bytes of RLE for {needed} bytes of pixels")
        return
    size = frame_size(frame)
    if size is None:
        raise PixelError(Reason.BAD_PIXELS, "no codestream at the start of the pixel data")
    if size != (header.rows, header.columns):
        raise PixelError(
            Reason.BAD_PIXELS, f"the codestream has {size[0]} x {size[1]} pixels, not {header.rows} x {header.columns}"
        )
