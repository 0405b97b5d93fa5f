"""The effect of resolution: detection of a nodule of 1.1 pixels at 896, with the tiny model at 224, 448 and 896.

    python benchmarks/resolution.py --output docs/images/resolution.png    # 12 minutes on two idle cores
    python benchmarks/resolution.py --train 40 --test 20 --steps 20        # two minutes, as a trial

Each phantom is drawn once at 896 pixels, with other findings and the noise of the demo's detector, and resampled as in
`ingest`. At each resolution, the vision tower of the tiny checkpoint and a linear head learn which patch contains the
centre of a nodule, with equal numbers of steps and pixels: windows of 56 x 56, seven of eight at a nodule, flipped and
shifted at random. Training phantoms have up to four nodules; every second test phantom has one. The language model is
not used: it cannot report what the tower does not detect.

An image is scored in windows as well, each of its 8 x 8 regions by the highest patch. Regions with a nodule are
compared with the same regions of images without one, so that the prior position of nodules does not help.

The last line is a JSON object: the fingerprint of the base, and for each resolution the area under the ROC curve with a
95% interval over images, sensitivity at 90% specificity, processor seconds of the tower per image, and operations of
one training example of the whole model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch.nn import functional

from cxrreport.demo.phantoms.drawing import draw, expose, sample_anatomy
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, masked, sample_findings
from cxrreport.ingestion.images import to_square
from cxrreport.model import checkpoints
from cxrreport.model.prompt import to_pixels
from cxrreport.settings import CheckpointSettings, PlanSettings
from cxrreport.training.planning.estimate import need

SIDE, PATCH, WINDOW, REGIONS = 896, 14, 56, 8
PLACES: list[tuple[Any, Any]] = list(product(("left", "right"), ("upper", "lower")))
Centres = list[tuple[float, ...]]
"""Row and column in an image of 896 pixels."""
NAMES = {224: "tiny", 448: "tiny-448", 896: "tiny-896"}
PAPER_COST = {224: 1.0, 448: 4.6, 896: 23.5}
"""Relative cost of one pre-training example, 3B (arXiv 2412.03555, table 2)."""


def make(count: int, seed: int, noise: float, nodules: Sequence[int]) -> tuple[NDArray[np.uint8], list[Centres]]:
    """Phantoms whose numbers of nodules cycle through `nodules`: images uint8[N, 896, 896], and the centres of each."""
    images = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    centres: list[Centres] = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        findings = [finding for finding in sample_findings(rng) if finding.name is not Name.NODULE]
        chosen = rng.permutation(len(PLACES))[: nodules[index % len(nodules)]]
        findings += [PhantomFinding(Name.NODULE, side=PLACES[i][0], zone=PLACES[i][1]) for i in chosen]
        drawing = draw(sample_anatomy(rng), masked(tuple(findings)), SIDE, SIDE, seed=index)
        images[index] = np.rint(expose(drawing.grey, rng, noise=noise) * 255)
        covers = [mask for finding, mask in drawing.masks.items() if finding.name is Name.NODULE]
        centres.append([tuple(float(axis.mean()) for axis in cover.nonzero()) for cover in covers])
    return images, centres


def at(resolution: int, images: NDArray[np.uint8]) -> torch.Tensor:
    """The images as `ingest` resamples them."""
    return torch.from_numpy(np.stack([to_square(image, resolution=resolution) for image in images]))


class Finder(torch.nn.Module):
    """The tiny tower and one number per patch."""

    def __init__(self, resolution: int) -> None:
        super().__init__()
        settings = CheckpointSettings(name=NAMES[resolution], precision="float32", device="cpu")
        loaded = checkpoints.load(settings, resolution=resolution)
        self.fingerprint = loaded.fingerprint
        self.tower = loaded.model.model.vision_tower.requires_grad_(True)
        self.embeddings = next(m for m in self.tower.modules() if hasattr(m, "position_embedding"))
        self.grid = resolution // PATCH
        self.head = torch.nn.Linear(self.tower.config.hidden_size, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.constant_(self.head.bias, -4.0)

    def forward(self, grey: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Logit of every patch; `rows` are the positions, int64[B, patches], of the window in the image."""
        patches = self.embeddings.patch_embedding(to_pixels(grey)).flatten(2).transpose(1, 2)
        hidden = patches + self.embeddings.position_embedding(rows)
        encoder = next(m for m in self.tower.modules() if type(m).__name__ == "SiglipEncoder")
        hidden = encoder(inputs_embeds=hidden).last_hidden_state
        norm = next(m for n, m in self.tower.named_modules() if n.endswith("post_layernorm"))
        logits: torch.Tensor = self.head(norm(hidden)).squeeze(-1)
        return logits


