"""LoRA adapters (arXiv 2106.09685): which layers they adapt, and how they are saved and loaded.

An adapter is only valid with the checkpoint, the prompt and the image preparation of its training. `cxrreport.json`
beside the weights records them, and loading an adapter onto anything else is an error.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cxrreport.errors import MismatchError, WeightsError
from cxrreport.model.card import AdapterCard
from cxrreport.model.catalogue import hub_name
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.settings import LoraSettings
from cxrreport.storage.atomic_files import atomic_path, write_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"

# Full paths: bare names such as `q_proj`, and peft's `all-linear`, match layers of the vision tower as well.
_TARGETS = {
    "language": r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)",
    "projector": r".*multi_modal_projector\.linear",
    "vision": r".*vision_tower\..*layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])",
}


def attach(model: Any, settings: LoraSettings) -> tuple[Any, tuple[str, ...]]:
    """Add new LoRA matrices to a checkpoint, in float32; afterwards only they are trainable.

    Args:
        model: `PaliGemmaForConditionalGeneration`, changed in place.
        settings: rank, scale, dropout and adapted layers.

    Returns:
        The `PeftModel`, and the names of the adapted layers in `model`.

    Raises:
        MismatchError: a part of the model lacks layers that should be adapted.
    """
    parts = ["language", *settings.targets.split("+")[1:]]
    pattern = "|".join(_TARGETS[part] for part in parts)
    names = tuple(name for name, _ in model.named_modules() if re.fullmatch(pattern, name))
    expected = {
        "language": 7 * model.config.text_config.num_hidden_layers,
        "projector": 1,
        "vision": 6 * model.config.vision_config.num_hidden_layers,
    }
    for part in parts:
        found = sum(re.fullmatch(_TARGETS[part], name) is not None for name in names)
        if found != expected[part]:
            raise MismatchError(f"lora.targets: {found} layers of the {part} part found, {expected[part]} expected")
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        use_rslora=settings.rank_stabilised,
        lora_dropout=settings.dropout,
        target_modules=pattern,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with _peft_warnings():
        adapted = get_peft_model(model, config)
    found_names = {name for name, module in adapted.get_base_model().named_modules() if hasattr(module, "lora_A")}
    if found_names != set(names):
        raise MismatchError(f"lora.targets: peft adapted {len(found_names)} layers instead of {len(names)}")
    return adapted, names


def save(folder: Path, model: Any, card: AdapterCard, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write an adapter folder: weights, peft's configuration, model card, and `cxrreport.json` last.

    Args:
        folder: created if missing.
        model: `PeftModel`.
        card: what the adapter belongs to.
        state: trained parameters by name; `None` for those of the model.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    config = model.peft_config["default"]
    with tempfile.TemporaryDirectory() as temporary:
        config.save_pretrained(temporary)
        values = json.loads((Path(temporary) / CONFIG).read_text(encoding="utf-8"))
    values |= {"base_model_name_or_path": hub_name(card.checkpoint.name), "inference_mode": True}
    given = dict(state) if state is not None else None
    # No embedding is adapted; the default would query the hub whether the vocabulary has grown.
    matrices = get_peft_model_state_dict(model, state_dict=given, save_embedding_layers=False)
    with atomic_path(folder / WEIGHTS) as temporary_file:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in matrices.items()}, temporary_file)
    write_json(folder / CONFIG, values)
    card.write(folder)


def load(folder: Path, loaded: LoadedModel) -> LoadedModel:
    """Load a saved adapter onto the checkpoint it was trained on.

    Args:
        folder: adapter folder of `train`.
        loaded: the checkpoint, changed in place.

    Returns:
        `loaded` with the `PeftModel` as its model, in evaluation mode.

    Raises:
        WeightsError: the folder is incomplete or damaged, or holds a pickle instead of safetensors.
        MismatchError: checkpoint, resolution or soft-capping are not those of its training.
    """
    card = AdapterCard.read(folder)
    if card.lora is None:
        raise WeightsError(f"{folder}: a whole checkpoint from full fine-tuning; set checkpoint.name to it")
    for what, trained, given in (
        ("checkpoint (sha256 of the weights)", card.fingerprint[:12], loaded.fingerprint[:12]),
        ("resolution", card.resolution, loaded.resolution),
        ("softcap", card.checkpoint.softcap, loaded.softcap),
    ):
        if trained != given:
            raise MismatchError(
                f"{folder}: {what} was {trained} in training and is {given}; "
                f"the adapter belongs to checkpoint '{card.checkpoint.name}'"
            )
    if not (folder / WEIGHTS).is_file():
        pickle = folder / "adapter_model.bin"
        reason = f"only {pickle.name}, a pickle, which is not loaded" if pickle.exists() else "missing"
        raise WeightsError(f"{folder / WEIGHTS}: {reason}")
    try:
        with _peft_warnings():
            model = get_peft_model(loaded.model, PeftConfig.from_pretrained(str(folder)))
        state = _renamed(load_file(folder / WEIGHTS), model, folder)
        set_peft_model_state_dict(model, state)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder}: the adapter is damaged ({' '.join(str(error).split())[:300]})") from error
    except (RuntimeError, ValueError) as error:
        raise MismatchError(
            f"{folder}: weights and layers do not fit ({' '.join(str(error).split())[:300]})"
        ) from error
    model.eval()
    return replace(loaded, model=model)


def load_trainable(folder: Path, loaded: LoadedModel) -> tuple[LoadedModel, tuple[str, ...]]:
    """Load a saved adapter to train it further; its matrices are trainable, nothing else.

    Returns:
        `loaded` with the `PeftModel` as its model, and the names of the adapted layers.

    Raises:
        WeightsError, MismatchError: as `load`.
    """
    loaded = load(folder, loaded)
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return loaded, AdapterCard.read(folder).modules


def merged(loaded: LoadedModel) -> LoadedModel:
    """The model with its adapter added to its weights, which then cannot be separated."""
    with _peft_warnings():
        return replace(loaded, model=loaded.model.merge_and_unload())


def _renamed(state: Mapping[str, torch.Tensor], model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Rename saved matrices to the names of this model.

    transformers has moved the parts of PaliGemma between releases (`language_model.model.layers` before 4.52,
    `vision_tower.vision_model.encoder` before 5); only names of containers differ.

    Raises:
        MismatchError: the file lacks matrices of the model, or has additional ones.
    """
    own = {_bare(name): name for name in get_peft_model_state_dict(model, save_embedding_layers=False)}
    given = {_bare(name): tensor for name, tensor in state.items()}
    for what, names in (("are missing", own.keys() - given.keys()), ("belong to no layer", given.keys() - own.keys())):
        if names:
            raise MismatchError(f"{folder / WEIGHTS}: {len(names)} matrices {what}, among them {min(names)}")
    return {own[name]: tensor for name, tensor in given.items()}


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in {"base_model", "model", "vision_model"})


@contextmanager
def _peft_warnings() -> Iterator[None]:
    """Suppress warnings of peft that a user cannot act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        # The base is identified by the fingerprint of its weights, not by its path.
        warnings.filterwarnings("ignore", message=".*base_model_name_or_path. was renamed.*", category=UserWarning)
        yield


def paligemma(model: Any) -> Any:
    """The `PaliGemmaModel` inside a model with or without LoRA."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.model
