"""Stage 3 of the pre-training: the lateral view, and what changed since the prior study.

Projector and language model first learn from texts alone to state the change of a finding. They then learn from pairs
of studies to read a second and a third image, whose tokens are averaged over 2 x 2 patches, and the text of the prior
study in the prefix. Tasks over one image stay in both mixtures, so that nothing is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cxrreport.dataset import ImageRole
from cxrreport.demo.phantoms.changes import Change, changes, sample_pair
from cxrreport.demo.phantoms.drawing import draw, expose, in_new_position, sample_anatomy
from cxrreport.demo.phantoms.findings import PhantomFinding
from cxrreport.demo.phantoms.lateral import draw_lateral
from cxrreport.demo.tiny_models import captions, comparing_texts
from cxrreport.demo.tiny_models.architecture import GRID, RESOLUTION, VISION_WIDTH
from cxrreport.demo.tiny_models.learning import Log, encode, optimizer_of, text_loss, update
from cxrreport.demo.tiny_models.pool import Case, draw_pool, features_of
from cxrreport.model.prompt import IGNORED, Batch, PromptLayout, pooled
from cxrreport.records import PriorStudy, Report
from cxrreport.settings import PromptSettings

logger = logging.getLogger(__name__)

POOL: Literal[2] = 2
"""Tokens of lateral and prior image are averaged over POOL x POOL patches, as in the demo."""
POOLED = (GRID // POOL) ** 2
_KINDS = {"one image": 0.4, "lateral": 0.1, "prior": 0.4, "texts": 0.1}
"""Share of the steps by what they show; the samples of a step show the same."""
_FIRST_KINDS = {"one image": 0.25, "texts": 0.75}
"""The same for the first steps."""
_CHANGE_WEIGHT = 4.0
"""Weight of the tokens of a change in the loss: few, but what this stage is about."""
_WITHOUT_SIZE = 0.5
"""Share of the pairs without a change of size that are passed over."""
_NO_LATERAL, _NO_PRIOR_IMAGE, _NO_PRIOR_TEXT = 0.15, 0.15, 0.2
_PROMPT = PromptSettings(views="frontal+lateral", prior="report+image", pool=POOL, max_prior_tokens=320)
_LONGEST = np.log(365)
"""Logarithm of the longest interval between two studies, days."""
_WARMUP = 100
_SAVE_EVERY = 50
_HELD_OUT = 6
"""Batches of each kind whose loss is logged before and after."""

Pair = tuple[tuple[PhantomFinding, ...], tuple[PhantomFinding, ...]]
"""Findings of a study and of its follow-up."""


@dataclass(frozen=True, slots=True)
class Comparing:
    """Settings of stage 3.

    Args:
        pairs: number of patients with two studies.
        phantoms: number of phantoms with one study.
        first_steps: optimiser steps about texts.
        steps: all optimiser steps.
        batch: samples of a step.
        rate: peak of the learning rate.
    """

    pairs: int
    phantoms: int
    first_steps: int
    steps: int
    batch: int
    rate: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """Patients with two studies in memory.

    Args:
        findings: of both studies of each patient.
        frontals: features bfloat16[N, 2, patches, width], of the frontal view of both studies.
        laterals: averaged features bfloat16[N, 2, POOLED, width], of the lateral view of both studies.
    """

    findings: list[Pair]
    frontals: torch.Tensor
    laterals: torch.Tensor


def average(features: torch.Tensor) -> torch.Tensor:
    """Average real[..., patches, width] over POOL x POOL patches: real[..., POOLED, width].

    The projector is linear, so that this may come before it.
    """
    images = features.reshape(-1, *features.shape[-2:])
    return pooled(images, [POOL] * len(images)).view(*features.shape[:-2], POOLED, features.shape[-1])


def _draw_pairs(seed: int, count: int) -> tuple[list[Pair], NDArray[np.uint8]]:
    """Draw the frontal and the lateral view of both studies of `count` patients: uint8[count, 2, 2, R, R]."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, 2, 2, RESOLUTION, RESOLUTION), np.uint8)
    findings = []
    for index in range(count):
        anatomy, pair = sample_anatomy(rng), sample_pair(rng)
        for visit, found in enumerate(pair):
            place, drawn = in_new_position(anatomy, rng), int(rng.integers(2**31))
            frontal = draw(place, found, RESOLUTION, RESOLUTION, drawn).grey
            lateral = draw_lateral(place, RESOLUTION, RESOLUTION, found, drawn)
            for view, grey in enumerate((frontal, lateral)):
                images[index, visit, view] = np.rint(255 * expose(grey, rng, noise=0.012)).astype(np.uint8)
        findings.append(pair)
    return findings, images


