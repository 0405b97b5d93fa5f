"""Pre-train the project's tiny PaliGemma 2: `python -m cxrreport.demo.tiny_models.paligemma --out DIR --seed 0`.

The model uses the classes of transformers (SigLIP tower, linear projector, Gemma 2 with grouped queries) and a small
tokenizer with the same kinds of special tokens as the real one. It is pre-trained on phantoms in two stages: first the
vision tower, on the position and size of the findings, then projector and language model, on the texts of `captions`
and the features of the frozen tower. This takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from itertools import product, starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import PaliGemmaProcessor

from cxrreport import __version__
from cxrreport.demo.phantoms.drawing import draw, expose, sample_anatomy
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, Side, Size, masked, sample_findings
from cxrreport.demo.phantoms.wordings import HOUSE_STYLES
from cxrreport.demo.tiny_models import captions
from cxrreport.demo.tiny_models.architecture import (
    GRID,
    PATCH,
    RESOLUTION,
    VISION_WIDTH,
    build_config,
    build_processor,
    train_tokenizer,
)
from cxrreport.model.attention import border_mask, implementation, prepare_config
from cxrreport.model.compat import image_arguments, model_without_weights
from cxrreport.model.fused import fused
from cxrreport.model.prompt import IGNORED, Batch, PromptLayout
from cxrreport.settings import PromptSettings
from cxrreport.tracking import peak_memory_mb

logger = logging.getLogger(__name__)

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


def _task(case: Case, rng: np.random.Generator) -> tuple[str, str]:
    findings, patches = case
    match rng.choice(["caption", "describe", "statements", "detect"], p=[0.15, 0.1, 0.7, 0.05]):
        case "caption":
            return captions.CAPTION_PROMPT, captions.caption(findings)
        case "describe":
            return captions.DESCRIBE_PROMPT, captions.describe(findings)
        case "statements":
            return captions.statements(findings, rng)
        case _:
            return captions.detect(findings, patches, rng)


def _pixels(images: NDArray[np.uint8], rng: np.random.Generator | None) -> torch.Tensor:
    """Return float32[B, 3, R, R] in [-1, 1]; with `rng`, each image gets a random gain and offset."""
    pixels = torch.from_numpy(images).float().div_(127.5).sub_(1.0)
    if rng is not None:
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(images), 1, 1))).float()
        offset = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(images), 1, 1))).float()
        pixels = (pixels * gain + offset).clamp_(-1.0, 1.0)
    return pixels.unsqueeze(1).expand(-1, 3, -1, -1)


def _batch(pairs: list[tuple[str, str]], layout: PromptLayout) -> Batch:
    """Encode pairs as `model.prompt` does, but with `<loc>` in the suffix as special tokens, not as characters."""
    suffixes = [layout.tokenizer.encode(suffix, add_special_tokens=False) for _, suffix in pairs]
    return layout.collate_training(
        [
            replace(layout.encode_prefix(prefix), suffix=(*suffix, layout.eos_id))
            for (prefix, _), suffix in zip(pairs, suffixes, strict=True)
        ]
    )


def _optimizer(
    parameters: Any, peak: float, steps: int, warmup: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


@dataclass(frozen=True, slots=True)
class Pretraining:
    """Settings of the pre-training. The defaults reproduce the committed weights."""

    seed: int = 0
    phantoms: int = 20000
    vision_steps: int = 1600
    steps: int = 5000
    batch: int = 16
    rate: float = 1e-3
    workers: int = 2


def pretrain(out: Path, settings: Pretraining) -> None:
    """Write the checkpoint to `out`: weights, configuration, tokenizer, processor, `log.jsonl`, `provenance.json`."""
    started = time.time()
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    tokenizer = train_tokenizer(settings.seed)
    config = build_config(tokenizer)
    prepare_config(config, softcap=False)
    model = model_without_weights(config, implementation(softcap=False))
    model.train()
    pool = draw_pool(settings.phantoms, settings.seed + 1, settings.workers)
    log = _Log(started)
    logger.info("%d phantoms in %.0f s; %d parameters", len(pool), time.time() - started, model.num_parameters())
    _train_vision(model.model.vision_tower, pool, settings, rng, log)
    features = _features(model.model.vision_tower, pool)
    with fused(model, model.model.language_model, softcap=False):
        _train_text(model, features, pool.cases, PromptLayout(tokenizer, PromptSettings(), GRID**2), settings, rng, log)
    _save(out, model, build_processor(tokenizer))
    provenance = {
        "script": "python -m cxrreport.demo.tiny_models.paligemma",
        "version": __version__,
        **asdict(settings),
        "seconds": round(time.time() - started),
        "peak_memory_mb": round(peak_memory_mb(children=False)),
        "parameters": model.num_parameters(),
        "house_styles_never_shown": list(HOUSE_STYLES),
        "synthetic": True,
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log.rows))


def _train_vision(tower: Any, pool: Pool, settings: Pretraining, rng: np.random.Generator, log: _Log) -> None:
    """Stage 1: train the vision tower to classify every patch, with a temporary linear head."""
    head = torch.nn.Linear(VISION_WIDTH, len(PLACES))
    weight = torch.tensor(3.0)
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer, schedule = _optimizer(parameters, 1e-3, settings.vision_steps, 100)
    for step in range(settings.vision_steps):
        chosen = rng.integers(len(pool), size=settings.batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = head(tower(pixel_values=_pixels(pool.images[chosen], rng)).last_hidden_state)
        target = torch.from_numpy(pool.places[chosen]).flatten(2).transpose(1, 2).float()
        loss = functional.binary_cross_entropy_with_logits(scores.float(), target, pos_weight=weight)
        _update(loss, optimizer, schedule, parameters)
        log("places", step, loss)
    tower.requires_grad_(False)


def _train_text(
    model: Any,
    features: torch.Tensor,
    cases: list[Case],
    layout: PromptLayout,
    settings: Pretraining,
    rng: np.random.Generator,
    log: _Log,
) -> None:
    """Stage 2: train all weights of projector and language model on the features of the frozen tower."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = _optimizer(parameters, settings.rate, settings.steps, 200)
    for step in range(settings.steps):
        chosen = rng.integers(len(cases), size=settings.batch)
        batch = _batch([_task(cases[i], rng) for i in chosen], layout)
        border = int((batch["token_type_ids"][0] == 0).sum())
        batch["attention_mask"] = border_mask(batch["attention_mask"], border)
        labels = batch.pop("labels")[:, border:]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            images = image_arguments(model.model.multi_modal_projector(features[chosen]))
            hidden = model.model(
                **batch, **images, prefix_length=border, use_cache=False
            ).last_hidden_state  # starts at the last token of the prefix, see `model.fused`
            has_loss = labels != IGNORED
            logits = model.lm_head(hidden[:, :-1][has_loss])
        loss = functional.cross_entropy(logits.float(), labels[has_loss])
        _update(loss, optimizer, schedule, parameters)
        log("texts", step, loss)


