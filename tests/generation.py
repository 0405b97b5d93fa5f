"""The engine and the predictions of the tests of inference."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrreport.inference.decoding import Engine
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Box, Prediction

NEW = 24


def engine(loaded: LoadedModel, layout: PromptLayout, *, batch_size: int = 5, new: int = NEW) -> Engine:
    return Engine(loaded, layout, batch_size=batch_size, max_new_tokens=new)


def widths(monkeypatch: pytest.MonkeyPatch, loaded: LoadedModel) -> list[tuple[int, int]]:
    """Rows and columns of every forward pass from here on."""
    seen: list[tuple[int, int]] = []
    forward = type(loaded.model).forward

    def counting(self, *args, **kwargs):
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(loaded.model), "forward", counting)
    return seen


class Crowded:
    """A model that has room for a batch of `room` and no more."""

    def __init__(self, model, room: int, error: Exception) -> None:
        self._model = model
        self._room = room
        self._error = error
        self.sizes: list[int] = []

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def __call__(self, **kwargs):
        self.sizes.append(kwargs["input_ids"].shape[0])
        if kwargs["input_ids"].shape[0] > self._room:
            raise self._error
        return self._model(**kwargs)


def rows(folder: Path) -> list[Prediction]:
    found = []
    for row in pq.read_table(folder / "predictions.parquet").to_pylist():
        lists = {name: tuple(row[name]) for name in ("image_ids", "image_sha256")}
        found.append(Prediction(**row | lists | {"boxes": tuple(Box(**box) for box in row["boxes"])}))
    assert len({(one.study_id, one.prompt) for one in found}) == len(found)
    return found


def predictions(folder: Path) -> dict[str, Prediction]:
    found = rows(folder)
    assert len({one.study_id for one in found}) == len(found)
    return {one.study_id: one for one in found}
