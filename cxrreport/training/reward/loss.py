"""The loss of training on the metric: clipped, with a KL penalty, over the tokens of sampled reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cxrreport.settings import RewardSettings

_SMALL = 1e-4
"""Added to the standard deviation of rewards, as in TRL."""


def advantages(rewards: torch.Tensor, settings: RewardSettings) -> torch.Tensor:
    """How much better each report is than the others of its study.

    Args:
        rewards: float32[studies, samples].
        settings: `spread`.

    Returns:
        float32[studies, samples], with mean 0 in each row; 0 where all rewards of a study are equal.
    """
    relative = rewards - rewards.mean(dim=1, keepdim=True)
    if settings.spread == "none":
        return relative
    return relative / (rewards.std(dim=1, keepdim=True) + _SMALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTokens:
    """The tokens of the reports of one batch, in their order, T in all.

    Args:
        logprobs: float32[T], log-probability of each token by the model that is trained, with gradient.
        sampled: float32[T], by the model that sampled them.
        reference: float32[T], by the model that training started from.
        lengths: int64[B], tokens of each report.
        advantages: float32[B].
    """

    logprobs: torch.Tensor
    sampled: torch.Tensor
    reference: torch.Tensor
    lengths: torch.Tensor
    advantages: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """The contribution of a batch to the loss of a step, and sums over its tokens for the log.

    Args:
        loss: float32 scalar; its sum over the batches of a step is the loss of the step.
        kl: sum over tokens of the divergence from the reference, in nats.
        clipped: number of tokens whose gradient the clipping removed.
    """

    loss: torch.Tensor
    kl: float
    clipped: int


def policy_loss(
    tokens: PolicyTokens, settings: RewardSettings, *, reports: int, step_tokens: float, most_tokens: int
) -> PolicyLoss:
    """The loss of GRPO with the corrections of the settings.

    Args:
        tokens: of the batch.
        settings: `clip`, `clip_high`, `kl`, `length`.
        reports: number of reports of the step.
        step_tokens: number of their tokens.
        most_tokens: limit of the tokens of one report, for `length: constant`.
    """
    ratio = (tokens.logprobs - tokens.sampled).exp()
    low, high = 1 - settings.clip, 1 + (settings.clip if settings.clip_high is None else settings.clip_high)
    advantage = tokens.advantages.repeat_interleave(tokens.lengths)
    gain = torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
    # The estimator that is never negative, and unbiased (Schulman 2020, "Approximating KL divergence", k3).
    difference = tokens.reference - tokens.logprobs
    kl = difference.exp() - difference - 1
    losses = settings.kl * kl - gain
    if settings.length == "per-report":
        weights = (1.0 / tokens.lengths).repeat_interleave(tokens.lengths) / reports
        loss = (losses * weights).sum()
    elif settings.length == "per-token":
        loss = losses.sum() / step_tokens
    else:
        loss = losses.sum() / (reports * most_tokens)
    clipped = ((ratio < low) & (advantage < 0)) | ((ratio > high) & (advantage > 0))
    return PolicyLoss(loss=loss, kl=float(kl.detach().sum()), clipped=int(clipped.sum()))
