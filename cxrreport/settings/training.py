"""Settings of `train`, and of `plan`, which asks what that needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import FolderOrName, Fraction, PositiveInt, Resolution, Settings, build, merge
from cxrreport.settings.model import CheckpointSettings, LoraSettings, PromptSettings
from cxrreport.settings.tracking import TrackingSettings

Method = Literal["lora", "qlora", "full"]


class ValidationSettings(Settings):
    """What is measured while training, beside the loss on the whole validation split, and what follows from it."""

    radgraph: str = "radgraph-xl"
    """Reports are generated and scored by this RadGraph, as in `evaluate`, and the step with the best F1 is kept;
    `none`: the step with the least validation loss is."""
    weights: Path | None = None
    """As in `evaluate`."""
    download: bool = False
    """As in `evaluate`."""
    studies: PositiveInt = 64
    """Studies of the validation split that get a report, chosen by a hash of their ids: always the same ones."""
    patience: PositiveInt | None = None
    """Validations in a row without a better one after which training stops; None: it goes on to the last step."""


class TrainSettings(Settings):
    """LoRA fine-tuning on the training split of an ingest folder."""

    data: Path
    """Output folder of `ingest`."""
    output: Path
    """Folder for the adapter, the checkpoints and the log."""
    checkpoint: CheckpointSettings
    prompt: PromptSettings = PromptSettings()
    lora: LoraSettings | None = LoraSettings()
    """None: full fine-tuning."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training split."""
    max_steps: PositiveInt | None = None
    """Optimiser steps; overrides `epochs`."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak rate, after warm-up."""
    warmup_fraction: Fraction = 0.05
    """Part of the steps over which the rate rises linearly; then cosine to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW, per step and unit of the learning rate."""
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest global L2 norm of the gradient."""
    batch_size: PositiveInt = 1
    """Samples per forward pass."""
    accumulation: PositiveInt = 16
    """Forward passes per optimiser step. Several processes share them, so that their number changes nothing else; it
    must divide this one."""
    sharding: Literal["none", "full"] = "none"
    """Of several processes, each holds the whole model (`none`), or a part of every layer (`full`, FSDP2), for what
    does not fit into one device."""
    loss: Literal["per-example", "per-token"] = "per-example"
    """Mean over each example's suffix and then over the batch, as the reference; or over all tokens of the batch."""
    gradient_checkpointing: bool = True
    """Recompute activations of the language model in the backward pass."""
    compile: bool = False
    """Compile the layers of the language model (torch.compile): minutes at the start and at new lengths, for quicker
    steps on a GPU. Needs a C++ compiler."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and change images ahead of the steps; 0: the training process itself does, between them."""
    augment: bool = False
    """Small rotations, shifts, scale, gamma and noise; never a left-right flip."""
    eval_every: PositiveInt | None = None
    """Optimiser steps between validations; None: once per epoch."""
    validation: ValidationSettings = ValidationSettings()
    """What is measured while training, and what decides which step is kept."""
    save_every: PositiveInt | None = None
    """Optimiser steps between checkpoints; None: as `eval_every`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the order of samples, dropout and augmentation."""
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _four_bits_are_frozen(self) -> Self:
        if self.checkpoint.precision == "nf4" and (self.lora is None or self.sharding == "full"):
            field = "lora: null" if self.lora is None else "sharding: full"
            raise ValueError(f"checkpoint.precision: nf4 does not go with {field}; take bfloat16, or leave that out")
        return self


class PlanSettings(Settings):
    """What a training run needs, asked before anything is spent."""

    checkpoint: FolderOrName | None = None
    """As `checkpoint.name` in training; None: each of the nine pre-trained ones."""
    resolution: Resolution | None = None
    """Side of the images, pixels; None: the checkpoint's own."""
    method: Method = "lora"
    """`qlora`: the frozen weights of the language model in 4 bits; `full`: all weights are trained, in float32."""
    lora: LoraSettings = LoraSettings()
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the matrix products, and of weights that are frozen."""
    softcap: bool = False
    """As `checkpoint.softcap` in training."""
    batch_size: PositiveInt = 1
    """Samples per forward pass."""
    gradient_checkpointing: bool = True
    """As in training."""
    max_images: PositiveInt = 1
    """Images of one example."""
    prefix_tokens: PositiveInt = 72
    """Of one example, BOS and separator included, image tokens not."""
    suffix_tokens: PositiveInt = 128
    """Of one example, EOS included."""
    examples: PositiveInt = 210_000
    """Of one epoch; MIMIC-CXR's training split has about so many studies with a frontal image and a report."""
    gpu: str | None = None
    """A line of `training.planning.gpus`; None: all of them."""
    price: Annotated[float, Field(ge=0)] | None = None
    """US dollars per hour of the GPU; None: the round figure of `training.planning.gpus`."""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Part of the GPU's peak that is expected to be reached."""

    @classmethod
    def of_training(cls, settings: TrainSettings, **overrides: Any) -> Self:
        """The question that a training configuration asks; its longest texts are taken for all of them."""
        checkpoint, prompt = settings.checkpoint, settings.prompt
        quantised = checkpoint.precision == "nf4"
        values = {
            "checkpoint": checkpoint.name,
            "method": "full" if settings.lora is None else "qlora" if quantised else "lora",
            "lora": settings.lora or LoraSettings(),
            "precision": "bfloat16" if quantised else checkpoint.precision,
            "softcap": checkpoint.softcap,
            "batch_size": settings.batch_size,
            "gradient_checkpointing": settings.gradient_checkpointing,
            "max_images": prompt.max_images,
            "prefix_tokens": prompt.max_prefix_tokens,
            "suffix_tokens": prompt.max_suffix_tokens,
        }
        return build(cls, merge(values, overrides), where="plan")
