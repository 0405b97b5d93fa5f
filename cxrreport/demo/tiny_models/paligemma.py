"""Pre-train the project's tiny PaliGemma 2: `python -m cxrreport.demo.tiny_models.paligemma --out DIR --seed 0`.

The model uses the classes of transformers (SigLIP tower, linear projector, Gemma 2 with grouped queries) and a small
tokenizer with the same kinds of special tokens as the real one. It is pre-trained on phantoms in three stages: the
vision tower, on the position and size of the findings; projector and language model, on the texts of `captions` and the
features of the frozen tower; then both on several images and the prior study, see `comparing`. This takes up to 90
minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from cxrreport import __version__
from cxrreport.demo.phantoms.wordings import HOUSE_STYLES
from cxrreport.demo.tiny_models import captions
from cxrreport.demo.tiny_models.architecture import (
    GRID,
    RESOLUTION,
    VISION_WIDTH,
    build_config,
    build_processor,
    train_tokenizer,
)
from cxrreport.demo.tiny_models.comparing import Comparing, Mixture, train_comparing
from cxrreport.demo.tiny_models.learning import Log, encode, optimizer_of, text_loss, update
from cxrreport.demo.tiny_models.pool import PLACES, Case, Pool, draw_pool, features_of, to_pixels
from cxrreport.model.attention import implementation, prepare_config
from cxrreport.model.checkpoints import load
from cxrreport.model.compat import model_without_weights
from cxrreport.model.fused import fused
from cxrreport.model.prompt import PromptLayout
from cxrreport.settings import CheckpointSettings, PromptSettings
from cxrreport.tracking import peak_memory_mb

logger = logging.getLogger(__name__)

_LOG, _PROVENANCE = "log.jsonl", "provenance.json"


@dataclass(frozen=True, slots=True)
class Pretraining:
    """Settings of the pre-training.

    The committed weights are those after stage 2, `tiny`, and after stage 3, `tiny-prior`, with the defaults.
    """

    seed: int = 0
    phantoms: int = 20000
    vision_steps: int = 1600
    steps: int = 5000
    batch: int = 16
    rate: float = 1e-3
    comparing_pairs: int = 2000
    comparing_phantoms: int = 6000
    comparing_first_steps: int = 600
    comparing_steps: int = 2100
    comparing_batch: int = 12
    comparing_rate: float = 5e-4
    workers: int = 2

    @property
    def comparing(self) -> Comparing:
        """Settings of stage 3."""
        sizes = {name: getattr(self, f"comparing_{name}") for name in (one.name for one in fields(Comparing))}
        return Comparing(**sizes)


def pretrain(out: Path, settings: Pretraining) -> None:
    """Write the checkpoint to `out`: weights, configuration, tokenizer, processor, `log.jsonl`, `provenance.json`.

    The checkpoint after stages 1 and 2 is `out/one-image`; stage 3 begins with its bfloat16 weights, so a stopped run
    goes on from there.
    """
    before = out / "one-image"
    if not (before / _PROVENANCE).exists():
        _pretrain_one_image(before, settings)
    _pretrain_comparing(out, before, settings)


def _pretrain_one_image(out: Path, settings: Pretraining) -> None:
    """Stages 1 and 2."""
    started = time.time()
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    tokenizer = train_tokenizer(settings.seed)
    config = build_config(tokenizer)
    prepare_config(config, softcap=False)
    model = model_without_weights(config, implementation(softcap=False))
    model.train()
    pool = draw_pool(settings.phantoms, settings.seed + 1, settings.workers)
    log = Log(started)
    logger.info("%d phantoms in %.0f s; %d parameters", len(pool), time.time() - started, model.num_parameters())
    _train_vision(model.model.vision_tower, pool, settings, rng, log)
    features = features_of(model.model.vision_tower, pool.images)
    with fused(model, model.model.language_model, softcap=False):
        _train_text(model, features, pool.cases, PromptLayout(tokenizer, PromptSettings(), GRID**2), settings, rng, log)
    _save(out, model)
    build_processor(tokenizer).save_pretrained(out)
    _write_records(out, settings, log.rows, {"seconds": round(time.time() - started)}, model.num_parameters())


def _pretrain_comparing(out: Path, before: Path, settings: Pretraining) -> None:
    """Stage 3, from the checkpoint in `before`."""
    started = time.time()
    loaded = load(CheckpointSettings(name=str(before), precision="float32", device="cpu"), resolution=RESOLUTION)
    model = loaded.model
    model.requires_grad_(True).train()
    tower = model.model.vision_tower.requires_grad_(False)
    log = Log(started)
    parts = (tower, loaded.tokenizer)
    mixture = Mixture.draw(*parts, settings.comparing, settings.seed + 2, settings.workers)
    few = replace(settings.comparing, pairs=125, phantoms=250)
    held_out = Mixture.draw(*parts, few, settings.seed + 1_000, settings.workers)
    logger.info("phantoms of stage 3 in %.0f s", time.time() - started)
    with fused(model, model.model.language_model, softcap=False):
        train_comparing(model, mixture, held_out, settings.comparing, settings.seed, log, out / "stage-3.pt")
    _save(out, model)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        shutil.copyfile(before / name, out / name)
    rows = [json.loads(line) for line in (before / _LOG).read_text().splitlines()]
    earlier = json.loads((before / _PROVENANCE).read_text())["seconds"]
    seconds = {"seconds": earlier, "seconds_of_stage_3": round(time.time() - started)}
    _write_records(out, settings, rows + log.rows, seconds, model.num_parameters())


def _write_records(
    out: Path, settings: Pretraining, rows: list[dict[str, Any]], seconds: dict[str, int], parameters: int
) -> None:
    provenance = {
        "script": "python -m cxrreport.demo.tiny_models.paligemma",
        "version": __version__,
        **asdict(settings),
        **seconds,
        "peak_memory_mb": round(peak_memory_mb(children=False)),
        "parameters": parameters,
        "house_styles_never_shown": list(HOUSE_STYLES),
        "synthetic": True,
    }
    (out / _LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / _PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n")


def _train_vision(tower: Any, pool: Pool, settings: Pretraining, rng: np.random.Generator, log: Log) -> None:
    """Stage 1: train the vision tower to classify every patch, with a temporary linear head."""
    head = torch.nn.Linear(VISION_WIDTH, len(PLACES))
    weight = torch.tensor(3.0)
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer, schedule = optimizer_of(parameters, 1e-3, settings.vision_steps, 100)
    for step in range(settings.vision_steps):
        chosen = rng.integers(len(pool), size=settings.batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = head(tower(pixel_values=to_pixels(pool.images[chosen], rng)).last_hidden_state)
        target = torch.from_numpy(pool.places[chosen]).flatten(2).transpose(1, 2).float()
        loss = functional.binary_cross_entropy_with_logits(scores.float(), target, pos_weight=weight)
        update(loss, optimizer, schedule, parameters)
        log("places", step, loss)
    tower.requires_grad_(False)


def _train_text(
    model: Any,
    features: torch.Tensor,
    cases: list[Case],
    layout: PromptLayout,
    settings: Pretraining,
    rng: np.random.Generator,
    log: Log,
) -> None:
    """Stage 2: train all weights of projector and language model on the features of the frozen tower."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = optimizer_of(parameters, settings.rate, settings.steps, 200)
    for step in range(settings.steps):
        chosen = rng.integers(len(cases), size=settings.batch)
        batch = encode([captions.sample_task(found, masks, rng) for found, masks in (cases[i] for i in chosen)], layout)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = text_loss(model, model.model.multi_modal_projector(features[chosen]), batch)
        update(loss, optimizer, schedule, parameters)
        log("texts", step, loss)


def _save(out: Path, model: Any) -> None:
    """Save bfloat16 safetensors and the configuration with Gemma 2's soft-capping, which fine-tuning switches off."""
    copy = model_without_weights(model.config, implementation(softcap=False)).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.config.text_config.attn_logit_softcapping = 50.0
    copy.config.text_config.final_logit_softcapping = 30.0
    copy.config.synthetic = True
    copy.save_pretrained(out)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Pre-train the tiny PaliGemma 2 on phantoms.")
    parser.add_argument("--out", type=Path, required=True)
    for each in fields(Pretraining):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    given = vars(parser.parse_args())
    pretrain(given.pop("out"), Pretraining(**given))
