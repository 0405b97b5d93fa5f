"""Small files that ask for much memory or time, for the tests of files, of tables and of the server."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SIDE = 7000
"""Rows and columns that the header of a picture states: 49 million pixels, which the default budget allows."""


def dicom(pixels: bytes, syntax: str, side: int = 0, bits: int = 8, **elements: Any) -> bytes:
    """A frontal radiograph of `side` x `side` pixels, as it states."""
    side = side or SIDE
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "SOPInstanceUID": "1.2.3",
        "PatientID": "CANARY",
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": side,
        "Columns": side,
        "BitsAllocated": 8 if bits == 8 else 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in (values | elements).items():
            setattr(dataset, keyword, value)
        if syntax not in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
            dataset.PixelData = encapsulate([pixels])
            dataset["PixelData"].is_undefined_length = True
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def jpeg_2000(side: int = 0, *, block: int = 0, precinct: int = 0xFF, tile: int = 0, layers: int = 1) -> bytes:
    """A codestream without data: code blocks of 4 x 4 for 0, precincts of one pixel for 0, tiles of `tile` pixels."""
    side = side or SIDE
    size = struct.pack(">H8IH3B", 0, side, side, 0, 0, tile or side, tile or side, 0, 0, 1, 7, 1, 1)
    levels = 5
    style = (
        bytes([1 if precinct != 0xFF else 0, 0]) + struct.pack(">H", layers) + bytes([0, levels, block, block, 0, 1])
    )
    style += bytes([precinct]) * (levels + 1) if precinct != 0xFF else b""
    quantisation = bytes([0x40]) + bytes([8 << 3] * (3 * levels + 1))
    head = b"\xff\x4f"
    for marker, segment in ((b"\xff\x51", size), (b"\xff\x52", style), (b"\xff\x5c", quantisation)):
        head += marker + struct.pack(">H", len(segment) + 2) + segment
    count = (-(-side // tile)) ** 2 if tile else 1
    data = b"\0" * 16
    parts = [
        b"\xff\x90" + struct.pack(">2HI2B", 10, index, 14 + len(data), 0, 1) + b"\xff\x93" + data
        for index in range(min(count, 65535))
    ]
    return head + b"".join(parts) + b"\xff\xd9"


def progressive(scans: int, side: int = 0) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    side = side or SIDE
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def jpeg(side: int = 0, frame: int = 0xC0) -> bytes:
    """The headers of a JPEG of 8 bits (lossless for C3, JPEG-LS for F7) and hardly any data."""
    side = side or SIDE
    scan = {0xC0: (0, 63, 0), 0xC3: (1, 0, 0), 0xF7: (0, 0, 0)}[frame]
    table = b"" if frame == 0xF7 else b"\xff\xc4" + struct.pack(">HB", 20, 0) + bytes([1]) + bytes(15) + b"\0"
    quantisation = b"\xff\xdb" + struct.pack(">HB", 67, 0) + b"\1" * 64 if frame == 0xC0 else b""
    size = b"\xff" + bytes([frame]) + struct.pack(">HB2H4B", 11, 8, side, side, 1, 1, 0x11, 0)
    begin = b"\xff\xda" + struct.pack(">H6B", 8, 1, 1, 0, *scan)
    return b"\xff\xd8" + quantisation + size + table + begin + b"\0" * 64 + b"\xff\xd9"


def rle(content: bytes) -> bytes:
    """A frame of one segment."""
    return struct.pack("<16I", 1, 64, *[0] * 14) + content


def deflated(content: bytes, times: int, **options: Any) -> bytes:
    """A deflated file, with `content` behind its elements many times."""
    whole = dicom(b"\0" * 64, DeflatedExplicitVRLittleEndian, side=8, **options)
    start = 144 + int.from_bytes(whole[140:144], "little")
    data = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return (
        whole[:start]
        + packer.compress(data)
        + b"".join(packer.compress(content) for _ in range(times))
        + packer.flush()
    )


def items(count: int) -> bytes:
    """A VOI LUT Sequence of empty items, before the pixels."""
    whole = dicom(b"\0" * 64, ExplicitVRLittleEndian, side=8)
    at = whole.index(b"\xe0\x7f\x10\x00")
    sequence = b"\x28\x00\x10\x30SQ\0\0" + struct.pack("<I", 8 * count) + b"\xfe\xff\x00\xe0\0\0\0\0" * count
    return whole[:at] + sequence + whole[at:]


def png(width: int, height: int, bits: int = 8) -> bytes:
    """A PNG of zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + width * bits // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def png_with_text() -> bytes:
    """A small PNG with a compressed text of 256 MB."""
    information = PngImagePlugin.PngInfo()
    information.add_text("Comment", "a" * (1 << 28), zip=True)
    buffer = io.BytesIO()
    Image.new("L", (32, 32)).save(buffer, "PNG", pnginfo=information)
    return buffer.getvalue()


