"""A folder of DICOM as the input of `generate`: its studies, portion by portion, while they are ingested."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from cxrreport.dataset import EXCLUSION_LOG, Manifest, model_input
from cxrreport.inference import INGESTED
from cxrreport.inference.backends import inputs_of
from cxrreport.inference.chat import ChatLayout
from cxrreport.inference.completion import GenerateSummary, check_failures, finish, recorded_inputs
from cxrreport.inference.preparation import nothing_kept
from cxrreport.inference.selection import Similarity
from cxrreport.inference.shards import Row, SavedPredictions, Shards
from cxrreport.inference.worker import ChosenStudy, Observe, ShardTask, ShardWorker
from cxrreport.ingestion.ingest import Followed, Portion, ingest
from cxrreport.ingestion.summary import IngestSummary, unread
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Exclusion, Prediction, Progress, Reason
from cxrreport.settings import GenerateSettings, IngestSettings, PromptSettings
from cxrreport.storage.job_arrays import part_folder, parts_folder
from cxrreport.storage.memory import release_unused_memory
from cxrreport.storage.output_folder import OutputFolder
from cxrreport.storage.parquet import read_columns


class _StoppedError(Exception):
    """The reports are not wanted any more."""


class FollowedIngest:
    """Ingests a folder in a thread within the block; at most one portion waits while another one is worked on.

    Args:
        generation: settings of `generate`.
        ingestion: settings for the folder.
        progress: called by the thread.
    """

    def __init__(self, generation: GenerateSettings, ingestion: IngestSettings, progress: Progress) -> None:
        output, shard = generation.output, generation.shard
        self.folder = part_folder(output, shard) / INGESTED
        self._settings, self._size, self._progress = ingestion, generation.shard_size, progress
        self._output = output
        self._saved: queue.Queue[Portion | None] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._summary: IngestSummary | None = None
        self._thread = threading.Thread(target=self._work, name="ingest", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def portions(self) -> Iterator[Portion]:
        """Every portion, in order.

        Raises:
            CxrReportError: the ingest failed; the portions before have been yielded.
        """
        while (portion := self._saved.get()) is not None:
            yield portion
        if self._error is not None and not self._stop.is_set():
            raise self._error

    @property
    def summary(self) -> IngestSummary:
        """Of the ingest, after the last portion."""
        if self._summary is None:
            raise RuntimeError("the ingest has not finished")
        return self._summary

    def _work(self) -> None:
        followed = Followed(each=self._hand_over, size=self._size, folder=self.folder, output=self._output)
        try:
            self._summary = ingest(self._settings, self._report, followed=followed)
        except BaseException as error:  # raised again where the portions are used
            self._error = error
        finally:
            self._hand_over(None)

    def _report(self, done: int, total: int, label: str) -> None:
        if self._stop.is_set():
            raise _StoppedError
        self._progress(done, total, f"ingesting {label}")

    def _hand_over(self, portion: Portion | None) -> None:
        while True:
            try:
                self._saved.put(portion, timeout=0.2)
                return
            except queue.Full:
                if self._stop.is_set():
                    if portion is None:
                        self._saved.get_nowait()  # make room for the end
                        continue
                    raise _StoppedError from None


def generate_from_folder(
    settings: GenerateSettings,
    ingestion: IngestSettings,
    loaded: LoadedModel,
    layout: PromptLayout | ChatLayout,
    provenance: dict[str, Any],
    progress: Progress,
    folder: OutputFolder,
    *,
    similarity: Similarity | None,
    log_ingested: Callable[[IngestSummary], None] | None,
    observe: Observe | None = None,
) -> GenerateSummary:
    """As `generate_predictions`, for the studies of a folder while they are ingested.

    A shard has the studies of one portion of the ingest. Predictions are kept while the images of their study are the
    same, whatever was added to the folder.
    """
    start = time.monotonic()
    inputs = recorded_inputs(settings, None, loaded, layout, provenance, similarity)
    texts = max(1, len(settings.prompts))
    shards = Shards(folder.path / "shards", [], inputs=inputs, texts=texts)
    if folder.finished:
        progress(1, 1, "studies")
        return GenerateSummary(**folder.record["summary"])
    jobs = _shard_folders(settings.output) if settings.shard is None else [settings.output / "shards"]
    saved = SavedPredictions([shards.folder, *jobs])
    failed: list[Exclusion] = []
    resumed = done = total = 0
    release_unused_memory()
    worker = ShardWorker(settings, loaded, layout, similarity, observe)
    with FollowedIngest(settings, ingestion, progress) as following:

        def tasks() -> Iterator[ShardTask]:
            nonlocal resumed, done, total
            for portion in following.portions():
                total = portion.total
                kept = {row.image.study_id for row in portion.rows}
                failed.extend(unread(portion.excluded, kept))
                check_failures(settings, len(failed), following.folder)
                done += len(portion.studies) - len(kept)
                if kept:
                    task = _task_of(portion, saved, prompt=inputs_of(layout), texts=texts)
                    shards.study_ids[task.index] = tuple(study.study_id for study, _ in task.studies)
                    resumed += len(task.written) // texts
                    yield task

        def report(count: int) -> None:
            progress(done + count, total, "studies")

        def write(index: int, rows: Sequence[Row]) -> None:
            nonlocal done
            if shards.read(index) != rows:
                shards.write(index, rows)
            done += len(shards.study_ids[index])

        worker.run(tasks(), report, write)
        ingested = following.summary
    if settings.shard is None:
        shards.remove_others()
        if not ingested.kept:
            raise nothing_kept(ingestion, ingested)
        failed += _files_without_study(ingestion.output / EXCLUSION_LOG)
    check_failures(settings, len(failed), following.folder)
    if log_ingested is not None:
        log_ingested(ingested)
    provenance["data_digest"] = ingested.digest
    manifest = Manifest.open(ingestion.output) if settings.draw_boxes and settings.shard is None else None
    return finish(
        settings,
        shards,
        loaded,
        folder,
        inputs=inputs | {"data": ingested.digest},
        provenance=provenance,
        failed=failed,
        manifest=manifest,
        resumed=resumed,
        batch_size=worker.engine.batch_size,
        start=start,
    )


def _files_without_study(path: Path) -> list[Exclusion]:
    """Files whose header could not be read; no portion has them."""
    log = read_columns(path).to_pylist()
    return unread((Exclusion(**row | {"reason": Reason(row["reason"])}) for row in log if not row["study_id"]), ())


def _task_of(portion: Portion, saved: SavedPredictions, *, prompt: PromptSettings, texts: int) -> ShardTask:
    """The studies of a portion that have images, with the predictions that were made of the same images before.

    Args:
        portion: of an ingest.
        saved: predictions of earlier runs.
        prompt: says what the model reads of a study.
        texts: predictions per study.
    """
    manifest = Manifest.of_rows(portion.folder, portion.rows, portion.preprocessing)
    studies: list[ChosenStudy] = [(study, model_input(study, manifest, prompt)) for study in manifest.each_study()]
    hashes = {row.image.image_id: row.image_sha256 for row in portion.rows}
    written: list[Prediction] = []
    for study, given in studies:
        ids = given.image_ids
        found = saved.of(study.study_id)
        if len(found) == texts and all(_is_of(one, ids, [hashes[image_id] for image_id in ids]) for one in found):
            written += found
    return ShardTask(portion.number, manifest, studies, written)


def _is_of(prediction: Prediction, image_ids: Sequence[str], hashes: Sequence[str]) -> bool:
    return prediction.image_ids == tuple(image_ids) and prediction.image_sha256 == tuple(hashes)


def _shard_folders(output: Path) -> Iterator[Path]:
    """Folders of the predictions that the jobs of an array have made."""
    return (path / "shards" for path in sorted(parts_folder(output).glob("*-of-*")))
