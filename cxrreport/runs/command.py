"""What all commands share: the tracked run, the summary, and what is logged of both."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cxrreport import tracking
from cxrreport.dataset import HIDDEN_INPUT
from cxrreport.errors import InputError
from cxrreport.records import Progress
from cxrreport.settings import AgreementSettings, CommandSettings, GenerateSettings, IngestSettings, PullSettings
from cxrreport.storage.job_arrays import part_folder
from cxrreport.storage.run_progress import RecordedProgress

if TYPE_CHECKING:
    from cxrreport.dataset import Manifest

R = TypeVar("R")
_INPUTS = (
    "input",
    "reports",
    "data",
    "evaluation",
    "predictions",
    "references",
    "adapter",
    "sources",
    "documents",
    "studies",
)
"""Fields of settings that name what a command reads."""
_IDS = ("patient", "accession", "study", "description", "studies")
"""Fields of `PullSettings` that may name a patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Generic[R]):
    """The outcome of a command.

    Args:
        command: its name.
        output: folder or file that it wrote.
        seconds: wall time, including tracking.
        run_id: MLflow's id of the run; empty if nothing was tracked.
        tracking_uri: of the store that holds the run; empty if nothing was tracked.
        facts: the main numbers as JSON values; scores as `{value, low, high}`.
        warnings: what a reader needs to know to interpret the results.
        result: the complete result of the command.
    """

    command: str
    output: Path
    seconds: float
    run_id: str
    tracking_uri: str
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    result: R = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """All fields except `result`, as JSON values."""
        return {
            "command": self.command,
            "output": str(self.output),
            "seconds": round(self.seconds, 3),
            "run_id": self.run_id,
            "tracking_uri": self.tracking_uri,
            **self.facts,
            "warnings": list(self.warnings),
        }


@contextmanager
def tracked(command: str, settings: CommandSettings) -> Iterator[tuple[tracking.Run, Callable[..., Summary[Any]]]]:
    """Open the run of a command; yields it with a function that makes the summary from facts, result and warnings."""
    started = time.monotonic()
    output = settings.output
    check_inputs(settings)
    with tracking.start(command, without_input_name(settings), settings.tracking, output=output) as run:
        uri = tracking.without_password(tracking.tracking_uri(settings.tracking, output)) if run.run_id else ""

        def summarise(facts: Mapping[str, Any], result: Any, warnings: tuple[str, ...] = ()) -> Summary[Any]:
            return Summary(
                command=command,
                output=output,
                seconds=time.monotonic() - started,
                run_id=run.run_id,
                tracking_uri=uri,
                facts=facts,
                warnings=warnings,
                result=result,
            )

        yield run, summarise


def check_inputs(settings: CommandSettings) -> None:
    """Report a missing input at once, before libraries are loaded and a run is opened.

    Raises:
        InputError: a file or folder that the settings name as input does not exist.
    """
    for name in _INPUTS:
        path = getattr(settings, name, None)
        if isinstance(path, Path) and not path.exists():
            shown = name if getattr(without_input_name(settings), name) != path else f"{path}: {name}"
            description = type(settings).model_fields[name].description or ""
            raise InputError(f"{shown} does not exist; give: {description.split('. ')[0].rstrip('.')}")


def without_input_name(settings: CommandSettings) -> CommandSettings:
    """Settings as MLflow may show them: with pseudonyms, it gets neither the input nor anything made with the key.

    The path of one radiograph is not shown either, because its names often are ids, nor are files of verdicts, which
    are named after readers. Of a query of `pull` it gets dates and modalities.
    """
    if isinstance(settings, PullSettings):
        return settings.model_copy(update={name: "hidden" for name in _IDS if getattr(settings, name) is not None})
    if isinstance(settings, AgreementSettings):  # files of verdicts have the names of readers
        numbers = range(1, len(settings.verdicts) + 1)
        hidden = {
            "verdicts": tuple(Path(f"reader-{number}") for number in numbers),
            "key": settings.key and Path("hidden"),
        }
        return settings.model_copy(update=hidden)
    return settings.model_copy(update={name: Path(HIDDEN_INPUT[name]) for name in _hidden(settings)})


def _hidden(settings: CommandSettings) -> set[str]:
    """The settings that MLflow does not get."""
    if not isinstance(settings, (IngestSettings, GenerateSettings)):
        return set()
    if settings.pseudonymize is not None:
        return HIDDEN_INPUT.keys() & {name for name, value in settings if value is not None}
    from cxrreport.storage.tables import is_table  # loads pyarrow

    return {"input"} if settings.input.is_file() and not is_table(settings.input) else set()


def log_state(run: tracking.Run, path: Path, settings: IngestSettings | GenerateSettings) -> None:
    """Log a state file as an artifact, with the same settings as the run."""
    if not (hidden := _hidden(settings)):
        run.artifact(path)
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    record["settings"] |= {name: HIDDEN_INPUT[name] for name in hidden}
    run.text(path.name, json.dumps(record, indent=2, ensure_ascii=False))


def log_data(run: tracking.Run, manifest: Manifest, context: str) -> None:
    """Log an ingest folder as an input or output of the run."""
    run.dataset("manifest", manifest.digest, context, studies=manifest.count(), resolution=manifest.resolution)


def flat(facts: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers of nested facts, names joined by `/`; the `value` of a score has the name of the score."""
    numbers: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            below = flat(value)
            numbers |= {name if inner == "value" else f"{name}/{inner}": number for inner, number in below.items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            numbers[name] = float(value)
    return numbers


def phantoms(synthetic: bool) -> tuple[str, ...]:
    """The warning for models that have only seen phantoms."""
    return ("synthetic: made with models that have only seen phantoms",) if synthetic else ()


def recorded(command: str, settings: CommandSettings, progress: Progress | None) -> Progress:
    """Progress that `cxrreport status` can read in the output folder."""
    folder = part_folder(settings.output, getattr(settings, "shard", None))
    return RecordedProgress(command, folder, progress or silent)


def silent(_done: int, _total: int, _label: str) -> None:
    """Ignore progress."""


def first_process() -> bool:
    """True in the process that tracks and reports, of those that `torchrun` or `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"
