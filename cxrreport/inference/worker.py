"""Predictions of shards, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cxrreport.dataset import Manifest, ModelInput, model_input
from cxrreport.errors import InputError, RefusedImage
from cxrreport.inference.baselines import other_patients, with_images_of, with_other_priors
from cxrreport.inference.chat import ChatEngine, ChatLayout
from cxrreport.inference.decoding import Engine, Generated, Request, TextEngine
from cxrreport.inference.mix_prompts import Prompt, parse_boxes, parse_prompt
from cxrreport.inference.read_ahead import ReadAhead
from cxrreport.inference.selection import Similarity, consensus, most_likely
from cxrreport.inference.shards import Row
from cxrreport.model import capacity
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Exclusion, Prediction, Reason, Split, Study
from cxrreport.settings import GenerateSettings, PromptSettings

Images = tuple[npt.NDArray[np.uint8], ...]
"""The images of one study, uint8[R, R] each."""

Found = Images | Exclusion | list[Prediction]
"""The images of a study, the reason why they are missing, or predictions that were written before."""

ChosenStudy = tuple[Study, ModelInput]
"""A study and what the model reads for it."""

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


Finish = Callable[[int, list[Row]], None]
"""Receives the number of a shard and its rows when all of its texts have been generated."""

_READERS = 4
"""Threads that read images."""


@dataclass(frozen=True, slots=True)
class _OpenShard:
    """A shard whose texts are being generated.

    Args:
        task: the shard.
        rows: of each study, those that are known; `None` if its texts are being generated.
        first: number of its first request.
        count: number of its requests.
        texts: results by number of their request.
    """

    task: ShardTask
    rows: list[list[Row] | None]
    first: int
    count: int
    texts: dict[int, Generated] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.texts) == self.count


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
        self.engine: TextEngine
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
        self._one_queue = capacity.ONE_QUEUE[loaded.device.type]
        self._settings = settings
        self._layout = layout
        self._similarity = similarity
        self._prompts: list[Prompt | None] = [parse_prompt(text) for text in settings.prompts] or [None]
        self._blank = np.zeros((loaded.resolution,) * 2, np.uint8) if settings.baseline == "blank" else None

    def run(self, tasks: Iterable[ShardTask], done: Callable[[int], None], finish: Finish) -> None:
        """Generate the rows of every task.

        Images and prompts of a shard are read while the model works on the one before. On a GPU, slots that a shard
        leaves are given to the next one, and shards are complete in any order.

        Args:
            tasks: shards to generate; iterated in a thread.
            done: called with the number of finished studies of the shards that are not complete, after every text.
            finish: called with every complete shard, before `done`.
        """
        shards: list[_OpenShard] = []
        texts_per_study = len(self._prompts) * self._settings.samples

        def finish_complete() -> None:
            for shard in [shard for shard in shards if shard.complete]:
                shards.remove(shard)
                finish(shard.task.index, self._rows(shard))
            done(sum(len(shard.texts) // texts_per_study for shard in shards))

        with ReadAhead(self._prepared(tasks)) as ahead:
            taken = True

            def take(wait: bool) -> Sequence[Any] | None:
                nonlocal taken
                if taken and not self._one_queue:
                    return None
                if (loaded := ahead.take(wait)) is None:
                    return None
                taken = True
                shards.append(loaded[0])
                finish_complete()  # a shard may need no texts at all
                return loaded[1]

            while taken:
                taken = False
                with closing(self.engine.stream(take)) as texts:
                    for number, generated in texts:
                        shard = next(one for one in shards if one.first <= number < one.first + one.count)
                        shard.texts[number] = generated
                        finish_complete()

    def _prepared(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[_OpenShard, Sequence[Any]]]:
        """Every shard with the requests of its studies for the engine."""
        first = 0
        for task, found in self.read(tasks):
            requests = [
                Request.of(study.study_id, given, one, prompt=prompt, sample=sample)
                for (study, given), one in zip(task.studies, found, strict=True)
                if isinstance(one, tuple)
                for prompt in self._prompts
                for sample in range(self._settings.samples)
            ]
            shard = _OpenShard(task, [known_rows(one) for one in found], first, len(requests))
            yield shard, self.engine.prepare(requests, first=first)
            first += len(requests)

    def read(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, list[Found]]]:
        """Every task with what is found for its studies, by several threads."""
        pool = ThreadPoolExecutor(_READERS, thread_name_prefix="images")
        try:
            for task in tasks:
                written: dict[str, list[Prediction]] = {}
                for row in task.written:
                    if isinstance(row, Prediction):
                        written.setdefault(row.study_id, []).append(row)
                yield task, list(pool.map(partial(self._found, task, written), task.studies))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _found(self, task: ShardTask, written: Mapping[str, list[Prediction]], chosen: ChosenStudy) -> Found:
        study, given = chosen
        return written.get(study.study_id) or self._images(task.manifest, study, given.image_ids)

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

    def _rows(self, shard: _OpenShard) -> list[Row]:
        samples = self._settings.samples
        texts = [shard.texts[number] for number in range(shard.first, shard.first + shard.count)]
        selected = iter(self._select([texts[start : start + samples] for start in range(0, len(texts), samples)]))
        rows: list[Row] = []
        for (study, given), known in zip(shard.task.studies, shard.rows, strict=True):
            rows += (
                [self._prediction(shard.task.manifest, study, given, *next(selected)) for _ in self._prompts]
                if known is None
                else known
            )
        return rows

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
        given: ModelInput,
        generated: Generated,
        agreement: float | None,
    ) -> Prediction:
        settings = self._settings
        image_ids = () if self._blank is not None else given.image_ids
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
            prior_study_id=given.prior.study_id if given.prior is not None else "",
            boxes=parse_boxes(generated.text, source, resize=resize_method(manifest)) if source else (),
        )
        if self._observe is not None:
            self._observe(prediction, generated, source.notes if source else ())
        return prediction


def select_studies(settings: GenerateSettings, manifest: Manifest, prompt: PromptSettings) -> list[ChosenStudy]:
    """The studies of a run, ordered by id, each with what the model reads for it.

    Raises:
        InputError: the split has no study, or the baseline is not possible.
    """
    priors = prompt.prior != "none" or settings.baseline == "shuffled_prior"
    studies = manifest.studies(Split(settings.split) if settings.split else None, priors=priors)
    if not studies:
        where = f"split '{settings.split}'" if settings.split else "any split"
        raise InputError(
            f"{settings.input}: no study in {where}; set split to one that has studies, or to null for all"
        )
    if settings.baseline == "shuffled_prior":
        studies = with_other_priors(studies, seed=settings.seed)

    def given(study: Study) -> ModelInput:
        return model_input(study, manifest, prompt, show_prior=settings.baseline != "no_prior")

    chosen = [(study, given(study)) for study in sorted(studies, key=lambda study: study.study_id)[: settings.limit]]
    if settings.baseline == "shuffled":
        # Over all studies of the split, so that `limit` does not change which image a study gets.
        source, by_id = other_patients(studies, seed=settings.seed), {study.study_id: study for study in studies}
        chosen = [(study, with_images_of(own, given(by_id[source[study.study_id]]))) for study, own in chosen]
    return chosen


def resize_method(manifest: Manifest) -> str:
    """How the images were made square: `squash` or `pad`."""
    return str(manifest.preprocessing["resize"])


def in_shards(studies: Sequence[ChosenStudy], size: int) -> list[Sequence[ChosenStudy]]:
    """The studies of each shard."""
    return [studies[start : start + size] for start in range(0, len(studies), size)]


def known_rows(found: Found) -> list[Row] | None:
    """The rows of a study that needs no text; `None` if it needs one."""
    if isinstance(found, tuple):
        return None
    return [found] if isinstance(found, Exclusion) else [*found]
