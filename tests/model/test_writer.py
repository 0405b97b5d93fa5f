"""A merged checkpoint generates the texts of checkpoint and adapter, also in plain transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import training_batch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from cxrreport.errors import OutputError
from cxrreport.model import adapters
from cxrreport.model.card import AdapterCard
from cxrreport.model.checkpoints import LoadedModel, load, writer
from cxrreport.model.checkpoints.writer import write_checkpoint
from cxrreport.model.prompt import PromptLayout, pixel_values
from cxrreport.records import Report
from cxrreport.settings import CheckpointSettings, PromptSettings

pytestmark = pytest.mark.stock("transformers")

Merged = tuple[LoadedModel, AdapterCard, torch.Tensor]
"""A merged checkpoint, its card, and its logits before it was merged."""
IMAGE = np.random.default_rng(1).integers(0, 256, (224, 224), dtype=np.uint8)


def batch_of(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    batch = training_batch(layout, [Report(indication="cough", findings="The heart is enlarged.")], [IMAGE])
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


@pytest.fixture(scope="module")
def merged(fresh: Callable[..., LoadedModel], tuned: Callable[..., Any]) -> Merged:
    prompt = PromptSettings.model_validate({"views": "frontal+lateral", "prior": "report+image", "pool": 2})
    values = {"preprocessing": {"resolution": 224, "resize": "squash", "interpolation": "bilinear"}, "prompt": prompt}
    adapted, card = tuned(fresh(), targets="language+projector+vision", merged=True, **values)
    with torch.no_grad():
        logits = adapted.model(**batch_of(adapted)).logits
    return replace(adapted, model=adapted.model.merge_and_unload()), card, logits


def test_plain_transformers_gives_equal_logits(merged: Merged, checkpoint_folder: Path, tmp_path: Path) -> None:
    loaded, card, expected = merged
    batch = batch_of(loaded)
    write_checkpoint(tmp_path / "out", loaded, card, base=checkpoint_folder, shard_bytes=100_000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    again = load(CheckpointSettings(name=str(tmp_path / "out"), precision="float32", device="cpu"), resolution=224)
    with torch.no_grad():
        torch.testing.assert_close(again.model(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    assert AdapterCard.read(tmp_path / "out") == card
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: transformers" in readme
    assert "merged into the checkpoint" in readme


def test_its_tokenizer_and_image_processor_agree_with_ours(
    merged: Merged, checkpoint_folder: Path, tmp_path: Path
) -> None:
    loaded, card, _ = merged
    write_checkpoint(tmp_path, loaded, card, base=checkpoint_folder)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "FINDINGS: The heart is enlarged."
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == loaded.tokenizer(text)["input_ids"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    pixels = processor(Image.fromarray(IMAGE), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, pixel_values([IMAGE]), rtol=0, atol=1e-5)


def test_a_full_disk_leaves_no_loadable_folder(
    merged: Merged, checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, card, _ = merged
    write = writer.save_file
    written: list[Path] = []

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        if written:
            raise OSError(28, "No space left on device")
        write(tensors, path, metadata=metadata)
        written.append(path)

    monkeypatch.setattr(writer, "save_file", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_checkpoint(tmp_path, loaded, card, base=checkpoint_folder, shard_bytes=100_000)
    assert not (tmp_path / "config.json").exists()
    monkeypatch.setattr(writer, "save_file", write)
    write_checkpoint(tmp_path, loaded, card, base=checkpoint_folder)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "paligemma"


def test_the_tokenizer_settings_of_the_base_are_copied(merged: Merged, checkpoint_folder: Path, tmp_path: Path) -> None:
    loaded, card, _ = merged
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer", "model_max_length": 77}')
    write_checkpoint(tmp_path / "out", loaded, card, base=base)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 77
    assert not list((tmp_path / "out").glob("*.bin"))
    assert adapters.CONFIG not in {path.name for path in (tmp_path / "out").iterdir()}
