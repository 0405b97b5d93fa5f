"""Settings of prompt, adapter and checkpoint, and of `merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import EachOnce, FolderOrName, PositiveInt, Settings
from cxrreport.settings.tracking import CommandSettings


class PromptSettings(Settings):
    """Input and output of the model; stored with the adapter, and a mismatch at generation is an error."""

    instruction: str = "generate the chest x-ray report"
    """First line of the prefix."""
    indication: bool = True
    """Include the study's indication in the prefix."""
    sections: Annotated[tuple[Literal["findings", "impression"], ...], EachOnce] = ("findings", "impression")
    """Sections of the suffix, in this order, each with its header."""
    max_prefix_tokens: PositiveInt = 96
    """Maximum prefix length in tokens, without image tokens and the prior study; longer indications are truncated and
    counted."""
    max_suffix_tokens: PositiveInt = 256
    """Maximum suffix length in tokens, including EOS; longer reports are truncated, keeping EOS, and counted."""
    max_images: PositiveInt = 1
    """Images per sample. 1: every image of a study is a sample, and a report is generated from the best view. More: a
    study is one sample with up to this many images, best view first."""
    views: Literal["frontal", "frontal+lateral"] = "frontal"
    """`frontal+lateral`: the best lateral follows the frontal where a study has one; ingest with `views:
    best-frontal+lateral`. Every frontal of a study is a sample."""
    prior: Literal["none", "report", "image", "report+image"] = "none"
    """What is shown of the prior study, the latest earlier one of the patient: its report and the interval in the
    prefix, its frontal image and the interval, or both."""
    pool: Literal[1, 2, 4] = 1
    """Lateral and prior image are averaged over squares of this many patches, after the projector, so that they take a
    quarter or a sixteenth of the tokens."""
    max_prior_tokens: PositiveInt = 160
    """Maximum length in tokens of what the prefix says about images and the prior study, after `max_prefix_tokens`."""

    @property
    def images(self) -> int:
        """Largest number of images of a sample."""
        return max(self.max_images, 1 + (self.views == "frontal+lateral") + self.shows_prior_image)

    @property
    def shows_prior_image(self) -> bool:
        """Whether the image of the prior study is shown."""
        return self.prior in ("image", "report+image")

    @property
    def several_inputs(self) -> bool:
        """Whether more than images of the same kind are read: a lateral or a prior study."""
        return self.views != "frontal" or self.prior != "none"

    @property
    def longest_prefix(self) -> int:
        """Largest number of text tokens before the report."""
        return self.max_prefix_tokens + (self.max_prior_tokens if self.several_inputs else 0)

    def alone(self) -> PromptSettings:
        """The same without lateral and prior study."""
        return self.model_copy(update={"views": "frontal", "prior": "none", "pool": 1})

    @model_validator(mode="after")
    def _one_kind_of_several(self) -> Self:
        if self.several_inputs and self.max_images > 1:
            raise ValueError("max_images cannot be combined with views: frontal+lateral or prior; leave it at 1")
        if self.pool > 1 and self.views == "frontal" and not self.shows_prior_image:
            raise ValueError(f"pool: {self.pool} has no image to pool; set views: frontal+lateral or prior: image")
        return self


class LoraSettings(Settings):
    """Low-rank adaptation (arXiv 2106.09685)."""

    rank: PositiveInt = 16
    """Rank of the update."""
    alpha: PositiveInt = 32
    """The update is scaled by alpha / rank."""
    rank_stabilised: bool = False
    """Scale the update by alpha / sqrt(rank) instead, so that a high rank does not reduce it (arXiv 2312.03732)."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Dropout probability on the inputs of the adapter during training."""
    targets: Literal["language", "language+projector", "language+projector+vision"] = "language"
    """Adapted linear layers: all seven projections of the language model, and the parts that are named."""


class CheckpointSettings(Settings):
    """The base model."""

    name: FolderOrName
    """A published name (`paligemma2-3b-pt-896`), a hub id (`google/paligemma2-3b-pt-896`), a local folder, or `tiny`
    for the project's model of phantoms."""
    revision: str | None = None
    """Commit, tag or branch on the hub; `None` for the latest."""
    softcap: bool = False
    """Soft-capping of attention and logits. Off for fine-tuning, as in the paper; the original `-pt-` and `-mix-`
    checkpoints use it."""
    precision: Literal["float32", "bfloat16", "nf4"] = "bfloat16"
    """dtype of frozen weights and matrix products. `nf4`: linear layers of the language model in 4 bits, products in
    bfloat16 (QLoRA, arXiv 2305.14314); requires CUDA and the extra `qlora`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA if available."""


class MergeSettings(CommandSettings):
    """Merge an adapter into its base model, as a checkpoint that transformers loads."""

    adapter: Path
    """Adapter folder of `train`."""
    output: Path
    """Output folder for the checkpoint."""
    checkpoint: CheckpointSettings | None = None
    """`None` for the base model of the adapter; its precision is that of the merged weights."""
    shard_gb: Annotated[float, Field(gt=0)] = 5.0
    """Maximum size of a weight file, in GB (10^9 bytes)."""
