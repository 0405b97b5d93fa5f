"""How the project's tiny PaliGemma 2 is made: `python -m cxrreport.demo.tiny_paligemma --out DIR --seed 0`.

transformers' own classes (SigLIP tower, linear projector, Gemma 2 with grouped queries), a tokenizer trained here with
the special tokens of the real one in miniature, and pre-training in two stages on phantoms that are drawn on the spot:
the vision tower alone on the places and sizes of the findings, then projector and language model on the texts of
`captions`, over the features that the tower has learned. Two cores and about an hour are enough.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import PaliGemmaProcessor

from cxrreport import __version__
from cxrreport.demo import captions
from cxrreport.demo.findings import Name, PhantomFinding, Side, Size, masked, sample_findings
from cxrreport.demo.grammar import HOUSE_STYLES
from cxrreport.demo.phantom import draw, expose, sample_anatomy
from cxrreport.demo.tiny_architecture import (
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
    *(PhantomFinding(name, size=size) for name in (Name.CARDIOMEGALY, Name.OEDEMA) for size in ("mild", "severe")),
    *(
        PhantomFinding(name, side, size)
        for name in (Name.EFFUSION, Name.PNEUMOTHORAX)
        for side in _SIDES
        for size in _SIZES
    ),
    *(
        PhantomFinding(Name.OPACITY, side, size, zone, doubtful)
        for side in _SIDES
        for size in _SIZES
        for zone in ("upper", "lower")
        for doubtful in (False, True)
    ),
    PhantomFinding(Name.TUBE),
    *(PhantomFinding(Name.PACEMAKER, side) for side in _SIDES),
)
"""What the vision tower learns to find, patch by patch.