def learn(finder: Finder, images: Any, centres: list[Centres], steps: int, batch: int, rate: float) -> None:
    """Train tower and head on windows."""
    rng = np.random.default_rng(0)
    side, window = images.shape[1], WINDOW // PATCH
    scale = side / SIDE
    known_in = [[(index, int(y * scale), int(x * scale)) for y, x in some] for index, some in enumerate(centres)]
    known = [place for some in known_in for place in some]
    cells = torch.arange(finder.grid**2).view(finder.grid, finder.grid)
    groups = [
        {"params": finder.tower.parameters(), "lr": rate},
        {"params": finder.head.parameters(), "lr": 10 * rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[rate, 10 * rate], total_steps=steps, pct_start=0.1
    )
    losses: list[float] = []
    for step in range(steps):
        greys, targets, rows = [], [], []
        for number in range(batch):
            # One window of eight is anywhere in any image, the others are around a nodule.
            last = side - WINDOW
            if number % 8:
                index, *place = known[int(rng.integers(len(known)))]
                first = np.clip([axis - int(rng.integers(PATCH, WINDOW - PATCH)) for axis in place], 0, last)
            else:
                index, first = int(rng.integers(len(images))), rng.integers(0, last + 1, 2)
            top, left = map(int, first)
            target = torch.zeros(window, window)
            for _, y, x in known_in[index]:
                if 0 <= y - top < WINDOW and 0 <= x - left < WINDOW:
                    target[(y - top) // PATCH, (x - left) // PATCH] = 1
            grey = images[index, top : top + WINDOW, left : left + WINDOW]
            flips = [axis for axis in (0, 1) if rng.integers(2)]
            greys.append(grey.flip(flips))
            targets.append(target.flip(flips).flatten())
            rows.append(cells[top // PATCH :, left // PATCH :][:window, :window].flatten())
        logits = finder(torch.stack(greys), torch.stack(rows))
        target = torch.stack(targets)
        loss = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor(10.0))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(finder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % max(1, steps // 5) == 0:
            mean = np.mean(losses[-max(1, steps // 5) :])
            print(f"  step {step + 1} of {steps}: loss {mean:.4f}", flush=True)


@torch.no_grad()
def score(finder: Finder, images: Any) -> NDArray[np.float64]:
    """The highest patch of every region, in windows as in training; float64[N, 8, 8]."""
    window, grid = WINDOW // PATCH, finder.grid
    across = grid // window
    cells = torch.arange(grid**2).view(across, window, across, window).transpose(1, 2).reshape(-1, window**2)
    found = []
    for image in images:
        greys = image.view(across, WINDOW, across, WINDOW).transpose(1, 2).reshape(-1, WINDOW, WINDOW)
        patches = finder(greys, cells).view(across, across, window, window).transpose(1, 2).reshape(grid, grid)
        region = grid // REGIONS
        found.append(patches.view(REGIONS, region, REGIONS, region).amax((1, 3)).double().numpy())
    return np.stack(found)


@torch.no_grad()
def seconds_of(finder: Finder, images: Any) -> float:
    """Processor seconds of a whole image in the tower."""
    rows = torch.arange(finder.grid**2)[None]
    begun = time.process_time()
    for image in images:
        finder(image[None], rows)
    return (time.process_time() - begun) / len(images)


def region(centre: tuple[float, ...]) -> tuple[int, ...]:
    """Of a place in an image of 896 pixels."""
    return tuple(int(axis * REGIONS / SIDE) for axis in centre)


def area(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Under the ROC curve."""
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def draw_plot(found: dict[int, dict[str, Any]], path: Path) -> None:
    """Score and cost over resolution."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    sides = list(found)
    values = np.array([found[side]["auc"] for side in sides])
    low, high = np.array([found[side]["interval"] for side in sides]).T
    left.errorbar(range(3), values, yerr=[values - low, high - values], fmt="o-", capsize=4, color="tab:blue")
    left.axhline(0.5, color="0.7", linestyle="--", linewidth=0.8)
    left.set(ylabel="area under the ROC curve", ylim=(0.4, 1.02), title="Nodule of 1.1 px at 896")
    for name, label, style in (
        ("paper", "paper, 3B pre-training", "s--"),
        ("cost_3b", "plan, 3B LoRA step", "^--"),
        ("cost", "tiny tower, measured", "o-"),
    ):
        right.plot(range(3), [found[side][name] for side in sides], style, label=label)
    right.set(ylabel="cost of an example, 224 px = 1", yscale="log", title="Cost")
    right.set_yticks([1, 3, 10, 30], labels=["1", "3", "10", "30"])
    right.legend(fontsize="small")
    for axis in (left, right):
        axis.set_xticks(range(3), labels=[str(side) for side in sides])
        axis.set_xlabel("side of the image, pixels")
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1000, help="phantoms")
    parser.add_argument("--test", type=int, default=160)
    parser.add_argument("--steps", type=int, default=1600, help="per resolution")
    parser.add_argument("--batch", type=int, default=128, help="windows per step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--noise", type=float, default=0.048, help="of the detector; that of the demo")
    parser.add_argument("--output", type=Path, help="PNG of the plot")
    options = parser.parse_args()
    train, centres = make(options.train, 1, options.noise, [len(PLACES)])
    test, nodules = make(options.test, 2, options.noise, [0, 1])
    truth = np.array([bool(some) for some in nodules])
    print(f"phantoms drawn: {time.process_time():.0f} s; {truth.sum()} of {len(truth)} for testing have a nodule")
    found: dict[int, dict[str, Any]] = {}
    for resolution, name in NAMES.items():
        torch.manual_seed(0)
        finder = Finder(resolution)
        print(f"{resolution} px, base {finder.fingerprint[:12]}", flush=True)
        learn(finder, at(resolution, train), centres, options.steps, options.batch, options.rate)
        images = at(resolution, test)
        scores = score(finder, images)
        seconds = seconds_of(finder, images[:16])
        places = [region(nodules[i][0]) for i in np.flatnonzero(truth)]
        positive = np.array([one[place] for one, place in zip(scores[truth], places, strict=True)])
        same = np.array([[one[place] for place in places] for one in scores[~truth]])

        def auc(with_one: NDArray[np.int64], without: NDArray[np.int64]) -> float:
            return area(positive[with_one], same[without].ravel())  # noqa: B023 - called before they change

        everyone = (np.arange(len(positive)), np.arange(len(same)))
        interval = stats.bootstrap(
            everyone, auc, vectorized=False, n_resamples=1000, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        operations = {
            checkpoint: need(PlanSettings(), checkpoint).operations
            for checkpoint in (name, f"paligemma2-3b-pt-{resolution}")
        }
        found[resolution] = {
            "base": finder.fingerprint,
            "auc": auc(*everyone),
            "interval": (float(interval.low), float(interval.high)),
            "sensitivity": float((positive > np.quantile(same, 0.9)).mean()),
            "seconds": seconds,
            "gflop": operations[name] / 1e9,
            "tflop_3b": operations[f"paligemma2-3b-pt-{resolution}"] / 1e12,
            "paper": PAPER_COST[resolution],
        }
        found[resolution]["cost"] = seconds / found[224]["seconds"]
        found[resolution]["cost_3b"] = found[resolution]["tflop_3b"] / found[224]["tflop_3b"]
        print(f"  AUC {found[resolution]['auc']:.3f}, {seconds:.2f} s an image; {time.process_time():.0f} s in all")
    print(f"{'px':>4}{'AUC':>8}{'95% interval':>18}{'sens.':>8}{'s/image':>9}{'cost':>7}{'3B':>7}{'paper':>7}")
    for resolution, row in found.items():
        low, high = row["interval"]
        print(
            f"{resolution:4}{row['auc']:8.3f}{f'{low:.3f} to {high:.3f}':>18}{row['sensitivity']:8.2f}"
            f"{row['seconds']:9.3f}{row['cost']:7.1f}{row['cost_3b']:7.1f}{row['paper']:7.1f}"
        )
    if options.output:
        draw_plot(found, options.output)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
