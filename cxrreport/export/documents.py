"""The verb `export`: predictions as documents that other systems read, each referring to the images it is about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.dataset.manifest import write_ledger
from cxrreport.errors import InputError, RefusedImage
from cxrreport.export import fhir, structured_report
from cxrreport.inference.shards import parsed
from cxrreport.ingestion.dicom.elements import text
from cxrreport.ingestion.dicom.reference import reopen
from cxrreport.records import LeftOut, Prediction, Progress, Reason
from cxrreport.settings import ExportSettings
from cxrreport.storage import parquet as arrow
from cxrreport.storage.files import OutputFolder, atomic_path

if TYPE_CHECKING:
    from cxrreport.dataset.manifest import Manifest

EXPORTED = pa.schema([(name, pa.string()) for name in ("study_id", "format", "file")])
"""Schema of `exported.parquet`: which file is about which study; `file` is relative to the output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What a run of `export` came to.

    Args:
        predictions: read.
        exported: of them, those of which every document that was asked for was written.
        refused: of the others, by reason; they are rows of `ledger.parquet`.
    """

    predictions: int
    exported: int
    refused: Mapping[str, int]


def export(
    settings: ExportSettings,
    manifest: Manifest,
    generated: Mapping[str, Any],
    ingested: Mapping[str, Any],
    progress: Progress,
    folder: OutputFolder,
) -> ExportSummary:
    """Write a DICOM SR and a FHIR resource for every prediction, `exported.parquet` and `ledger.parquet`.

    A document's name follows from what it says, so the same command goes on after a stop.

    Args:
        settings: `data` and `output` are not opened here; they are in `manifest` and `folder`.
        manifest: images that the predictions are about.
        generated: content of `generate.json`.
        ingested: content of `ingest.json`.
        progress: told how many predictions are done.
        folder: the output folder.

    Raises:
        MissingExtraError: the library of a format is not installed.
        InputError: the predictions are a control's, are not finished, or cannot be read.
        OutputError: the disk is full or a file cannot be written.
    """
    if "sr" in settings.formats:
        structured_report.library()
    if "fhir" in settings.formats:
        fhir.resource()
    if generated.get("control") != "none":
        raise InputError(f"{settings.predictions}: written for other images than the studies' own, as a control")
    if folder.finished:
        return ExportSummary(**folder.record["summary"])
    sources = _Sources(settings, manifest, ingested)
    inputs = generated["inputs"]
    model = f"{generated['checkpoint']['name']} {inputs['base'][:12]}"
    if inputs["adapter"]:
        model += f" with adapter {inputs['adapter'][:12]}"
    total = int(generated["summary"]["predictions"])
    rows: list[dict[str, str]] = []
    refused: list[LeftOut] = []
    exported = 0
    for prediction in _predictions(settings.predictions / "predictions.jsonl"):
        report = uuid5(structured_report.NAMESPACE, json.dumps([asdict(prediction), inputs], sort_keys=True))
        try:
            files = _write(prediction, sources, settings, folder.path, report, model)
        except RefusedImage as error:
            source = next((manifest.images[one].source for one in prediction.image_ids if one in manifest.images), "")
            reason = Reason(error.reason)
            refused.append(LeftOut(source=source, study_id=prediction.study_id, reason=reason, detail=error.detail))
        else:
            rows += [{"study_id": prediction.study_id, "format": kind, "file": file} for kind, file in files.items()]
            exported += 1
        progress(exported + len(refused), total, "predictions")
    with atomic_path(folder.path / "exported.parquet") as temporary:
        pq.write_table(arrow.table(rows, EXPORTED), temporary)
    write_ledger(folder.path, refused)
    summary = ExportSummary(
        predictions=exported + len(refused),
        exported=exported,
        refused=dict(Counter(row.reason.value for row in refused)),
    )
    folder.finish(summary=asdict(summary), inputs=inputs)
    return summary


class _Sources:
    """The DICOM files that the images of a manifest came from."""

    def __init__(self, settings: ExportSettings, manifest: Manifest, ingested: Mapping[str, Any]) -> None:
        recorded = ingested["settings"]
        self._hidden = recorded["pseudonymize"] is not None
        self._max_pixels = int(recorded["max_pixels"])
        self._images = manifest.images
        root = settings.sources or Path(recorded["input"])
        self._root = root.parent if root.is_file() else root

    def of(self, prediction: Prediction) -> list[Any]:
        """Headers of the images of a prediction.

        Raises:
            RefusedImage: one of them cannot be referred to.
        """
        if self._hidden:
            raise RefusedImage(Reason.PSEUDONYMISED, "the images are known by pseudonyms, and their sources are not")
        headers = []
        for image_id in prediction.image_ids:
            image = self._images.get(image_id)
            if image is None:
                raise RefusedImage(Reason.IMAGE_MISSING, "the manifest has no such image")
            headers.append(reopen(self._root / image.source, image, max_pixels=self._max_pixels))
        if len({text(header, "StudyInstanceUID") for header in headers}) != 1:
            raise RefusedImage(Reason.SOURCE_CHANGED, "the images are not of one DICOM study")
        return headers


def _write(
    prediction: Prediction, sources: _Sources, settings: ExportSettings, folder: Path, report: UUID, model: str
) -> dict[str, str]:
    """Write the documents of one prediction that are not there yet; format to file."""
    if not (prediction.findings or prediction.impression):
        raise RefusedImage(Reason.EMPTY_SECTIONS, "neither findings nor impression")
    headers = sources.of(prediction)
    files: dict[str, str] = {kind: f"{kind}/{report}.{'dcm' if kind == 'sr' else 'json'}" for kind in settings.formats}
    for kind, file in files.items():
        if (folder / file).exists():
            continue
        with atomic_path(folder / file) as temporary:
            if kind == "sr":
                structured_report.write(
                    temporary, prediction, headers, report=report, model=model, language=settings.language
                )
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


def _predictions(path: Path) -> Iterator[Prediction]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = parsed(line)
                except (ValueError, TypeError, KeyError) as error:
                    raise InputError(f"{path}: line {number} is no prediction of this version of cxrreport") from error
                if isinstance(row, Prediction):
                    yield row
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the output folder of generate") from error
