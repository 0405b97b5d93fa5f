"""Training samples: the images and reports of one split, in a fixed order.

The order of a run depends only on the seed and the number of samples, so a resumed run needs no saved random state.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cxrreport.dataset import Manifest, PackedTexts
from cxrreport.errors import TrainingError
from cxrreport.model.prompt import Batch, Encoded, PromptLayout
from cxrreport.records import Progress, Split
from cxrreport.settings import TrainSettings

IN_MEMORY_BYTES = 512 * 2**20
"""Decoded images of a split up to this size are kept in memory; larger splits are read image by image."""

Augment = Callable[[npt.NDArray[np.uint8], int], npt.NDArray[np.uint8]]


class SplitSamples:
    """The samples of a split: one per image, or one per study with several images, with the report as token ids.

    Texts are held in blocks that the processes of a data loader share, and become token ids when a batch needs them.
    As Python numbers, 377,000 samples take 2.4 GB in every process.

    Args:
        source: the ingest folder.
        split: train or validate.
        layout: makes the token ids.
        progress: called while images are decoded.

    Raises:
        TrainingError: the split is the test split, or it holds no image with a report.
        ManifestError: an image of the manifest is gone or damaged.
    """

    def __init__(self, source: Manifest, split: Split, layout: PromptLayout, progress: Progress) -> None:
        if split is Split.TEST:
            raise TrainingError("training cannot read the test split; use the validate split")
        self.split = split
        self.source = source
        self.image_ids: Sequence[str] = (ids := PackedTexts())
        """Ids of the images of all samples."""
        self._layout = layout
        self._prefixes, self._suffixes = PackedTexts(), PackedTexts()
        self._text, self._first = array("i"), array("i", [0])
        most = layout.settings.max_images
        self.without_text = 0
        for study in source.each_study(split):
            suffix = layout.suffix(study.report)
            if not suffix:
                self.without_text += len(study.image_ids)
                continue
            self._prefixes.append(layout.prefix(study.report))
            self._suffixes.append(suffix)
            for chosen in [study.image_ids[:most]] if most > 1 else [(image_id,) for image_id in study.image_ids]:
                for image_id in chosen:
                    ids.append(image_id)
                self._text.append(len(self._suffixes) - 1)
                self._first.append(len(ids))
        if not self._text:
            sections = ", ".join(layout.settings.sections)
            raise TrainingError(
                f"the {split.value} split holds no image with a report ({self.without_text} images whose report has "
                f"none of the sections {sections}); ingest again with other data or set prompt.sections"
            )
        self._pixels: npt.NDArray[np.uint8] | None = None
        side = source.resolution
        if len(self.image_ids) * side * side <= IN_MEMORY_BYTES:
            self._pixels = np.empty((len(self.image_ids), side, side), dtype=np.uint8)
            for index, image_id in enumerate(self.image_ids):
                self._pixels[index] = source.image(image_id)
                progress(index + 1, len(self.image_ids), f"{split.value} images")

    def __len__(self) -> int:
        return len(self._text)

    def images(self, index: int) -> range:
        """The images of a sample, as places in `image_ids`."""
        return range(self._first[index], self._first[index + 1])

    def encoded(self, index: int) -> Encoded:
        """The texts of a sample as token ids."""
        return self._encode(self._text[index], len(self.images(index)))

    def _encode(self, text: int, images: int) -> Encoded:
        return self._layout.encode_texts(self._prefixes[text], self._suffixes[text], images=images)

    def cut(self) -> tuple[int, int]:
        """Numbers of samples with a truncated indication, and with a truncated report (EOS is kept); encodes all."""
        samples = np.bincount(np.frombuffer(self._text, np.int32), minlength=len(self._suffixes))
        prefixes = suffixes = 0
        for text, count in enumerate(samples.tolist()):
            encoded = self._encode(text, 1)
            prefixes += count * encoded.prefix_cut
            suffixes += count * encoded.suffix_cut
        return prefixes, suffixes

    def pixels(self, index: int) -> npt.NDArray[np.uint8]:
        """uint8[R, R] of one of `image_ids`."""
        if self._pixels is not None:
            image: npt.NDArray[np.uint8] = self._pixels[index]
            return image
        return self.source.image(self.image_ids[index])


class RunOrder(torch.utils.data.Dataset[tuple[int, int]]):
    """All samples of a run in order: item i is (i, index of the sample).

    Each epoch is a different permutation. A batch may span two epochs, so all batches are full and weigh the same.

    Args:
        samples: number of samples in the split.
        total: number of items, that is steps times samples per step.
        seed: of the run.
    """

    def __init__(self, samples: int, total: int, seed: int) -> None:
        self.samples = samples
        self.total = total
        self.seed = seed
        self._pass = -1
        self._permutation = torch.zeros(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, position: int) -> tuple[int, int]:
        number, offset = divmod(position, self.samples)
        if number != self._pass:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            self._permutation = torch.randperm(self.samples, generator=generator)
            self._pass = number
        return position, int(self._permutation[offset])


class Collator:
    """Makes a batch of items of `RunOrder`.

    Args:
        samples: the split.
        layout: pads.
        images: include pixels in the batch; False if cached features replace them.
        augment: changes an image; its position in the run is the seed.
    """

    def __init__(
        self, samples: SplitSamples, layout: PromptLayout, *, images: bool, augment: Augment | None = None
    ) -> None:
        self.samples = samples
        self.layout = layout
        self.images = images
        self.augment = augment
        self._most = layout.settings.max_images

    def __call__(self, items: Sequence[tuple[int, int]], suffixes: Sequence[tuple[int, ...]] | None = None) -> Batch:
        """The tensors of `PromptLayout.collate_training`, `position` int64[B], and `index` int64[N] of the N images.

        `suffixes`, token ids, take the place of the reports of the samples.

        With images also `grey` uint8[N, R, R]; pixels stay 8-bit until the forward pass, a quarter of float32.
        """
        samples = self.samples
        encoded = [samples.encoded(index) for _, index in items]
        if suffixes is not None:
            encoded = [replace(one, suffix=ids) for one, ids in zip(encoded, suffixes, strict=True)]
        batch = self.layout.collate_training(encoded)
        batch["position"] = torch.tensor([position for position, _ in items])
        images = [
            (image, position * self._most + place)
            for position, index in items
            for place, image in enumerate(samples.images(index))
        ]
        batch["index"] = torch.tensor([image for image, _ in images])
        if self.images:
            change = self.augment or (lambda image, _: image)
            batch["grey"] = torch.from_numpy(np.stack([change(samples.pixels(image), at) for image, at in images]))
        return batch


def run_batches(
    collate: Collator, settings: TrainSettings, *, first_step: int, steps: int, rank: int, processes: int
) -> torch.utils.data.DataLoader[Any]:
    """The batches of this process for the steps `first_step + 1` to `steps`.

    Args:
        collate: of the training split.
        settings: `batch_size`, `accumulation`, `seed` and `workers`.
        first_step: completed steps.
        steps: of the whole run.
        rank: of this process; it takes every `processes`-th batch.
        processes: number of processes.
    """
    size, accumulation = settings.batch_size, settings.accumulation
    order = RunOrder(len(collate.samples), steps * size * accumulation, settings.seed)
    numbers = range(first_step * accumulation + rank, steps * accumulation, processes)
    batches = (list(range(number * size, (number + 1) * size)) for number in numbers)
    return torch.utils.data.DataLoader(order, batch_sampler=batches, collate_fn=collate, num_workers=settings.workers)
