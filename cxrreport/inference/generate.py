"""The command `generate`: a report for every study, resumable after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cxrreport.dataset import Manifest, hide_input_name, key_version, recorded_input
from cxrreport.errors import MismatchError
from cxrreport.inference.backends import inputs_of, layout_of, load_model
from cxrreport.inference.chat.template import ChatLayout
from cxrreport.inference.completion import COMMAND, GenerateSummary, check_failures, finish, recorded_inputs
from cxrreport.inference.nearest_image import NearestImageWorker
from cxrreport.inference.preparation import GenerationInputs, image_settings, matching_settings, prepare_inputs
from cxrreport.inference.selection import Similarity
from cxrreport.inference.shards import Row, Shards
from cxrreport.inference.worker import Observe, ShardTask, ShardWorker, in_shards, select_studies
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Exclusion, Progress
from cxrreport.settings import GenerateSettings, IngestSettings
from cxrreport.storage.job_arrays import part_folder, parts_of
from cxrreport.storage.memory import release_unused_memory
from cxrreport.storage.output_folder import VOLATILE, OutputFolder, output_folder

if TYPE_CHECKING:
    from cxrreport.ingestion.summary import IngestSummary


def generate(
    settings: GenerateSettings,
    progress: Progress,
    *,
    run_id: str = "",
    log_inputs: Callable[[GenerationInputs, LoadedModel], None] | None = None,
    similarity: Similarity | None = None,
    resident: LoadedModel | None = None,
    log_ingested: Callable[[IngestSummary], None] | None = None,
    observe: Observe | None = None,
) -> GenerateSummary:
    """Generate reports for the studies of an ingest folder, of a folder of DICOM, or for one DICOM file.

    A folder of DICOM is ingested into `ingested` of the output folder, and reports are written meanwhile. Re-run the
    same command to resume. If it has finished, `update` takes in what is new in the folder.

    Args:
        settings: settings of the generation. The card of an adapter determines checkpoint, prompt and preprocessing.
            Without a card, a published checkpoint runs with soft-capping unless the settings say otherwise.
        progress: reports the files of an ingestion, and the studies.
        run_id: id of the tracked run, for `generate.json`.
        log_inputs: called with the inputs and the loaded model before texts are generated.
        similarity: agreement of samples, for `select: consensus` (`consensus.ReportSimilarity`).
        resident: the model of these settings if it is loaded already (`load_resident`).
        log_ingested: called when a folder of DICOM has been ingested.
        observe: called with every text that this run generates; not with Ray or for nearest images.

    Raises:
        CxrReportError: as `prepare_inputs`, `load_model` and `generate_predictions`.
    """
    where = part_folder(settings.output, settings.shard)
    version = key_version(settings, where, COMMAND)
    recorded = settings.model_dump(mode="json", exclude={"pseudonym_version"}) | recorded_input(settings, version)
    volatile = VOLATILE | {"batch_size"}
    opened = output_folder(where, command=COMMAND, settings=recorded, volatile=volatile)
    with hide_input_name(settings), opened as folder:
        inputs = prepare_inputs(settings, progress)
        if inputs.ingested is not None and log_ingested is not None:
            log_ingested(inputs.ingested)
        ingestion = inputs.ingestion if inputs.manifest is None else None
        new = 0
        if folder.finished and ingestion is not None and settings.shard is None:
            from cxrreport.ingestion.ingest import count_new_files

            new = count_new_files(ingestion)
            if new and settings.update:
                folder.update(finished=False)
        loaded = resident or load_model(inputs.settings, inputs.checkpoint, resolution=inputs.resolution)
        if log_inputs is not None:
            log_inputs(inputs, loaded)
        provenance: dict[str, Any] = {"run_id": run_id}
        if inputs.adapter_digest is not None:
            provenance["adapter"] = inputs.adapter_digest
        layout = layout_of(inputs.settings, loaded, inputs.prompt)
        given = (loaded, layout, provenance, progress, folder)
        if ingestion is not None:
            from cxrreport.inference.folder_input import generate_from_folder  # not needed for an ingest folder

            summary = generate_from_folder(
                inputs.settings, ingestion, *given, similarity=similarity, log_ingested=log_ingested, observe=observe
            )
            return replace(summary, new_files=0 if settings.update else new)
        manifest = inputs.manifest or Manifest.open(settings.input)
        provenance["data_digest"] = manifest.digest
        return generate_predictions(inputs.settings, manifest, *given, similarity, observe)


def load_resident(settings: GenerateSettings) -> tuple[LoadedModel, IngestSettings]:
    """Load the model of a generation that is run many times; also returns how its images are ingested.

    Args:
        settings: `input` of the ingestion is that of these settings, `output` a folder below theirs.

    Raises:
        CxrReportError: as `load_model`; SettingsError if neither checkpoint nor adapter is set.
    """
    checkpoint, prompt, card = matching_settings(settings)
    images = image_settings(settings, checkpoint, card, prompt)
    return load_model(settings, checkpoint, resolution=images.resolution), images


def generate_predictions(
    settings: GenerateSettings,
    manifest: Manifest,
    loaded: LoadedModel,
    layout: PromptLayout | ChatLayout,
    provenance: Mapping[str, Any],
    progress: Progress,
    folder: OutputFolder,
    similarity: Similarity | None = None,
    observe: Observe | None = None,
) -> GenerateSummary:
    """Write `predictions.parquet`, `predictions.jsonl`, `failed.parquet` and `generate.json` into an open folder.

    A finished folder is left unchanged. A study whose image cannot be read is a row of `failed.parquet`. A study with
    several images is described from the first ones, as many as the prompt settings allow. With `settings.shard`, the
    folder is that of a job array (`job_arrays.part_folder`), which the run without `shard` takes over.

    Args:
        settings: `input`, `checkpoint` and `adapter` are not read; `manifest` and `loaded` replace them.
        manifest: studies and images.
        loaded: checkpoint with its adapter.
        layout: prompt layout that the adapter was trained with.
        provenance: JSON values for `generate.json`. Its `adapter` identifies the adapter: predictions of different
            adapters are never mixed in one folder.
        progress: reports the studies.
        folder: the output folder.
        similarity: as for `generate`.
        observe: see `generate`.

    Raises:
        InputError: no study in the split, no readable image, or a baseline that is not possible.
        MismatchError: the images have another resolution than the checkpoint takes.
        InferenceError: memory does not suffice for one study, or the model's output is not finite.
        OutputError: the folder holds predictions from other inputs, cannot be written, or the disk is full.
    """
    if manifest.resolution != loaded.resolution:
        raise MismatchError(
            f"the images are {manifest.resolution} x {manifest.resolution} pixels, checkpoint '{loaded.name}' "
            f"takes {loaded.resolution} x {loaded.resolution}; ingest again with resolution: {loaded.resolution}"
        )
    start = time.monotonic()
    inputs = recorded_inputs(settings, manifest.digest, loaded, layout, provenance, similarity)
    studies = in_shards(select_studies(settings, manifest, inputs_of(layout)), settings.shard_size)
    shards = Shards(
        folder.path / "shards",
        [[study.study_id for study, _ in some] for some in studies],
        texts=max(1, len(settings.prompts)),
        inputs=inputs,
    )
    indices = range(len(studies))
    if settings.shard is not None:
        number, count = map(int, settings.shard.split("/"))
        indices = indices[number - 1 :: count]
        shards.study_ids = {index: shards.study_ids[index] for index in indices}
    total = sum(len(shards.study_ids[index]) for index in indices)
    if folder.finished:
        progress(total, total, "studies")
        return GenerateSummary(**folder.record["summary"])
    if settings.shard is None:
        for part in parts_of(folder, settings.output):
            shards.take_over(part / "shards")
    incomplete = [index for index in indices if not shards.complete(index)]
    resumed = total - sum(len(shards.study_ids[index]) for index in incomplete)
    done = resumed
    progress(done, total, "studies")
    written = {index: shards.read(index) or () for index in incomplete}
    failed = 0

    def write(index: int, rows: Sequence[Row]) -> None:
        nonlocal done, failed
        shards.write(index, rows)
        done += len(shards.study_ids[index])
        failed += sum(isinstance(row, Exclusion) for row in rows)
        check_failures(settings, failed, shards.folder)

    worker: ShardWorker | None = None
    if settings.ray.address is not None and isinstance(layout, PromptLayout):
        from cxrreport.inference.ray_pipeline import run_on_ray

        for index, rows in run_on_ray(written, settings, layout.settings, manifest.folder, similarity):
            write(index, rows)
            progress(done, total, "studies")
    else:
        release_unused_memory()
        if settings.baseline == "nearest" and isinstance(layout, PromptLayout):
            features = folder.path / "nearest"
            worker = NearestImageWorker(settings, manifest, loaded, layout, folder=features, progress=progress)
        else:
            worker = ShardWorker(settings, loaded, layout, similarity, observe)
        tasks = (ShardTask(index, manifest, studies[index], rows) for index, rows in written.items())
        worker.run(tasks, lambda count: progress(done + count, total, "studies"), write)
    return finish(
        settings,
        shards,
        loaded,
        folder,
        inputs=inputs,
        provenance=provenance,
        failed=[],
        manifest=manifest,
        resumed=resumed,
        batch_size=worker.engine.batch_size if worker is not None else 0,
        start=start,
    )
