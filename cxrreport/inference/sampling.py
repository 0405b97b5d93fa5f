"""A token drawn from what the model thinks of the next one."""

from __future__ import annotations

import torch

from cxrreport.settings import Sampling


def drawn(logits: torch.Tensor, sampling: Sampling, draws: torch.Tensor) -> torch.Tensor:
    """int64[n], one token per row of float32[n, vocabulary], at `draws`, float[n] in [0, 1), of its distribution.

    The tokens are ordered by their probability, so that a draw means the same where the last bits of logits differ.
    """
    ordered, ids = (logits / sampling.temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
    summed = ordered.double().cumsum(-1)
    # The smallest set of tokens whose probabilities reach top_p (nucleus sampling, arXiv 1904.09751).
    last = (summed < sampling.top_p).sum(-1, keepdim=True).clamp(max=ordered.shape[1] - 1)
    place = torch.searchsorted(summed, draws[:, None].double() * summed.gather(1, last), right=True)
    chosen: torch.Tensor = ids.gather(1, torch.minimum(place, last))[:, 0]
    return chosen
