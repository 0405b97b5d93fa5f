"""The command `export`: a document for every prediction, with references to the images it is about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import UUID, uuid5

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
    if "sr" in settings.formats:
        structured_report.import_highdicom()
    if "fhir" in settings.formats or "imr" in settings.formats:
        fhir.import_resource()
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
    documents = tuple(kind for kind in settings.formats if kind != "rexrank")
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
    kinds = [kind for kind in settings.formats if kind != "rexrank"]
    files: dict[str, str] = {kind: f"{kind}/{report}.{'dcm' if kind in ('sr', 'sc') else 'json'}" for kind in kinds}
    for kind, file in files.items():
        if (folder / file).exists():
            continue
        with atomic_path(folder / file) as temporary:
            if kind == "sr":
                structured_report.write(
                    temporary, prediction, headers, report=report, model=model, language=settings.language
                )
            elif kind == "sc":
                grey = sources.first_image(prediction)
                secondary_capture.write(temporary, prediction, headers, grey, report=report, model=model)
            elif kind == "imr":
                content = imr.bundle(prediction, headers, report=report, language=settings.language)
                temporary.write_text(content, encoding="utf-8")
            else:
                resource = fhir.diagnostic_report(
                    prediction,
                    report=report,
                    study_uid=text(headers[0], "StudyInstanceUID"),
                    patient_id=text(headers[0], "PatientID"),
                    language=settings.language,
                )
                temporary.write_text(resource, encoding="utf-8")
    return files
