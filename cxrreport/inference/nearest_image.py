"""The control `nearest`: each study gets the report that was written for the training image most like its own.

It says how far copying gets: a model that does not beat it has learnt to look things up. Images are compared by the
vision tower of the bare checkpoint: its last hidden state, mean over the image tokens, cosine similarity (of equals,
the first in the order of the manifest). Images of the study's own patient do not count.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from cxrreport.errors import InputError
from cxrreport.inference.shards import Row
from cxrreport.inference.worker import Material, Task, Worker
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout, pixel_values
from cxrreport.records import LeftOut, Prediction, Progress, Split, Study
from cxrreport.settings import GenerateSettings
from cxrreport.storage.files import atomic_path

if TYPE_CHECKING:
    from cxrreport.dataset.manifest import Manifest

CHUNK = 1024
"""Training images whose features make one file: what is lost at most when the run is stopped."""

Features = npt.NDArray[np.float32]


class Nearest(Worker):
    """A worker that copies reports. Its predictions hold no tokens, and log-probabilities of 0.

    Their `image_ids` are the study's image (with several, the first), and the training image whose report it is.
    Features of the training images wait in files while it works: memory does not grow with their number.

    Args:
        settings: as in `generate`; `batch_size` images go through the tower at once.
        manifest: studies and images.
        loaded: the bare checkpoint.
        layout: decides which sections are copied.
        folder: for the features; removed when all tasks are done.
        progress: told about the training images.

    Raises:
        InputError: there is no training image with a report.
    """

    def __init__(
        self,
        settings: GenerateSettings,
        manifest: Manifest,
        loaded: LoadedModel,
        layout: PromptLayout,
        *,
        folder: Path,
        progress: Progress,
    ) -> None:
        super().__init__(settings, manifest, loaded, layout)
        self._loaded = loaded
        self._folder = folder
        self._progress = progress
        training = [study for study in manifest.studies(Split.TRAIN) if layout.suffix(study.report)]
        self._training = [(image_id, study) for study in training for image_id in study.image_ids]
        self._patients = np.array([study.patient_id for _, study in self._training], dtype=object)
        if not self._training:
            raise InputError(
                f"{settings.input}: control 'nearest' copies reports of the training split, and no study there has "
                "one; ingest the training split too, or leave this control out"
            )

    def run(self, tasks: Sequence[Task], done: Callable[[int], None]) -> Iterator[tuple[int, list[Row]]]:
        """As `Worker.run`, after the features of the training images, of which finished files are kept."""
        if tasks:
            self._read_training()
        yield from super().run(tasks, done)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, start: int) -> Path:
        return self._folder / f"{start // CHUNK:05d}.npy"

    def _read_training(self) -> None:
        total = len(self._training)
        for start in range(0, total, CHUNK):
            stop = min(start + CHUNK, total)
            if not self._file(start).exists():
                found = []
                for first in range(start, stop, self._settings.batch_size):
                    some = self._training[first : min(first + self._settings.batch_size, stop)]
                    found.append(self._features([self._manifest.image(image_id) for image_id, _ in some]))
                    self._progress(first + len(some), total, "training images")
                with atomic_path(self._file(start)) as temporary:
                    np.save(temporary, np.concatenate(found))
            self._progress(stop, total, "training images")

    @torch.inference_mode()
    def _features(self, images: Sequence[npt.NDArray[np.uint8]]) -> Features:
        """float32[images, width] of length 1."""
        pixels = pixel_values(images).to(self._loaded.device)
        tokens = self._loaded.model.get_image_features(pixels).last_hidden_state
        pooled = torch.nn.functional.normalize(tokens.float().mean(dim=1), dim=-1)
        features: Features = pooled.cpu().numpy()
        return features

    def _rows(self, material: Material, done: Callable[[int], None]) -> list[Row]:
        size = self._settings.batch_size
        asked = [(study, ids[0], found[0]) for study, ids, found in material if isinstance(found, tuple)]
        copied: dict[str, Prediction] = {}
        for start in range(0, len(asked), size):
            some = asked[start : start + size]
            places = self._most_alike([study for study, _, _ in some], self._features([image for *_, image in some]))
            for (study, image_id, image), place in zip(some, places, strict=True):
                copied[study.study_id] = self._copy(study, image_id, image, place)
            done(len(copied))
        rows: list[Row] = []
        for study, _, found in material:
            if isinstance(found, list):
                rows += found
            else:
                rows.append(found if isinstance(found, LeftOut) else copied[study.study_id])
        return rows

    def _most_alike(self, studies: Sequence[Study], features: Features) -> list[int]:
        """For each study, which of the training images is nearest."""
        best = np.full(len(studies), -np.inf, np.float32)
        place = np.zeros(len(studies), np.int64)
        own = np.array([study.patient_id for study in studies], dtype=object)[:, None]
        for start in range(0, len(self._training), CHUNK):
            known = np.load(self._file(start), mmap_mode="r")
            alike = np.where(self._patients[start : start + len(known)] == own, -np.inf, features @ known.T)
            first = alike.argmax(axis=1)
            highest = alike[np.arange(len(studies)), first]
            nearer = highest > best
            place[nearer], best[nearer] = start + first[nearer], highest[nearer]
        if np.isinf(best).any():
            raise InputError(
                f"{self._settings.input}: control 'nearest' needs training images of another patient than the study's, "
                "and all are of one; ingest more patients, or leave this control out"
            )
        return place.tolist()

    def _copy(self, study: Study, image_id: str, image: npt.NDArray[np.uint8], place: int) -> Prediction:
        source, example = self._training[place]
        text = self._layout.suffix(example.report)
        findings, impression = self._layout.parse(text)
        seen = (image, self._manifest.image(source))
        return Prediction(
            study_id=study.study_id,
            patient_id=study.patient_id,
            image_ids=(image_id, source),
            image_sha256=tuple(hashlib.sha256(one.tobytes()).hexdigest() for one in seen),
            text=text,
            findings=findings,
            impression=impression,
            mean_logprob=0.0,
            min_logprob=0.0,
            tokens=0,
            finished=True,
        )
