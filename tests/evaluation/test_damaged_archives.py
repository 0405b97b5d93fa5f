"""RadGraph archives that are damaged, read-only, or come without their encoder."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cxrreport.errors import WeightsError
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator

pytestmark = pytest.mark.stock("radgraph", "transformers")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/cxrreport-evil").touch, ())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "weights.th").write_bytes(b"no weights"), "weights.th"),
        (lambda f: (f / "weights.th").write_bytes(pickle.dumps({"a": Evil()})), "weights.th"),
        (lambda f: torch.save({"a": Evil()}, f / "weights.th"), "tensors only"),
        (lambda f: torch.save({"a": torch.zeros(1)}, f / "weights.th"), "does not fit"),
        (lambda f: torch.save([1, 2], f / "weights.th"), "does not fit"),
        (lambda f: (f / "weights.th").unlink(), "no weights.th"),
        (lambda f: shutil.rmtree(f / "vocabulary"), "vocabulary"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json"),
        (lambda f: (f / "config.json").write_text("{}"), "not a RadGraph configuration"),
        (lambda f: shutil.rmtree(f / "encoder"), "encoder"),
        (lambda f: (f / "vocabulary/radgraph-xl__ner_labels.txt").rename(f / "vocabulary/x__ner_labels.txt"), "of x"),
    ],
)
def test_damaged_archives(archive: Path, tmp_path: Path, damage: Any, message: str) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(archive, folder)
    damage(folder)
    with pytest.raises(WeightsError, match=message):
        RadGraphAnnotator(folder, device="cpu")
    assert not Path("/tmp/cxrreport-evil").exists()


def test_a_hub_encoder_is_read_from_the_folder_of_the_weights(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(archive, folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config["dataset_reader"]["token_indexers"], config["model"]["embedder"]["token_embedders"]):
        part["bert"]["model_name"] = "some-lab/some-encoder"
    (folder / "config.json").write_text(json.dumps(config))
    text = ["There is no pneumothorax."]
    expected = RadGraphAnnotator(archive, device="cpu").annotate(text)
    assert RadGraphAnnotator(folder, device="cpu").annotate(text) == expected
    shutil.rmtree(folder / "encoder")
    with pytest.raises(WeightsError, match="encoder"):
        RadGraphAnnotator(folder, device="cpu")


def test_a_read_only_archive_is_enough(archive: Path, tmp_path: Path) -> None:
    before = {path.relative_to(archive) for path in archive.rglob("*")}
    RadGraphAnnotator(archive, device="cpu")
    assert {path.relative_to(archive) for path in archive.rglob("*")} == before
