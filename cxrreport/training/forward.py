"""The forward pass of training and its loss: cross-entropy on the suffix, computed at suffix positions only.

Features of a frozen vision tower replace pixels. The output head is the widest layer of the model (257,216 rows). At
896 px a sample has some 4,300 positions, of which about 100 are suffix; logits for all of them are 4 GB and the largest
part of a training step of transformers. The logits of the suffix are computed in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch

from cxrreport.model import adapters
from cxrreport.model.attention import border_mask
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.compat import image_arguments
from cxrreport.model.fused import replaced
from cxrreport.model.prompt import IGNORED, pooled, to_pixels
from cxrreport.training.vision_features import VisionFeatures, autocast

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_ROWS = 64
"""Positions whose logits are computed together: 66 MB of float32, enough for fast matrix products."""


def forward(
    loaded: LoadedModel, model: Any, batch: dict[str, Any], features: VisionFeatures | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """One pass, with the output head on the positions that predict the suffix only.

    Args:
        loaded: the model, with its fused layers (`model.fused.fused`).
        model: `loaded.model`, or its wrapper for several processes.
        batch: of `Collator`.
        features: of the split that the batch is from; `None` if the vision tower is trained or sharded.
        dtype: of the matrix products.

    Returns:
        The loss of each predicting position, float32[N], and the labels, int64[B, L], on the model's device.
    """
    device, softcap = loaded.device, loaded.softcap
    texts = {key: batch[key].to(device) for key in INPUTS}
    labels = batch["labels"].to(device)
    grey = batch.get("grey")
    projector = adapters.paligemma(loaded.model).multi_modal_projector
    head = loaded.model.get_output_embeddings()
    with autocast(device, dtype):
        pools = batch["pools"].tolist()
        if features is None:
            images: dict[str, Any] = {"pixel_values": to_pixels(grey.to(device))}  # type: ignore[union-attr]
        else:
            hidden = features(index=batch["index"], grey=grey)
            projector_trains = any(p.requires_grad for p in projector.parameters())
            with torch.set_grad_enabled(torch.is_grad_enabled() and projector_trains):
                images = image_arguments(pooled(projector(hidden), pools))
        keep, border = predicting(labels), {}
        targets = labels[:, 1:][keep[:, :-1]]
        if not softcap:
            # One prefix length for the batch, see `PromptLayout.collate_training`.
            length = int((batch["token_type_ids"][0] == 0).sum())
            border = {"prefix_length": length, "prefix_padded": not bool(batch["attention_mask"][:, 0].all())}
            texts["attention_mask"] = border_mask(texts["attention_mask"], length)
            keep = keep[:, length - 1 :]
        in_blocks = not (softcap or head.weight.requires_grad)
        losses = row_losses(head, targets) if in_blocks else nullcontext()
        with losses, averaged_images(projector, pools) if features is None else nullcontext():
            outputs = model(**texts, **images, **border, use_cache=False, logits_to_keep=keep)
    if in_blocks:
        return outputs.logits, labels
    return torch.nn.functional.cross_entropy(outputs.logits.float(), targets, reduction="none"), labels


@contextmanager
def averaged_images(projector: torch.nn.Module, pools: Sequence[int]) -> Iterator[None]:
    """Average the outputs of the projector as `prompt.pooled` does, within the block, where the model runs it."""
    project = projector.forward

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return pooled(project(hidden), pools)

    with replaced(projector, forward):
        yield


def predicting(labels: torch.Tensor) -> torch.Tensor:
    """Positions whose next token is a suffix token; the head is only computed for these.

    Args:
        labels: int64[B, L], not shifted, `IGNORED` outside the suffix.

    Returns:
        bool[B, L].
    """
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, :-1] = labels[:, 1:] != IGNORED
    return mask


@contextmanager
def row_losses(head: torch.nn.Linear, targets: torch.Tensor) -> Iterator[None]:
    """Let a frozen head return losses, float32[N], instead of the logits of its N rows within the block.

    Args:
        head: output layer whose weight, real[V, width], has no gradient.
        targets: int64[N], the next tokens.
    """
    apply: Any = _RowLosses.apply

    def losses(rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = apply(rows, head.weight, targets)
        return found

    with replaced(head, losses):
        yield


class _RowLosses(torch.autograd.Function):
    """Cross-entropy of rows times a frozen weight; gradients for the rows are computed while the logits exist."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses, gradients = [], []
        for some, wanted in zip(torch.split(rows, _ROWS), torch.split(targets[:, None], _ROWS), strict=True):
            logits = torch.nn.functional.linear(some, weight).float()
            top = logits.amax(-1, keepdim=True)
            of_target = logits.gather(-1, wanted)
            total = logits.sub_(top).exp_().sum(-1, keepdim=True)
            losses.append(total.log() + top - of_target)
            if ctx.needs_input_grad[0]:
                # Softmax minus one at the target, times `total`, by which the smaller product is divided.
                logits.scatter_add_(-1, wanted, -total)
                gradients.append((logits.to(weight.dtype) @ weight).div(total).to(rows.dtype))
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (of_rows,) = ctx.saved_tensors
        return (gradients[0][:, None] * of_rows).to(of_rows.dtype), None, None


def suffix_loss(
    losses: torch.Tensor,
    labels: torch.Tensor,
    *,
    reduction: Literal["per-example", "per-token"],
    normaliser: float | torch.Tensor,
) -> torch.Tensor:
    """The contribution of one batch to the mean loss of an optimiser step.

    The reference implementation averages over the suffix of each example and then over the batch, so that a short
    report counts as much as a long one; transformers' `Trainer` averages over all tokens of the batch. A step may
    consist of several batches on several devices, so the normaliser is that of the whole step.

    Args:
        losses: float32[N], of the positions that `predicting(labels)` marks, in their order.
        labels: int64[B, L], as passed to `predicting`.
        reduction: kind of mean.
        normaliser: number of examples (`per-example`) or of suffix tokens (`per-token`) of the step.

    Returns:
        float32 scalar; its sum over the batches of a step is the loss of the step.
    """
    if reduction == "per-token":
        return losses.sum() / normaliser
    lengths = (labels[:, 1:] != IGNORED).sum(1)
    weights = (1.0 / lengths.clamp(min=1)).repeat_interleave(lengths)
    return (losses * weights).sum() / normaliser
