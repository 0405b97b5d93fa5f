"""The image store: Parquet shards of PNG images that `datasets`, Ray Data and PyArrow can read.

Columns: `image_id`, and `image`, a struct of `bytes` (a PNG, 8-bit grey) and `path`. This is the format of the `Image`
feature of `datasets`; the metadata of the schema declare it, so that `load_dataset("parquet", ...)` returns images.
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from cxrreport.errors import ManifestError
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.parquet import array_from_bytes, read_columns

_FEATURES = {"info": {"features": {"image_id": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}}}
_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))],
    metadata={"huggingface": json.dumps(_FEATURES)},
)
_ROWS_PER_GROUP = 8  # the unit of reading
_OPEN_SHARDS = 16
_LEVEL = 1  # of zlib: 5 times as fast as the default 6, and files are a sixth larger


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode uint8[R, R] as a grey PNG of 8 bits."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=_LEVEL)
    return buffer.getvalue()


def decode_png(png: bytes) -> NDArray[np.uint8]:
    """Decode a grey PNG of 8 bits to a writable uint8[R, R]."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.array(image)


def write_image_shard(path: Path, images: Sequence[tuple[str, bytes]]) -> None:
    """Write one shard atomically.

    Args:
        path: the file of the shard.
        images: pairs of image id and PNG.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    ids = [image_id.encode() for image_id, _ in images]
    image = pa.StructArray.from_arrays(
        [
            array_from_bytes([png for _, png in images], pa.binary()),
            array_from_bytes([image_id + b".png" for image_id in ids], pa.string()),
        ],
        fields=list(_SCHEMA.field("image").type),
    )
    with atomic_path(path) as temporary:
        pq.write_table(
            pa.Table.from_arrays([array_from_bytes(ids, pa.string()), image], schema=_SCHEMA),
            temporary,
            row_group_size=_ROWS_PER_GROUP,
            compression="none",  # PNGs are compressed already
            use_dictionary=False,
        )


class ImageStore:
    """Random access to the images of a folder of shards, by image id.

    It can be pickled and used in several processes, each of which opens its files, and by several threads, which decode
    at once and read in turns.

    Args:
        folder: of the shards.
        places: file name and row of every image; `None` to read them from the shards.

    Raises:
        ManifestError: a shard cannot be read.
    """

    def __init__(self, folder: Path, places: Mapping[str, tuple[str, int]] | None = None) -> None:
        self.folder = folder
        self._location = _read_places(folder) if places is None else places
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._process = os.getpid()
        self._group: tuple[str, int, list[dict[str, Any]]] | None = None
        self._reading = threading.Lock()

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._location

    def __getitem__(self, image_id: str) -> NDArray[np.uint8]:
        """uint8[R, R] of one image.

        Raises:
            ManifestError: there is no image with this id, or it cannot be read.
        """
        try:
            name, row = self._location[image_id]
        except KeyError:
            raise ManifestError(f"{self.folder}: no image {image_id}") from None
        group, within = divmod(row, _ROWS_PER_GROUP)
        try:
            with self._reading:
                png = self._rows(name, group)[within]["bytes"]
            return decode_png(png)
        except (OSError, IndexError, SyntaxError, pa.ArrowException) as error:
            raise ManifestError(f"{self.folder / name}: image {image_id} cannot be read") from error

    def _rows(self, name: str, group: int) -> list[dict[str, Any]]:
        if self._process != os.getpid():  # after a fork the file positions are shared with the parent
            self._open, self._group, self._process = OrderedDict(), None, os.getpid()
        if self._group is None or self._group[:2] != (name, group):
            table = self._shard(name).read_row_group(group, columns=["image"], use_threads=False)
            self._group = (name, group, table["image"].to_pylist())
        return self._group[2]

    def _shard(self, name: str) -> pq.ParquetFile:
        if name not in self._open:
            self._open[name] = pq.ParquetFile(self.folder / name)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(name)
        return self._open[name]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict(), "_group": None, "_reading": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_reading": threading.Lock()})


def _read_places(folder: Path) -> dict[str, tuple[str, int]]:
    places: dict[str, tuple[str, int]] = {}
    for path in sorted(folder.glob("*.parquet")):
        try:
            ids = read_columns(path, "image_id")["image_id"].to_pylist()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise ManifestError(f"{path}: not a readable image shard; ingest into a new folder") from error
        places |= {image_id: (path.name, row) for row, image_id in enumerate(ids)}
    return places