def draw_pairs(tower: Any, count: int, seed: int, workers: int) -> Pairs:
    """Draw patients in `workers` processes and compute the features of their images with the frozen tower."""
    chunk = 125
    sizes = [min(chunk, count - start) for start in range(0, count, chunk)]
    findings: list[Pair] = []
    frontals = torch.empty((count, 2, GRID**2, VISION_WIDTH), dtype=torch.bfloat16)
    laterals = torch.empty((count, 2, POOLED, VISION_WIDTH), dtype=torch.bfloat16)
    with ProcessPoolExecutor(workers) as pool:
        for found, images in pool.map(_draw_pairs, [seed * 1_000_003 + n for n in range(len(sizes))], sizes):
            place = slice(len(findings), len(findings) + len(found))
            features = features_of(tower, images.reshape(-1, RESOLUTION, RESOLUTION))
            features = features.view(len(found), 2, 2, GRID**2, VISION_WIDTH)
            frontals[place], laterals[place] = features[:, :, 0], average(features[:, :, 1])
            findings += found
    return Pairs(findings, frontals, laterals)


@dataclass(frozen=True, slots=True)
class Mixture:
    """What the steps are drawn from.

    Args:
        cases: phantoms with one study.
        features: of their images, bfloat16[N, patches, width].
        pairs: patients with two studies.
        layout: of the prompts.
    """

    cases: list[Case]
    features: torch.Tensor
    pairs: Pairs
    layout: PromptLayout

    @classmethod
    def draw(cls, tower: Any, tokenizer: Any, settings: Comparing, seed: int, workers: int) -> Mixture:
        """Draw the phantoms and compute their features."""
        pool = draw_pool(settings.phantoms, seed, workers)
        pairs = draw_pairs(tower, settings.pairs, seed + 1, workers)
        layout = PromptLayout(tokenizer, _PROMPT, GRID**2)
        return cls(pool.cases, features_of(tower, pool.images), pairs, layout)

    def batch(self, kind: str, size: int, rng: np.random.Generator) -> tuple[torch.Tensor | None, Batch]:
        """Draw the features of a batch, bfloat16[size, image tokens, width] or `None`, and its texts.

        Without images the batch is twice as large, and only its words of change have labels.
        """
        if kind == "texts":
            drawn = [comparing_texts.stated(rng) for _ in range(2 * size)]
            priors = [_prior(report, rng) for _, report, _ in drawn]
            batch = encode([(asked, answer) for asked, _, answer in drawn], self.layout, roles=(), priors=priors)
            batch["labels"][~self.of_change(batch["labels"])] = IGNORED
            return None, batch
        if kind == "one image":
            chosen = rng.integers(len(self.cases), size=size)
            texts = [captions.sample_task(found, masks, rng) for found, masks in (self.cases[i] for i in chosen)]
            return self.features[chosen], encode(texts, self.layout)
        if kind == "lateral":
            chosen, visits = rng.integers(len(self.pairs.findings), size=size), rng.integers(2, size=size)
            findings = [self.pairs.findings[i][v] for i, v in zip(chosen, visits, strict=True)]
            texts = [comparing_texts.question(None, found, rng) for found in findings]
            images = [self.pairs.frontals[chosen, visits], self.pairs.laterals[chosen, visits]]
            return torch.cat(images, 1), encode(texts, self.layout, roles=(ImageRole.FRONTAL, ImageRole.LATERAL))
        return self._with_prior(size, rng)

    def of_change(self, labels: torch.Tensor) -> torch.Tensor:
        """Which labels, int64[B, T], are tokens of a word of change within a sentence: bool[B, T]."""
        marked = torch.zeros_like(labels, dtype=torch.bool)
        for change in Change:
            ids = torch.tensor(self.layout.tokenizer.encode(f" {change.value}", add_special_tokens=False))
            if labels.shape[1] >= len(ids):
                starts = (labels.unfold(1, len(ids), 1) == ids).all(-1)
                for offset in range(len(ids)):
                    marked[:, offset : offset + starts.shape[1]] |= starts
        return marked

    def _with_prior(self, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, Batch]:
        lateral, image = rng.random() > _NO_LATERAL, rng.random() > _NO_PRIOR_IMAGE
        text = not image or rng.random() > _NO_PRIOR_TEXT
        chosen = list(self._visible(size, rng, now=not lateral, before=not text))
        texts, priors = [], []
        for index in chosen:
            before, now = self.pairs.findings[index]
            texts.append(comparing_texts.question(before, now, rng))
            priors.append(_prior(comparing_texts.prior_report(before, rng) if text else Report(), rng))
        images, roles = [self.pairs.frontals[chosen, 1]], [ImageRole.FRONTAL]
        if lateral:
            images.append(self.pairs.laterals[chosen, 1])
            roles.append(ImageRole.LATERAL)
        if image:
            images.append(average(self.pairs.frontals[chosen, 0]))
            roles.append(ImageRole.PRIOR)
        return torch.cat(images, 1), encode(texts, self.layout, roles=tuple(roles), priors=priors)

    def _visible(self, size: int, rng: np.random.Generator, *, now: bool, before: bool) -> Iterator[int]:
        """Draw patients; with `now` or `before` only ones whose current or prior study has nothing posterior."""
        while size:
            index = int(rng.integers(len(self.pairs.findings)))
            prior, current = self.pairs.findings[index]
            unseen = (*(current if now else ()), *(prior if before else ()))
            passed = not comparing_texts.sized(changes(prior, current)) and rng.random() < _WITHOUT_SIZE
            if not passed and all(f.zone != "posterior" for f in unseen):
                size -= 1
                yield index


