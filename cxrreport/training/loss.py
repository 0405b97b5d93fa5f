"""The loss: cross-entropy on the suffix alone, computed where there is a suffix and nowhere else.

The head is the widest layer of the model (257,216 rows). At 896 px a sample has some 4,300 positions of which about 100
are suffix; logits for all of them are 4 GB and the largest part of a stock training step.
"""

from __future__ import annotations

from typing import Literal

import torch

from cxrreport.model.prompt import IGNORED


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


def suffix_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    reduction: Literal["per-example", "per-token"],
    normaliser: float | torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of the suffix tokens of one batch, as its part in the loss of a step.

    The reference implementation takes the mean over each example's suffix and then over the batch, so that a short
    report counts as much as a long one; the usual trainer takes the mean over all tokens of the batch. Either mean runs
    over a whole optimiser step, which may consist of several batches on several devices: hence the normaliser.

    Args:
        logits: real[N, V], of the positions that `predicting(labels)` marks, in their order.
        labels: int64[B, L], as given to `predicting`.
        reduction: which mean.
        normaliser: of the whole step, the number of examples (`per-example`) or of suffix tokens (`per-token`).

    Returns:
        float32 scalar. Summed over the batches of a step it is the loss of the step.
    """
    shifted = labels[:, 1:]
    present = shifted != IGNORED
    losses = torch.nn.functional.cross_entropy(logits.float(), shifted[present], reduction="none")
    if reduction == "per-token":
        return losses.sum() / normaliser
    lengths = present.sum(1)
    weights = (1.0 / lengths.clamp(min=1)).repeat_interleave(lengths)
    return (losses * weights).sum() / normaliser
