"""The frame around every verb: its tracked run, its summary, and what goes from both into MLflow."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cxrreport import tracking
from cxrreport.settings import (
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    GenerateSettings,
    IngestSettings,
    MergeSettings,
    ReviewSettings,
    TrainSettings,
)

if TYPE_CHECKING:
    from cxrreport.dataset import Manifest

R = TypeVar("R")
Verb = (
    IngestSettings
    | TrainSettings
    | MergeSettings
    | GenerateSettings
    | EvaluateSettings
    | CompareSettings
    | ExportSettings
    | ReviewSettings
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Generic[R]):
    """What a verb came to.

    Args:
        verb: its name.
        output: folder or file that it wrote.
        seconds: wall time, tracking included.
        run_id: MLflow's id of the run; empty when nothing was tracked.
        tracking_uri: of the store that holds the run; empty when nothing was tracked.
        facts: the numbers worth a look, as JSON values; scores as `{value, low, high}`.
        warnings: what the reader must know to read the results rightly.
        result: all that the verb itself returned.
    """

    verb: str
    output: Path
    seconds: float
    run_id: str
    tracking_uri: str
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    result: R = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Everything but `result`, as JSON values."""
        return {
            "verb": self.verb,
            "output": str(self.output),
            "seconds": round(self.seconds, 3),
            "run_id": self.run_id,
            "tracking_uri": self.tracking_uri,
            **self.facts,
            "warnings": list(self.warnings),
        }


@contextmanager
def tracked(verb: str, settings: Verb) -> Iterator[tuple[tracking.Run, Callable[..., Summary[Any]]]]:
    """The run of one verb, and what makes its summary from facts, result and warnings."""
    begun = time.monotonic()
    output = settings.output
    with tracking.start(verb, shown(settings), settings.tracking, output=output) as run:
        uri = tracking.without_password(tracking.tracking_uri(settings.tracking, output)) if run.run_id else ""

        def summarise(facts: Mapping[str, Any], result: Any, warnings: tuple[str, ...] = ()) -> Summary[Any]:
            return Summary(
                verb=verb,
                output=output,
                seconds=time.monotonic() - begun,
                run_id=run.run_id,
                tracking_uri=uri,
                facts=facts,
                warnings=warnings,
                result=result,
            )

        yield run, summarise


def shown(settings: Verb) -> Verb:
    """Settings as MLflow and state files may show them: where ids become pseudonyms, the input's name does too."""
    if not isinstance(settings, (IngestSettings, GenerateSettings)) or settings.pseudonymize is None:
        return settings
    from cxrreport.dataset import recorded_input

    hidden = {name: Path(value) for name, value in recorded_input(settings).items()}
    return settings.model_copy(update=hidden)


def log_data(run: tracking.Run, manifest: Manifest, context: str) -> None:
    """The data of an ingest folder, as an input of the run or its output."""
    run.dataset("manifest", manifest.digest, context, studies=len(manifest.studies()), resolution=manifest.resolution)


def flat(facts: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of nested facts, names joined by `/`; the `value` of a score under the score's own name."""
    numbers: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            below = flat(value)
            numbers |= {name if inner == "value" else f"{name}/{inner}": number for inner, number in below.items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            numbers[name] = float(value)
    return numbers


def phantoms(synthetic: bool) -> tuple[str, ...]:
    """The warning that goes with what only phantoms have taught."""
    return ("synthetic: made with models that have only seen phantoms",) if synthetic else ()


def silent(_done: int, _total: int, _label: str) -> None:
    """No one wants to know."""


def first_process() -> bool:
    """True in the one of several processes, started by `torchrun` or `accelerate launch`, that tracks and reports."""
    return os.environ.get("RANK", "0") == "0"


def sync(folder: Path, uri: str | None = None) -> int:
    """Send what runs with an output in `folder` could not send to MLflow; the number of runs.

    Raises:
        TrackingError: the store cannot be reached, or what lies here belongs to another one.
    """
    return tracking.sync(folder, uri)
