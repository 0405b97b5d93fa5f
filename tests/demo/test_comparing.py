"""Stage 3 of the tiny model's pre-training, on few phantoms."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch

from cxrreport.assets import checkpoint_folder
from cxrreport.demo.phantoms.changes import Change
from cxrreport.demo.tiny_models import comparing, comparing_texts
from cxrreport.demo.tiny_models.architecture import GRID, RESOLUTION
from cxrreport.demo.tiny_models.comparing import POOL, POOLED, Comparing, Mixture, train_comparing
from cxrreport.demo.tiny_models.learning import Log
from cxrreport.model.checkpoints import load
from cxrreport.model.fused import fused
from cxrreport.settings import CheckpointSettings

SETTINGS = Comparing(pairs=3, phantoms=3, first_steps=2, steps=4, batch=2, rate=1e-3)


class Stopped(Exception):
    pass


def tiny():
    folder = str(checkpoint_folder("paligemma2-tiny-224"))
    loaded = load(CheckpointSettings(name=folder, precision="float32", device="cpu"), resolution=RESOLUTION)
    loaded.model.requires_grad_(True).train()
    loaded.model.model.vision_tower.requires_grad_(False)
    return loaded


@pytest.fixture(scope="module")
def mixture():
    loaded = tiny()
    return Mixture.draw(loaded.model.model.vision_tower, loaded.tokenizer, SETTINGS, 5, 1)


def trained(mixture, state, steps=SETTINGS.steps):
    """Weights after all steps, or `Stopped` after `steps` of them."""
    model = tiny().model

    class Stopping(Log):
        def __call__(self, stage, step, loss, *, always=False):
            super().__call__(stage, step, loss, always=always)
            if step == steps and not always:
                raise Stopped

    with fused(model, model.model.language_model, softcap=False):
        train_comparing(model, mixture, mixture, SETTINGS, 0, Stopping(time.time()), state)
    return model.state_dict()


def test_a_stopped_run_goes_on_to_the_same_weights(mixture, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "_SAVE_EVERY", 1)
    monkeypatch.setattr(comparing, "_HELD_OUT", 1)
    whole = trained(mixture, tmp_path / "whole.pt")
    with pytest.raises(Stopped):
        trained(mixture, tmp_path / "parts.pt", steps=2)
    resumed = trained(mixture, tmp_path / "parts.pt")
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())
    before = tiny().model.state_dict()
    moved = {name.removeprefix("model.").split(".")[0] for name in whole if not torch.equal(whole[name], before[name])}
    assert moved == {"multi_modal_projector", "language_model", "lm_head"}


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [("one image", {GRID**2}), ("lateral", {GRID**2 + POOLED}), ("prior", {GRID**2 + n * POOLED for n in range(3)})],
)
def test_a_batch_has_as_many_features_as_image_tokens(mixture, kind, tokens):
    for seed in range(6):
        features, batch = mixture.batch(kind, 2, np.random.default_rng(seed))
        images = (batch["input_ids"] == mixture.layout.image_id).sum(1)
        assert set(images.tolist()) == {features.shape[1]}
        assert features.shape[1] in tokens


def test_averaging_is_over_neighbouring_patches():
    features = torch.arange(GRID**2, dtype=torch.float32).view(1, GRID**2, 1)
    averaged = comparing.average(features)
    assert averaged.shape == (1, POOLED, 1)
    assert averaged[0, 0, 0] == np.mean([0, 1, GRID, GRID + 1])
    assert POOL == 2


def test_questions_about_texts_state_every_change():
    rng = np.random.default_rng(0)
    told = Counter()
    for _ in range(500):
        question, prior, answer = comparing_texts.words(rng)
        parts = answer.split(" ; ")
        for part in parts:
            change = Change(part.split()[-1])
            told[change] += 1
            here = part.split(" , ")[0].removesuffix(f" {change.value}")
            now, before = (text.split(" ; ") for text in (question.split("now: ")[1], prior.findings))
            assert (here in now) is (change is not Change.RESOLVED)
            assert (here in before) is (change in (Change.UNCHANGED, Change.RESOLVED))
            if " , prior " in part and change is not Change.NEW:
                size = part.split(" , prior ")[1].split()[0]
                sized = dict.fromkeys(("small", "large", "mild", "severe"), size)
                assert " ".join(sized.get(word, word) for word in here.split()) in before
    assert all(told[change] > 100 for change in Change)
