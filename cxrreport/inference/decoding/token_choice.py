"""Choice of the next token: the most probable one, or one sampled from the distribution."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch

from cxrreport.errors import InferenceError
from cxrreport.inference.decoding.requests import PreparedRequest
from cxrreport.model.prompt import PromptLayout
from cxrreport.settings import Decoding, Sampling


class TokenChoice:
    """Chooses tokens for a batch of texts, over `vocabulary` rows of the embedding table.

    `seed` is that of sampling, which is combined with study and prompt.
    """

    def __init__(
        self, layout: PromptLayout, vocabulary: int, device: torch.device, decoding: Decoding, seed: int
    ) -> None:
        self._sampling = decoding if isinstance(decoding, Sampling) else None
        self._seed = seed
        self.eos_id = layout.eos_id
        self.suppressed = {locations: layout.suppressed(vocabulary, locations=locations) for locations in (False, True)}
        """Tokens that are never generated, by whether the request allows locations."""
        self._forbidden = torch.zeros(2, vocabulary, dtype=torch.bool, device=device)
        for locations, ids in self.suppressed.items():
            self._forbidden[int(locations), ids] = True

    def random_numbers(self, prepared: PreparedRequest) -> random.Random:
        """The random numbers of one text."""
        sample = f"\0{prepared.request.sample}" if prepared.request.sample else ""
        return random.Random(f"{self._seed}\0{prepared.request.study_id}\0{prepared.prompt}{sample}")

    def restrict(self, logits: torch.Tensor, requests: Sequence[PreparedRequest]) -> torch.Tensor:
        """Set the logits of suppressed tokens to minus infinity; one row per request, or all rows of one request."""
        kinds = torch.tensor([int(prepared.request.locations) for prepared in requests], device=logits.device)
        return logits.masked_fill(self._forbidden[kinds], -torch.inf)

    def choose(
        self, logits: torch.Tensor, requests: Sequence[PreparedRequest], uniform: Sequence[float]
    ) -> list[tuple[int, float]]:
        """Choose the next token of every request; returns tokens and log-probabilities.

        Args:
            logits: float32[n, vocabulary].
            requests: the request of each row.
            uniform: for sampling, a random number in [0, 1) for each row.

        Raises:
            InferenceError: a log-probability is not finite.
        """
        logits = self.restrict(logits, requests)
        if self._sampling is not None:
            chosen = sample(logits, self._sampling, torch.tensor(uniform, device=logits.device))
        else:
            chosen = logits.argmax(-1)
        values = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
        logprobs = values.tolist()
        for prepared, value in zip(requests, logprobs, strict=True):
            check_finite(prepared, value)
        return list(zip(chosen.tolist(), logprobs, strict=True))


def check_finite(prepared: PreparedRequest, value: float) -> None:
    """Raise an `InferenceError` if a log-probability is not finite."""
    if not np.isfinite(value):
        raise InferenceError(
            f"study {prepared.request.study_id}: the model's output is not finite; check the weights, and that "
            "checkpoint.softcap and checkpoint.precision are as in training"
        )


def sample(logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor) -> torch.Tensor:
    """Sample one token per row of float32[n, vocabulary] with the numbers `uniform`, float[n] in [0, 1).

    Tokens are ordered by probability, so that a number gives the same token if the last bits of the logits differ.

    Returns:
        int64[n].
    """
    ordered, ids = (logits / sampling.temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
    summed = ordered.double().cumsum(-1)
    # The smallest set of tokens whose probabilities reach top_p (nucleus sampling, arXiv 1904.09751).
    last = (summed < sampling.top_p).sum(-1, keepdim=True).clamp(max=ordered.shape[1] - 1)
    place = torch.searchsorted(summed, uniform[:, None].double() * summed.gather(1, last), right=True)
    chosen: torch.Tensor = ids.gather(1, torch.minimum(place, last))[:, 0]
    return chosen
