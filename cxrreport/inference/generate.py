"""The command `generate`: a report for every study, resumable after an interruption."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from cxrreport.dataset import Manifest, hide_input_name, key_version, recorded_input
from cxrreport.errors import InputError, MismatchError
from cxrreport.inference.backends import load_model
from cxrreport.inference.decoding.memory import release_unused_memory
from cxrreport.inference.nearest_image import NearestImageWorker
from cxrreport.inference.predictions import counted, write_picture, write_tables
from cxrreport.inference.preparation import GenerationInputs, image_settings, matching_settings, prepare_inputs
from cxrreport.inference.selection import Similarity
from cxrreport.inference.shards import Shards
from cxrreport.inference.worker import ShardTask, ShardWorker, select_studies
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Progress
from cxrreport.settings import GenerateSettings, IngestSettings
from cxrreport.storage.job_arrays import part_folder, parts_of, remove_parts
from cxrreport.storage.output_folder import OutputFolder, output_folder
from cxrreport.versions import installed

PHANTOMS_ONLY = (
    "This model has only seen phantoms, which are drawings made by this project. Its reports on real radiographs are "
    "meaningless."
)
"""Warning that accompanies every report of the project's own tiny checkpoint."""

COMMAND = "generate"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSummary:
    """Result of `generate`.

    Args:
        studies: studies of the run.
        predictions: generated texts; one per study, or one per study and prompt.
        failed: studies without a text, listed in `failed.parquet`.
        unfinished: texts that reached the limit of new tokens before EOS.
        abstained: texts whose confidence is below the threshold.
        resumed: studies that an earlier run of the same command had finished.
        batch_size: batch size at the end; below the requested one if memory ran out.
        mean_logprob: mean over the predictions of their mean log-probability.
        seconds: wall time of this run, without loading the model.
        warning: warning to be shown with the reports, or `None`.
    """

    studies: int
    predictions: int
    failed: int
    unfinished: int
    abstained: int
    resumed: int
    batch_size: int
    mean_logprob: float
    seconds: float
    warning: str | None


def generate(
    settings: GenerateSettings,
    progress: Progress,
    *,
    run_id: str = "",
    log_inputs: Callable[[GenerationInputs, LoadedModel], None] | None = None,
    similarity: Similarity | None = None,
    resident: LoadedModel | None = None,
) -> GenerateSummary:
    """Generate reports for the studies of an ingest folder, of a folder of DICOM, or for one DICOM file.

    A folder of DICOM is ingested first, into `ingested` of the output folder. Re-run the same command to resume.

    Args:
        settings: settings of the generation. The card of an adapter determines checkpoint, prompt and preprocessing.
            Without a card, a published checkpoint runs with soft-capping unless the settings say otherwise.
        progress: reports the files of an ingestion, then the studies.
        run_id: id of the tracked run, for `generate.json`.
        log_inputs: called with the inputs and the loaded model before texts are generated.
        similarity: agreement of samples, for `select: consensus` (`consensus.ReportSimilarity`).
        resident: the model of these settings if it is loaded already (`load_resident`).

    Raises:
        CxrReportError: as `prepare_inputs`, `load_model` and `generate_predictions`.
    """
    where = part_folder(settings.output, settings.shard)
    version = key_version(settings, where, COMMAND)
    recorded = settings.model_dump(mode="json", exclude={"pseudonym_version"}) | recorded_input(settings, version)
    with hide_input_name(settings), output_folder(where, command=COMMAND, settings=recorded) as folder:
        inputs = prepare_inputs(settings, progress)
        loaded = resident or load_model(inputs.settings, inputs.checkpoint, resolution=inputs.manifest.resolution)
        if log_inputs is not None:
            log_inputs(inputs, loaded)
        provenance: dict[str, Any] = {"run_id": run_id, "data_digest": inputs.manifest.digest}
        if inputs.adapter_digest is not None:
            provenance["adapter"] = inputs.adapter_digest
        layout = PromptLayout(loaded.tokenizer, inputs.prompt, loaded.image_tokens)
        return generate_predictions(
            inputs.settings, inputs.manifest, loaded, layout, provenance, progress, folder, similarity
        )