def parquet(path: Path, rows: int, value: str) -> None:
    """Rows of one value, of which a dictionary page holds one and run lengths the rest."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))
    pq.write_table(pa.table({"study_id": column, "text": column}), path, compression="zstd")


def parquet_of_pages(path: Path, megabytes: int, *, stated: int | None = None) -> None:
    """One page of one long value.

    Args:
        path: of the file.
        megabytes: length of the value.
        stated: uncompressed size of the column that the metadata state instead of the true one.
    """
    value = pa.array([b"a" * (megabytes << 20)])
    pq.write_table(
        pa.table({"study_id": value}), path, compression="zstd", use_dictionary=False, write_statistics=False
    )
    if stated is not None:
        data = path.read_bytes()
        size = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
        path.write_bytes(data.replace(varint(size), varint(stated, len(varint(size)))))


def varint(value: int, size: int = 0) -> bytes:
    """A number as thrift writes it, with as many bytes as another one."""
    value, found = 2 * value, bytearray()
    while value >= 0x80 or len(found) + 1 < size:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def gzipped(path: Path, head: str, line: str, megabytes: int) -> None:
    """A gzipped table of repeated text."""
    block = (line * (1 + (1 << 20) // len(line))).encode()[: 1 << 20]
    with gzip.open(path, "wb") as file:
        file.write(head.encode())
        for _ in range(megabytes):
            file.write(block)


PICTURES: dict[str, Callable[[], bytes]] = {
    "j2k-blocks.dcm": lambda: dicom(jpeg_2000(), JPEG2000Lossless),
    "j2k-blocks-of-8.dcm": lambda: dicom(jpeg_2000(block=1), JPEG2000Lossless),
    "j2k-precincts.dcm": lambda: dicom(jpeg_2000(block=4, precinct=0), JPEG2000Lossless),
    "j2k-layers.dcm": lambda: dicom(jpeg_2000(block=4, precinct=0x66, layers=65535), JPEG2000Lossless),
    "j2k-tiles.dcm": lambda: dicom(jpeg_2000(block=4, tile=28), JPEG2000Lossless),
    "htj2k-blocks.dcm": lambda: dicom(jpeg_2000(), HTJ2KLossless),
    "jpeg.dcm": lambda: dicom(jpeg(), JPEGBaseline8Bit),
    "jpeg-scans.dcm": lambda: dicom(progressive(3000), JPEGBaseline8Bit),
    "jpeg-lossless.dcm": lambda: dicom(jpeg(frame=0xC3), JPEGLosslessSV1),
    "jpeg-ls.dcm": lambda: dicom(jpeg(frame=0xF7), JPEGLSLossless),
    "rle-runs.dcm": lambda: dicom(rle(b"\x81\0" * (SIDE * SIDE // 128 * 3)), RLELossless),
    "rle-nothing.dcm": lambda: dicom(rle(b"\x80" * SIDE * SIDE), RLELossless),
    "deflated-zeros.dcm": lambda: deflated(bytes(1 << 20), 100),
    "deflated-items.dcm": lambda: deflated(
        b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * (1 << 22), 1
    ),
    "items.dcm": lambda: items(400_000),
    "huge-id.dcm": lambda: dicom(b"\0" * 64, ExplicitVRLittleEndian, side=8, PatientID="x" * 60_000),
    "zeros.png": lambda: png(SIDE, SIDE),
    "zeros-of-16-bits.png": lambda: png(SIDE, SIDE, 16),
    "too-large.png": lambda: png(60_000, 20_000),
    "text.png": png_with_text,
    "scans.jpg": lambda: progressive(3000),
}
"""Content by file name: what a folder or a request can contain."""
