"""A fine-tuned model as an MLflow model, which can be served over HTTP.

The model contains the adapter, the code of this package and the settings. The base checkpoint is a reference, which the
serving machine resolves as every command does. A request is a table with one study per row (`rows`).

Besides `tracking`, this package is the only importer of mlflow: a pyfunc model is a subclass of a class of MLflow.
Nothing is pickled; MLflow runs a few lines of code to load the model.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel
from mlflow.pyfunc.scoring_server import _SERVER_MODEL_PATH
from mlflow.types import ColSpec, DataType, Schema

from cxrreport import tracking
from cxrreport.errors import CxrReportError, InputError, SettingsError
from cxrreport.inference.completion import PHANTOMS_ONLY
from cxrreport.inference.decoding import Engine, Generated
from cxrreport.model import adapters, checkpoints
from cxrreport.model.card import AdapterCard
from cxrreport.model.prompt import PromptLayout
from cxrreport.request_limits import limit_requests
from cxrreport.serving.rows import COLUMNS, RowReader, files_of, table_rows

logger = logging.getLogger(__name__)

TRACES = "CXRREPORT_SERVING_TRACES"
"""Environment variable of the server: the experiment for a trace of each report; none without it."""
TRACE_TEXT = "CXRREPORT_SERVING_TRACE_TEXT"
"""Environment variable of the server: 1 to add indication and report to the traces."""
_EXPECTED = f"send JSON with the key dataframe_records or dataframe_split: a table of {', '.join(COLUMNS)}"
SIGNATURE = ModelSignature(
    outputs=Schema(
        [
            *(ColSpec(DataType.string, name) for name in ("findings", "impression", "text")),
            *(ColSpec(DataType.double, name) for name in ("mean_logprob", "min_logprob")),
            ColSpec(DataType.boolean, "finished"),
            *(ColSpec(DataType.string, name) for name in ("notes", "warning")),
        ]
    ),
)


class ReportModel(PythonModel):
    """Generates reports for radiographs; the settings are the `model_config` of the MLflow model."""

    def load_context(self, context: Any) -> None:
        """Load checkpoint and adapter.

        Raises:
            CxrReportError: the checkpoint is missing, or not the one that the adapter was trained on.
        """
        # MLflow repeats a body that it cannot parse in its answer, which proxies and clients log.
        MlflowException.serialize_as_json = _without_request  # type: ignore[method-assign]
        folder = Path(context.artifacts["adapter"])
        self._card = AdapterCard.read(folder)
        loaded = checkpoints.load(self._card.checkpoint, resolution=self._card.resolution)
        loaded = adapters.load(folder, loaded)
        self._layout = PromptLayout(loaded.tokenizer, self._card.prompt, loaded.image_tokens)
        max_pixels = int(context.model_config["max_pixels"])
        self._reader = RowReader(self._card, max_pixels)
        self._max_rows = int(context.model_config["max_rows"])
        if _SERVER_MODEL_PATH in os.environ:  # by `mlflow models serve`
            limit_requests(max_pixels, self._max_rows, files=files_of(self._card.prompt))
        self._engine = Engine(
            loaded,
            self._layout,
            batch_size=int(context.model_config["batch_size"]),
            max_new_tokens=int(context.model_config["max_new_tokens"]),
        )
        self._warning = PHANTOMS_ONLY if loaded.synthetic else ""
        self._tracer = _tracer()
        self._lock = threading.Lock()  # the server answers in threads, and the engine has state
        self._decoding = threading.Lock()  # one radiograph at a time takes memory

    def predict(
        self,
        context: Any,  # noqa: ARG002 - required by MLflow
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Generate one report per row, with the columns of `SIGNATURE`.

        Args:
            context: not used.
            model_input: a table with `COLUMNS`, or what makes one; `dicom` as bytes or in Base64.
            params: not used.

        Raises:
            RefusedRequest: HTTP status 400 for a table without rows or with other columns, and for a row without a
                radiograph or with one that is refused; the message names the row, counted from 0, and the reason.
        """
        try:
            return self._predict(model_input)
        except RefusedRequest:
            raise
        except Exception as error:  # MLflow would answer with the traceback
            logger.exception("a request failed")
            name = type(error).__name__
            raise RefusedRequest(f"the model failed ({name}); the log of the server has more", INTERNAL_ERROR) from None

    def _predict(self, model_input: Any) -> pd.DataFrame:
        requests, notes = [], []
        try:
            rows = table_rows(model_input)
        except InputError as error:
            raise RefusedRequest(str(error)) from None
        if len(rows) > self._max_rows:
            raise RefusedRequest(f"more than {self._max_rows} rows; send fewer in one request")
        for number, row in enumerate(rows):
            try:
                with self._decoding:
                    request, image_notes = self._reader.request(number, row)
            except CxrReportError as error:
                raise RefusedRequest(f"row {number}: {error}") from None
            requests.append(request)
            notes.append(image_notes)
        with self._lock:
            texts = self._engine.generate(requests)
        reports = []
        for generated, image_notes in zip(texts, notes, strict=True):
            findings, impression = self._layout.parse(generated.text)
            self._trace(generated, image_notes)
            reports.append(
                {
                    "findings": findings,
                    "impression": impression,
                    "text": generated.text,
                    "mean_logprob": generated.mean_logprob,
                    "min_logprob": generated.min_logprob,
                    "finished": generated.finished,
                    "notes": ", ".join(image_notes),
                    "warning": self._warning,
                }
            )
        return pd.DataFrame(reports, columns=SIGNATURE.outputs.input_names())

    def _trace(self, generated: Generated, notes: Sequence[str]) -> None:
        if self._tracer is None:
            return
        text = os.environ.get(TRACE_TEXT) == "1"
        started, ended = generated.times
        self._tracer.log(
            tracking.ReportTrace(
                started=started,
                ended=ended,
                tokens=generated.tokens,
                facts={
                    **{name: getattr(generated, name) for name in ("mean_logprob", "min_logprob", "finished")},
                    "notes": ", ".join(notes),
                },
                inputs={"prompt": generated.prompt} if text else {},
                outputs={"text": generated.text} if text else {},
            )
        )


class RefusedRequest(MlflowException):
    """A request that is refused with HTTP status 400; the answer does not repeat the request, as MLflow's would."""

    def __init__(self, reason: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        super().__init__(reason, error_code=error_code)
        self._reason = reason

    def serialize_as_json(self) -> str:
        """The body of the answer. MLflow puts the rows of the request before `message`."""
        return json.dumps({"error_code": self.error_code, "message": self._reason})


def _tracer() -> tracking.BackgroundTracer | None:
    """What logs the traces of this server, if `TRACES` names an experiment.

    Raises:
        SettingsError: no store is named.
        TrackingError: the store cannot be reached.
    """
    experiment = os.environ.get(TRACES)
    if not experiment:
        return None
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise SettingsError(f"{TRACES}: set MLFLOW_TRACKING_URI to the store of these traces as well")
    return tracking.BackgroundTracer(uri, experiment)


def _without_request(error: MlflowException) -> str:
    return json.dumps({"error_code": error.error_code, "message": _EXPECTED})
