"""`transformers.Trainer` with the parts replaced that are wrong or wasteful for this model.

What stays is the loop: accumulation, clipping, schedule, devices. What is replaced: the loss (suffix only), the vision
pass (no gradient), checkpoints (only what is trained; safetensors and JSON, no pickle; whole or absent), and every bit
of state that is not on disk (order and dropout follow from the seed and the position in the run).
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cxrreport.errors import TrainingError
from cxrreport.model.attention import border_mask
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.fused import fused
from cxrreport.model.prompt import to_pixels
from cxrreport.settings import TrainSettings
from cxrreport.storage.files import atomic_path, write_json
from cxrreport.training.distributed import Processes, like, whole
from cxrreport.training.loss import predicting, row_losses, suffix_loss
from cxrreport.training.samples import Collator, RunOrder
from cxrreport.training.vision_features import VisionFeatures, autocast

WEIGHTS, OPTIMIZER, SCHEDULE, STATE = (
    "trained.safetensors",
    "optimizer.safetensors",
    "optimizer.json",
    "trainer_state.json",
)

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")

_KEPT_CHECKPOINTS = 2
"""The last one, and the one before it for the case that the last turns out to be bad."""

Record = Callable[[dict[str, float], int], None]


def core(model: Any) -> Any:
    """The `PaliGemmaModel` inside of a model, with or without LoRA around it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.model


