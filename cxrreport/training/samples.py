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

from cxrreport.dataset import ImageRole, Manifest, PackedTexts, samples_of
from cxrreport.errors import TrainingError
from cxrreport.model.prompt import Batch, Encoded, PromptLayout
from cxrreport.records import Progress, Split
from cxrreport.settings import TrainSettings

IN_MEMORY_BYTES = 512 * 2**20
"""Decoded images of a split up to this size are kept in memory; larger splits are read image by image."""

_ROLES = tuple(ImageRole)

Augment = Callable[[npt.NDArray[np.uint8], int], npt.NDArray[np.uint8]]


class SplitSamples:
    """The samples of a split with their inputs and the report as token ids: one per image, or one per study with
    several images (`dataset.samples_of`).

    Texts are held in blocks that the processes of a data loader share, and become token ids when a batch needs them.
    As Python numbers, 377,000 samples take 2.4 GB in every process. A sample with a prior study has a second form
    without it, in which the report has no mentions of earlier studies.

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
        """Ids of the images of all samples, each once."""
        self._layout = layout
        self._prefixes, self._suffixes = PackedTexts(), PackedTexts()
        self._contexts, self._compared = PackedTexts(), PackedTexts()
        """For each text, what the prefix says of the prior study, and the report with its mentions of earlier ones."""
        self._text, self._first = array("i"), array("i", [0])
        self._images, self._roles = array("i"), array("b")
        places: dict[str, int] = {}
        self.without_text = 0
        prompt = layout.settings
        for study in source.each_study(split, priors=prompt.prior != "none"):
            suffix = layout.suffix(study.report)
            if not suffix:
                self.without_text += len(study.image_ids)
                continue
            self._prefixes.append(layout.prefix(study.report))
            self._suffixes.append(suffix)
            shown = None
            for sample in samples_of(study, source, prompt):
                shown = sample
                for image_id, role in zip(sample.image_ids, sample.roles, strict=True):
                    place = places.get(image_id, len(ids))
                    if place == len(ids):
                        ids.append(image_id)
                        if prompt.several_inputs:  # otherwise no image is in two samples
                            places[image_id] = place
                    self._images.append(place)
                    self._roles.append(_ROLES.index(role))
                self._text.append(len(self._suffixes) - 1)
                self._first.append(len(self._images))
            if prompt.several_inputs and shown is not None:
                self._contexts.append(layout.context((), shown.prior))
                self._compared.append(layout.suffix(shown.report) if shown.prior is not None else "")
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

    def images(self, index: int, *, show_prior: bool = True) -> list[int]:
        """The images of a sample, as places in `image_ids`."""
        return [self._images[at] for at, _ in self._shown(index, show_prior)]

    def encoded(self, index: int, *, show_prior: bool = True) -> Encoded:
        """The texts of a sample as token ids."""
        roles = [role for _, role in self._shown(index, show_prior)]
        return self._encode(self._text[index], roles, show_prior=show_prior)

    def _shown(self, index: int, show_prior: bool) -> list[tuple[int, ImageRole]]:
        """Place in `_images` and role of the images that a form of a sample has."""
        images = ((at, _ROLES[self._roles[at]]) for at in range(self._first[index], self._first[index + 1]))
        return [(at, role) for at, role in images if show_prior or role is not ImageRole.PRIOR]

    def _encode(self, text: int, roles: Sequence[ImageRole], *, show_prior: bool) -> Encoded:
        layout, context, suffix = self._layout, "", self._suffixes[text]
        if layout.settings.several_inputs:
            context = layout.context(roles, None)
            if show_prior:
                context, suffix = context + self._contexts[text], self._compared[text] or suffix
        return layout.encode_texts(self._prefixes[text], suffix, context, pools=layout.pools(roles))

    def cut(self) -> tuple[int, int]:
        """Numbers of samples with a truncated prefix, and with a truncated report (EOS is kept); encodes all."""
        samples = np.bincount(np.frombuffer(self._text, np.int32), minlength=len(self._suffixes))
        prefixes = suffixes = 0
        for text, count in enumerate(samples.tolist()):
            encoded = self._encode(text, (), show_prior=True)
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
        prior_dropout: probability that the prior study of a sample is not shown.
        seed: of `prior_dropout`, with the position in the run.
    """

    def __init__(
        self,
        samples: SplitSamples,
        layout: PromptLayout,
        *,
        images: bool,
        augment: Augment | None = None,
        prior_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.samples = samples
        self.layout = layout
        self.images = images
        self.augment = augment
        self._prior_dropout, self._seed = prior_dropout, seed
        self._most = layout.settings.images

    def __call__(self, items: Sequence[tuple[int, int]], suffixes: Sequence[tuple[int, ...]] | None = None) -> Batch:
        """The tensors of `PromptLayout.collate_training`; also `position` int64[B], and of the N images `index` and
        `pools` (`Encoded.pools`), int64[N].

        `suffixes`, token ids, take the place of the reports of the samples.

        With images also `grey` uint8[N, R, R]; pixels stay 8-bit until the forward pass, a quarter of float32.
        """
        samples = self.samples
        shown = [self.shows_prior(position) for position, _ in items]
        encoded = [samples.encoded(index, show_prior=one) for (_, index), one in zip(items, shown, strict=True)]
        if suffixes is not None:
            encoded = [replace(one, suffix=ids) for one, ids in zip(encoded, suffixes, strict=True)]
        batch = self.layout.collate_training(encoded)
        batch["position"] = torch.tensor([position for position, _ in items])
        images = [
            (image, position * self._most + place)
            for (position, index), one in zip(items, shown, strict=True)
            for place, image in enumerate(samples.images(index, show_prior=one))
        ]
        batch["index"] = torch.tensor([image for image, _ in images])
        batch["pools"] = torch.tensor([pool for one in encoded for pool in one.pools])
        if self.images:
            change = self.augment or (lambda image, _: image)
            batch["grey"] = torch.from_numpy(np.stack([change(samples.pixels(image), at) for image, at in images]))
        return batch

    def shows_prior(self, position: int) -> bool:
        """Whether the prior study of the sample at this position in the run is shown, if it has one."""
        if not self._prior_dropout:
            return True
        return float(np.random.default_rng((self._seed, position)).random()) >= self._prior_dropout


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
