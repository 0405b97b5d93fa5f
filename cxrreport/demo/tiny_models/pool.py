"""Phantoms in memory, and their features by the vision tower."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import product, starmap
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxrreport.demo.phantoms.drawing import draw, expose, sample_anatomy
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, Side, Size, masked, sample_findings
from cxrreport.demo.tiny_models import captions
from cxrreport.demo.tiny_models.architecture import GRID, PATCH, RESOLUTION, VISION_WIDTH

_SIDES: tuple[Side, Side] = ("left", "right")
_SIZES: tuple[Size, Size] = ("small", "large")
PLACES = (
    *starmap(PhantomFinding, product((Name.CARDIOMEGALY, Name.OEDEMA), ("",), ("mild", "severe"))),
    *starmap(PhantomFinding, product((Name.EFFUSION, Name.PNEUMOTHORAX), _SIDES, _SIZES)),
    *starmap(PhantomFinding, product((Name.OPACITY,), _SIDES, _SIZES, ("upper", "lower"), (False, True))),
    PhantomFinding(Name.TUBE),
    *(PhantomFinding(Name.PACEMAKER, side) for side in _SIDES),
)
"""Classes that the vision tower learns to predict for every patch.

They include side and zone. Without these, the last layer of the tower may lose the position of a patch, and the
language model could not distinguish left from right.
"""

Case = tuple[tuple[PhantomFinding, ...], dict[PhantomFinding, NDArray[np.bool_]]]
"""The findings of a phantom, and the patches that each one covers, bool[GRID, GRID]."""


class Pool:
    """Phantoms in memory: images uint8[N, R, R], places bool[N, PLACES, GRID, GRID], and the findings of each."""

    def __init__(self, images: NDArray[np.uint8], places: NDArray[np.bool_], cases: list[Case]) -> None:
        self.images, self.places, self.cases = images, places, cases

    def __len__(self) -> int:
        return len(self.images)


def _draw_many(seed: int, count: int) -> Pool:
    rng = np.random.default_rng(seed)
    images = np.empty((count, RESOLUTION, RESOLUTION), np.uint8)
    places = np.zeros((count, len(PLACES), GRID, GRID), np.bool_)
    cases = []
    for index in range(count):
        findings = masked(sample_findings(rng, normal=0.25))
        drawing = draw(sample_anatomy(rng), findings, RESOLUTION, RESOLUTION, int(rng.integers(2**31)))
        images[index] = np.rint(255 * expose(drawing.grey, rng, noise=0.012)).astype(np.uint8)
        patches = {f: m.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3)) > 0.2 for f, m in drawing.masks.items()}
        for finding, cover in patches.items():
            if finding.name in captions.VISIBLE:
                places[index, PLACES.index(finding)] |= cover
        cases.append((findings, patches))
    return Pool(images, places, cases)


def draw_pool(count: int, seed: int, workers: int) -> Pool:
    """Draw `count` phantoms in `workers` processes. The result does not depend on the number of processes."""
    chunk = 500
    sizes = [min(chunk, count - start) for start in range(0, count, chunk)]
    seeds = [seed * 1_000_003 + n for n in range(len(sizes))]
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(_draw_many, seeds, sizes))
    return Pool(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.places for p in parts]),
        [case for p in parts for case in p.cases],
    )


def to_pixels(images: NDArray[np.uint8], rng: np.random.Generator | None) -> torch.Tensor:
    """Return float32[B, 3, R, R] in [-1, 1]; with `rng`, each image gets a random gain and offset."""
    pixels = torch.from_numpy(images).float().div_(127.5).sub_(1.0)
    if rng is not None:
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(images), 1, 1))).float()
        offset = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(images), 1, 1))).float()
        pixels = (pixels * gain + offset).clamp_(-1.0, 1.0)
    return pixels.unsqueeze(1).expand(-1, 3, -1, -1)


@torch.no_grad()
def features_of(tower: Any, images: NDArray[np.uint8]) -> torch.Tensor:
    """Compute the features of images, uint8[N, R, R], with the frozen tower: bfloat16[N, patches, width]."""
    features = torch.empty((len(images), GRID**2, VISION_WIDTH), dtype=torch.bfloat16)
    for start in range(0, len(images), 32):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pixels = to_pixels(images[start : start + 32], None)
            features[start : start + len(pixels)] = tower(pixel_values=pixels).last_hidden_state
    return features
