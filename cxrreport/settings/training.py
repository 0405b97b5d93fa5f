"""Settings of `train` and `plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import FolderOrName, Fraction, PositiveInt, Resolution, Settings, build, merge
from cxrreport.settings.model import CheckpointSettings, LoraSettings, PromptSettings
from cxrreport.settings.reward import RewardSettings
from cxrreport.settings.tracking import CommandSettings


class ValidationSettings(Settings):
    """Validation during training, in addition to the loss on the whole validation split."""

    radgraph: str = "radgraph-xl"
    """RadGraph model that scores generated reports, as in `evaluate`; the step with the best F1 is kept. `none`: keep
    the step with the lowest validation loss, or the last one with `objective: reward`, which raises this loss."""
    weights: Path | None = None
    """As in `evaluate`."""
    download: bool = False
    """As in `evaluate`."""
    studies: PositiveInt = 64
    """Number of validation studies that get a report, selected by a hash of their ids, so always the same."""
    patience: PositiveInt | None = None
    """Stop after this many validations without improvement; `None` to train to the last step."""


class TrainSettings(CommandSettings):
    """LoRA fine-tuning on the training split of an ingest folder."""

    data: Path
    """Output folder of `ingest`."""
    output: Path
    """Folder for the adapter, the checkpoints and the log."""
    checkpoint: CheckpointSettings
    prompt: PromptSettings = PromptSettings()
    lora: LoraSettings | None = LoraSettings()
    """`None` for full fine-tuning."""
    objective: Literal["likelihood", "reward"] = "likelihood"
    """`likelihood`: of the reference reports; `reward`: scores of sampled reports, starting from `reward.adapter`."""
    reward: RewardSettings = RewardSettings()
    """Training on the metric."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training split."""
    max_steps: PositiveInt | None = None
    """Optimiser steps; overrides `epochs`."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate, after warm-up."""
    warmup_fraction: Fraction = 0.05
    """Fraction of the steps with linear warm-up; then cosine to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    """Maximum global L2 norm of the gradient."""
    batch_size: PositiveInt = 1
    """Samples per forward pass."""
    accumulation: PositiveInt = 16
    """Forward passes per optimiser step, over all processes. The number of processes must divide it."""
    sharding: Literal["none", "full"] = "none"
    """With several processes, each holds the whole model (`none`) or a part of every layer (`full`, FSDP2)."""
    loss: Literal["per-example", "per-token"] = "per-example"
    """Mean over each example's suffix and then over the batch, as the reference, or over all tokens of the batch."""
    gradient_checkpointing: bool = True
    """Recompute activations of the language model in the backward pass."""
    compile: bool = False
    """Compile the layers of the language model (torch.compile), which takes minutes and makes steps on a GPU faster.
    Requires a C++ compiler."""
    workers: Annotated[int, Field(ge=0)] = 0
    """ProcessGroup that read and augment images in advance; 0 to use the training process."""
    augment: bool = False
    """Small rotations, shifts, scale, gamma and noise; never a left-right flip."""
    prior_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability that a training sample is shown without its prior study, and with the report that does not mention
    one. It prepares the model for studies without a prior; validation shows the prior."""
    eval_every: PositiveInt | None = None
    """Optimiser steps between validations; `None` for once per epoch."""
    validation: ValidationSettings = ValidationSettings()
    """Validation, which selects the step that is kept."""
    save_every: PositiveInt | None = None
    """Optimiser steps between checkpoints; `None` for `eval_every`. One is also saved every 15 minutes, and when the
    run is stopped by Ctrl-C, SIGTERM or SIGUSR1."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of sample order, dropout and augmentation."""

    @property
    def studies_per_step(self) -> int:
        """Samples per optimiser step, over all processes."""
        reports = self.batch_size * self.accumulation
        return reports // self.reward.samples if self.objective == "reward" else reports

    @model_validator(mode="after")
    def _reward_can(self) -> Self:
        if self.objective == "likelihood":
            return self
        if self.reward.adapter is None:
            raise ValueError("objective: reward starts from an adapter; set reward.adapter to a folder of train")
        if self.augment or self.sharding == "full" or self.lora is None or self.compile:
            raise ValueError("objective: reward cannot be combined with augment, compile, sharding: full or lora: null")
        if self.validation.radgraph == "none" and self.validation.patience is not None:
            raise ValueError("validation.patience with objective: reward needs scores; set validation.radgraph")
        if self.batch_size * self.accumulation % self.reward.samples:
            raise ValueError(
                f"batch_size x accumulation is {self.batch_size * self.accumulation}, the reports of a step; make it "
                f"a multiple of reward.samples ({self.reward.samples})"
            )
        return self

    @model_validator(mode="after")
    def _prior_to_drop(self) -> Self:
        if self.prior_dropout and self.prompt.prior == "none":
            raise ValueError("prior_dropout has no prior study to drop; set prompt.prior, or leave it at 0")
        return self

    @model_validator(mode="after")
    def _four_bits_are_frozen(self) -> Self:
        if self.checkpoint.precision == "nf4" and (self.lora is None or self.sharding == "full"):
            field = "lora: null" if self.lora is None else "sharding: full"
            raise ValueError(f"checkpoint.precision: nf4 cannot be combined with {field}; use bfloat16, or remove that")
        return self


