"""What `export` reads: predictions, and the DICOM files that their images came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxrreport.dataset import Manifest
from cxrreport.errors import InputError, RefusedImage
from cxrreport.inference import INGESTED
from cxrreport.inference.shards import row_from_json
from cxrreport.ingestion.dicom import read_radiograph, reopen, text
from cxrreport.records import Prediction, Reason
from cxrreport.settings import ExportSettings
from cxrreport.storage.output_folder import finished_record


@dataclass(frozen=True, slots=True)
class ExportInputs:
    """Content of `generate.json` and `ingest.json`, and the images that the predictions are about."""

    generated: Mapping[str, Any]
    ingested: Mapping[str, Any]
    manifest: Manifest


def read_inputs(settings: ExportSettings) -> ExportInputs:
    """Read the records of a finished `generate` and of the `ingest` before it.

    Raises:
        InputError: one of the runs has not finished, or its folder cannot be read.
    """
    generated = finished_record(settings.predictions, "generate")
    ingested_there = settings.predictions / INGESTED  # from a folder of DICOM
    data = settings.data or (ingested_there if ingested_there.is_dir() else Path(generated["settings"]["input"]))
    return ExportInputs(generated, finished_record(data, "ingest"), Manifest.open(data))


class SourceHeaders:
    """Headers of the DICOM files behind the images of a manifest."""

    def __init__(self, settings: ExportSettings, inputs: ExportInputs) -> None:
        recorded = inputs.ingested["settings"]
        self._pseudonymised = recorded["pseudonymize"] is not None
        self._max_pixels = int(recorded["max_pixels"])
        self._window, self._keep = recorded.get("window", 0), recorded.get("keep", ())
        self._images = inputs.manifest.images
        root = settings.sources or Path(recorded["input"])
        self._root = root.parent if root.is_file() else root

    def first_image(self, prediction: Prediction) -> npt.NDArray[np.uint8]:
        """The first image of a prediction at full size, uint8[H, W].

        Raises:
            RefusedImage: it cannot be read.
        """
        source = self._root / self._images[prediction.image_ids[0]].source
        return read_radiograph(source, max_pixels=self._max_pixels, window=self._window, keep=self._keep).grey

    def read(self, prediction: Prediction) -> list[Any]:
        """Read the headers of the images of a prediction, without that of the prior study.

        A document belongs to one DICOM study and refers to its images.

        Raises:
            RefusedImage: a report cannot refer to one of the images.
        """
        if self._pseudonymised:
            raise RefusedImage(Reason.PSEUDONYMISED, "image ids are pseudonyms, so the source files are unknown")
        headers = []
        for image_id in prediction.image_ids:
            image = self._images.get(image_id)
            if image is None:
                raise RefusedImage(Reason.IMAGE_MISSING, "the manifest has no such image")
            if prediction.prior_study_id and image.study_id == prediction.prior_study_id:
                continue
            headers.append(reopen(self._root / image.source, image, max_pixels=self._max_pixels))
        if len({text(header, "StudyInstanceUID") for header in headers}) != 1:
            raise RefusedImage(Reason.SOURCE_CHANGED, "the images are not of one DICOM study")
        return headers


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Read `predictions.jsonl`.

    Raises:
        InputError: the file or a line of it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = row_from_json(line)
                except (ValueError, TypeError, KeyError) as error:
                    raise InputError(
                        f"{path}: line {number} is not a prediction of this version of cxrreport; generate again"
                    ) from error
                if isinstance(row, Prediction):
                    yield row
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pass the output folder of generate") from error
