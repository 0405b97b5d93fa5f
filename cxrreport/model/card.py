"""The card of trained weights: what they belong to and how they were made, as `cxrreport.json` and as model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cxrreport.errors import MismatchError, WeightsError
from cxrreport.model.catalogue import hub_name
from cxrreport.records import differing
from cxrreport.settings import CheckpointSettings, LoraSettings, PromptSettings
from cxrreport.storage.atomic_files import atomic_path, write_json

CARD, README = "cxrreport.json", "README.md"


class AdapterCard(BaseModel):
    """What an adapter or a fine-tuned checkpoint belongs to, and how it was made: the content of `cxrreport.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    checkpoint: CheckpointSettings
    fingerprint: str
    """Hash of the checkpoint's weight files, see `checkpoints.fingerprint`."""
    resolution: int
    """Side of the images, pixels."""
    prompt: PromptSettings
    lora: LoraSettings | None
    """`None` after full fine-tuning: the weights are a whole checkpoint."""
    modules: tuple[str, ...] = ()
    """Names of the adapted layers."""
    merged: bool = False
    """The adapter is merged into the checkpoint beside this card."""
    preprocessing: dict[str, Any]
    """How images were resampled, from the manifest."""
    data_digest: str
    """Digest of the manifest."""
    steps: int
    """Optimiser steps behind these weights."""
    trained_steps: int | None = None
    """Optimiser steps of the whole run, which may be more than those of its best step."""
    metrics: dict[str, float] = {}
    conditions: dict[str, Any] = {}
    """How reports were scored for validation: RadGraph model, weights, level, case rule, studies."""
    versions: dict[str, str] = {}
    synthetic: bool = False
    """The checkpoint has seen only phantoms."""

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
            raise WeightsError(f"{folder}: not an adapter folder of `cxrreport train`, {CARD} is missing") from error
        except (OSError, ValidationError) as error:
            raise WeightsError(f"{path}: cannot be read ({' '.join(str(error).split())[:300]})") from error

    def write(self, folder: Path) -> None:
        """Write the model card and then `cxrreport.json`, which marks an adapter folder as complete.

        Raises:
            OutputError: the disk is full or the folder cannot be written.
        """
        with atomic_path(folder / README) as path:
            path.write_text(model_card(self), encoding="utf-8")
        write_json(folder / CARD, self.model_dump(mode="json"))

    def check_images(self, resolution: int, preprocessing: Mapping[str, Any]) -> None:
        """Compare the images that the model will see with those of its training.

        Args:
            resolution: side of the images, pixels.
            preprocessing: how they were resampled, from the manifest.

        Raises:
            MismatchError: they were prepared differently; the message names the fields.
        """
        given = {**preprocessing, "resolution": resolution}
        if found := _changes({**self.preprocessing, "resolution": self.resolution}, given):
            raise MismatchError(f"adapter and images do not belong together: {found}; ingest again")

    def check_prompt(self, prompt: PromptSettings) -> None:
        """Compare a prompt with that of the training.

        Raises:
            MismatchError: they differ; the message names the fields.
        """
        if found := _changes(dict(self.prompt), dict(prompt)):
            raise MismatchError(f"prompt: {found}; omit prompt to use the adapter's")


def _changes(trained: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What differs from the training, for a message; empty if nothing does."""
    changed = sorted(differing(trained, given).items())
    return "; ".join(f"{name} was {was!r} in training and is {now!r}" for name, (was, now) in changed)


def model_card(card: AdapterCard) -> str:
    """Model card in the hub's format: what the weights are, how they were made, under what terms they may be used."""
    base = hub_name(card.checkpoint.name)
    library = "transformers" if card.merged or card.lora is None else "peft"
    front = ["---", f"library_name: {library}", "pipeline_tag: image-text-to-text", "tags: [radiology, chest-x-ray]"]
    if not card.synthetic:
        front += ["license: gemma", f"base_model: {base}"]
    lora = card.lora
    kind = "QLoRA (base in 4 bits, nf4)" if card.checkpoint.precision == "nf4" else "LoRA"
    method = "full fine-tuning"
    if lora is not None:
        scaled = " (rank-stabilised)" if lora.rank_stabilised else ""
        method = f"{kind}, rank {lora.rank}, alpha {lora.alpha}{scaled}, {len(card.modules)} layers"
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
        lines += ["The checkpoint has only seen synthetic phantoms. Its reports have no meaning for real patients."]
    else:
        lines += [
            (
                "Derived from Gemma: the Gemma Terms of Use (https://ai.google.dev/gemma/terms) and their list of "
                "prohibited uses apply to every copy."
            ),
            "",
            (
                "Derived from the training data as well: their data use agreement covers these weights too. Models "
                "fine-tuned on MIMIC-CXR, adapters included, may only be shared under the same credentialed access "
                "(PhysioNet Credentialed Health Data License 1.5.0)."
            ),
        ]
    return "\n".join(lines) + "\n"