Side and zone are part of it: a tower that is only asked where a finding is may forget, in its last layer, where the
patch itself lies, and the language model then has nothing to tell left from right by.
"""

Case = tuple[tuple[PhantomFinding, ...], dict[PhantomFinding, NDArray[np.bool_]]]
"""The findings of a phantom, and the patches that each covers, bool[GRID, GRID]."""


class Pool:
    """Drawn phantoms in memory: images uint8[N, R, R], their findings, and where these are, patch by patch."""

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
    """Draw `count` phantoms in `workers` processes; the result does not depend on their number."""
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
    """float32[B, 3, R, R] in [-1, 1]; with `rng`, another gain, offset and contrast for each image."""
    pixels = torch.from_numpy(images).float().div_(127.5).sub_(1.0)
    if rng is not None:
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(images), 1, 1))).float()
        offset = torch.from_numpy(rng.uniform(-0.1, 0.1, (len(images), 1, 1))).float()
        pixels = (pixels * gain + offset).clamp_(-1.0, 1.0)
    return pixels.unsqueeze(1).expand(-1, 3, -1, -1)


def _batch(pairs: list[tuple[str, str]], layout: PromptLayout) -> Batch:
    """The layout of `model.prompt`; the suffix keeps its locations, which a report would spell out."""
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
class Course:
    """How much of what is taught; with the defaults it gives the committed weights."""

    seed: int = 0
    phantoms: int = 20000
    vision_steps: int = 1600
    steps: int = 5000
    batch: int = 16
    rate: float = 1e-3
    workers: int = 2


def pretrain(out: Path, course: Course) -> None:
    """Make the checkpoint in `out`: weights, configuration, tokenizer, processor, `log.jsonl`, `provenance.json`."""
    started = time.time()
    torch.manual_seed(course.seed)
    rng = np.random.default_rng(course.seed)
    tokenizer = train_tokenizer(course.seed)
    config = build_config(tokenizer)
    prepare_config(config, softcap=False)
    model = model_without_weights(config, implementation(softcap=False))
    model.train()
    pool = draw_pool(course.phantoms, course.seed + 1, course.workers)
    log = _Log(started)
    logger.info("%d phantoms in %.0f s; %d parameters", len(pool), time.time() - started, model.num_parameters())
    _teach_places(model.model.vision_tower, pool, course, rng, log)
    features = _features(model.model.vision_tower, pool)
    with fused(model, model.model.language_model, softcap=False):
        _teach_texts(model, features, pool.cases, PromptLayout(tokenizer, PromptSettings(), GRID**2), course, rng, log)
    _save(out, model, build_processor(tokenizer))
    provenance = {
        "script": "python -m cxrreport.demo.tiny_paligemma",
        "version": __version__,
        **asdict(course),
        "seconds": round(time.time() - started),
        "peak_memory_mb": round(peak_memory_mb(children=False)),
        "parameters": model.num_parameters(),
        "house_styles_never_shown": list(HOUSE_STYLES),
        "synthetic": True,
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log.rows))


def _teach_places(tower: Any, pool: Pool, course: Course, rng: np.random.Generator, log: _Log) -> None:
    """First stage: the vision tower finds every finding, patch by patch, with a head that is thrown away."""
    head = torch.nn.Linear(VISION_WIDTH, len(PLACES))
    weight = torch.tensor(3.0)
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer, schedule = _optimizer(parameters, 1e-3, course.vision_steps, 100)
    for step in range(course.vision_steps):
        chosen = rng.integers(len(pool), size=course.batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = head(tower(pixel_values=_pixels(pool.images[chosen], rng)).last_hidden_state)
        target = torch.from_numpy(pool.places[chosen]).flatten(2).transpose(1, 2).float()
        loss = functional.binary_cross_entropy_with_logits(scores.float(), target, pos_weight=weight)
        _update(loss, optimizer, schedule, parameters)
        log("places", step, loss)
    tower.requires_grad_(False)


def _teach_texts(
    model: Any,
    features: torch.Tensor,
    cases: list[Case],
    layout: PromptLayout,
    course: Course,
    rng: np.random.Generator,
    log: _Log,
) -> None:
    """Second stage: projector and language model, whole, over the features of the frozen tower."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = _optimizer(parameters, course.rate, course.steps, 200)
    for step in range(course.steps):
        chosen = rng.integers(len(cases), size=course.batch)
        batch = _batch([_task(cases[i], rng) for i in chosen], layout)
        border = int((batch["token_type_ids"][0] == 0).sum())
        batch["attention_mask"] = border_mask(batch["attention_mask"], border)
        labels = batch.pop("labels")[:, border:]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            images = image_arguments(model.model.multi_modal_projector(features[chosen]))
            hidden = model.model(
                **batch, **images, prefix_length=border, use_cache=False
            ).last_hidden_state  # from the last token of the prefix on, see `model.fused`
            on = labels != IGNORED
            logits = model.lm_head(hidden[:, :-1][on])
        loss = functional.cross_entropy(logits.float(), labels[on])
        _update(loss, optimizer, schedule, parameters)
        log("texts", step, loss)


@torch.no_grad()
def _features(tower: Any, pool: Pool) -> torch.Tensor:
    """What the tower says of every phantom: bfloat16[N, patches, width]. It is frozen by then."""
    kept = torch.empty((len(pool), GRID**2, VISION_WIDTH), dtype=torch.bfloat16)
    for start in range(0, len(pool), 32):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pixels = _pixels(pool.images[start : start + 32], None)
            kept[start : start + len(pixels)] = tower(pixel_values=pixels).last_hidden_state
    return kept


def _update(loss: torch.Tensor, optimizer: Any, schedule: Any, parameters: list[torch.nn.Parameter]) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


class _Log:
    """The loss of every fiftieth step, kept and said."""

    def __init__(self, started: float) -> None:
        self.rows: list[dict[str, Any]] = []
        self._started = started

    def __call__(self, stage: str, step: int, loss: torch.Tensor) -> None:
        if step % 50 == 0:
            seconds = round(time.time() - self._started)
            self.rows.append({"stage": stage, "step": step, "loss": round(float(loss.detach()), 5), "s": seconds})
            logger.info("%s", self.rows[-1])


def _save(out: Path, model: Any, processor: PaliGemmaProcessor) -> None:
    """bfloat16 safetensors, and the configuration with Gemma 2's soft-capping, which a transfer switches off."""
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
    for each in fields(Course):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    given = vars(parser.parse_args())
    pretrain(given.pop("out"), Course(**given))
