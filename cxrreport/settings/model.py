"""Settings of what is trained and run: prompt, adapter, checkpoint; and of `merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import FolderOrName, PositiveInt, Settings
from cxrreport.settings.tracking import TrackingSettings


class PromptSettings(Settings):
    """What the model reads and writes. Travels with the adapter; a mismatch at generation is an error."""

    instruction: str = "generate the chest x-ray report"
    """First line of the prefix."""
    indication: bool = True
    """Put the study's indication into the prefix."""
    sections: tuple[Literal["findings", "impression"], ...] = ("findings", "impression")
    """Sections of the suffix, in this order, each with its header."""
    max_prefix_tokens: PositiveInt = 96
    """Longest prefix, tokens, image tokens not counted; longer indications are cut and counted."""
    max_suffix_tokens: PositiveInt = 256
    """Longest suffix, tokens, EOS included; longer reports are cut, keeping EOS, and counted."""
    max_images: PositiveInt = 1
    """Images that the model sees at once. 1: every image of a study is a sample of its own, and a report is generated
    from the study's best view; more: a study is one sample, with its first so many images, best view first."""

    @model_validator(mode="after")
    def _some_section(self) -> Self:
        if not self.sections or len(set(self.sections)) != len(self.sections):
            raise ValueError("sections must name findings, impression or both, each once")
        return self


class LoraSettings(Settings):
    """Low-rank adaptation (arXiv 2106.09685)."""

    rank: PositiveInt = 16
    """Inner size of the two matrices beside a layer."""
    alpha: PositiveInt = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Part of the inputs of those matrices that is zeroed while training."""
    targets: Literal["language", "language+projector", "language+projector+vision"] = "language"
    """Which linear layers are adapted: all seven projections of the language model, and more where named."""


class CheckpointSettings(Settings):
    """Which base model, and how it is run."""

    name: FolderOrName
    """A line of the table of checkpoints (`paligemma2-3b-pt-896`), a hub id (`google/paligemma2-3b-pt-896`), a local
    folder, or `tiny` for the project's own model of phantoms."""
    revision: str | None = None
    """Commit, tag or branch on the hub; None: the newest."""
    softcap: bool = False
    """Soft-capping of attention and logits. Off for transfer, as in the paper; the untouched `-pt-` and the `-mix-`
    checkpoints run with it."""
    precision: Literal["float32", "bfloat16", "nf4"] = "bfloat16"
    """dtype in which the frozen weights are held and the matrix products run. `nf4`: the language model's linear layers
    in 4 bits, products in bfloat16 (QLoRA, arXiv 2305.14314); CUDA and the extra `qlora` only."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA where there is some."""


class MergeSettings(Settings):
    """An adapter merged into its checkpoint, as a checkpoint that plain transformers loads."""

    adapter: Path
    """Adapter folder of `train`."""
    output: Path
    """Folder for the checkpoint."""
    checkpoint: CheckpointSettings | None = None
    """None: the one that the adapter was trained on; its precision is that of the merged weights."""
    shard_gb: Annotated[float, Field(gt=0)] = 5.0
    """Largest weight file, GB (10^9 bytes)."""
    tracking: TrackingSettings = TrackingSettings()
