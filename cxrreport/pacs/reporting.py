"""From the images of one study to its documents, with the model resident."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from cxrreport.dataset import EXCLUSION_LOG
from cxrreport.errors import RefusedImage
from cxrreport.export import export, read_inputs
from cxrreport.export.sources import read_predictions
from cxrreport.inference.completion import PHANTOMS_ONLY
from cxrreport.inference.generate import generate, load_resident
from cxrreport.ingestion.ingest import ingest
from cxrreport.records import Reason
from cxrreport.settings import ExportSettings, GenerateSettings, ListenSettings, TrackingSettings

IMAGES, DOCUMENTS = "dicom", "documents"
"""Folders of a study that is being reported: its images, and what is made."""
_OFF = TrackingSettings(enabled=False)
_LEAST_TELLING = (Reason.DUPLICATE.value, Reason.OTHER_VIEW_CHOSEN.value)


class Reporter(Protocol):
    """Makes documents."""

    warning: str | None
    """What a reader must know of all of them."""

    def report(self, work: Path) -> list[tuple[str, Path]]:
        """Make the documents of the study whose images are in `IMAGES` of the folder `work`: format and file of each.

        Raises:
            RefusedImage: there is nothing to report, with the reason.
            CxrReportError: another attempt may succeed.
        """


class ModelReporter:
    """Ingests, generates and exports with the model of the settings, which is loaded once.

    Raises:
        CxrReportError: as `load_resident`.
    """

    def __init__(self, settings: ListenSettings) -> None:
        self._formats = settings.formats
        self._generation = GenerateSettings(
            input=settings.output,
            output=settings.output,
            checkpoint=settings.checkpoint,
            adapter=settings.adapter,
            engine=settings.engine,
            quantize=settings.quantize,
            abstain_below=settings.abstain_below,
            max_new_tokens=settings.max_new_tokens,
            split=None,
            batch_size=1,
            tracking=_OFF,
        )
        self._loaded, self._ingestion = load_resident(self._generation)
        self.warning = PHANTOMS_ONLY if self._loaded.synthetic else None

    def report(self, work: Path) -> list[tuple[str, Path]]:
        """See `Reporter`."""
        data, reports = work / "data", work / "reports"
        ingested = ingest(self._ingestion.model_copy(update={"input": work / IMAGES, "output": data}))
        if not ingested.kept:
            raise RefusedImage(*_reason(ingested.left_out))
        generation = self._generation.model_copy(update={"input": data, "output": reports})
        generate(generation, lambda *_: None, resident=self._loaded)
        prediction = next(read_predictions(reports / "predictions.jsonl"), None)
        if prediction is not None and prediction.abstained:
            raise RefusedImage(Reason.ABSTAINED, "the report is too uncertain")
        return export_documents(work, self._formats)


def export_documents(work: Path, formats: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Export `reports` of a folder of work; see `Reporter.report`."""
    values = {"predictions": work / "reports", "output": work / DOCUMENTS, "data": work / "data", "formats": formats}
    settings = ExportSettings.model_validate(values | {"sources": work / IMAGES, "tracking": _OFF})
    summary = export(settings, read_inputs(settings), lambda *_: None)
    if not summary.exported:
        (row, *_) = pq.read_table(settings.output / EXCLUSION_LOG).to_pylist()
        raise RefusedImage(row["reason"], row["detail"])
    rows = pq.read_table(settings.output / "exported.parquet").to_pylist()
    return [(row["format"], settings.output / row["file"]) for row in rows]


def _reason(left_out: Mapping[str, int]) -> tuple[Reason, str]:
    """The reason why no image of a study was kept: the most frequent one that tells something."""
    if not left_out:
        return Reason.IMAGE_MISSING, "no image"
    name = max(left_out, key=lambda one: (one not in _LEAST_TELLING, left_out[one]))
    return Reason(name), f"{sum(left_out.values())} images: {', '.join(f'{key} {left_out[key]}' for key in left_out)}"
