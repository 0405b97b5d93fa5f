"""LoRA adapters (arXiv 2106.09685): onto which layers, and how they are saved and loaded again.

An adapter means nothing without the checkpoint, the prompt and the pictures that it was trained with. All of it stands
in `cxrreport.json` beside the weights, and loading it onto something else is an error.
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
from typing import Any, Literal

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cxrreport.errors import MismatchError, WeightsError
from cxrreport.model.catalogue import TABLE
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.settings import CheckpointSettings, LoraSettings, PromptSettings
from cxrreport.storage.files import atomic_path, write_json

WEIGHTS, CONFIG, CARD, README = "adapter_model.safetensors", "adapter_config.json", "cxrreport.json", "README.md"

# Full paths, and no bare names: `q_proj` and peft's `all-linear` are found in the vision tower as well.
_TARGETS = {
    "language": r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)",
    "projector": r".*multi_modal_projector\.linear",
    "vision": r".*vision_tower\..*layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])",
}


class AdapterCard(BaseModel):
    """What an adapter belongs to, and where it comes from: the content of `cxrreport.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    checkpoint: CheckpointSettings
    fingerprint: str
    """Of the checkpoint's weight files, see `checkpoints.fingerprint`."""
    resolution: int
    """Side of the images, pixels."""
    prompt: PromptSettings
    lora: LoraSettings | None
    """None: full fine-tuning, the weights are a whole checkpoint."""
    modules: tuple[str, ...] = ()
    """Layers that are adapted."""
    merged: bool = False
    """The adapter has been merged into the checkpoint that this card lies beside."""
    preprocessing: dict[str, Any]
    """How images were resampled, from the manifest."""
    data_digest: str
    """Of the manifest."""
    steps: int
    """Optimiser steps that the weights have seen."""
    trained_steps: int | None = None
    """Of the whole run, which may have gone on after the best step."""
    metrics: dict[str, float] = {}
    conditions: dict[str, Any] = {}
    """Under which reports were scored for validation: RadGraph model, weights, level, case rule, studies."""
    versions: dict[str, str] = {}
    synthetic: bool = False
    """The checkpoint has seen nothing but phantoms."""

    @classmethod
    def read(cls, folder: Path) -> AdapterCard:
        """Read the card of an adapter folder.

        Raises:
            WeightsError: the folder or its card is missing or damaged.
        """
        path = folder / CARD
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise WeightsError(f"{folder}: no adapter of this package, {CARD} is missing") from error
        except (OSError, ValidationError) as error:
            raise WeightsError(f"{path}: cannot be read ({' '.join(str(error).split())[:300]})") from error

    def check_images(self, resolution: int, preprocessing: Mapping[str, Any]) -> None:
        """Compare with the images that the model is to see.

        Raises:
            MismatchError: they were prepared in another way than those of the training; names the fields.
        """
        given = {**preprocessing, "resolution": resolution}
        needed = {**self.preprocessing, "resolution": self.resolution}
        differing = [
            f"{name} was {needed.get(name)!r} in training and is {given.get(name)!r}"
            for name in sorted(needed.keys() | given.keys())
            if needed.get(name) != given.get(name)
        ]
        if differing:
            raise MismatchError(f"adapter and images do not belong together: {'; '.join(differing)}; ingest again")

    def check_prompt(self, prompt: PromptSettings) -> None:
        """Compare with the prompt that is asked for.

        Raises:
            MismatchError: it is another one; names the fields.
        """
        differing = [
            f"{name} was {value!r} in training and is {getattr(prompt, name)!r}"
            for name, value in self.prompt
            if value != getattr(prompt, name)
        ]
        if differing:
            raise MismatchError(f"prompt: {'; '.join(differing)}; leave prompt out to take the adapter's")


def attach(model: Any, settings: LoraSettings) -> tuple[Any, tuple[str, ...]]:
    """Put fresh LoRA matrices onto a checkpoint; only these are trainable afterwards, in float32.

    Args:
        model: `PaliGemmaForConditionalGeneration`, changed in place.
        settings: rank, scale, dropout and which layers.

    Returns:
        The `PeftModel`, and the names of the adapted layers in `model`.

    Raises:
        MismatchError: a part of the model has not the layers that are to be adapted.
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
        lora_dropout=settings.dropout,
        target_modules=pattern,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with _peft_warnings():
        adapted = get_peft_model(model, config)
    found_names = {name for name, module in adapted.get_base_model().named_modules() if hasattr(module, "lora_A")}
    if found_names != set(names):
        raise MismatchError(f"lora.targets: peft adapted {len(found_names)} layers and not the {len(names)} asked for")
    return adapted, names


def save(folder: Path, model: Any, card: AdapterCard, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write an adapter folder: weights, peft's configuration, model card, and `cxrreport.json` last.

    Args:
        folder: made when missing.
        model: `PeftModel`.
        card: what the adapter belongs to.
        state: its trained parameters by name; None: as they are in the model.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    config = model.peft_config["default"]
    with tempfile.TemporaryDirectory() as temporary:
        # Neither embedding is adapted; "auto" would look on the hub whether the vocabulary has grown.
        config.save_pretrained(temporary)
        values = json.loads((Path(temporary) / CONFIG).read_text(encoding="utf-8"))
    values |= {"base_model_name_or_path": _base(card.checkpoint), "inference_mode": True}
    given = dict(state) if state is not None else None
    matrices = get_peft_model_state_dict(model, state_dict=given, save_embedding_layers=False)
    with atomic_path(folder / WEIGHTS) as temporary_file:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in matrices.items()}, temporary_file)
    write_json(folder / CONFIG, values)
    with atomic_path(folder / README) as temporary_file:
        temporary_file.write_text(model_card(card), encoding="utf-8")
    write_json(folder / CARD, card.model_dump(mode="json"))


def load(folder: Path, loaded: LoadedModel) -> LoadedModel:
    """Put a saved adapter onto the checkpoint it was trained on.

    Args:
        folder: adapter folder of `train`.
        loaded: the checkpoint, changed in place.

    Returns:
        `loaded` with the `PeftModel` as its model, in evaluation mode.

    Raises:
        WeightsError: the folder is incomplete or damaged, or holds a pickle in place of safetensors.
        MismatchError: another checkpoint, resolution or soft-capping than it was trained with.
    """
    card = AdapterCard.read(folder)
    if card.lora is None:
        raise WeightsError(f"{folder}: a whole checkpoint from full fine-tuning; give it as checkpoint.name")
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
        reason = f"only {pickle.name}, a pickle, which is not loaded" if pickle.exists() else "it is not there"
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


def _renamed(state: Mapping[str, torch.Tensor], model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Matrices under the names that they have in this model.

    transformers has moved PaliGemma's parts between releases (`language_model.model.layers` before 4.52,
    `vision_tower.vision_model.encoder` before 5): only names of containers differ.

    Raises:
        MismatchError: the file lacks matrices of the model, or has others.
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
    """Without the note that peft itself asks transformers in a way that is on its way out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        # The base is told apart by the fingerprint of its weights, wherever it lies here.
        warnings.filterwarnings("ignore", message=".*base_model_name_or_path. was renamed.*", category=UserWarning)
        yield


@contextmanager
def without_adapter(loaded: LoadedModel) -> Iterator[LoadedModel]:
    """The bare checkpoint for the length of the block, for the control without adapter."""
    if isinstance(loaded.model, PeftModel):
        with loaded.model.disable_adapter():
            yield loaded
    else:
        yield loaded


def _base(checkpoint: CheckpointSettings) -> str:
    entry = TABLE.get(checkpoint.name)
    return entry.source if entry is not None else checkpoint.name


def model_card(card: AdapterCard) -> str:
    """README of an adapter folder, in the hub's format: what it is, how it came about, on what terms it may be used."""
    base = _base(card.checkpoint)
    library = "transformers" if card.merged or card.lora is None else "peft"
    front = ["---", f"library_name: {library}", "pipeline_tag: image-text-to-text", "tags: [radiology, chest-x-ray]"]
    if not card.synthetic:
        front += ["license: gemma", f"base_model: {base}"]
    lora = card.lora
    kind = "QLoRA (base in 4 bits, nf4)" if card.checkpoint.precision == "nf4" else "LoRA"
    method = f"{kind}, rank {lora.rank}, alpha {lora.alpha}, {len(card.modules)} layers" if lora else "full fine-tuning"
    method += ", merged into the checkpoint" if card.merged else ""
    chosen = "" if card.trained_steps in (None, card.steps) else ", the best on the validation split"
    lines = [
        *front,
        "---",
        "",
        f"# Chest X-ray reports: {base}, fine-tuned",
        "",
        "Made by cxrreport. Not a medical device; not for diagnosis.",
        "",
        (
            f"- Checkpoint: `{base}`{f' at `{card.checkpoint.revision}`' if card.checkpoint.revision else ''}, "
            f"weights `{card.fingerprint[:16]}`, soft-capping {'on' if card.checkpoint.softcap else 'off'}"
        ),
        f"- Method: {method}",
        f"- Weights of step {card.steps} of {card.trained_steps or card.steps}{chosen}",
        f"- Images: {card.resolution} x {card.resolution} px, {json.dumps(card.preprocessing, sort_keys=True)}",
        f"- Data: manifest `{card.data_digest[:16]}`",
        *[f"- {name}: {value:.4f}" for name, value in sorted(card.metrics.items())],
        *([f"- Validation: {json.dumps(card.conditions, sort_keys=True)}"] if card.conditions else []),
        "",
        "## Terms",
        "",
    ]
    if card.synthetic:
        lines += ["The checkpoint has seen synthetic phantoms alone. It says nothing about real patients."]
    else:
        lines += [
            (
                "Derived from Gemma: the Gemma Terms of Use (https://ai.google.dev/gemma/terms) and their list of "
                "prohibited uses go along with every copy."
            ),
            "",
            (
                "Derived from the training data as well: where that is under a data use agreement, so is this. What "
                "was fine-tuned on MIMIC-CXR, adapters included, may be shared under the same credentialed access only "
                "(PhysioNet Credentialed Health Data License 1.5.0)."
            ),
        ]
    return "\n".join(lines) + "\n"
