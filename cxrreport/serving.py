"""A fine-tuned model as an MLflow model: packed, registered under a name, and answered with over HTTP.

    uri = register(RegisterSettings(adapter=Path("train/adapter"), aliases=("candidate",))).uri
    mlflow.pyfunc.load_model(uri).predict(pandas.DataFrame({"path": ["study/image.dcm"]}))

The model holds the adapter, this package's code and the settings; the base checkpoint stays a reference, which is found
on the serving machine as everywhere else. A request is a table with one radiograph a row: `dicom`, the file itself, or
`path`, where it lies below the folder `CXRREPORT_SERVING_ROOT` of the server; and `indication`, which may be missing.

With `mlflow_store` the only importer of mlflow: a pyfunc model is a class of MLflow's own, so it cannot stay behind a
door that hides them. Nothing is pickled: MLflow runs `_CODE` when it loads the model.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import save_model
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema

from cxrreport import doctor, tracking
from cxrreport.errors import CxrReportError, InputError, RefusedImage, SettingsError
from cxrreport.inference.decoding import Engine, Request
from cxrreport.inference.generate import PHANTOMS_ONLY
from cxrreport.ingestion.dicom.radiograph import read_radiograph
from cxrreport.ingestion.images.resample import to_square
from cxrreport.model import adapters, checkpoints
from cxrreport.model.card import AdapterCard
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Reason, Report
from cxrreport.settings import RegisterSettings
from cxrreport.tracking import mlflow_store

ROOT = "CXRREPORT_SERVING_ROOT"
"""Environment variable of the server: the folder below which paths of requests lie. Without it they are refused."""
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(DataType.binary, "dicom", required=False),
            ColSpec(DataType.string, "path", required=False),
            ColSpec(DataType.string, "indication", required=False),
        ]
    ),
    outputs=Schema(
        [
            *(ColSpec(DataType.string, name) for name in ("findings", "impression", "text")),
            *(ColSpec(DataType.double, name) for name in ("mean_logprob", "min_logprob")),
            ColSpec(DataType.boolean, "finished"),
            *(ColSpec(DataType.string, name) for name in ("notes", "warning")),
        ]
    ),
)
_CODE = """from mlflow.models import set_model

from cxrreport.serving import ReportModel

