"""The verb `generate`: a report for every study, nothing lost when it is stopped."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.errors import InputError, MismatchError
from cxrreport.inference.kv_cache import give_back
from cxrreport.inference.mix_prompts import draw
from cxrreport.inference.nearest_image import Nearest
from cxrreport.inference.shards import Row, Shards, line
from cxrreport.inference.worker import Task, Worker, plan, resize_of
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import LeftOut, Prediction, Progress
from cxrreport.settings import GenerateSettings
from cxrreport.storage import parquet as arrow
from cxrreport.storage.files import OutputFolder, atomic_path, output_folder, part_folder, parts_of, remove_parts

if TYPE_CHECKING:
    from cxrreport.dataset.manifest import Manifest

PHANTOMS_ONLY = (
    "This model has only seen phantoms, that is drawings made by this project. What it writes about a real radiograph "
    "means nothing."
)
"""Said wherever the project's own tiny checkpoint writes a report."""

VERB = "generate"

PREDICTIONS = pa.schema(
    [
        ("study_id", pa.string()),
        ("patient_id", pa.string()),
        ("image_ids", pa.list_(pa.string())),
        ("image_sha256", pa.list_(pa.string())),
        ("prompt", pa.string()),
        ("text", pa.string()),
        ("findings", pa.string()),
        ("impression", pa.string()),
        ("mean_logprob", pa.float64()),
        ("min_logprob", pa.float64()),
        ("tokens", pa.int32()),
        ("finished", pa.bool_()),
        ("abstained", pa.bool_()),
        (
            "boxes",
            pa.list_(
                pa.struct(
                    [
                        ("label", pa.string()),
                        *((edge, pa.float64()) for edge in ("top", "left", "bottom", "right")),
                    ]
                )
            ),
        ),
    ]
)
"""Schema of `predictions.parquet`: the fields of `records.Prediction`. What is the same for all rows stands in the
metadata of the file: `cxrreport.inputs` (fingerprints, data, prompt, versions) and `cxrreport.settings`, both JSON."""

