"""Shards on many machines: a Ray Data pipeline of actors that hold the model. The only importer of ray.

This process distributes the shards and writes their files, which are the same as without Ray. An actor that dies is
restarted and its shard is given to another one. If this process dies, re-run the same command to resume.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrreport.dataset import Manifest
from cxrreport.errors import CxrReportError, InferenceError, MissingExtraError, SettingsError
from cxrreport.inference.backends import load_model
from cxrreport.inference.selection import Similarity
from cxrreport.inference.shards import Row, row_from_json, row_to_json
from cxrreport.inference.worker import ShardTask, ShardWorker, in_shards, select_studies
from cxrreport.model.prompt import PromptLayout
from cxrreport.settings import GenerateSettings, PromptSettings, RaySettings


def run_on_ray(
    written: Mapping[int, Sequence[Row]],
    settings: GenerateSettings,
    prompt: PromptSettings,
    data: Path,
    similarity: Similarity | None = None,
) -> Iterator[tuple[int, list[Row]]]:
    """Generate the rows of shards, in the order in which they finish.

    Args:
        written: by number of each shard, the rows that an earlier run wrote.
        settings: settings of the generation, with their checkpoint.
        prompt: prompt settings of the adapter.
        data: ingest folder, under the same path on every machine.
        similarity: agreement of samples.

    Raises:
        MissingExtraError: ray is not installed.
        SettingsError: there is no cluster at the address.
        InferenceError: the pipeline fails.
        CxrReportError: an error of an actor.
    """
    if not written:
        return
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--ray", "ray") from error
    started = not ray.is_initialized()
    try:
        _connect(ray, settings.ray)
        actor = (settings.model_dump_json(), prompt.model_dump_json(), str(data.resolve()), similarity)
        yield from _stream_rows(ray, written, settings.ray, actor)
    finally:
        if started:
            ray.shutdown()


def _connect(ray: Any, settings: RaySettings) -> None:
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"address": settings.address, "log_to_driver": False, "logging_level": logging.WARNING}
    if settings.address == "local":
        # One CPU more than the actors need, for the data operators of Ray.
        cpus = int(settings.actors * settings.cpus + 1)
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 2**28}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"ray.address: no Ray cluster at {settings.address!r} ({type(error).__name__}); start one with "
            "'ray start --head', or set it to local to use this machine"
        ) from error


def _stream_rows(
    ray: Any, written: Mapping[int, Sequence[Row]], wanted: RaySettings, actor: tuple[Any, ...]
) -> Iterator[tuple[int, list[Row]]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    items = [{"index": index, "written": [row_to_json(row) for row in rows]} for index, rows in written.items()]
    # One block per shard, which is also what is repeated when an actor dies.
    made = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _Actor,
        fn_constructor_args=actor,
        compute=ray.data.ActorPoolStrategy(size=wanted.actors),
        num_cpus=wanted.cpus,
        num_gpus=wanted.gpus,
    )
    try:
        for row in made.iter_rows():
            yield int(row["index"]), [row_from_json(line) for line in row["rows"]]
    except ray.exceptions.RayError as error:
        raise _actor_error(error) from error


def _actor_error(error: BaseException) -> CxrReportError:
    """The `CxrReportError` that an actor raised; if there is none, an error about the pipeline."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, CxrReportError):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    return InferenceError(f"the Ray pipeline failed ({type(error).__name__}); re-run the same command to resume")


class _Actor:
    """A process that holds the model."""

    def __init__(self, settings_json: str, prompt_json: str, data: str, similarity: Similarity | None) -> None:
        settings = GenerateSettings.model_validate_json(settings_json)
        manifest = Manifest.open(Path(data))
        checkpoint = settings.checkpoint
        if checkpoint is None:
            raise SettingsError("checkpoint: Ray needs a checkpoint in the settings of the generation")
        local = settings.model_copy(update={"ray": RaySettings()})
        loaded = load_model(local, checkpoint, resolution=manifest.resolution)
        layout = PromptLayout(loaded.tokenizer, PromptSettings.model_validate_json(prompt_json), loaded.image_tokens)
        self._manifest = manifest
        self._shards = in_shards(select_studies(local, manifest, layout.settings), local.shard_size)
        self._worker = ShardWorker(local, loaded, layout, similarity)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        index, written = int(row["index"]), [row_from_json(line) for line in row["written"]]
        task = ShardTask(index, self._manifest, self._shards[index], written)
        lines: list[str] = []
        self._worker.run([task], lambda _: None, lambda _, rows: lines.extend(map(row_to_json, rows)))
        return {"index": index, "rows": lines}
