"""The optimiser and its learning rate."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from cxrreport.settings import TrainSettings

_NOT_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def build_optimizer(model: torch.nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters, without weight decay for biases and norms."""
    layer_norms = {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
        for parameter, _ in module.named_parameters(recurse=False)
    }
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": settings.weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name in layer_norms or bool(_NOT_DECAYED.search(name.lower()))]["params"].append(parameter)
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """Linear warm-up from 0, then a cosine to 0.

    Args:
        step: from 1 to `steps`.
        steps: of the whole run.
        settings: `learning_rate`, `warmup_fraction`.
    """
    done, warmup = step - 1, math.ceil(settings.warmup_fraction * steps)
    if done < warmup:
        return settings.learning_rate * done / max(1, warmup)
    progress = (done - warmup) / max(1, steps - warmup)
    return settings.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