def _prior(report: Report, rng: np.random.Generator) -> PriorStudy:
    days = int(np.exp(rng.uniform(0, _LONGEST)))
    return PriorStudy(study_id="prior", days=days, image_ids=(), report=report)


def _loss(model: Any, mixture: Mixture, features: torch.Tensor | None, batch: Batch) -> torch.Tensor:
    weights = 1.0 + (_CHANGE_WEIGHT - 1.0) * mixture.of_change(batch["labels"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = None if features is None else model.model.multi_modal_projector(features)
        return text_loss(model, projected, batch, weights)


def train_comparing(
    model: Any, mixture: Mixture, held_out: Mixture, settings: Comparing, seed: int, log: Log, state: Path
) -> None:
    """Stage 3: train all weights of projector and language model; a stopped run goes on from the file `state`.

    Args:
        model: PaliGemma 2 with the layers of `model.fused`, its tower frozen.
        mixture: what is trained on.
        held_out: phantoms on which the loss is logged before and after.
        settings: of the stage.
        seed: random seed.
        log: takes the losses.
        state: file with weights, optimiser and step, replaced every now and then.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = optimizer_of(parameters, settings.rate, settings.steps, _WARMUP)
    start = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        start = saved["step"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
    else:
        _log_held_out(model, held_out, settings, seed, 0, log)
    for step in range(start, settings.steps):
        rng = np.random.default_rng([seed, 3, step])
        kinds = _FIRST_KINDS if step < settings.first_steps else _KINDS
        kind = str(rng.choice(list(kinds), p=list(kinds.values())))
        loss = _loss(model, mixture, *mixture.batch(kind, settings.batch, rng))
        update(loss, optimizer, schedule, parameters)
        log(kind, step, loss)
        if (step + 1) % _SAVE_EVERY == 0:
            parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
            saved = {"step": step + 1} | {name: part.state_dict() for name, part in parts.items()}
            torch.save(saved, state.with_suffix(".new"))
            state.with_suffix(".new").replace(state)
    _log_held_out(model, held_out, settings, seed, settings.steps, log)


@torch.no_grad()
def _log_held_out(model: Any, held_out: Mixture, settings: Comparing, seed: int, step: int, log: Log) -> None:
    for kind in _KINDS:
        rng = np.random.default_rng([seed, 4])
        losses = []
        for _ in range(_HELD_OUT):
            losses.append(_loss(model, held_out, *held_out.batch(kind, settings.batch, rng)))
        log(f"held-out, {kind}", step, torch.stack(losses).mean(), always=True)
