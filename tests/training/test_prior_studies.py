"""Training on a frontal, a lateral and the prior study, where each sample has some of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cxrreport.dataset import ImageRole
from cxrreport.model import adapters
from cxrreport.model.checkpoints import load_tokenizer
from cxrreport.model.checkpoints.loading import load
from cxrreport.model.fused import fused
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import PriorStudy, Report, Split, Study, View
from cxrreport.settings import CheckpointSettings, PromptSettings, TrainSettings
from cxrreport.training import finetune, vision_features
from cxrreport.training.forward import forward
from cxrreport.training.samples import Collator, SplitSamples

PROMPT = {"views": "frontal+lateral", "prior": "report+image", "pool": 2}
EARLIER = Report(findings="Small left effusion.", impression="Effusion.")
PLAIN = Report(indication="cough", findings="Moderate left effusion.", impression="Effusion.")
COMPARED = dataclasses.replace(PLAIN, findings="The left effusion has increased.")


@pytest.fixture
def studies(manifest: Any) -> Any:
    """Of ten studies every second has a lateral, and every third a prior study that is one of the others."""

    def each(split: Split | None = None) -> list[Study]:
        made = []
        for number in range(10):
            prior = None
            if number % 3 == 2:
                images = (f"{split}-{number - 2}",) if number != 5 else ()
                prior = PriorStudy(study_id=f"s{number - 2}", days=number, image_ids=images, report=EARLIER)
            lateral = (f"{split}-{number + 50}",) if number % 2 else ()
            made.append(
                Study(
                    study_id=f"s{number}",
                    patient_id=f"p{number}",
                    split=split or Split.TRAIN,
                    image_ids=(f"{split}-{number}", *lateral),
                    report=PLAIN,
                    prior=prior,
                    report_with_mentions=COMPARED if number % 3 == 2 else None,
                )
            )
        return made

    class Views(dict[str, Any]):
        def __missing__(self, image_id: str) -> Any:
            return SimpleNamespace(view=View.LATERAL if int(image_id.split("-")[1]) >= 50 else View.PA)

    manifest.studies, manifest.images = each, Views()
    return manifest


def layout_of(folder: Path, **settings: Any) -> PromptLayout:
    return PromptLayout(load_tokenizer(folder), PromptSettings.model_validate(PROMPT | settings), 16)


def silent(*_: Any) -> None:
    """No progress."""


def test_a_sample_has_what_its_study_has(studies: Any, checkpoint_folder: Path) -> None:
    layout = layout_of(checkpoint_folder)
    samples = SplitSamples(studies, Split.TRAIN, layout, silent)
    assert len(samples) == 10 and len(set(samples.image_ids)) == len(samples.image_ids) == 15
    images = {index: [samples.image_ids[one] for one in samples.images(index)] for index in range(10)}
    assert images[0] == ["train-0"] and images[1] == ["train-1", "train-51"]
    assert images[2] == ["train-2", "train-0"]
    assert images[5] == ["train-5", "train-55"]  # its prior study has a report and no image
    assert [samples.encoded(index).pools for index in (0, 1, 2, 5)] == [(1,), (1, 2), (1, 2), (1, 2)]
    hidden = [samples.image_ids[one] for one in samples.images(2, show_prior=False)]
    assert hidden == ["train-2"] and samples.encoded(2, show_prior=False) == layout.encode(PLAIN)

    shown = samples.encoded(2)
    roles, prior = (ImageRole.FRONTAL, ImageRole.PRIOR), studies.studies(Split.TRAIN)[2].prior
    assert layout.context(roles, prior) == (
        " images: frontal, prior. prior study, 2 days earlier: FINDINGS: Small left effusion. IMPRESSION: Effusion."
    )
    assert shown == layout.encode_texts(
        layout.prefix(PLAIN), layout.suffix(COMPARED), layout.context(roles, prior), pools=(1, 2)
    )


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ({"prior": "none", "views": "frontal+lateral"}, " images: frontal, lateral."),
        ({"prior": "image", "views": "frontal"}, " images: frontal, prior. prior study, 1 day earlier:"),
        ({"prior": "report", "pool": 1}, " images: frontal, lateral. prior study: FINDINGS: Small left effusion."),
    ],
)
def test_the_prefix_names_what_is_shown(checkpoint_folder: Path, prompt: dict[str, Any], said: str) -> None:
    layout = layout_of(checkpoint_folder, sections=["findings"], **prompt)
    roles = {"none": ("lateral",), "image": ("prior",), "report": ("lateral",)}[prompt["prior"]]
    days = None if prompt["prior"] == "report" else 1
    prior = None if prompt["prior"] == "none" else PriorStudy(study_id="s", days=days, report=EARLIER)
    assert layout.context((ImageRole.FRONTAL, *map(ImageRole, roles)), prior) == said


def test_a_long_prior_report_does_not_displace_the_indication(checkpoint_folder: Path) -> None:
    layout = layout_of(checkpoint_folder, max_prior_tokens=12)
    prior = PriorStudy(study_id="s", report=Report(findings="Small left effusion. " * 40))
    context = layout.context((ImageRole.FRONTAL,), prior)
    alone, both = layout.encode_prefix(layout.prefix(PLAIN)), layout.encode_prefix(layout.prefix(PLAIN), context)
    assert len(both.prefix) == len(alone.prefix) + 12 and both.prefix_cut and not alone.prefix_cut
    assert both.prefix[: len(alone.prefix) - 1] == alone.prefix[:-1] and both.prefix[-1] == alone.prefix[-1]


@pytest.mark.parametrize("pool", [1, 2, 4])
def test_losses_of_a_mixed_batch_are_those_of_each_sample_alone(
    studies: Any, checkpoint_folder: Path, with_adapter: Callable[..., Any], pool: int
) -> None:
    settings = CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu")
    loaded = load(settings, resolution=224)
    model, _ = with_adapter(loaded.model)
    loaded = dataclasses.replace(loaded, model=model.eval())
    layout = layout_of(checkpoint_folder, pool=pool)
    samples = SplitSamples(studies, Split.TRAIN, layout, silent)
    collate = Collator(samples, layout, images=True)
    kept = vision_features.frozen_features(loaded, samples, torch.float32, keep=True, progress=silent)
    items = [(index, index) for index in (0, 1, 2, 5, 8)]

    def losses(some: list[tuple[int, int]], features: Any) -> torch.Tensor:
        with torch.no_grad(), fused(model, adapters.paligemma(model).language_model, softcap=False):
            return forward(loaded, model, collate(some), features, torch.float32)[0]

    together = losses(items, kept)
    torch.testing.assert_close(together, torch.cat([losses([item], kept) for item in items]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together, losses(items, None), rtol=1e-5, atol=1e-5)  # the tower runs in the model
    assert not torch.allclose(losses([(2, 2)], kept)[:2], losses([(8, 8)], kept)[:2])  # the prior study differs


def test_prior_dropout_is_a_function_of_seed_and_position(studies: Any, checkpoint_folder: Path) -> None:
    layout = layout_of(checkpoint_folder)
    samples = SplitSamples(studies, Split.TRAIN, layout, silent)
    one, again, other = (Collator(samples, layout, images=True, prior_dropout=0.3, seed=seed) for seed in (3, 3, 4))
    shown = [one.shows_prior(position) for position in range(1000)]
    assert shown == [again.shows_prior(position) for position in range(1000)]
    assert shown != [other.shows_prior(position) for position in range(1000)]
    assert 0.25 < Counter(shown)[False] / 1000 < 0.35
    hidden = shown.index(False)
    batch = one([(hidden, 2), (shown.index(True), 2)])
    assert batch["pools"].tolist() == [1, 1, 2] and batch["index"].tolist()[0] == batch["index"].tolist()[1]
    suffix = batch["labels"][0][batch["labels"][0] >= 0].tolist()
    assert layout.decode(suffix) == layout.suffix(PLAIN)
    assert np.array_equal(batch["grey"][2].numpy(), studies.image("train-0"))


@pytest.mark.parametrize("targets", ["language", "language+projector+vision"])
def test_training_and_resumption(
    studies: Any, settings: Callable[..., TrainSettings], tmp_path: Path, targets: str
) -> None:
    """Kept features and pixels begin with the same loss, and a resumed run is the same run."""
    curves = {}
    for name, steps in (("whole", 4), ("halves", 2), ("halves", 4)):
        made = settings(
            output=tmp_path / name,
            prompt=PROMPT,
            prior_dropout=0.5,
            max_steps=4,
            eval_every=2,
            save_every=2,
            lora={"rank": 4, "alpha": 8, "dropout": 0.0, "targets": targets},
        )
        values: list[float] = []

        def log(metrics: dict[str, float], step: int, values: list[float] = values, most: int = steps) -> None:
            if step > most:
                raise KeyboardInterrupt
            values += [metrics["loss"]] if "loss" in metrics else []

        try:
            result = finetune.train(made, studies, log=log, progress=silent)
        except KeyboardInterrupt:
            result = None
        curves[name] = [*curves.get(name, []), *values]
    assert result is not None and result.resumed_at == 2
    assert curves["whole"] == pytest.approx(curves["halves"], abs=1e-6)
    from cxrreport.model.card import AdapterCard

    assert AdapterCard.read(result.adapter).prompt == PromptSettings.model_validate(PROMPT)


def test_settings_that_contradict_each_other_are_refused(settings: Callable[..., TrainSettings]) -> None:
    for prompt, said in (
        ({"prior": "image", "max_images": 2}, "max_images cannot be combined"),
        ({"pool": 2}, "no image to pool"),
        ({"pool": 2, "prior": "report"}, "no image to pool"),
    ):
        with pytest.raises(ValueError, match=said):
            PromptSettings.model_validate(prompt)
    with pytest.raises(ValueError, match="no prior study to drop"):
        settings(prior_dropout=0.1, prompt={"views": "frontal+lateral"})