class ReportTrainer(Trainer):
    """Trains what requires a gradient in `loaded.model`.

    Args:
        loaded: the checkpoint, adapted.
        settings: of the run.
        dtype: of the matrix products; float32 weights run in bfloat16 under autocast.
        steps: optimiser steps of the whole run.
        order: samples of the whole run.
        collator: makes batches.
        features: of the frozen vision tower; None where the tower is trained, or sharded.
        folder: for the checkpoints.
        save_every: optimiser steps.
        eval_every: optimiser steps; None: never.
        record: takes the values of a step.
        validate: called every `eval_every` steps and at the end, with the step; True: training is to stop.
        processes: that train together.
    """

    model: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        loaded: LoadedModel,
        settings: TrainSettings,
        *,
        dtype: torch.dtype,
        steps: int,
        order: RunOrder,
        collator: Collator,
        features: VisionFeatures | None,
        folder: Path,
        save_every: int,
        eval_every: int | None,
        record: Record,
        validate: Callable[[int], bool],
        processes: Processes,
    ) -> None:
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation // processes.count,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=math.ceil(settings.warmup_fraction * steps),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.gradient_clip,
            seed=settings.seed,
            use_cpu=loaded.device.type == "cpu",
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_steps=save_every,
            eval_strategy="no" if eval_every is None else "steps",
            eval_steps=eval_every,
            dataloader_num_workers=settings.workers,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            report_to=[],
            disable_tqdm=True,
            use_cache=True,
            average_tokens_across_devices=True,
            ddp_find_unused_parameters=False,
        )
        # Several GPUs are used through torchrun; without it Trainer would fall back to DataParallel over all of them.
        arguments._n_gpu = min(arguments.n_gpu, 1)
        super().__init__(
            model=loaded.model,
            args=arguments,
            train_dataset=order,
            eval_dataset=order,
            data_collator=collator,
        )
        self.remove_callback(PrinterCallback)
        if processes.sharded:
            # Sharded already, with its own averaging of gradients: accelerate must not wrap it into DDP.
            loaded.model._is_accelerate_prepared = True
            self.accelerator.clip_grad_norm_ = _clip_sharded
        # Tells Trainer to count the suffix tokens of a step, and that the loss is normalised by us.
        self.model_accepts_loss_kwargs = True
        self._settings = settings
        self._device = loaded.device
        self._softcap = loaded.softcap
        self._dtype = dtype
        self._features = features
        self._head = loaded.model.get_output_embeddings()
        self._projector = core(loaded.model).multi_modal_projector
        self._projector_trains = any(p.requires_grad for p in self._projector.parameters())
        self._folder = folder
        self._record = record
        self._validate = validate
        self._processes = processes
        self._last_log = time.monotonic()

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        order: Any = self.train_dataset if train_dataset is None else train_dataset
        return torch.utils.data.SequentialSampler(order)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Run the loop, with the model's parts in their fused forms."""
        compiled = self._settings.compile
        language = core(self.model).language_model
        with warnings.catch_warnings(), fused(self.model, language, softcap=self._softcap, compiled=compiled):
            # The logits of a sharded model may be a view; nothing here writes into them.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            return super().train(*args, **kwargs)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one batch, with dropout seeded by the position in the run."""
        torch.manual_seed(self._settings.seed * 1_000_003 + int(inputs["position"][0]))
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Part of one batch in the loss of its step, see `suffix_loss`."""
        losses, labels = self.forward(model, inputs, self._features)
        if self._settings.loss == "per-token":
            # Gradients are averaged over processes, so each one divides by its share of the tokens of the step.
            normaliser = (num_items_in_batch or 1) / self.accelerator.num_processes
        else:
            normaliser = len(labels) * self.current_gradient_accumulation_steps
        loss = suffix_loss(losses, labels, reduction=self._settings.loss, normaliser=normaliser)
        return (loss, {}) if return_outputs else loss

    def forward(
        self, model: Any, batch: dict[str, Any], features: VisionFeatures | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass with the head on the predicting positions only, while `train` runs.

        Args:
            model: the model, or what Trainer wrapped around it.
            batch: of `Collator`.
            features: of the split that the batch is from; None where the vision tower is trained.

        Returns:
            The loss of each predicting position, float32[N], and the labels int64[B, L], on the model's device.
        """
        texts = {key: batch[key].to(self._device) for key in INPUTS}
        labels = batch["labels"].to(self._device)
        grey = batch.get("grey")
        with autocast(self._device, self._dtype):
            if features is None:
                images: dict[str, Any] = {"pixel_values": to_pixels(grey.to(self._device))}  # type: ignore[union-attr]
            else:
                hidden = features(index=batch["index"], grey=grey)
                with torch.set_grad_enabled(torch.is_grad_enabled() and self._projector_trains):
                    projected = self._projector(hidden)
                images = {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=projected)}}
            keep, border = predicting(labels), {}
            targets = labels[:, 1:][keep[:, :-1]]
            if not self._softcap:
                # One number for the batch, see `PromptLayout.collate_training`.
                length = int((batch["token_type_ids"][0] == 0).sum())
                border = {"prefix_length": length, "prefix_padded": not bool(batch["attention_mask"][:, 0].all())}
                texts["attention_mask"] = border_mask(texts["attention_mask"], length)
                keep = keep[:, length - 1 :]
            head = self._head
            in_blocks = not (self._softcap or head.weight.requires_grad)
            with row_losses(head, targets) if in_blocks else nullcontext():
                outputs = model(**texts, **images, **border, use_cache=False, logits_to_keep=keep)
        if in_blocks:
            return outputs.logits, labels
        return torch.nn.functional.cross_entropy(outputs.logits.float(), targets, reduction="none"), labels

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validate in our own way; nothing of it goes through Trainer."""
        self.model.eval()
        with torch.no_grad():
            stop = self._validate(self.state.global_step)
        if self._processes.sharded:
            self.model.reshard()  # the outermost part stays whole after a forward pass, in wait of a backward one
        self.control.should_training_stop |= stop
        # As the method that this one replaces does through its callbacks; else the end of the run validates again.
        self.control.should_evaluate = False
        self._last_log = time.monotonic()
        return {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002
        """Take the values of one step.

        Raises:
            TrainingError: the loss or the gradient is not finite. Nothing has been saved since it became so.
        """
        if "loss" not in logs:
            return
        now = time.monotonic()
        values = {name: float(logs[name]) for name in ("loss", "grad_norm", "learning_rate") if name in logs}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values.get(name, 0.0)):
                raise TrainingError(
                    f"step {self.state.global_step}: {name} is {values[name]}. The checkpoints in {self._folder} are "
                    "from before; take a lower learning_rate or precision: float32, and a new output folder"
                )
        self._record(values | {"seconds": now - self._last_log}, self.state.global_step)
        self._last_log = now

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:  # noqa: ARG002
        folder = self._folder / f"{self.state.global_step:07d}"
        weights = trained(self.model)
        state = self.optimizer.state_dict()
        tensors = {
            f"{index}.{name}": whole(tensor)
            for index, values in state["state"].items()
            for name, tensor in values.items()
        }
        if self._processes.first:
            self._write_checkpoint(folder, weights, tensors, state["param_groups"])
        self._processes.wait()

    def _write_checkpoint(
        self, folder: Path, weights: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], groups: Any
    ) -> None:
        with atomic_path(folder / WEIGHTS) as path:
            save_file(weights, path)
        with atomic_path(folder / OPTIMIZER) as path:
            save_file(tensors, path)
        write_json(folder / SCHEDULE, {"groups": groups, "schedule": self.lr_scheduler.state_dict()})
        # Last: a folder with it is complete.
        with atomic_path(folder / STATE) as path:
            self.state.save_to_json(str(path))
        for old in checkpoints(self._folder)[:-_KEPT_CHECKPOINTS]:
            (old / STATE).unlink()
            shutil.rmtree(old)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ARG002
        load_trained(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        saved = json.loads((folder / SCHEDULE).read_text(encoding="utf-8"))
        state: dict[int, dict[str, torch.Tensor]] = {}
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for key, tensor in load_file(folder / OPTIMIZER).items():
            index, name = key.split(".", 1)
            of = parameters[int(index)]
            state.setdefault(int(index), {})[name] = like(tensor, of) if tensor.shape == of.shape else tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": saved["groups"]})
        self.lr_scheduler.load_state_dict(saved["schedule"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: order, dropout and augmentation follow from seed and position."""


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in a folder, oldest first."""
    return sorted(path.parent for path in folder.glob(f"*/{STATE}"))


def discard_incomplete(folder: Path) -> None:
    """Remove checkpoints that a kill left half written or half removed."""
    for path in folder.glob("*"):
        if path.is_dir() and not (path / STATE).exists():
            shutil.rmtree(path)


def load_trained(model: Any, checkpoint: Path) -> None:
    """Put the trained weights of a checkpoint of ours into a model of the same shape.

    Raises:
        TrainingError: the checkpoint is damaged or of another shape.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    try:
        saved = load_file(checkpoint / WEIGHTS)
        if saved.keys() != parameters.keys():
            raise ValueError("other layers are trained")
        with torch.no_grad():
            for name, tensor in saved.items():
                parameters[name].copy_(like(tensor, parameters[name]))
    except Exception as error:  # safetensors derives its error from Exception
        raise TrainingError(
            f"{checkpoint}: cannot go on from this checkpoint ({' '.join(str(error).split())[:200]}); "
            "remove its folder to go on from the one before"
        ) from error


def trained(model: Any) -> dict[str, torch.Tensor]:
    """What is trained, by name, whole and in main memory; all processes have to call this."""
    return {name: whole(p) for name, p in model.named_parameters() if p.requires_grad}


def _clip_sharded(parameters: Iterable[torch.nn.Parameter], max_norm: float, norm_type: int = 2) -> torch.Tensor:
    """As accelerate's, with the norm of the whole gradient in every process."""
    norm: Any = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
    return whole(norm)
