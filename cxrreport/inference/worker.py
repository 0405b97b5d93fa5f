"""Predictions of one shard after another, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from cxrreport.dataset import Manifest
from cxrreport.errors import InputError, RefusedImage
from cxrreport.inference.baselines import other_patients
from cxrreport.inference.chat import ChatEngine, ChatLayout
from cxrreport.inference.decoding import Engine, Generated, Request
from cxrreport.inference.mix_prompts import Prompt, parse_boxes, parse_prompt
from cxrreport.inference.selection import Similarity, consensus, most_likely
from cxrreport.inference.shards import Row
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Exclusion, Prediction, Reason, Split, Study
from cxrreport.settings import GenerateSettings

Images = tuple[npt.NDArray[np.uint8], ...]
"""The images of one study, uint8[R, R] each."""

StudyInputs = tuple[Study, tuple[str, ...], Images | Exclusion | list[Prediction]]
"""A study, the ids of its images, and the images, the reason why they are missing, or predictions already written."""

ChosenStudy = tuple[Study, tuple[str, ...]]
"""A study and the ids of the images that the model reads for it."""

Unwritten = tuple[Study, tuple[str, ...], Images]
"""A study to predict, the ids of its images, and the images."""

Observe = Callable[[Prediction, Generated, tuple[str, ...]], None]
"""Receives a new prediction, what the engine returned for it, and the notes on its first image."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to be generated.

    Args:
        index: its number.
        manifest: has the images.
        studies: of the shard, in order.
        written: rows that an earlier run wrote.
    """

    index: int
    manifest: Manifest
    studies: Sequence[ChosenStudy]
    written: Sequence[Row] = ()


class ShardWorker:
    """Generates the rows of shards."""

    def __init__(
        self,
        settings: GenerateSettings,
        loaded: LoadedModel,
        layout: PromptLayout | ChatLayout,
        similarity: Similarity | None = None,
        observe: Observe | None = None,
    ) -> None:
        self._observe = observe
        self.engine: Engine | ChatEngine
        if isinstance(layout, ChatLayout):
            self.engine = ChatEngine(
                loaded, layout, batch_size=settings.batch_size, max_new_tokens=settings.max_new_tokens
            )
        else:
            self.engine = Engine(
                loaded,
                layout,
                batch_size=settings.batch_size,
                max_new_tokens=settings.max_new_tokens,
                decoding=settings.decoding,
                seed=settings.seed,
            )
        self._settings = settings
        self._layout = layout
        self._similarity = similarity
        self._prompts: list[Prompt | None] = [parse_prompt(text) for text in settings.prompts] or [None]
        self._blank = np.zeros((loaded.resolution,) * 2, np.uint8) if settings.baseline == "blank" else None

    def run(self, tasks: Iterable[ShardTask], done: Callable[[int], None]) -> Iterator[tuple[int, list[Row]]]:
        """Generate the rows of every task, in order. The next task is taken and its images are read in the meantime.

        Args:
            tasks: shards to generate.
            done: called with the number of finished studies of the current shard.
        """
        for task, inputs in _prefetch(self._load, tasks):
            yield task.index, self._rows(task, inputs, done)

    def _load(self, task: ShardTask) -> list[StudyInputs]:
        written: dict[str, list[Prediction]] = {}
        for row in task.written:
            if isinstance(row, Prediction):
                written.setdefault(row.study_id, []).append(row)
        return [
            (study, ids, written.get(study.study_id) or self._images(task.manifest, study, ids))
            for study, ids in task.studies
        ]

    def _images(self, manifest: Manifest, study: Study, image_ids: Sequence[str]) -> Images | Exclusion:
        if self._blank is not None:
            return (self._blank,) * len(image_ids)
        images: Images = ()
        for image_id in image_ids:
            try:
                images += (manifest.image(image_id),)
            except InputError as error:
                reason = Reason(error.reason) if isinstance(error, RefusedImage) else Reason.IMAGE_MISSING
                source = manifest.images[image_id].source
                return Exclusion(source=source, study_id=study.study_id, reason=reason, detail=str(error))
        return images

    def _rows(self, task: ShardTask, inputs: list[StudyInputs], done: Callable[[int], None]) -> list[Row]:
        unwritten = [(study, ids, found) for study, ids, found in inputs if isinstance(found, tuple)]
        predictions = iter(self._predictions(task.manifest, unwritten, done))
        rows: list[Row] = []
        for _, _, found in inputs:
            if isinstance(found, Exclusion):
                rows.append(found)
            else:
                rows += found if isinstance(found, list) else islice(predictions, len(self._prompts))
        return rows

    def _predictions(
        self, manifest: Manifest, inputs: Sequence[Unwritten], done: Callable[[int], None]
    ) -> list[Prediction]:
        """The predictions of every study, one per prompt, in their order."""
        samples = self._settings.samples
        requests = [
            Request(study_id=study.study_id, images=images, report=study.report, prompt=prompt, sample=sample)
            for study, _, images in inputs
            for prompt in self._prompts
            for sample in range(samples)
        ]
        texts = self.engine.generate(requests, lambda count: done(count // (len(self._prompts) * samples)))
        selected = iter(self._select([texts[start : start + samples] for start in range(0, len(texts), samples)]))
        return [
            self._prediction(manifest, study, () if self._blank is not None else ids, *next(selected))
            for study, ids, _ in inputs
            for _ in self._prompts
        ]

    def _select(self, groups: Sequence[Sequence[Generated]]) -> list[tuple[Generated, float | None]]:
        """One of the samples of each group, and its agreement with the others."""
        if self._similarity is None or self._settings.samples == 1:
            return [(group[most_likely(group)], None) for group in groups]
        reports = [[" ".join(filter(None, self._layout.parse(sample.text))) for sample in group] for group in groups]
        chosen = [consensus(*pair) for pair in zip(self._similarity(reports), groups, strict=True)]
        return [(group[index], agreement) for group, (index, agreement) in zip(groups, chosen, strict=True)]

    def _prediction(
        self,
        manifest: Manifest,
        study: Study,
        image_ids: tuple[str, ...],
        generated: Generated,
        agreement: float | None,
    ) -> Prediction:
        settings = self._settings
        confidence = generated.mean_logprob if settings.abstain_by == "logprob" else agreement
        # The answer to a prompt has no sections.
        findings, impression = ("", "") if settings.prompts else self._layout.parse(generated.text)
        source = manifest.images[image_ids[0]] if image_ids else None
        prediction = Prediction(
            study_id=study.study_id,
            patient_id=study.patient_id,
            image_ids=image_ids,
            image_sha256=generated.image_sha256,
            prompt=generated.prompt,
            text=generated.text,
            findings=findings,
            impression=impression,
            mean_logprob=generated.mean_logprob,
            min_logprob=generated.min_logprob,
            tokens=generated.tokens,
            finished=generated.finished,
            abstained=settings.abstain_below is not None
            and confidence is not None
            and confidence < settings.abstain_below,
            agreement=agreement,
            boxes=parse_boxes(generated.text, source, resize=resize_method(manifest)) if source else (),
        )
        if self._observe is not None:
            self._observe(prediction, generated, source.notes if source else ())
        return prediction


def select_studies(settings: GenerateSettings, manifest: Manifest, max_images: int) -> list[ChosenStudy]:
    """The studies of a run, ordered by id, each with the ids of the images that the model reads for it.

    Raises:
        InputError: the split has no study, or the baseline is not possible.
    """
    studies = manifest.studies(Split(settings.split) if settings.split else None)
    if not studies:
        where = f"split '{settings.split}'" if settings.split else "any split"
        raise InputError(
            f"{settings.input}: no study in {where}; set split to one that has studies, or to null for all"
        )
    images_of = {study.study_id: study.image_ids[:max_images] for study in studies}
    source = {study_id: study_id for study_id in images_of}
    if settings.baseline == "shuffled":
        # Over all studies of the split, so that `limit` does not change which image a study gets.
        source = other_patients(studies, seed=settings.seed)
    ordered = sorted(studies, key=lambda study: study.study_id)[: settings.limit]
    return [(study, images_of[source[study.study_id]]) for study in ordered]


def resize_method(manifest: Manifest) -> str:
    """How the images were made square: `squash` or `pad`."""
    return str(manifest.preprocessing["resize"])


def in_shards(studies: Sequence[ChosenStudy], size: int) -> list[Sequence[ChosenStudy]]:
    """The studies of each shard."""
    return [studies[start : start + size] for start in range(0, len(studies), size)]


def _prefetch(
    load: Callable[[ShardTask], list[StudyInputs]], tasks: Iterable[ShardTask]
) -> Iterator[tuple[ShardTask, list[StudyInputs]]]:
    """Take and load every task, in order, one ahead of its use in a thread."""
    remaining = iter(tasks)

    def following() -> tuple[ShardTask, list[StudyInputs]] | None:
        task = next(remaining, None)
        return None if task is None else (task, load(task))

    pool = ThreadPoolExecutor(1, thread_name_prefix="images")
    try:
        waiting = pool.submit(following)
        while (current := waiting.result()) is not None:
            waiting = pool.submit(following)
            yield current
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a task may be waiting for files that are still being read
