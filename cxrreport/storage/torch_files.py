"""Tensors of a file that `torch.save` wrote, without those that are not wanted in memory.

A checkpoint may also hold the state of its optimizer, which is twice as large as the model. Archives (torch 1.6 and
later) are mapped by `torch.load`, tensors only. The older format can only be read as a whole there, so it is read here:
five pickles (magic number, version, machine, the object, the keys of the storages), and then each storage in the order
of the keys, as its number of elements in 8 bytes and the elements. The pickles may name nothing but tensors and
`OrderedDict`, so that no code of a file runs.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from io import BufferedReader
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import Any, NamedTuple
from zipfile import is_zipfile

import torch

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}


class _View(NamedTuple):
    """A tensor that has not been read."""

    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensors(path: Path, entry: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a file, or of one entry of a checkpoint, by name.

    Those of an archive are mapped: they take memory as they are used, and the file may not be overwritten meanwhile.

    Args:
        path: file of `torch.save`, a mapping.
        entry: a key of the mapping, whose value is a mapping of names to tensors; `None` if it is the mapping itself.

    Raises:
        OSError: the file cannot be read.
        UnpicklingError: the file is damaged, or is not made of tensors only.
        KeyError, TypeError: it has no such entry, or that is no mapping.
    """
    try:
        if is_zipfile(path):
            stored: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return {**(stored if entry is None else stored[entry])}
        with path.open("rb") as file:
            return _read_older(file, entry)
    except (EOFError, struct.error, ValueError, RuntimeError, IndexError) as error:
        raise UnpicklingError(f"damaged ({type(error).__name__})") from error


class _Tensors(Unpickler):
    """Reads plain values, and tensors as `_View`.

    Args:
        file: file at the start of a pickle.
        dtypes: gets the type of every storage, by its key.
    """

    def __init__(self, file: BufferedReader, dtypes: dict[str, torch.dtype]) -> None:
        super().__init__(file)
        self._dtypes = dtypes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, size, stride, *_: _View(key, offset, size, stride)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise UnpicklingError(f"names {module}.{name}, which is not a tensor")

    def persistent_load(self, saved: Any) -> str:
        kind, dtype, key, _, _, part = saved
        if kind != "storage" or not isinstance(dtype, torch.dtype) or part is not None:
            raise UnpicklingError("a part that is not the storage of a tensor")
        self._dtypes[key] = dtype
        return str(key)


def _read_older(file: BufferedReader, entry: str | None) -> dict[str, torch.Tensor]:
    dtypes: dict[str, torch.dtype] = {}
    magic, version, machine, stored, keys = (_Tensors(file, dtypes).load() for _ in range(5))
    if (magic, version) != (_MAGIC, _VERSION) or not (isinstance(machine, dict) and machine.get("little_endian")):
        raise UnpicklingError("not a file of torch from a machine with the usual order of bytes")
    tensors = stored if entry is None else stored[entry]
    views = {name: view for name, view in {**tensors}.items() if isinstance(view, _View)}
    wanted = {view.storage for view in views.values()}
    end = os.fstat(file.fileno()).st_size
    found: dict[str, torch.Tensor] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        if key not in dtypes or not 0 <= (size := count * dtypes[key].itemsize) <= end - file.tell():
            raise EOFError
        if key in wanted:
            found[key] = torch.empty(count, dtype=dtypes[key])
            memory: Any = found[key].view(torch.uint8).numpy()
            file.readinto(memory)
        else:
            file.seek(size, os.SEEK_CUR)
    if wanted - found.keys():
        raise EOFError
    return {name: found[view.storage].as_strided(view.size, view.stride, view.offset) for name, view in views.items()}
