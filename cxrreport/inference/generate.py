"""The verb `generate`: a report for every study, nothing lost when it is stopped."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.errors import InputError, MismatchError, RefusedImage
from cxrreport.files import OutputFolder, atomic_path, output_folder, part_folder, parts_of
from cxrreport.inference.controls import other_patients
from cxrreport.inference.engine import Engine, Generated, Request
from cxrreport.inference.prompts import Prompt, boxes, draw, prompt
from cxrreport.inference.shards import Row, Shards, line
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import LeftOut, Prediction, Progress, Reason, Split, Study
from cxrreport.settings import GenerateSettings

if TYPE_CHECKING:
    from cxrreport.ingestion.manifest import Manifest

PHANTOMS_ONLY = (
    "This model has only seen phantoms, that is drawings made by this project. What it writes about a real radiograph "
    "means nothing."
)
"""Said wherever the project's own tiny checkpoint writes a report."""

VERB = "generate"

Images = tuple[npt.NDArray[np.uint8], ...]
"""uint8[R, R] each, of one study."""

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
    asked: list[Prompt | None] = [prompt(text) for text in settings.prompts] or [None]
    plan = _plan(settings, manifest, layout.settings.max_images)
    inputs = {
        "data": manifest.digest,
        "base": loaded.fingerprint,
        "adapter": provenance.get("adapter"),
        "prompt": layout.settings.model_dump(mode="json"),
        "softcap": loaded.softcap,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in ("cxrreport", "torch", "transformers")},
    }
    shards = Shards(
        folder.path / "shards",
        [study.study_id for study, _ in plan],
        size=settings.shard_size,
        texts=len(asked),
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
    engine = Engine(
        loaded,
        layout,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        decoding=settings.decoding,
        seed=settings.seed,
    )
    todo = [index for index in mine if not shards.complete(index)]
    resumed = total - sum(len(shards.plan[index]) for index in todo)
    done = resumed
    progress(done, total, "studies")
    blank = np.zeros((loaded.resolution,) * 2, np.uint8) if settings.control == "blank" else None

    def load(index: int) -> list[tuple[Study, tuple[str, ...], Images | LeftOut | list[Prediction]]]:
        """What a shard is made of: what an earlier run has already written, and the images of all else."""
        written: dict[str, list[Prediction]] = {}
        for row in shards.read(index) or ():
            if isinstance(row, Prediction):
                written.setdefault(row.study_id, []).append(row)
        first = index * settings.shard_size
        return [
            (
                study,
                ids,
                written.get(study.study_id)
                or ((blank,) * len(ids) if blank is not None else _images(manifest, study, ids)),
            )
            for study, ids in plan[first : first + settings.shard_size]
        ]

    for index, material in zip(todo, _ahead(load, todo), strict=True):
        requests = [
            Request(study_id=study.study_id, image=images[0], further=images[1:], report=study.report, prompt=one)
            for study, _, images in material
            if isinstance(images, tuple)
            for one in asked
        ]

        def tell(count: int, before: int = done) -> None:
            progress(before + count // len(asked), total, "studies")

        texts = iter(engine.generate(requests, tell))
        rows: list[Row] = []
        for study, ids, found in material:
            if isinstance(found, LeftOut):
                rows.append(found)
            elif isinstance(found, list):
                rows += found
            else:
                shown = () if blank is not None else ids
                rows += [_prediction(study, shown, next(texts), layout, manifest, settings) for _ in asked]
        shards.write(index, rows)
        done += len(material)
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
        batch_size=engine.batch_size,
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
    return summary


def _plan(settings: GenerateSettings, manifest: Manifest, most: int) -> list[tuple[Study, tuple[str, ...]]]:
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


def _images(manifest: Manifest, study: Study, image_ids: Sequence[str]) -> Images | LeftOut:
    images: Images = ()
    for image_id in image_ids:
        try:
            images += (manifest.image(image_id),)
        except InputError as error:
            reason = Reason(error.reason) if isinstance(error, RefusedImage) else Reason.IMAGE_MISSING
            source = manifest.images[image_id].source
            return LeftOut(source=source, study_id=study.study_id, reason=reason, detail=str(error))
    return images


def _ahead(load: Callable[[int], Any], indices: Sequence[int]) -> Iterator[Any]:
    """`load` of every index, in order, the next one already under way in a thread while one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="images") as pool:
        waiting = [pool.submit(load, index) for index in indices[:1]]
        for following in [*indices[1:], None]:
            if not waiting:
                return
            current = waiting.pop()
            if following is not None:
                waiting.append(pool.submit(load, following))
            yield current.result()


def _prediction(
    study: Study,
    image_ids: tuple[str, ...],
    one: Generated,
    layout: PromptLayout,
    manifest: Manifest,
    settings: GenerateSettings,
) -> Prediction:
    # An answer has no sections; its whole text is what there is.
    findings, impression = ("", "") if settings.prompts else layout.parse(one.text)
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
        boxes=boxes(one.text, source, resize=_resize(manifest)) if source else (),
    )


def _resize(manifest: Manifest) -> str:
    return str(manifest.preprocessing["resize"])


def _picture(manifest: Manifest, folder: Path, row: Prediction) -> None:
    """The boxes of a prediction as `<study>-<number>.png`, the number a hash of the prompt."""
    image_id = row.image_ids[0]
    picture = draw(manifest.image(image_id), manifest.images[image_id], row.boxes, resize=_resize(manifest))
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
            good.write_table(pa.Table.from_pylist([asdict(row) for row in predictions], good.schema))
            bad.write_table(pa.Table.from_pylist([asdict(row) for row in failed], bad.schema))
            for row in predictions:
                if picture is not None and row.boxes:
                    picture(row)
