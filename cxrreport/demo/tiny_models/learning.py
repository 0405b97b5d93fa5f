"""What the stages of pre-training share: batches, optimiser, log, and the pass over the texts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
from torch.nn import functional

from cxrreport.dataset import ImageRole
from cxrreport.model.attention import border_mask
from cxrreport.model.compat import image_arguments
from cxrreport.model.prompt import IGNORED, Batch, PromptLayout
from cxrreport.records import PriorStudy

logger = logging.getLogger(__name__)


def encode(
    pairs: list[tuple[str, str]],
    layout: PromptLayout,
    *,
    roles: tuple[ImageRole, ...] = (ImageRole.FRONTAL,),
    priors: Sequence[PriorStudy] = (),
) -> Batch:
    """Encode pairs of prefix and suffix for samples with the same kinds of images, and prior studies if there are any.

    As `model.prompt` does, but with `<loc>` in the suffix as special tokens, not as characters.
    """
    pools, samples = layout.pools(roles), []
    for (prefix, suffix), prior in zip_longest(pairs, priors):
        ids = layout.tokenizer.encode(suffix, add_special_tokens=False)
        encoded = layout.encode_prefix(prefix, layout.context(roles, prior), pools=pools)
        samples.append(replace(encoded, suffix=(*ids, layout.eos_id)))
    return layout.collate_training(samples)


def optimizer_of(
    parameters: Any, peak: float, steps: int, warmup: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW, with a linear warm-up and a cosine to a fiftieth of the peak."""
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def text_loss(
    model: Any, projected: torch.Tensor | None, batch: Batch, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss of the suffixes of a batch.

    Args:
        model: PaliGemma 2 with the layers of `model.fused`.
        projected: features of the images in the order of their tokens, real[B, image tokens, width];
            `None` for texts without an image.
        batch: of `encode`; changed.
        weights: of the tokens of the batch in the mean, float32[B, T]; `None` for equal ones.
    """
    border = int((batch["token_type_ids"][0] == 0).sum())
    batch["attention_mask"] = border_mask(batch["attention_mask"], border)
    labels = batch.pop("labels")[:, border:]
    images = {} if projected is None else image_arguments(projected)
    hidden = model.model(
        **batch, **images, prefix_length=border, use_cache=False
    ).last_hidden_state  # starts at the last token of the prefix, see `model.fused`
    has_loss = labels != IGNORED
    logits = model.lm_head(hidden[:, :-1][has_loss])
    if weights is None:
        return functional.cross_entropy(logits.float(), labels[has_loss])
    losses = functional.cross_entropy(logits.float(), labels[has_loss], reduction="none")
    weights = weights[:, border:][has_loss]
    return (losses * weights).sum() / weights.sum()


def update(loss: torch.Tensor, optimizer: Any, schedule: Any, parameters: list[torch.nn.Parameter]) -> None:
    """Take one step, with gradients clipped to norm 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


class Log:
    """Record and log the loss of every fiftieth step."""

    def __init__(self, started: float) -> None:
        self.rows: list[dict[str, Any]] = []
        self._started = started

    def __call__(self, stage: str, step: int, loss: torch.Tensor, *, always: bool = False) -> None:
        """Take the loss of a step; `always` records it whatever the step."""
        if always or step % 50 == 0:
            seconds = round(time.time() - self._started)
            self.rows.append({"stage": stage, "step": step, "loss": round(float(loss.detach()), 5), "s": seconds})
            logger.info("%s", self.rows[-1])
