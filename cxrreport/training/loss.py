"""The loss: cross-entropy on the suffix, computed at suffix positions only.

The head is the widest layer of the model (257,216 rows). At 896 px a sample has some 4,300 positions of which about 100
are suffix; logits for all of them are 4 GB and the largest part of a stock training step. The logits of the
suffix are computed in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from cxrreport.model.fused import replaced
from cxrreport.model.prompt import IGNORED

_ROWS = 64
"""Positions whose logits are there together: 66 MB of float32, and enough for a product to be quick."""


def predicting(labels: torch.Tensor) -> torch.Tensor:
    """Positions whose next token is a suffix token: the only ones that the head is computed for.

    Args:
        labels: int64[B, L], not shifted, `IGNORED` outside of the suffix.

    Returns:
        bool[B, L].
    """
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, :-1] = labels[:, 1:] != IGNORED
    return mask


@contextmanager
def row_losses(head: torch.nn.Linear, targets: torch.Tensor) -> Iterator[None]:
    """For the length of the block a frozen head gives losses, float32[N], in place of the logits of its N rows.

    Args:
        head: its weight is real[V, width], without gradient.
        targets: int64[N], the next tokens.
    """
    apply: Any = _RowLosses.apply

    def losses(rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = apply(rows, head.weight, targets)
        return found

    with replaced(head, losses):
        yield


class _RowLosses(torch.autograd.Function):
    """Cross-entropy of rows times a frozen weight, with the gradient for the rows taken as long as the logits live."""

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
                # Softmax minus one at the target, times the total, which is divided out where there is less of it.
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
    """The mean over the suffix tokens of one batch, as its part in the loss of a step.

    The reference implementation takes the mean over each example's suffix and then over the batch, so that a short
    report counts as much as a long one; the usual trainer takes the mean over all tokens of the batch. Either mean runs
    over a whole optimiser step, which may consist of several batches on several devices: hence the normaliser.

    Args:
        losses: float32[N], of the positions that `predicting(labels)` marks, in their order.
        labels: int64[B, L], as given to `predicting`.
        reduction: which mean.
        normaliser: of the whole step, the number of examples (`per-example`) or of suffix tokens (`per-token`).

    Returns:
        float32 scalar. Summed over the batches of a step it is the loss of the step.
    """
    if reduction == "per-token":
        return losses.sum() / normaliser
    lengths = (labels[:, 1:] != IGNORED).sum(1)
    weights = (1.0 / lengths.clamp(min=1)).repeat_interleave(lengths)
    return (losses * weights).sum() / normaliser
