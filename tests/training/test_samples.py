"""Samples, their order, and the refusal of the test split."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxrreport.errors import ManifestError, TrainingError
from cxrreport.model.checkpoints import load_tokenizer
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Report, Split
from cxrreport.settings import PromptSettings
from cxrreport.training import samples as data
from cxrreport.training.augmentation import Augmentation
from cxrreport.training.samples import Collator, RunOrder, SplitSamples


def silent(done: int, total: int, label: str) -> None:
    pass


@pytest.fixture
def layout(checkpoint_folder: Path) -> PromptLayout:
    return PromptLayout(load_tokenizer(checkpoint_folder), PromptSettings(max_suffix_tokens=5), 16)


def test_one_sample_per_image_with_counts(manifest: Any, layout: PromptLayout) -> None:
    manifest.reports = (*manifest.reports, Report(indication="cough"))
    samples = SplitSamples(manifest, Split.TRAIN, layout, silent)
    assert (len(samples), samples.without_text) == (9, 2)
    encoded = [samples.encoded(index) for index in range(len(samples))]
    assert samples.cut() == (0, sum(sample.suffix_cut for sample in encoded))
    assert samples.cut()[1] > 0
    assert all(len(sample.suffix) <= 5 and sample.suffix[-1] == layout.eos_id for sample in encoded)
    assert np.array_equal(samples.pixels(1), manifest.image("train-1"))


def test_the_test_split_is_refused(manifest: Any, layout: PromptLayout) -> None:
    with pytest.raises(TrainingError, match="cannot read the test split"):
        SplitSamples(manifest, Split.TEST, layout, silent)
    assert manifest.asked == []


def test_the_error_for_an_empty_split_names_split_and_sections(manifest: Any, layout: PromptLayout) -> None:
    manifest.sizes[Split.TRAIN] = 0
    with pytest.raises(TrainingError, match=r"train split holds no image .* findings, impression"):
        SplitSamples(manifest, Split.TRAIN, layout, silent)


def test_a_missing_image_is_an_error(manifest: Any, layout: PromptLayout) -> None:
    manifest.gone = {"train-4"}
    with pytest.raises(ManifestError, match="train-4"):
        SplitSamples(manifest, Split.TRAIN, layout, silent)


def test_large_splits_are_read_image_by_image(
    manifest: Any, layout: PromptLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "IN_MEMORY_BYTES", 1000)
    samples = SplitSamples(manifest, Split.TRAIN, layout, silent)
    assert manifest.asked == []
    samples.pixels(3)
    assert manifest.asked == ["train-3"]


def test_the_order_is_a_permutation_per_epoch_that_depends_on_the_seed() -> None:
    order = RunOrder(5, 12, seed=1)
    items = [order[i] for i in range(12)]
    assert [position for position, _ in items] == list(range(12))
    passes = [[sample for _, sample in items[start : start + 5]] for start in (0, 5)]
    assert all(sorted(p) == list(range(5)) for p in passes)
    assert passes[0] != passes[1]
    assert Counter(sample for _, sample in items).most_common()[-1][1] == 2
    again = RunOrder(5, 12, seed=1)
    assert again[7] == items[7]
    assert [RunOrder(5, 12, seed=2)[i] for i in range(12)] != items


def test_batches_hold_8_bit_images(manifest: Any, layout: PromptLayout) -> None:
    samples = SplitSamples(manifest, Split.TRAIN, layout, silent)
    batch = Collator(samples, layout, images=True)([(7, 2), (8, 0)])
    assert batch["grey"].dtype == torch.uint8
    assert batch["grey"].shape == (2, 224, 224)
    assert batch["index"].tolist() == [2, 0]
    assert batch["position"].tolist() == [7, 8]
    assert "grey" not in Collator(samples, layout, images=False)([(7, 2)])


def test_augmentation_is_small_and_deterministic_and_never_mirrors() -> None:
    image = np.zeros((224, 224), dtype=np.uint8)
    image[80:140, 30:90] = 200
    augment = Augmentation(224, seed=3)
    first, second = augment(image, 5), augment(image, 6)
    assert first.dtype == np.uint8
    assert first.shape == image.shape
    assert not np.array_equal(first, second)
    assert np.array_equal(Augmentation(224, seed=3)(image, 5), first)
    assert not np.array_equal(Augmentation(224, seed=4)(image, 5), first)
    for position in range(20):
        changed = augment(image, position).astype(float)
        left, right = changed[:, :112].sum(), changed[:, 112:].sum()
        assert left > 5 * right
        assert abs(changed - image).mean() < 25


def test_several_images_of_a_study_are_one_sample(manifest: Any, checkpoint_folder: Path) -> None:
    pairs = manifest.studies(Split.TRAIN)
    manifest.studies = lambda split: [
        dataclasses.replace(study, image_ids=(*study.image_ids, f"train-{i + 20}", f"train-{i + 40}")[: 1 + i % 3])
        for i, study in enumerate(pairs)
    ]
    settings = PromptSettings(max_images=2)
    layout = PromptLayout(load_tokenizer(checkpoint_folder), settings, 16)
    samples = SplitSamples(manifest, Split.TRAIN, layout, silent)
    assert len(samples) == 11
    assert [len(samples.images(index)) for index in range(11)] == [1, 2, 2, 1, 2, 2, 1, 2, 2, 1, 2]
    assert samples.image_ids[:4] == ["train-0", "train-1", "train-21", "train-2"]
    seen: list[int] = []

    def note(image: np.ndarray, place: int) -> np.ndarray:
        seen.append(place)
        return image

    batch = Collator(samples, layout, images=True, augment=note)([(5, 1), (6, 0)])
    assert seen == [10, 11, 12]  # every image of the run has its own place
    assert batch["index"].tolist() == [1, 2, 0]
    assert np.array_equal(batch["grey"][1].numpy(), manifest.image("train-21"))
    images = (batch["input_ids"] == layout.image_id).sum(1).tolist()
    assert images == [32, 16]
    first = batch["input_ids"][0][batch["attention_mask"][0] == 1].tolist()
    assert first[:32] == [layout.image_id] * 32  # all image tokens come before BOS
    assert first[32] == layout.bos_id
    one = SplitSamples(manifest, Split.TRAIN, PromptLayout(layout.tokenizer, PromptSettings(), 16), silent)
    assert len(one) == len(one.image_ids) == 21  # every image by itself
