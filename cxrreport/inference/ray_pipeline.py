"""Shards on many machines: a Ray Data pipeline of actors that hold the model. The only importer of ray.

This process plans the shards, hands their numbers out, and writes what comes back, so the ledger of shards is the same
as without Ray. An actor that dies is started again and its shard given to another; a driver that dies leaves whole
shards, and the same command goes on from them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cxrreport.dataset.manifest import Manifest
from cxrreport.errors import CxrReportError, InferenceError, MissingExtraError, SettingsError
from cxrreport.inference import backends as loading
from cxrreport.inference.shards import Row, line, parsed
from cxrreport.inference.worker import Task, Worker
from cxrreport.model.prompt import PromptLayout
from cxrreport.settings import GenerateSettings, PromptSettings, RaySettings


def run(
    tasks: Sequence[Task], settings: GenerateSettings, prompt: PromptSettings, data: Path
) -> Iterator[tuple[int, list[Row]]]:
    """The rows of every task, as they are finished.

    Args:
        tasks: shards to make.
        settings: of the generation, with its checkpoint.
        prompt: the adapter's.
        data: the ingest folder, under the same path on every machine.

    Raises:
        MissingExtraError: ray is not installed.
        InferenceError: there is no cluster at the address, or the pipeline fails.
        CxrReportError: what an actor raises.
    """
    if not tasks:
        return
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--ray", "ray") from error
    started = not ray.is_initialized()
    try:
        _connect(ray, settings.ray)
        yield from _rows(ray, tasks, settings, prompt, data)
    finally:
        if started:
            ray.shutdown()


def _connect(ray: Any, settings: RaySettings) -> None:
    if ray.is_initialized():
        return
    given: dict[str, Any] = {"address": settings.address, "log_to_driver": False, "logging_level": logging.WARNING}
    if settings.address == "local":
        # One CPU more than the actors take, for what Ray itself does with the data.
        cpus = int(settings.actors * settings.cpus + 1)
        given |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 2**28}
    try:
        ray.init(**given)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"ray.address: no Ray cluster at {settings.address!r} ({type(error).__name__}); start one with "
            "'ray start --head', or give local for one on this machine"
        ) from error


def _rows(
    ray: Any, tasks: Sequence[Task], settings: GenerateSettings, prompt: PromptSettings, data: Path
) -> Iterator[tuple[int, list[Row]]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    items = [{"index": task.index, "written": [line(row) for row in task.written]} for task in tasks]
    # A block for each shard: what is lost with an actor, and what is handed out.
    made = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _Actor,
        fn_constructor_args=(settings.model_dump_json(), prompt.model_dump_json(), str(data.resolve())),
        compute=ray.data.ActorPoolStrategy(size=settings.ray.actors),
        num_cpus=settings.ray.cpus,
        num_gpus=settings.ray.gpus,
    )
    try:
        for row in made.iter_rows():
            yield int(row["index"]), [parsed(text) for text in row["rows"]]
    except ray.exceptions.RayError as error:
        raise _cause(error) from error


def _cause(error: BaseException) -> CxrReportError:
    """The error of ours that an actor has raised, or one that says what Ray did."""
    found: BaseException | None = error
    while found is not None:
        inner = getattr(found, "cause", None) or found.__cause__
        if isinstance(found, CxrReportError):
            return found
        found = inner
    return InferenceError(f"the Ray pipeline failed ({type(error).__name__}); the same command goes on from its shards")


class _Actor:
    """A process that holds the model."""

    def __init__(self, settings: str, prompt: str, data: str) -> None:
        given = GenerateSettings.model_validate_json(settings)
        manifest = Manifest.open(Path(data))
        checkpoint = given.checkpoint
        if checkpoint is None:
            raise SettingsError("checkpoint: the pipeline was given none")
        alone = given.model_copy(update={"ray": RaySettings()})
        loaded = loading.load(alone, checkpoint, resolution=manifest.resolution)
        layout = PromptLayout(loaded.tokenizer, PromptSettings.model_validate_json(prompt), loaded.image_tokens)
        self._worker = Worker(alone, manifest, loaded, layout)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        task = Task(int(row["index"]), [parsed(text) for text in row["written"]])
        ((index, rows),) = self._worker.run([task], lambda _: None)
        return {"index": index, "rows": [line(one) for one in rows]}
