"""A whole checkpoint as a folder that `checkpoint.name` and plain transformers load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from cxrreport.model.card import AdapterCard
from cxrreport.model.checkpoints.files import BOS, EOS, IMAGE, PAD
from cxrreport.model.checkpoints.loading import LoadedModel
from cxrreport.storage.atomic_files import atomic_path, write_json

_COPIED = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json")
_RESAMPLE = {"bilinear": 2, "bicubic": 3}
"""Codes of Pillow."""


def write_checkpoint(
    folder: Path,
    loaded: LoadedModel,
    card: AdapterCard,
    *,
    base: Path,
    state: Mapping[str, torch.Tensor] | None = None,
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Write weights, tokenizer, image processor, card and configuration; `config.json` last, as it marks completeness.

    Args:
        folder: created if missing.
        loaded: its model is not a `PeftModel`.
        card: what the weights were trained with.
        base: folder of the original checkpoint, for the tokenizer's settings.
        state: weights by name; `None` for those of the model.
        shard_bytes: size of the largest weight file.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    weights = dict(state) if state is not None else dict(loaded.model.named_parameters())
    split: Any = split_torch_state_dict_into_shards(
        weights, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_bytes
    )
    for leftover in folder.glob("model*.safetensors*"):  # of an interrupted run, perhaps with other shards
        leftover.unlink()
    for name, members in split.filename_to_tensors.items():
        part = {member: weights[member].detach().cpu().contiguous() for member in members}
        with atomic_path(folder / name) as path:
            save_file(part, path, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)
    with atomic_path(folder / "tokenizer.json") as path:
        loaded.tokenizer.backend_tokenizer.save(str(path))
    for name in _COPIED:
        if (base / name).is_file():
            write_json(folder / name, json.loads((base / name).read_text(encoding="utf-8")))
    if not (base / "tokenizer_config.json").is_file():
        tokens = {"pad_token": PAD, "eos_token": EOS, "bos_token": BOS, "image_token": IMAGE}
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **tokens})
    write_json(folder / "preprocessor_config.json", _image_processor(loaded, card))
    card.write(folder)
    write_json(folder / "generation_config.json", json.loads(loaded.model.generation_config.to_json_string()))
    values: dict[str, Any] = json.loads(loaded.model.config.to_json_string(use_diff=False))
    write_json(folder / "config.json", values | {"synthetic": loaded.synthetic})


def _image_processor(loaded: LoadedModel, card: AdapterCard) -> dict[str, Any]:
    """Settings of SigLIP's image processor that prepare images as for training."""
    return {
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "PaliGemmaProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": loaded.resolution, "width": loaded.resolution},
        "resample": _RESAMPLE[card.preprocessing.get("interpolation", "bilinear")],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "image_seq_length": loaded.image_tokens,
    }
