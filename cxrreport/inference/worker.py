"""The rows of one shard after another: images in, predictions or reasons out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cxrreport.errors import InputError, RefusedImage
from cxrreport.inference.baselines import other_patients
from cxrreport.inference.engine import Engine, Generated, Request
from cxrreport.inference.mix_prompts import Prompt, boxes, prompt
from cxrreport.inference.shards import Row
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import LeftOut, Prediction, Reason, Split, Study
from cxrreport.settings import GenerateSettings

if TYPE_CHECKING:
    from cxrreport.dataset.manifest import Manifest

Images = tuple[npt.NDArray[np.uint8], ...]
"""uint8[R, R] each, of one study."""

Material = list[tuple[Study, tuple[str, ...], Images | LeftOut | list[Prediction]]]
"""Of one shard, for each study: the ids of its images, and these, or why there are none, or what is already written."""


@dataclass(frozen=True, slots=True)
class Task:
    """A shard that is to be made, and what an earlier run has already written of it."""

    index: int
    written: Sequence[Row] = ()


class Worker:
    """What makes the rows of shards; one in a process.

    Args:
        settings: as in `generate`.
        manifest: studies and images.
        loaded: checkpoint with its adapter.
        layout: prompt.
    """

    def __init__(
        self, settings: GenerateSettings, manifest: Manifest, loaded: LoadedModel, layout: PromptLayout
    ) -> None:
        self.engine = Engine(
            loaded,
            layout,
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            decoding=settings.decoding,
            seed=settings.seed,
        )
        self._settings = settings
        self._manifest = manifest
        self._layout = layout
        self._asked: list[Prompt | None] = [prompt(text) for text in settings.prompts] or [None]
        self._plan = plan(settings, manifest, layout.settings.max_images)
        self._blank = np.zeros((loaded.resolution,) * 2, np.uint8) if settings.control == "blank" else None

    def run(self, tasks: Sequence[Task], done: Callable[[int], None]) -> Iterator[tuple[int, list[Row]]]:
        """The rows of every task, in order; the images of the next one are read while one is worked on.

        Args:
            tasks: shards to make.
            done: told how many studies of the current shard are finished.
        """
        for task, material in zip(tasks, _ahead(self._load, tasks), strict=True):
            yield task.index, self._rows(material, done)

    def _load(self, task: Task) -> Material:
        """What a shard is made of: what an earlier run has already written, and the images of all else."""
        written: dict[str, list[Prediction]] = {}
        for row in task.written:
            if isinstance(row, Prediction):
                written.setdefault(row.study_id, []).append(row)
        first = task.index * self._settings.shard_size
        return [
            (study, ids, written.get(study.study_id) or self._images(study, ids))
            for study, ids in self._plan[first : first + self._settings.shard_size]
        ]

    def _images(self, study: Study, image_ids: Sequence[str]) -> Images | LeftOut:
        if self._blank is not None:
            return (self._blank,) * len(image_ids)
        images: Images = ()
        for image_id in image_ids:
            try:
                images += (self._manifest.image(image_id),)
            except InputError as error:
                reason = Reason(error.reason) if isinstance(error, RefusedImage) else Reason.IMAGE_MISSING
                source = self._manifest.images[image_id].source
                return LeftOut(source=source, study_id=study.study_id, reason=reason, detail=str(error))
        return images

    def _rows(self, material: Material, done: Callable[[int], None]) -> list[Row]:
        requests = [
            Request(study_id=study.study_id, image=images[0], further=images[1:], report=study.report, prompt=one)
            for study, _, images in material
            if isinstance(images, tuple)
            for one in self._asked
        ]
        texts = iter(self.engine.generate(requests, lambda count: done(count // len(self._asked))))
        rows: list[Row] = []
        for study, ids, found in material:
            if isinstance(found, LeftOut):
                rows.append(found)
            elif isinstance(found, list):
                rows += found
            else:
                shown = () if self._blank is not None else ids
                rows += [self._prediction(study, shown, next(texts)) for _ in self._asked]
        return rows

    def _prediction(self, study: Study, image_ids: tuple[str, ...], one: Generated) -> Prediction:
        settings, manifest = self._settings, self._manifest
        # An answer has no sections; its whole text is what there is.
        findings, impression = ("", "") if settings.prompts else self._layout.parse(one.text)
        source = manifest.images[image_ids[0]] if image_ids else None
        return Prediction(
            study_id=study.study_id,
            patient_id=study.patient_id,
            image_ids=image_ids,
            image_sha256=one.image_sha256,
            prompt=one.prompt,
            text=one.text,
            findings=findings,
            impression=impression,
            mean_logprob=one.mean_logprob,
            min_logprob=one.min_logprob,
            tokens=one.tokens,
            finished=one.finished,
            abstained=settings.abstain_below is not None and one.mean_logprob < settings.abstain_below,
            boxes=boxes(one.text, source, resize=resize_of(manifest)) if source else (),
        )


def plan(settings: GenerateSettings, manifest: Manifest, most: int) -> list[tuple[Study, tuple[str, ...]]]:
    """Studies in the order of their ids, each with the ids of the images that it is to be described from."""
    studies = manifest.studies(Split(settings.split) if settings.split else None)
    if not studies:
        where = f"split '{settings.split}'" if settings.split else "any split"
        raise InputError(
            f"{settings.input}: no study in {where}; set split to one that the data have, or to null for all"
        )
    images_of = {study.study_id: study.image_ids[:most] for study in studies}
    source = {study_id: study_id for study_id in images_of}
    if settings.control == "shuffled":
        # Over all studies of the split and before the limit, so that the limit does not change who gets which image.
        source = other_patients(studies, seed=settings.seed)
    ordered = sorted(studies, key=lambda study: study.study_id)[: settings.limit]
    return [(study, images_of[source[study.study_id]]) for study in ordered]


def resize_of(manifest: Manifest) -> str:
    """How the images were brought to a square: `squash` or `pad`."""
    return str(manifest.preprocessing["resize"])


def _ahead(load: Callable[[Task], Material], tasks: Sequence[Task]) -> Iterator[Material]:
    """`load` of every task, in order, the next one already under way in a thread while one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="images") as pool:
        waiting = [pool.submit(load, task) for task in tasks[:1]]
        for following in [*tasks[1:], None]:
            if not waiting:
                return
            current = waiting.pop()
            if following is not None:
                waiting.append(pool.submit(load, following))
            yield current.result()