class PlanSettings(Settings):
    """Estimate of what a training run, or the generation of an archive, needs."""

    task: Literal["training", "generation"] = "training"
    """What is estimated."""

    checkpoint: FolderOrName | None = None
    """As `checkpoint.name` in training; `None` for all nine pre-trained checkpoints."""
    resolution: Resolution | None = None
    """Side length of the images, in pixels; `None` for that of the checkpoint."""
    method: Literal["lora", "qlora", "full"] = "lora"
    """`qlora`: frozen weights of the language model in 4 bits; `full`: all weights are trained, in float32."""
    lora: LoraSettings = LoraSettings()
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """dtype of matrix products and frozen weights."""
    softcap: bool = False
    """As `checkpoint.softcap` in training."""
    batch_size: PositiveInt = 1
    """Samples per forward pass."""
    gradient_checkpointing: bool = True
    """As in training."""
    max_images: PositiveInt = 1
    """Images of a study per example."""
    prior_image: bool = False
    """One image of the prior study per example as well; an archive holds it in any case, as that study's own."""
    pool: Literal[1, 2, 4] = 1
    """As `prompt.pool` in training: every image of an example but the first is averaged over squares of this many
    patches."""
    prefix_tokens: PositiveInt = 72
    """Prefix tokens per example, including BOS and separator, excluding image tokens."""
    suffix_tokens: PositiveInt = 128
    """Suffix tokens per example, including EOS; for `generation`, new tokens of a report."""
    examples: PositiveInt = 210_000
    """Examples per epoch; the default is about the size of MIMIC-CXR's training split (frontal image and report)."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the examples."""
    studies: PositiveInt = 228_000
    """Studies of the archive, for `generation`; the default is the size of MIMIC-CXR."""
    gpu: str | None = None
    """Name of a GPU in `training.planning.gpus`; `None` for all."""
    price: Annotated[float, Field(ge=0)] | None = None
    """US dollars per GPU hour; `None` for the figure in `training.planning.gpus`."""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Fraction of the GPU's peak performance that is reached."""

    @classmethod
    def of_training(cls, settings: TrainSettings, *, counted: int | None = None, **overrides: Any) -> Self:
        """Settings for the estimate of a training configuration, which assumes the longest texts.

        Args:
            settings: of the training.
            counted: examples of its data, if they are known.
            overrides: replace fields.
        """
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
            **_prompt_of(prompt),
            "suffix_tokens": prompt.max_suffix_tokens,
            "epochs": settings.epochs,
            **({} if counted is None else {"examples": counted}),
        }
        values = merge(values, overrides)
        if settings.max_steps is not None and "epochs" not in overrides:
            examples = values.get("examples", cls.model_fields["examples"].default)
            values["epochs"] = settings.max_steps * settings.batch_size * settings.accumulation / examples
        return build(cls, values, where="plan")

    @classmethod
    def of_generation(cls, checkpoint: CheckpointSettings, prompt: PromptSettings, **overrides: Any) -> Self:
        """Settings for the estimate of a generation with this checkpoint and prompt."""
        quantised = checkpoint.precision == "nf4"
        values = {
            "task": "generation",
            "checkpoint": checkpoint.name,
            "method": "qlora" if quantised else "lora",
            "precision": "bfloat16" if quantised else checkpoint.precision,
            **_prompt_of(prompt),
        }
        return build(cls, merge(values, overrides), where="plan")

    @property
    def images(self) -> int:
        """Images per example."""
        return self.max_images + self.prior_image

    def image_tokens(self, each: int) -> int:
        """Image tokens per example; `each` is the number of tokens of an image that is not averaged."""
        return each + (self.images - 1) * (each // self.pool**2)

    @model_validator(mode="after")
    def _images_to_pool(self) -> Self:
        if self.pool > 1 and self.images == 1:
            raise ValueError(f"pool: {self.pool} averages all images but the first; set max_images: 2 or prior_image")
        return self


def _prompt_of(prompt: PromptSettings) -> dict[str, Any]:
    """Fields of `PlanSettings` for the longest prompts of these settings."""
    return {
        "max_images": prompt.images - prompt.shows_prior_image,
        "prior_image": prompt.shows_prior_image,
        "pool": prompt.pool,
        "prefix_tokens": prompt.longest_prefix,
    }
