"""The command `export`: a document for every prediction, with references to the images it is about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.dataset import write_exclusion_log
from cxrreport.errors import InputError, RefusedImage
from cxrreport.export import fhir, imr, rexrank, secondary_capture, structured_report
from cxrreport.export.sources import ExportInputs, SourceHeaders, read_predictions
from cxrreport.ingestion.dicom import text
from cxrreport.records import Exclusion, Prediction, Progress, Reason
from cxrreport.settings import ExportSettings
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.decoding import without_controls
from cxrreport.storage.output_folder import OutputFolder, output_folder
from cxrreport.storage.parquet import table_from_rows

REXRANK = "rexrank.json"
EXPORTED = pa.schema([(name, pa.string()) for name in ("study_id", "format", "file")])
"""Schema of `exported.parquet`: the files of each study, relative to the output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """Result of `export`.

    Args:
        predictions: number of predictions.
        exported: predictions for which every requested document was written.
        refused: numbers of the other predictions by reason; they are rows of `ledger.parquet`.
    """

    predictions: int
    exported: int
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a document is made of.

    Args:
        prediction: a prediction with findings or impression.
        headers: headers of its images, all of one study.
        first_image: reads the first image at full size, uint8[H, W].
        report: id of the document.
        model: name of the observer.
        language: RFC 5646 tag of the text.
    """

    prediction: Prediction
    headers: list[Any]
    first_image: Callable[[], npt.NDArray[np.uint8]]
    report: UUID
    model: str
    language: str


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of document: the suffix of its files, the function that writes one, and the import of its library."""

    suffix: str
    write: Callable[[Path, Content], None]
    library: Callable[[], Any] | None = None


def export(settings: ExportSettings, inputs: ExportInputs, progress: Progress) -> ExportSummary:
    """Write the documents of every prediction, `exported.parquet` and `ledger.parquet`.

    The name of a document is a hash of its content, so the same command can be re-run to resume.

    Args:
        settings: settings of the export.
        inputs: records and images, from `read_inputs`.
        progress: reports the predictions.

    Raises:
        MissingExtraError: the library of a format is not installed.
        InputError: the predictions are those of a baseline, or cannot be read.
        OutputError: the folder is in use, the disk is full or a file cannot be written.
    """
    for kind in _document_kinds(settings):
        if (library := FORMATS[kind].library) is not None:
            library()
    if inputs.generated.get("baseline") != "none":
        raise InputError(f"{settings.predictions}: holds predictions of a baseline, which cannot be exported")
    with output_folder(settings.output, command="export", settings=settings.model_dump(mode="json")) as folder:
        if folder.finished:
            return ExportSummary(**folder.record["summary"])
        return _export(settings, inputs, progress, folder)


def _export(settings: ExportSettings, inputs: ExportInputs, progress: Progress, folder: OutputFolder) -> ExportSummary:
    headers = SourceHeaders(settings, inputs)
    generated, images = inputs.generated, inputs.manifest.images
    fingerprints = generated["inputs"]
    model = f"{generated['checkpoint']['name']} {fingerprints['base'][:12]}"
    if fingerprints["adapter"]:
        model += f" with adapter {fingerprints['adapter'][:12]}"
    total = int(generated["summary"]["predictions"])
    documents = _document_kinds(settings)
    rows: list[dict[str, str]] = []
    refused: list[Exclusion] = []
    exported = 0
    for prediction in read_predictions(settings.predictions / "predictions.jsonl"):
        content = json.dumps([asdict(prediction), fingerprints], sort_keys=True)
        report = uuid5(structured_report.NAMESPACE, content)
        try:
            files = _write(prediction, headers, settings, folder.path, report, model) if documents else {}
        except RefusedImage as error:
            source = next((images[image_id].source for image_id in prediction.image_ids if image_id in images), "")
            reason = Reason(error.reason)
            refused.append(Exclusion(source=source, study_id=prediction.study_id, reason=reason, detail=error.detail))
        else:
            rows += [{"study_id": prediction.study_id, "format": kind, "file": file} for kind, file in files.items()]
            exported += 1
        progress(exported + len(refused), total, "predictions")
    if "rexrank" in settings.formats:
        studies = rexrank.write(folder.path / REXRANK, settings.predictions / "predictions.jsonl", inputs.manifest)
        rows += [{"study_id": study, "format": "rexrank", "file": REXRANK} for study in studies]
        if generated["settings"].get("engine") != "transformers":
            rexrank.write_inference(folder.path / "inference.py", generated, inputs.manifest)
    with atomic_path(folder.path / "exported.parquet") as temporary:
        pq.write_table(table_from_rows(rows, EXPORTED), temporary)
    write_exclusion_log(folder.path, refused)
    summary = ExportSummary(
        predictions=exported + len(refused),
        exported=exported,
        refused=dict(Counter(row.reason.value for row in refused)),
    )
    folder.finish(summary=asdict(summary), inputs=fingerprints)
    return summary


def _write(
    prediction: Prediction, sources: SourceHeaders, settings: ExportSettings, folder: Path, report: UUID, model: str
) -> dict[str, str]:
    """Write the documents of one prediction that do not exist yet; returns the file of each format."""
    if not (prediction.findings or prediction.impression):
        raise RefusedImage(Reason.EMPTY_SECTIONS, "neither findings nor impression")
    headers = sources.read(prediction)
    prediction = replace(
        prediction,
        findings=without_controls(prediction.findings),
        impression=without_controls(prediction.impression),
    )
    content = Content(
        prediction=prediction,
        headers=headers,
        first_image=partial(sources.first_image, prediction),
        report=report,
        model=model,
        language=settings.language,
    )
    files = {kind: f"{kind}/{report}.{FORMATS[kind].suffix}" for kind in _document_kinds(settings)}
    for kind, file in files.items():
        if not (folder / file).exists():
            with atomic_path(folder / file) as temporary:
                FORMATS[kind].write(temporary, content)
    return files


def _document_kinds(settings: ExportSettings) -> list[str]:
    """The formats with a document for every prediction; ReXrank's is one file of all."""
    return [kind for kind in settings.formats if kind in FORMATS]


def _write_sr(path: Path, one: Content) -> None:
    structured_report.write(
        path, one.prediction, one.headers, report=one.report, model=one.model, language=one.language
    )


def _write_sc(path: Path, one: Content) -> None:
    secondary_capture.write(path, one.prediction, one.headers, one.first_image(), report=one.report, model=one.model)


def _write_fhir(path: Path, one: Content) -> None:
    resource = fhir.diagnostic_report(
        one.prediction,
        report=one.report,
        study_uid=text(one.headers[0], "StudyInstanceUID"),
        patient_id=text(one.headers[0], "PatientID"),
        language=one.language,
    )
    path.write_text(resource, encoding="utf-8")


def _write_imr(path: Path, one: Content) -> None:
    path.write_text(imr.bundle(one.prediction, one.headers, report=one.report, language=one.language), encoding="utf-8")


FORMATS: Mapping[str, Format] = {
    "sr": Format("dcm", _write_sr, structured_report.import_highdicom),
    "sc": Format("dcm", _write_sc),
    "fhir": Format("json", _write_fhir, fhir.import_resources),
    "imr": Format("json", _write_imr, fhir.import_resources),
}
"""Formats of documents, by their name in the settings."""
