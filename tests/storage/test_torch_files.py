from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
import torch

from cxrreport.storage.torch_files import read_tensors


def checkpoint() -> dict[str, Any]:
    """A model with the state of its optimizer, and tensors that share or reorder a storage."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(3, 5)).sum().backward()
    optimizer.step()
    state = model.state_dict()
    numbers = torch.arange(24.0)
    state |= {"turned": numbers.view(4, 6).T, "tail": numbers[20:], "none": torch.empty(0), "ids": torch.arange(3)}
    state |= {"half": torch.randn(3).half(), "brain": torch.randn(2, 2).bfloat16(), "flags": torch.tensor([True])}
    return {"epoch": 1, "optimizer_state_dict": optimizer.state_dict(), "model_state_dict": state}


@pytest.mark.parametrize("archive", [True, False])
def test_the_tensors_are_those_of_torch(tmp_path: Path, archive: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=archive)
    found, expected = read_tensors(path, "model_state_dict"), torch.load(path, weights_only=True)["model_state_dict"]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    with pytest.raises(KeyError):
        read_tensors(path, "weights")
    torch.save(expected, path, _use_new_zipfile_serialization=archive)
    assert read_tensors(path).keys() == expected.keys()


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made",)


@pytest.mark.parametrize("extra", [Runs(), Path("x"), torch.nn.Linear(1, 1)])
@pytest.mark.parametrize("archive", [True, False])
def test_nothing_but_tensors_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bool, extra: object
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoint() | {"extra": extra}, Path("weights.pth"), _use_new_zipfile_serialization=archive)
    with pytest.raises(UnpicklingError):
        read_tensors(Path("weights.pth"), "model_state_dict")
    assert [one.name for one in tmp_path.iterdir()] == ["weights.pth"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for end in (0, 1, 40, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(UnpicklingError):
            read_tensors(path, "model_state_dict")
    for value in (-1, 1 << 40):  # elements that a tensor claims to have
        first = whole.index(struct.pack("<q", 35))
        path.write_bytes(whole[:first] + struct.pack("<q", value) + whole[first + 8 :])
        with pytest.raises(UnpicklingError):
            read_tensors(path, "model_state_dict")
    path.write_bytes(pickle.dumps({"model_state_dict": {}}))
    with pytest.raises(UnpicklingError):
        read_tensors(path, "model_state_dict")
