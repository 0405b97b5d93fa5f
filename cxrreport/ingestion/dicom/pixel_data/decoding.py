"""The pixel data of a DICOM file: from any transfer syntax to stored values, memory bounded by the header."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from cxrreport.errors import PixelError, RefusedImage
from cxrreport.ingestion.dicom.colour import PALETTE, grey_of_palette
from cxrreport.ingestion.dicom.elements import text, translated, whole
from cxrreport.ingestion.dicom.pixel_data.codestream import frame_size, sample_format
from cxrreport.ingestion.dicom.pixel_data.damage import jpeg_2000_fault, rle_fault
from cxrreport.ingestion.dicom.pixel_data.decoder_process import DamagedError, DecoderProcess
from cxrreport.ingestion.dicom.pixel_data.fragments import first_frame
from cxrreport.ingestion.dicom.pixel_data.sample_values import stored_values
from cxrreport.ingestion.images.greyscale import luminance
from cxrreport.ingestion.images.jpeg import MAX_SCANS, SCAN, decode_jpeg
from cxrreport.records import Reason

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_HELPER = DecoderProcess()


def _transfer_syntax(dataset: Dataset) -> UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax:
        return UID(str(syntax))
    # A file without meta information: pydicom has found out how it is written.
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def decode(dataset: Dataset, rows: int, columns: int) -> NDArray[np.integer]:
    """Decode the first frame of a file whose header was found acceptable.

    Args:
        dataset: with PixelData; missing elements that decoders ask for are filled in, and further frames dropped.
        rows: of the header, pixels, as `columns`: what the memory for decoding is bounded by.
        columns: see `rows`.

    Returns:
        integer[rows, columns], for colours their luminance.

    Raises:
        PixelError: `bad-pixel-data`.
        RefusedImage: `no-pixels`.
    """
    if "PixelData" not in dataset:
        if any(keyword in dataset for keyword in PIXELS):
            raise PixelError(Reason.BAD_PIXELS, "floating point pixels")
        raise RefusedImage(Reason.NO_PIXELS, "no PixelData")
    pixels: NDArray[np.integer]
    with translated(Reason.BAD_PIXELS, "the pixel data cannot be decoded", PixelError):
        if not dataset.PixelData:
            raise RefusedImage(Reason.NO_PIXELS, "PixelData is empty")
        syntax = _transfer_syntax(dataset)
        _fill_in(dataset, syntax)
        name = syntax.name if syntax.name != str(syntax) else "an unknown transfer syntax"
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            raise PixelError(Reason.BAD_PIXELS, f"{name} is not a transfer syntax of images") from None
        if not decoder.is_available:
            raise PixelError(Reason.BAD_PIXELS, f"no installed decoder reads {name}")
        if syntax.is_encapsulated:
            pixels = _decode_encapsulated(dataset, syntax, decoder.available_plugins, name)
        else:
            pixels = _decode_native(dataset, decoder)
        if dataset.PhotometricInterpretation == PALETTE:
            pixels = grey_of_palette(pixels, dataset)
    if pixels.shape != (rows, columns) or pixels.dtype.kind not in "iu":
        raise PixelError(Reason.BAD_PIXELS, f"decoded to shape {pixels.shape} of {pixels.dtype}")
    return pixels


def _fill_in(dataset: Dataset, syntax: UID) -> None:
    """What decoders ask for and files lack."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if dataset.get("BitsStored") is None:
        dataset.BitsStored = dataset.BitsAllocated
    dataset.PhotometricInterpretation = text(dataset, "PhotometricInterpretation").upper()
    for keyword, default in (("PixelRepresentation", 0), ("SamplesPerPixel", 1), ("NumberOfFrames", 1)):
        setattr(dataset, keyword, whole(dataset, keyword) or default)


def _decode_native(dataset: Dataset, decoder: Decoder) -> NDArray[np.integer]:
    allocated, colour = int(dataset.BitsAllocated), dataset.SamplesPerPixel > 1
    # Two pixels of YBR_FULL_422 share their colours (PS3.3 C.7.6.3.1.2).
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else dataset.SamplesPerPixel
    needed = dataset.Rows * dataset.Columns * samples * allocated // 8
    if len(dataset.PixelData) < needed:
        raise PixelError(Reason.BAD_PIXELS, f"{len(dataset.PixelData)} of {needed} bytes of pixels")
    if len(dataset.PixelData) > needed + 1:  # further frames, or what pydicom would take for some
        dataset.PixelData, dataset.NumberOfFrames = dataset.PixelData[:needed], 1
    options: Any = {"view_only": True, "correct_unused_bits": False}
    pixels, said = decoder.as_array(dataset, raw=True, **options)
    if colour:
        pixels = luminance(pixels, str(said["photometric_interpretation"]))
    return _without_unused_bits(pixels, allocated, int(dataset.BitsStored))


def _without_unused_bits(pixels: NDArray[np.integer], allocated: int, stored: int) -> NDArray[np.integer]:
    """In the machine's byte order, and without the bits above `stored`, which may hold anything (PS3.5 8.1.1).

    Nearly always there is nothing to do: looking is quicker than a copy.
    """
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    least, most = (-(1 << (stored - 1)), 1 << (stored - 1)) if native.dtype.kind == "i" else (0, 1 << stored)
    if stored == allocated or (int(native.max()) < most and int(native.min()) >= least):
        return native
    corrected: NDArray[np.integer] = (native << (allocated - stored)) >> (allocated - stored)
    return corrected