set_model(ReportModel())
"""
_ARTIFACT = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version of a registered model.

    Args:
        uri: `models:/NAME/VERSION`, what `mlflow models serve --model-uri` takes.
        tracking_uri: of the store that holds it.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    uri: str
    tracking_uri: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


class ReportModel(PythonModel):
    """Radiographs in, reports out; the settings come with the model as its `model_config`."""

    def load_context(self, context: Any) -> None:
        """Load checkpoint and adapter.

        Raises:
            CxrReportError: the checkpoint is not there, or not the one that the adapter was trained on.
        """
        folder = Path(context.artifacts["adapter"])
        self._card = AdapterCard.read(folder)
        loaded = checkpoints.load(self._card.checkpoint, resolution=self._card.resolution)
        loaded = adapters.load(folder, loaded)
        self._layout = PromptLayout(loaded.tokenizer, self._card.prompt, loaded.image_tokens)
        self._max_pixels = int(context.model_config["max_pixels"])
        self._engine = Engine(
            loaded,
            self._layout,
            batch_size=int(context.model_config["batch_size"]),
            max_new_tokens=int(context.model_config["max_new_tokens"]),
        )
        self._warning = PHANTOMS_ONLY if loaded.synthetic else ""
        self._one_at_a_time = threading.Lock()  # the server answers in threads, the engine keeps state

    def predict(
        self,
        context: Any,  # noqa: ARG002 - MLflow calls it so
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """One report a row, with the columns of `SIGNATURE`.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE, which the server answers with 400: a row without a radiograph or
                with one that is refused; the message names the row, from 0, and the reason.
        """
        requests, notes = [], []
        for number, row in enumerate(model_input.to_dict("records")):
            try:
                request, said = self._request(number, row)
            except CxrReportError as error:
                raise MlflowException(f"row {number}: {error}", error_code=INVALID_PARAMETER_VALUE) from error
            requests.append(request)
            notes.append(said)
        with self._one_at_a_time:
            generated = self._engine.generate(requests)
        reports = []
        for one, said in zip(generated, notes, strict=True):
            findings, impression = self._layout.parse(one.text)
            reports.append(
                {
                    "findings": findings,
                    "impression": impression,
                    "text": one.text,
                    "mean_logprob": one.mean_logprob,
                    "min_logprob": one.min_logprob,
                    "finished": one.finished,
                    "notes": ", ".join(said),
                    "warning": self._warning,
                }
            )
        return pd.DataFrame(reports, columns=SIGNATURE.outputs.input_names())

    def _request(self, number: int, row: Mapping[Hashable, Any]) -> tuple[Request, tuple[str, ...]]:
        dicom, path = _given(row.get("dicom")), _given(row.get("path"))
        if (dicom is None) == (path is None):
            raise InputError("give either dicom, the content of a DICOM file, or path, where the server finds it")
        if path is not None:
            radiograph = read_radiograph(confined(path), max_pixels=self._max_pixels)
        else:
            with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
                file.write(dicom)
                file.flush()
                radiograph = read_radiograph(Path(file.name), max_pixels=self._max_pixels)
        if not radiograph.view.frontal:
            raise RefusedImage(Reason.NOT_FRONTAL, "the model describes frontal radiographs")
        how = {name: self._card.preprocessing[name] for name in ("resize", "interpolation")}
        image = to_square(radiograph.grey, resolution=self._card.resolution, **how)
        report = Report(indication=_given(row.get("indication")) or "")
        return Request(study_id=f"row {number}", image=image, report=report), radiograph.notes


def _given(value: Any) -> Any:
    """The value of a cell, None where it is missing, empty or NaN."""
    return value if isinstance(value, (str, bytes)) and value else None


def confined(path: str) -> Path:
    """The file that a request names, below the folder of the environment variable `ROOT`.

    Raises:
        InputError: there is no such variable, the path leads out of that folder (by `..`, a root or a link), or there
            is no file. What lies outside is not told from what is not there.
    """
    root = os.environ.get(ROOT)
    if not root:
        raise InputError(f"path: this server takes no paths ({ROOT} is not set there); send the file as dicom")
    below = Path(root).resolve()
    try:
        file = (below / path).resolve()
        inside = file.is_relative_to(below) and file.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        inside = False
    if not inside:
        raise InputError("path: no such file below the folder of this server; give it relative to that")
    return file


def pack(settings: RegisterSettings, folder: Path) -> None:
    """Write the model into `folder` as MLflow reads it.

    Raises:
        WeightsError: the adapter's folder is not one.
    """
    from cxrreport.demo.studies import example

    AdapterCard.read(settings.adapter)
    dicom = example()
    with tempfile.TemporaryDirectory() as place:
        code = Path(place) / "report_model.py"
        code.write_text(_CODE, encoding="utf-8")
        save_model(
            path=str(folder),
            python_model=str(code),
            artifacts={"adapter": str(settings.adapter)},
            code_paths=[str(Path(__file__).parent)],
            pip_requirements=requirements(),
            signature=SIGNATURE,
            input_example=pd.DataFrame({"dicom": [dicom], "indication": ["Cough."]}),
            model_config=settings.model_dump(mode="json", include={"max_pixels", "batch_size", "max_new_tokens"}),
        )


def requirements() -> list[str]:
    """What the model needs: the dependencies of this package, in the versions that are installed.

    The package itself is not among them, as its code comes with the model.
    """
    # Of `2.13.0+cpu` the part after the plus names a build, which only its own index has.
    return [f"{one.name}=={metadata.version(one.name).partition('+')[0]}" for one in doctor.dependencies()]


def register(settings: RegisterSettings) -> Registered:
    """Pack the model, keep it in an MLflow run, and register it as the next version of its name.

    The run's digests lead from the version back to the training run and its data.

    Raises:
        SettingsError: tracking is switched off.
        WeightsError: the adapter's folder is not one.
        TrackingError: the store cannot be reached or refuses.
    """
    if not settings.tracking.enabled:
        raise SettingsError("tracking.enabled: a model is registered in MLflow, so tracking cannot be switched off")
    # Where the run of the training went, by default; and a folder that is not there, as what is registered twice is two
    # versions in two runs: going on in the first run would change the files of its version.
    beside = settings.adapter.resolve().parent.with_name(f".registered-{uuid4().hex}")
    card = AdapterCard.read(settings.adapter)
    with (
        tempfile.TemporaryDirectory() as place,
        tracking.start("register", settings, settings.tracking, output=beside) as run,
    ):
        run.tags({"mlflow.runName": f"register-{settings.name}"})
        digest = checkpoints.fingerprint(settings.adapter)
        run.dataset("adapter", digest, "model", steps=card.steps)
        run.dataset("checkpoint", card.fingerprint, "model", checkpoint=card.checkpoint.name)
        run.link("cxrreport.model_run", "adapter", digest)
        folder = Path(place) / _ARTIFACT
        pack(settings, folder)
        uri = tracking.uri_of(settings.tracking, beside)
        tags = {"digest.adapter": digest, "checkpoint": card.checkpoint.name, "synthetic": str(card.synthetic).lower()}
        version = mlflow_store.register(uri, run.run_id, folder, settings.name, settings.aliases, tags)
    return Registered(
        name=settings.name,
        version=version,
        aliases=settings.aliases,
        run_id=run.run_id,
        uri=f"models:/{settings.name}/{version}",
        tracking_uri=mlflow_store.shown_uri(uri),
    )
