"""Traces of generated reports, and readers' verdicts as feedback on them.

Which trace is that of which study is in a file beside the reports, because MLflow gets no ids of studies.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport import tracking
from cxrreport.errors import InputError
from cxrreport.settings import FeedbackSettings, TrackingSettings

if TYPE_CHECKING:
    from cxrreport.inference.decoding import Generated
    from cxrreport.records import Prediction

TRACES = "traces.jsonl"
"""File in the output folder of `generate`: study id and id of the trace, one JSON object a line."""
READERS = "readers.json"
"""File beside it: name of a reader to the number under which MLflow knows that reader."""


def tracer(
    run: tracking.Run, settings: TrackingSettings, folder: Path
) -> Callable[[Prediction, Generated, tuple[str, ...]], None]:
    """A function that logs a trace for each new prediction."""

    def trace(prediction: Prediction, generated: Generated, notes: tuple[str, ...]) -> None:
        started, ended = generated.times
        trace_id = run.trace(
            tracking.ReportTrace(
                started=started,
                ended=ended,
                tokens=prediction.tokens,
                facts={
                    **{name: getattr(prediction, name) for name in ("mean_logprob", "min_logprob")},
                    **{name: getattr(prediction, name) for name in ("finished", "abstained")},
                    "notes": ", ".join(notes),
                },
                inputs={"prompt": prediction.prompt} if settings.log_reports else {},
                outputs={"text": prediction.text} if settings.log_reports else {},
            )
        )
        with (folder / TRACES).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"study_id": prediction.study_id, "trace_id": trace_id}) + "\n")

    return trace


def feedback(settings: FeedbackSettings) -> dict[str, int]:
    """Attach the verdicts of readers to the traces of the reports that they judge.

    Returns:
        `reports` with feedback, `values` that were new or changed, and judged reports `without_trace`.

    Raises:
        InputError: the predictions have no traces, or a table cannot be read.
        TrackingError: the store cannot be reached, or does not have the traces.
    """
    from cxrreport.evaluation.agreement.ratings import VERDICTS, read_ratings
    from cxrreport.evaluation.evaluate import MAIN

    ratings = read_ratings(settings.verdicts, settings.key)
    file = settings.predictions / TRACES
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        traces = {line["study_id"]: str(line["trace_id"]) for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: no traces of these reports; generate them with --set tracking.traces=true"
        ) from error
    numbers = _reader_numbers(settings.predictions / READERS, ratings.readers)
    said: dict[tuple[str, str], dict[str, str | float]] = {}
    for outcome, reports in ratings.values.items():
        for (study, system), values in reports.items():
            for reader, value in values.items() if system == MAIN else ():
                shown = VERDICTS[int(value)] if outcome == "verdict" else value
                said.setdefault((study, f"reader {numbers[reader]}"), {})[outcome] = shown
    known = {place: values for place, values in said.items() if place[0] in traces}
    uri = tracking.tracking_uri(settings.tracking, settings.predictions)
    new = tracking.log_feedback(uri, [(traces[study], reader, values) for (study, reader), values in known.items()])
    judged = {study for study, _ in said}
    return {"reports": len(judged & traces.keys()), "values": new, "without_trace": len(judged - traces.keys())}


def _reader_numbers(file: Path, readers: Any) -> dict[str, int]:
    """Numbers for readers, the same whenever a reader's verdicts are read."""
    from cxrreport.storage.atomic_files import write_json

    numbers: dict[str, int] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for reader in readers:
        numbers.setdefault(reader, len(numbers) + 1)
    write_json(file, numbers)
    return numbers