def _decode_encapsulated(dataset: Dataset, syntax: UID, plugins: Sequence[str], name: str) -> NDArray[np.integer]:
    frame = first_frame(dataset.PixelData, dataset.NumberOfFrames, _extended_offsets(dataset))
    allocated, stored, signed = int(dataset.BitsAllocated), int(dataset.BitsStored), dataset.PixelRepresentation == 1
    if syntax == RLELossless:
        _check_rle(frame, dataset)
        return _without_unused_bits(_decode_frame(frame, dataset, syntax, plugins, name), allocated, stored)
    _check_codestream(frame, dataset)
    precision, has_sign = sample_format(frame) or (0, False)
    if not 1 <= precision <= 32:
        raise PixelError(Reason.BAD_PIXELS, f"the codestream has {precision} bits per sample")
    # Decoders get the depth of the codestream: where the header says less, they would wrap or refuse.
    dataset.BitsStored, dataset.PixelRepresentation = precision, int(has_sign)
    dataset.BitsAllocated = 8 if precision <= 8 else 16 if precision <= 16 else 32
    samples = _decode_frame(frame, dataset, syntax, plugins, name)
    return stored_values(samples, precision, bits_stored=stored, signed=signed)


def _extended_offsets(dataset: Dataset) -> tuple[int, ...]:
    table = dataset.get("ExtendedOffsetTable") or b""
    return struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8])


def _decode_frame(
    frame: bytes, dataset: Dataset, syntax: UID, plugins: Sequence[str], name: str
) -> NDArray[np.integer]:
    """Try the installed decoders in turn: each refuses some variants of what its transfer syntax allows."""
    data = encapsulate([frame], has_bot=False)
    options = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "number_of_frames": 1,
        "samples_per_pixel": int(dataset.SamplesPerPixel),
        "planar_configuration": whole(dataset, "PlanarConfiguration") or 0,
        "photometric_interpretation": dataset.PhotometricInterpretation,
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsStored),
        "pixel_representation": int(dataset.PixelRepresentation),
        "pixel_keyword": "PixelData",
    }
    refused = PixelError(Reason.BAD_PIXELS, f"no installed decoder reads {name}")
    for plugin in _in_order(syntax, plugins):
        try:
            return _HELPER.decode(str(syntax), plugin, data, options)
        except DamagedError:
            raise
        except PixelError as error:
            refused = error
    raise refused


def _in_order(syntax: UID, plugins: Sequence[str]) -> list[str]:
    """Decoders in the order of trying.

    JPEG and JPEG-LS never go to pylibjpeg, which need not be installed: there it is pylibjpeg-libjpeg, which returns a
    picture for data that are cut off.
    """
    if syntax == RLELossless:
        return ["pydicom"]
    classic = syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes
    preferred = ("pyjpegls", "pillow", "gdcm") if classic else ("pylibjpeg", "pillow", "gdcm")
    return [plugin for plugin in preferred if plugin in plugins]


def decode_encapsulated(syntax: str, plugin: str, data: bytes, options: dict[str, Any]) -> NDArray[np.integer]:
    """Decode the value of an encapsulated PixelData with one of pydicom's decoders.

    Args:
        syntax: UID of the transfer syntax.
        plugin: name of the decoder in pydicom.
        data: the value of PixelData.
        options: pydicom's `DecodeOptions`, with depth and sign of the codestream.

    Returns:
        integer[rows, columns], for colours their luminance.

    Raises:
        Exception: of any type, as decoders raise it.
    """
    pixels: NDArray[np.integer]
    if syntax in (JPEGBaseline8Bit, JPEGExtended12Bit) and plugin == "gdcm" and options["bits_stored"] > 8:
        from cxrreport.ingestion.dicom.pixel_data.gdcm_extended import (
            decode_extended,  # not loaded where it would take the process down
        )

        return decode_extended(get_frame(data, 0, number_of_frames=1), options)
    pixels, said = get_decoder(UID(syntax)).as_array(data, raw=True, decoding_plugin=plugin, **cast(Any, options))
    if plugin == "pillow" and syntax in JPEGTransferSyntaxes:
        try:
            decode_jpeg(get_frame(data, 0, number_of_frames=1))
        except ValueError as error:
            raise DamagedError(Reason.BAD_PIXELS) from error
    return luminance(pixels, str(said["photometric_interpretation"])) if pixels.ndim > 2 else pixels


def _check_codestream(frame: bytes, dataset: Dataset) -> None:
    rows, columns, samples = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    size = frame_size(frame)
    if size is None:
        raise PixelError(Reason.BAD_PIXELS, "no codestream at the start of the pixel data")
    if size[:2] != (rows, columns):
        raise PixelError(Reason.BAD_PIXELS, f"the codestream has {size[0]} x {size[1]} pixels, not {rows} x {columns}")
    if size[2] != samples:
        raise PixelError(Reason.BAD_PIXELS, f"the codestream has {size[2]} components, not {samples}")
    if frame.startswith(b"\xff\xd8") and frame.count(SCAN) > MAX_SCANS:
        raise PixelError(Reason.BAD_PIXELS, f"more than {MAX_SCANS} scans")
    if fault := jpeg_2000_fault(frame):
        raise PixelError(Reason.BAD_PIXELS, f"the codestream is damaged: {fault}")


def _check_rle(frame: bytes, dataset: Dataset) -> None:
    expected = dataset.Rows * dataset.Columns
    # The worst encoder writes two bytes for one. Beyond that are operations without effect, which take time.
    if len(frame) > 128 + 3 * expected * dataset.SamplesPerPixel * dataset.BitsAllocated // 8:
        raise PixelError(Reason.BAD_PIXELS, f"{len(frame)} bytes of RLE for {expected} pixels")
    if fault := rle_fault(frame, int(dataset.Rows), int(dataset.Columns)):
        raise PixelError(Reason.BAD_PIXELS, fault)