def load_resident(settings: GenerateSettings) -> tuple[LoadedModel, IngestSettings]:
    """Load the model of a generation that is run many times; also returns how its images are ingested.

    Args:
        settings: `input` of the ingestion is that of these settings, `output` a folder below theirs.

    Raises:
        CxrReportError: as `load_model`; SettingsError if neither checkpoint nor adapter is set.
    """
    checkpoint, _, card = matching_settings(settings)
    images = image_settings(settings, checkpoint, card)
    return load_model(settings, checkpoint, resolution=images.resolution), images


def generate_predictions(
    settings: GenerateSettings,
    manifest: Manifest,
    loaded: LoadedModel,
    layout: PromptLayout,
    provenance: Mapping[str, Any],
    progress: Progress,
    folder: OutputFolder,
    similarity: Similarity | None = None,
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
    inputs = _recorded_inputs(settings, manifest, loaded, layout, provenance)
    if similarity is not None:
        inputs["consensus"] = dict(similarity.conditions)
    shards = Shards(
        folder.path / "shards",
        [study.study_id for study, _ in select_studies(settings, manifest, layout.settings.max_images)],
        size=settings.shard_size,
        texts=max(1, len(settings.prompts)),
        inputs=inputs,
    )
    indices = range(len(shards.study_ids))
    if settings.shard is not None:
        number, count = map(int, settings.shard.split("/"))
        indices = indices[number - 1 :: count]
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
    tasks = [ShardTask(index, shards.read(index) or ()) for index in incomplete]
    worker: ShardWorker | None = None
    if settings.ray.address is not None:
        from cxrreport.inference.ray_pipeline import run_on_ray

        generated = run_on_ray(tasks, settings, layout.settings, manifest.folder, similarity)
    else:
        release_unused_memory()
        if settings.baseline == "nearest":
            features = folder.path / "nearest"
            worker = NearestImageWorker(settings, manifest, loaded, layout, folder=features, progress=progress)
        else:
            worker = ShardWorker(settings, manifest, loaded, layout, similarity)
        generated = worker.run(tasks, lambda count: progress(done + count, total, "studies"))
    for index, rows in generated:
        shards.write(index, rows)
        done += len(shards.study_ids[index])
        progress(done, total, "studies")

    counts: dict[str, Any] = {}
    finished = counted(shards.read_all(indices), counts)
    if settings.shard is None:
        metadata = {"cxrreport.inputs": inputs, "cxrreport.settings": folder.record["settings"]}
        draw = partial(write_picture, manifest, folder.path / "boxes") if settings.draw_boxes else None
        write_tables(finished, folder.path, metadata, draw)
    else:
        deque(finished, maxlen=0)
    if not counts["predictions"] and counts["failed"]:
        raise InputError(
            f"{settings.input}: none of the images of {counts['failed']} studies could be read; "
            f"see {folder.path / ('failed.parquet' if settings.shard is None else 'shards')} for the reasons"
        )
    summary = GenerateSummary(
        studies=total,
        **counts,
        resumed=resumed,
        batch_size=worker.engine.batch_size if worker is not None else settings.batch_size,
        seconds=round(time.monotonic() - start, 3),
        warning=PHANTOMS_ONLY if loaded.synthetic else None,
    )
    folder.finish(
        summary=asdict(summary),
        inputs=inputs,
        checkpoint={"name": loaded.name, "revision": loaded.revision, "resolution": loaded.resolution},
        baseline=settings.baseline,
        provenance=dict(provenance),
        warning=summary.warning,
    )
    if settings.shard is None:
        remove_parts(settings.output, COMMAND)
    return summary


def _recorded_inputs(
    settings: GenerateSettings,
    manifest: Manifest,
    loaded: LoadedModel,
    layout: PromptLayout,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the texts depend on besides the settings, as JSON values."""
    libraries = ["cxrreport", "torch", "transformers", *(["openvino"] * (settings.engine == "openvino"))]
    return {
        "data": manifest.digest,
        "base": loaded.fingerprint,
        "adapter": provenance.get("adapter"),
        "prompt": layout.settings.model_dump(mode="json"),
        "softcap": loaded.softcap,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "engine": settings.engine,
        "quantize": settings.quantize,
        "versions": installed(libraries),
    }
