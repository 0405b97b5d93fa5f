"""Stage 3 of the tiny model's pre-training, on few phantoms."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrreport.assets import checkpoint_folder
from cxrreport.demo.phantoms.changes import Change
from cxrreport.demo.tiny_models import comparing, comparing_texts
from cxrreport.demo.tiny_models.architecture import GRID, RESOLUTION
from cxrreport.demo.tiny_models.comparing import POOL, POOLED, Comparing, Mixture, train_comparing
from cxrreport.demo.tiny_models.learning import Log, text_loss
from cxrreport.model.checkpoints import load
from cxrreport.model.fused import fused
from cxrreport.model.prompt import IGNORED
from cxrreport.settings import CheckpointSettings

SETTINGS = Comparing(pairs=3, phantoms=3, first_steps=2, steps=4, batch=2, rate=1e-3)


class Stopped(Exception):
    pass


def tiny(name="paligemma2-tiny-224"):
    folder = str(checkpoint_folder(name))
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


_NAMES = {"heart": "heart", "cardi": "heart", "edema": "edema", "opacity": "opacity", "effusion": "effusion"}
_OTHER = {"small": "large", "large": "small", "mild": "severe", "severe": "mild"}


def _read(report):
    """The size of each finding that a text states, by name and side."""
    found = {}
    for sentence in report.lower().split("."):
        name = next((name for word, name in _NAMES.items() if word in sentence), "pneumothorax")
        for size in _OTHER:
            if re.search(rf"\b{size}(ly)?\b", sentence):
                side = re.search(r"\b(left|right)\b", sentence)
                found[name, side and side[0], "posterior" in sentence] = (size, sentence)
    return found


def test_stated_changes_follow_from_the_sizes_in_the_prior_report():
    rng = np.random.default_rng(0)
    told = Counter()
    for _ in range(300):
        _, prior, answer = comparing_texts.stated(rng)
        before = _read(prior.findings)
        for place, (size, sentence) in _read(answer).items():
            earlier = before.get(place, ("",))[0]
            words = {size: "unchanged", _OTHER[size]: "decreased" if size in ("small", "mild") else "increased"}
            expected = words.get(earlier, "new")
            assert expected in sentence, (prior.findings, answer)
            told[expected] += 1
    assert min(told[word] for word in ("new", "increased", "decreased", "unchanged")) > 50


def test_of_texts_without_images_only_the_words_of_change_are_learned(mixture):
    _, batch = mixture.batch("texts", 8, np.random.default_rng(0))
    decode = mixture.layout.tokenizer.decode
    for row in batch["labels"]:
        words = decode(row[row != IGNORED]).split()
        assert words
        assert set(words) <= {change.value for change in Change} - {"resolved"}
    _, whole = mixture.batch("prior", 8, np.random.default_rng(0))
    marked = decode(whole["labels"][mixture.of_change(whole["labels"])])
    assert set(marked.split()) <= {change.value for change in Change}
    assert marked


def test_the_shipped_model_states_the_change_of_a_finding_and_without_stage_3_it_does_not():
    settings = replace(SETTINGS, pairs=60)
    losses = {}
    for name in ("paligemma2-tiny-224", "paligemma2-tiny-224-prior"):
        loaded = tiny(name)
        unseen = Mixture.draw(loaded.model.model.vision_tower, loaded.tokenizer, settings, 77, 1)
        features, batch = unseen.batch("prior", 24, np.random.default_rng(4))
        weights = unseen.of_change(batch["labels"]).float()
        with torch.no_grad(), fused(loaded.model, loaded.model.model.language_model, softcap=False):
            projected = loaded.model.model.multi_modal_projector(features.float())
            losses[name] = float(text_loss(loaded.model, projected, batch, weights))
    before, after = losses.values()
    # In nats per token. Guessing among five equally frequent words of one token would be 1.6.
    assert after < 0.8, losses
    assert before > 2
