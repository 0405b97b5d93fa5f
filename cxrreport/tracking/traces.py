"""Traces of generated reports, and what readers say of them.

A trace has an id of our own choice, so that sending it twice is harmless. MLflow gets no text unless it is allowed.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_SPANS = 16
"""Hexadecimal digits of the id of a span; a trace has 32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTrace:
    """One report as a trace.

    Args:
        started: nanoseconds since 1970, when the model began to read the prompt.
        ended: nanoseconds since 1970, when the last token was written.
        tokens: number of generated tokens.
        facts: other numbers and words that describe the report, never its text.
        inputs: text that the model read, by name; empty unless text may be logged.
        outputs: text that it wrote, by name; empty unless text may be logged.
    """

    started: int
    ended: int
    tokens: int
    facts: Mapping[str, str | float | bool]
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def event(self, **where: str) -> dict[str, Any]:
        """The event of a spool that sends it, with a new id as `trace_id`."""
        return {"kind": "trace", "trace_id": f"tr-{uuid4().hex}", **where, **asdict(self)}


def send(client: MlflowClient, experiment_id: str, event: Mapping[str, Any], *, run_id: str = "") -> None:
    """Log the trace of an event of `ReportTrace`, with one span."""
    from mlflow.entities import Span, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.client import TracingClient

    trace_id, started, ended = event["trace_id"], event["started"], event["ended"]
    digits = trace_id.removeprefix("tr-")
    usage = json.dumps({"output_tokens": event["tokens"], "total_tokens": event["tokens"]})
    shown = {"tokens": event["tokens"], **event["facts"]}
    attributes = {"mlflow.traceRequestId": trace_id, "mlflow.spanType": "LLM", **shown}
    for side in ("inputs", "outputs"):
        if event[side]:
            attributes[f"mlflow.span{side.capitalize()}"] = event[side]
    span = Span.from_dict(
        {
            "trace_id": _encoded(digits),
            "span_id": _encoded(digits[:_SPANS]),
            "parent_span_id": "",
            "name": "report",
            "start_time_unix_nano": started,
            "end_time_unix_nano": ended,
            "status": {"code": "OK", "message": ""},
            "events": [],
            "attributes": {name: json.dumps(value) for name, value in attributes.items()},
        }
    )
    info = TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=started // 10**6,
        execution_duration=(ended - started) // 10**6,
        state=TraceState.OK,
        request_preview=json.dumps(event["inputs"]) if event["inputs"] else None,
        response_preview=json.dumps(event["outputs"] or shown),
        trace_metadata={"mlflow.trace.tokenUsage": usage} | ({"mlflow.sourceRun": run_id} if run_id else {}),
        tags={"mlflow.traceName": "report"} | {name: str(value).lower() for name, value in event["facts"].items()},
    )
    tracing = TracingClient(client.tracking_uri)
    tracing.start_trace(info)
    tracing.log_spans(experiment_id, [span])


def log_feedback(client: MlflowClient, trace_id: str, reader: str, values: Mapping[str, str | float]) -> int:
    """Attach what a reader says of a report to its trace; returns the number of values that were new or changed.

    Args:
        client: of the store that holds the trace.
        trace_id: id of the trace.
        reader: who says it, not by name.
        values: by name, for example `verdict`; a value of the same reader and name is replaced.
    """
    from mlflow.entities import AssessmentSource, AssessmentSourceType, Feedback
    from mlflow.tracing.client import TracingClient

    tracing = TracingClient(client.tracking_uri)
    source = AssessmentSource(source_type=AssessmentSourceType.HUMAN, source_id=reader)
    there = {
        one.name: one
        for one in tracing.get_trace_info(trace_id).assessments
        if one.source.source_id == reader and one.valid is not False
    }
    new = 0
    for name, value in values.items():
        before = there.get(name)
        if before is not None and before.feedback is not None and before.feedback.value == value:
            continue
        said = Feedback(name=name, value=value, source=source, overrides=before.assessment_id if before else None)
        tracing.log_assessment(trace_id, said)
        new += 1
    return new


def _encoded(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()