FAILED = pa.schema(
    [("source", pa.string()), ("study_id", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""Schema of `failed.parquet`: the fields of `records.LeftOut`, as in the ledger of `ingest`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSummary:
    """What a run of `generate` came to.

    Args:
        studies: asked for.
        predictions: texts written, for each study one, or one for each prompt.
        failed: studies without any, listed in `failed.parquet`.
        unfinished: texts that reached the limit of new tokens before EOS.
        abstained: texts whose confidence is below the threshold.
        resumed: studies that an earlier run of the same command had done.
        batch_size: in the end; smaller than asked for when memory ran out.
        mean_logprob: mean over the predictions of their mean log-probability.
        seconds: of this run, loading of the model not counted.
        warning: to be shown with the reports, or None.
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
    manifest: Manifest,
    loaded: LoadedModel,
    layout: PromptLayout,
    provenance: Mapping[str, Any],
    progress: Progress,
    *,
    folder: OutputFolder | None = None,
) -> GenerateSummary:
    """Write `predictions.parquet`, `predictions.jsonl`, `failed.parquet` and `generate.json` into the output folder.

    The same command goes on where an earlier one was stopped, and does nothing where it was done. A study whose image
    cannot be read is a row of `failed.parquet`. A study is described from its first images, as many as the prompt says.
    With `settings.shard` every n-th shard is written into a folder of its own (`files.part_folder`), which the run
    without it takes over.

    Args:
        settings: `input`, `checkpoint` and `adapter` are not opened here; they are in `manifest` and `loaded`.
        manifest: studies and images.
        loaded: checkpoint with its adapter.
        layout: prompt, as the adapter was trained with.
        provenance: what the caller knows of the origin, as JSON values; stored in `generate.json`. `adapter` in it
            tells adapters apart: predictions of two do not mix in one folder.
        progress: told how many studies are done.
        folder: the output folder where the caller has already opened it.

    Raises:
        InputError: no study in the split, no image that can be read, or a control that is not possible.
        MismatchError: images of another resolution than the checkpoint's.
        InferenceError: memory does not suffice for one study, or the model's output is not finite.
        OutputError: the folder is in use, holds other predictions, cannot be written or the disk is full.
    """
    with ExitStack() as stack:
        if folder is None:
            where = part_folder(settings.output, settings.shard)
            folder = stack.enter_context(output_folder(where, verb=VERB, settings=settings.model_dump(mode="json")))
        if manifest.resolution != loaded.resolution:
            raise MismatchError(
                f"the images are {manifest.resolution} x {manifest.resolution} pixels, checkpoint '{loaded.name}' "
                f"takes {loaded.resolution} x {loaded.resolution}; ingest again with resolution: {loaded.resolution}"
            )
        return _generate(settings, manifest, loaded, layout, provenance, progress, folder)


def _generate(
    settings: GenerateSettings,
    manifest: Manifest,
    loaded: LoadedModel,
    layout: PromptLayout,
    provenance: Mapping[str, Any],
    progress: Progress,
    folder: OutputFolder,
) -> GenerateSummary:
    start = time.monotonic()
    studies = plan(settings, manifest, layout.settings.max_images)
    inputs = {
        "data": manifest.digest,
        "base": loaded.fingerprint,
        "adapter": provenance.get("adapter"),
        "prompt": layout.settings.model_dump(mode="json"),
        "softcap": loaded.softcap,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "engine": settings.engine,
        "quantize": settings.quantize,
        "versions": {
            name: version(name)
            for name in ("cxrreport", "torch", "transformers", *(["openvino"] * (settings.engine == "openvino")))
        },
    }
    shards = Shards(
        folder.path / "shards",
        [study.study_id for study, _ in studies],
        size=settings.shard_size,
        texts=max(1, len(settings.prompts)),
        inputs=inputs,
    )
    mine = range(len(shards.plan))
    if settings.shard is not None:
        number, count = map(int, settings.shard.split("/"))
        mine = mine[number - 1 :: count]
    total = sum(len(shards.plan[index]) for index in mine)
    if folder.finished:
        progress(total, total, "studies")
        return GenerateSummary(**folder.record["summary"])
    if settings.shard is None:
        for part in parts_of(folder, settings.output):
            shards.take_over(part / "shards")
    todo = [index for index in mine if not shards.complete(index)]
    resumed = total - sum(len(shards.plan[index]) for index in todo)
    done = resumed
    progress(done, total, "studies")
    tasks = [Task(index, shards.read(index) or ()) for index in todo]
    if settings.ray.address is not None:
        from cxrreport.inference import ray_pipeline as ray

        worker: Worker | None = None
        made = ray.run(tasks, settings, layout.settings, manifest.folder)
    else:
        give_back()
        if settings.control == "nearest":
            worker = Nearest(settings, manifest, loaded, layout, folder=folder.path / "nearest", progress=progress)
        else:
            worker = Worker(settings, manifest, loaded, layout)
        made = worker.run(tasks, lambda count: progress(done + count, total, "studies"))
    for index, rows in made:
        shards.write(index, rows)
        done += len(shards.plan[index])
        progress(done, total, "studies")

    counts = _Counts()
    if settings.shard is None:
        metadata = {"cxrreport.inputs": inputs, "cxrreport.settings": folder.record["settings"]}
        picture = partial(_picture, manifest, folder.path / "boxes") if settings.draw_boxes else None
        _collect(counts.of(shards.finished(mine)), folder.path, metadata, picture)
    else:
        for _ in counts.of(shards.finished(mine)):
            pass
    if not counts.predictions and counts.failed:
        raise InputError(
            f"{settings.input}: none of the images of {counts.failed} studies could be read; "
            f"see {folder.path / ('failed.parquet' if settings.shard is None else 'shards')} for the reasons"
        )
    summary = GenerateSummary(
        studies=total,
        predictions=counts.predictions,
        failed=counts.failed,
        unfinished=counts.unfinished,
        abstained=counts.abstained,
        resumed=resumed,
        batch_size=worker.engine.batch_size if worker is not None else settings.batch_size,
        mean_logprob=counts.logprob / max(1, counts.predictions),
        seconds=round(time.monotonic() - start, 3),
        warning=PHANTOMS_ONLY if loaded.synthetic else None,
    )
    folder.finish(
        summary=asdict(summary),
        inputs=inputs,
        checkpoint={"name": loaded.name, "revision": loaded.revision, "resolution": loaded.resolution},
        control=settings.control,
        provenance=dict(provenance),
        warning=summary.warning,
    )
    if settings.shard is None:
        remove_parts(settings.output, VERB)
    return summary


def _picture(manifest: Manifest, folder: Path, row: Prediction) -> None:
    """The boxes of a prediction as `<study>-<number>.png`, the number a hash of the prompt."""
    image_id = row.image_ids[0]
    picture = draw(manifest.image(image_id), manifest.images[image_id], row.boxes, resize=resize_of(manifest))
    # A study id comes from a file or a table, and may be anything.
    name = re.sub(r"[^\w.-]+", "_", row.study_id).strip(".")
    with atomic_path(folder / f"{name}-{hashlib.sha256(row.prompt.encode()).hexdigest()[:8]}.png") as temporary:
        picture.save(temporary)


@dataclass(slots=True)
class _Counts:
    """What the shards hold, added up."""

    predictions: int = 0
    failed: int = 0
    unfinished: int = 0
    abstained: int = 0
    logprob: float = 0.0
    """Sum of the mean log-probabilities."""

    def of(self, shards: Iterable[list[Row]]) -> Iterator[list[Row]]:
        """The same shards, counted as they pass."""
        for rows in shards:
            for row in rows:
                if isinstance(row, LeftOut):
                    self.failed += 1
                    continue
                self.predictions += 1
                self.unfinished += not row.finished
                self.abstained += row.abstained
                self.logprob += row.mean_logprob
            yield rows


def _collect(
    shards: Iterable[list[Row]],
    folder: Path,
    metadata: Mapping[str, Any],
    picture: Callable[[Prediction], None] | None,
) -> None:
    """All shards to the tables that the next verb reads, one shard in memory at a time."""
    texts = {"cxrreport.schema": "1"} | {name: json.dumps(value) for name, value in metadata.items()}
    with ExitStack() as stack:
        # Renamed in reverse: the table of predictions, by which the next verb knows the folder, comes last.
        table = stack.enter_context(atomic_path(folder / "predictions.parquet"))
        text = stack.enter_context(atomic_path(folder / "predictions.jsonl"))
        ledger = stack.enter_context(atomic_path(folder / "failed.parquet"))
        lines = stack.enter_context(text.open("w", encoding="utf-8"))
        good = stack.enter_context(pq.ParquetWriter(table, PREDICTIONS.with_metadata(texts)))
        bad = stack.enter_context(pq.ParquetWriter(ledger, FAILED.with_metadata(texts)))
        for rows in shards:
            predictions = [row for row in rows if isinstance(row, Prediction)]
            failed = [row for row in rows if isinstance(row, LeftOut)]
            lines.writelines(f"{line(row)}\n" for row in predictions)
            good.write_table(arrow.table([asdict(row) for row in predictions], good.schema))
            bad.write_table(arrow.table([asdict(row) for row in failed], bad.schema))
            for row in predictions:
                if picture is not None and row.boxes:
                    picture(row)