@torch.no_grad()
def _features(tower: Any, pool: Pool) -> torch.Tensor:
    """Compute the features of every phantom with the frozen tower: bfloat16[N, patches, width]."""
    features = torch.empty((len(pool), GRID**2, VISION_WIDTH), dtype=torch.bfloat16)
    for start in range(0, len(pool), 32):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pixels = _pixels(pool.images[start : start + 32], None)
            features[start : start + len(pixels)] = tower(pixel_values=pixels).last_hidden_state
    return features


def _update(loss: torch.Tensor, optimizer: Any, schedule: Any, parameters: list[torch.nn.Parameter]) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


class _Log:
    """Record and log the loss of every fiftieth step."""

    def __init__(self, started: float) -> None:
        self.rows: list[dict[str, Any]] = []
        self._started = started

    def __call__(self, stage: str, step: int, loss: torch.Tensor) -> None:
        if step % 50 == 0:
            seconds = round(time.time() - self._started)
            self.rows.append({"stage": stage, "step": step, "loss": round(float(loss.detach()), 5), "s": seconds})
            logger.info("%s", self.rows[-1])


def _save(out: Path, model: Any, processor: PaliGemmaProcessor) -> None:
    """Save bfloat16 safetensors and the configuration with Gemma 2's soft-capping, which fine-tuning switches off."""
    copy = model_without_weights(model.config, implementation(softcap=False)).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.config.text_config.attn_logit_softcapping = 50.0
    copy.config.text_config.final_logit_softcapping = 30.0
    copy.config.synthetic = True
    copy.save_pretrained(out)
    processor.save_pretrained(out)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Pre-train the tiny PaliGemma 2 on phantoms.")
    parser.add_argument("--out", type=Path, required=True)
    for each in fields(Pretraining):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    given = vars(parser.parse_args())
    pretrain(given.pop("out"), Pretraining(**given))
