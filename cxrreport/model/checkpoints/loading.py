"""From the settings of a checkpoint to a model that is ready to run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from cxrreport.errors import MismatchError, SettingsError
from cxrreport.model import attention
from cxrreport.model.catalogue import CHECKPOINTS, Checkpoint
from cxrreport.model.checkpoints.files import IMAGE, fingerprint, load_tokenizer, locate, read_config
from cxrreport.model.checkpoints.weights import four_bits, read_weights, resize_position_embeddings
from cxrreport.settings import CheckpointSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A checkpoint in memory, in evaluation mode.

    Args:
        model: `PaliGemmaForConditionalGeneration`, or a `PeftModel` around it. (Any: the annotations of transformers do
            not pass strict checking.)
        tokenizer: its `PreTrainedTokenizerFast`.
        name: as in the settings.
        revision: as in the settings.
        fingerprint: sha256 over the weight files, see `fingerprint`.
        resolution: side of the square images, pixels.
        image_tokens: tokens per image.
        softcap: soft-capping is on.
        device: of the weights.
        dtype: of the frozen weights and of the matrix products.
        synthetic: it has seen only phantoms; every output has to say so.
    """

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    name: str
    revision: str | None
    fingerprint: str
    resolution: int
    image_tokens: int
    softcap: bool
    device: torch.device
    dtype: torch.dtype
    synthetic: bool


def load(settings: CheckpointSettings, *, resolution: int) -> LoadedModel:
    """Find a checkpoint, check it and load it.

    Args:
        settings: name, precision, soft-capping and device.
        resolution: side of the images that it will see, pixels.

    Raises:
        WeightsError: it is missing, cannot be fetched, is incomplete or is not safetensors.
        MismatchError: another architecture, or another resolution than `resolution`.
        SettingsError: CUDA is requested, or needed for 4-bit weights, and torch sees none.
        MissingExtraError: 4-bit weights are requested and bitsandbytes is not installed.
    """
    quantisation = four_bits(choose_device(settings.device)) if settings.precision == "nf4" else None
    described, config, folder = _describe(settings, resolution)
    attention.prepare_config(config, softcap=settings.softcap)
    model = read_weights(
        folder,
        config,
        dtype=described.dtype,
        softcap=settings.softcap,
        device=described.device,
        quantisation=quantisation,
    )
    if resolution != int(config.vision_config.image_size):
        resize_position_embeddings(model, resolution)
    model.requires_grad_(False)
    model.eval()
    return replace(described, model=model)


def describe(settings: CheckpointSettings, *, resolution: int) -> LoadedModel:
    """Find and check a checkpoint as `load` does, without its weights: `model` is `None`.

    Raises:
        WeightsError, MismatchError, SettingsError: as `load`.
    """
    return _describe(settings, resolution)[0]


def describe_with_config(settings: CheckpointSettings, resolution: int) -> tuple[LoadedModel, Any]:
    """As `describe`, with the configuration as published, which the caller may change."""
    described, config, _ = _describe(settings, resolution)
    return described, config


def _describe(settings: CheckpointSettings, resolution: int) -> tuple[LoadedModel, Any, Path]:
    """The model without weights, its configuration as published, and its folder."""
    device = choose_device(settings.device)
    folder = locate(settings)
    entry = CHECKPOINTS.get(settings.name)
    config = read_config(folder, settings.name)
    native = entry.resolution if entry is not None and entry.resized else int(config.vision_config.image_size)
    if native != resolution:
        raise MismatchError(_other_resolution(settings.name, entry, native, resolution))
    if entry is not None and not entry.synthetic:
        _check_architecture(settings.name, config, entry)
    tokenizer = load_tokenizer(folder)
    if tokenizer.convert_tokens_to_ids(IMAGE) != config.image_token_id:
        raise MismatchError(f"{folder}: config.json and tokenizer.json disagree on the id of {IMAGE}")
    described = LoadedModel(
        model=None,
        tokenizer=tokenizer,
        name=settings.name,
        revision=settings.revision,
        fingerprint=fingerprint(folder),
        resolution=resolution,
        image_tokens=(resolution // int(config.vision_config.patch_size)) ** 2,
        softcap=settings.softcap,
        device=device,
        dtype=torch.float32 if settings.precision == "float32" else torch.bfloat16,
        synthetic=(entry is not None and entry.synthetic) or bool(getattr(config, "synthetic", False)),
    )
    return described, config, folder


def architecture(settings: CheckpointSettings) -> tuple[Any, int]:
    """Configuration and native resolution of a checkpoint, published ones need no files.

    Returns:
        A `PaliGemmaConfig` that the caller may change, and the side of the images in pixels.

    Raises:
        WeightsError: the checkpoint is not a published one and is missing, or has no readable configuration.
    """
    by_source = {entry.source: entry for entry in CHECKPOINTS.values() if not entry.synthetic}
    entry = CHECKPOINTS.get(settings.name) or by_source.get(settings.name)
    if entry is not None and not entry.synthetic:
        return entry.config(), entry.resolution
    config = read_config(locate(settings), settings.name)
    return config, entry.resolution if entry is not None else int(config.vision_config.image_size)


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The torch device of a setting; `auto` is CUDA if torch sees a device.

    Raises:
        SettingsError: CUDA is requested and torch sees none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "checkpoint.device: cuda is requested, but torch sees no CUDA device here; "
            "set it to auto or cpu, or install a CUDA build of torch and its driver"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _check_architecture(name: str, config: Any, entry: Checkpoint) -> None:
    published = entry.config()
    for part, fields in (
        ("text_config", ("hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "vocab_size")),
        ("vision_config", ("hidden_size", "num_hidden_layers", "patch_size")),
    ):
        for key in fields:
            found, needed = getattr(getattr(config, part), key), getattr(getattr(published, part), key)
            if found != needed:
                raise MismatchError(
                    f"checkpoint '{name}': {part}.{key} is {found}, but the published model has {needed}"
                )


def _other_resolution(name: str, entry: Checkpoint | None, native: int, wanted: int) -> str:
    message = f"checkpoint '{name}' takes images of {native} x {native} pixels, the images are {wanted} x {wanted}"
    if entry is not None:
        others = [
            other_name
            for other_name, other in CHECKPOINTS.items()
            if (other.size, other.stage, other.resolution) == (entry.size, entry.stage, wanted)
        ]
        if others:
            return f"{message}; use checkpoint '{others[0]}', or ingest again with resolution: {native}"
    return f"{message}; ingest again with resolution: {native}, or use a checkpoint made for {wanted}"
