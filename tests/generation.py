"""The engine and the predictions of the tests of inference."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from cxrreport.inference.decoding import Engine
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Box, Prediction

NEW = 24


def engine(loaded: LoadedModel, layout: PromptLayout, *, batch_size: int = 5, new: int = NEW) -> Engine:
    return Engine(loaded, layout, batch_size=batch_size, max_new_tokens=new)


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
