"""Every form of attention in bfloat16 with heads of 256, as the published models have, against eager float32."""

from __future__ import annotations

import pytest
import torch

from cxrreport.model.attention import border_mask, prefix_sdpa, softcap_flex

HEADS, SHARED, WIDTH, PREFIX, SUFFIX = 8, 4, 256, 1100, 60
SCALE = WIDTH**-0.5


class Layer(torch.nn.Module):
    num_key_value_groups = HEADS // SHARED
    is_causal = False


def states(device: torch.device, queries: int, keys: int, *, grad: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, HEADS, queries, WIDTH), (2, SHARED, keys, WIDTH), (2, SHARED, keys, WIDTH))
    made = [torch.randn(shape, generator=generator).to(device, torch.bfloat16) for shape in shapes]
    return [one.requires_grad_(grad) for one in made]


def eager(parts: list[torch.Tensor], seen: torch.Tensor, softcap: float | None = None) -> torch.Tensor:
    """In float32 on the CPU; `seen` is bool[B, 1, Q, K]."""
    query, key, value = (one.float().cpu() for one in parts)
    key, value = (one.repeat_interleave(HEADS // SHARED, dim=1) for one in (key, value))
    logits = query @ key.transpose(2, 3) * SCALE
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return (logits.masked_fill(~seen.cpu(), -torch.inf).softmax(-1) @ value).transpose(1, 2)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    difference = (found.detach().float().cpu() - expected.detach()).norm() / expected.detach().norm()
    assert float(difference) < 0.01  # bfloat16 has eight bits


def whole(mask: torch.Tensor) -> torch.Tensor:
    """Of a border mask: one row for each position."""
    return torch.cat([mask[:, :, :1].expand(-1, -1, PREFIX, -1), mask[:, :, 1:]], dim=2)


@pytest.mark.parametrize("padded", [0, 7])
def test_a_batch_of_training(device: torch.device, padded: int) -> None:
    parts = states(device, PREFIX + SUFFIX, PREFIX + SUFFIX, grad=True)
    attended = torch.ones(2, PREFIX + SUFFIX, dtype=torch.int64, device=device)
    attended[1, :padded] = 0
    mask = border_mask(attended, PREFIX)
    given = {"scaling": SCALE, "prefix_length": PREFIX, "prefix_padded": padded > 0}
    found, _ = prefix_sdpa(Layer(), *parts, mask, **given)
    copies = [one.detach().float().cpu().requires_grad_() for one in parts]
    expected = eager(copies, whole(mask))
    rows = attended.bool().cpu()
    close(found.cpu()[rows], expected[rows])
    gradients = torch.autograd.grad(found.float()[rows.to(device)].square().sum(), parts)
    for one, other in zip(gradients, torch.autograd.grad(expected[rows].square().sum(), copies), strict=True):
        close(one, other)


def test_a_prompt_and_a_step_of_decoding(device: torch.device) -> None:
    parts = states(device, PREFIX, PREFIX)
    mask = torch.ones(2, 1, 1, PREFIX, dtype=torch.bool, device=device)
    found, _ = prefix_sdpa(Layer(), *parts, mask, scaling=SCALE, prefix_length=PREFIX, prefix_padded=False)
    close(found, eager(parts, mask.expand(-1, -1, PREFIX, -1)))
    query, key, value = states(device, 1, 1152)
    mask = torch.ones(2, 1, 1, 1152, dtype=torch.bool, device=device)
    mask[0, ..., 900:], mask[1, ..., 1101:] = False, False
    added = torch.zeros(mask.shape, device=device, dtype=torch.bfloat16).masked_fill(~mask, -torch.inf)
    for one in (mask, added):
        close(prefix_sdpa(Layer(), query, key, value, one, scaling=SCALE)[0], eager([query, key, value], mask))


def test_soft_capping(device: torch.device) -> None:
    train = device.type == "cuda"  # torch has no backward pass on a CPU
    parts = states(device, PREFIX + SUFFIX, PREFIX + SUFFIX, grad=train)
    attended = torch.ones(2, PREFIX + SUFFIX, dtype=torch.int64, device=device)
    seen = whole(border_mask(attended, PREFIX))
    found, _ = softcap_flex(Layer(), *parts, seen, scaling=SCALE, softcap=2.0)
    copies = [one.detach().float().cpu().requires_grad_() for one in parts]
    expected = eager(copies, seen, 2.0)
    close(found, expected)
    if train:
        gradients = torch.autograd.grad(found.float().square().sum(), parts)
        for one, other in zip(gradients, torch.autograd.grad(expected.square().sum(), copies), strict=True):
            close(one, other)
