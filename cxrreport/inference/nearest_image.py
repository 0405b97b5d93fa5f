"""The baseline `nearest`: each study gets the report of the most similar training image.

A model that does not score above it may only be retrieving reports. Images are compared by the vision tower of the
checkpoint before fine-tuning: last hidden state, mean over the image tokens, cosine similarity. Among equals, the first
in the order of the manifest is used. Images of the same patient are excluded.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cxrreport.dataset import Manifest
from cxrreport.errors import InputError
from cxrreport.inference.read_ahead import ReadAhead
from cxrreport.inference.worker import Finish, Found, ShardTask, ShardWorker, known_rows
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout, pixel_values
from cxrreport.records import Prediction, Progress, Split, Study
from cxrreport.settings import GenerateSettings
from cxrreport.storage.atomic_files import atomic_path

CHUNK = 1024
"""Training images per file of features; an interruption loses at most one file."""

Features = npt.NDArray[np.float32]


class NearestImageWorker(ShardWorker):
    """Copies reports. Its predictions have no tokens, and log-probabilities of 0.

    Their `image_ids` are the (first) image of the study and the training image that the report belongs to. Features of
    training images are kept in files, so that memory does not grow with the number of images.

    `loaded` is the checkpoint before fine-tuning, and `layout` decides which sections are copied. `folder` holds the
    features and is removed when all tasks are done.

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
        super().__init__(settings, loaded, layout)
        self._manifest = manifest
        self._reports = layout
        self._loaded = loaded
        self._folder = folder
        self._progress = progress
        training = [study for study in manifest.studies(Split.TRAIN) if layout.suffix(study.report)]
        self._training = [(image_id, study) for study in training for image_id in study.image_ids]
        self._patients = np.array([study.patient_id for _, study in self._training], dtype=object)
        if not self._training:
            raise InputError(
                f"{settings.input}: baseline 'nearest' copies reports of the training split, which has no study with a "
                "report; ingest the training split too, or omit this baseline"
            )

    def run(self, tasks: Iterable[ShardTask], done: Callable[[int], None], finish: Finish) -> None:
        """As `ShardWorker.run`, after the features of the training images that are not on disk have been computed."""
        if tasks := list(tasks):
            self._write_training_features()
        with ReadAhead(self.read(tasks)) as ahead:
            while (loaded := ahead.take(wait=True)) is not None:
                task, found = loaded
                copies = iter(self._copies(task, found, done))
                finish(task.index, [row for one in found for row in known_rows(one) or [next(copies)]])
                done(0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, start: int) -> Path:
        return self._folder / f"{start // CHUNK:05d}.npy"

    def _write_training_features(self) -> None:
        total = len(self._training)
        for start in range(0, total, CHUNK):
            stop = min(start + CHUNK, total)
            if not self._file(start).exists():
                features = []
                for first in range(start, stop, self.engine.batch_size):
                    batch = self._training[first : min(first + self.engine.batch_size, stop)]
                    features.append(self._features([self._manifest.image(image_id) for image_id, _ in batch]))
                    self._progress(first + len(batch), total, "training images")
                with atomic_path(self._file(start)) as temporary:
                    np.save(temporary, np.concatenate(features))
            self._progress(stop, total, "training images")

    @torch.inference_mode()
    def _features(self, images: Sequence[npt.NDArray[np.uint8]]) -> Features:
        """Features of unit length, float32[images, width]."""
        pixels = pixel_values(images).to(self._loaded.device)
        tokens = self._loaded.model.get_image_features(pixels).last_hidden_state
        pooled = torch.nn.functional.normalize(tokens.float().mean(dim=1), dim=-1)
        features: Features = pooled.cpu().numpy()
        return features

    def _copies(self, task: ShardTask, found: Sequence[Found], done: Callable[[int], None]) -> list[Prediction]:
        """The predictions of the studies of which images were found."""
        inputs = [(*chosen, one) for chosen, one in zip(task.studies, found, strict=True) if isinstance(one, tuple)]
        copied: list[Prediction] = []
        for start in range(0, len(inputs), self.engine.batch_size):
            batch = inputs[start : start + self.engine.batch_size]
            features = self._features([images[0] for *_, images in batch])
            places = self._most_similar([study for study, *_ in batch], features)
            for (study, given, images), place in zip(batch, places, strict=True):
                copied.append(self._copy(study, given.image_ids[0], images[0], place))
            done(len(copied))
        return copied

    def _most_similar(self, studies: Sequence[Study], features: Features) -> list[int]:
        """Index of the most similar training image of another patient, for each study."""
        best = np.full(len(studies), -np.inf, np.float32)
        place = np.zeros(len(studies), np.int64)
        patients = np.array([study.patient_id for study in studies], dtype=object)[:, None]
        for start in range(0, len(self._training), CHUNK):
            training = np.load(self._file(start), mmap_mode="r")
            same_patient = self._patients[start : start + len(training)] == patients
            similarity = np.where(same_patient, -np.inf, features @ training.T)
            first = similarity.argmax(axis=1)
            highest = similarity[np.arange(len(studies)), first]
            better = highest > best
            place[better], best[better] = start + first[better], highest[better]
        if np.isinf(best).any():
            raise InputError(
                f"{self._settings.input}: baseline 'nearest' needs training images of another patient than the "
                "study's, and all training images are of one patient; ingest more patients, or omit this baseline"
            )
        return place.tolist()

    def _copy(self, study: Study, image_id: str, image: npt.NDArray[np.uint8], place: int) -> Prediction:
        source, example = self._training[place]
        text = self._reports.suffix(example.report)
        findings, impression = self._reports.parse(text)
        images = (image, self._manifest.image(source))
        return Prediction(
            study_id=study.study_id,
            patient_id=study.patient_id,
            image_ids=(image_id, source),
            image_sha256=tuple(hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in images),
            text=text,
            findings=findings,
            impression=impression,
            mean_logprob=0.0,
            min_logprob=0.0,
            tokens=0,
            finished=True,
        )
