"""A radiograph beside its generated report as a DICOM Secondary Capture, for viewers that do not show reports."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from cxrreport.export.structured_report import NOTICE, uid
from cxrreport.ingestion.dicom import text, translated
from cxrreport.records import Prediction, Reason

_HEIGHT, _PANEL, _MARGIN = 1024, 640, 24
_LETTERS, _LINE = 52, 28
_COPIED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName", "StudyInstanceUID"),
)


def write(
    path: Path,
    prediction: Prediction,
    sources: Sequence[Dataset],
    grey: npt.NDArray[np.uint8],
    *,
    report: UUID,
    model: str,
) -> None:
    """Write the capture: 8 bits, with text in the pixels, and labelled so (Burned In Annotation).

    Args:
        path: path of the file.
        prediction: a prediction with findings or impression.
        sources: headers of its images, all of one study.
        grey: the first image, uint8[H, W].
        report: id of the report; ids of series and instance follow from it.
        model: name of the model.

    Raises:
        RefusedImage: `not-readable`; patient or study of the source cannot be copied.
    """
    with translated(Reason.NOT_READABLE, "patient and study of the source cannot be copied"):
        dataset = Dataset()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for keyword in _COPIED:
            setattr(dataset, keyword, str(sources[0].get(keyword) or ""))
        dataset.SOPClassUID = SecondaryCaptureImageStorage
        dataset.SOPInstanceUID = uid(uuid5(report, "capture"))
        dataset.SeriesInstanceUID = uid(uuid5(report, "capture series"))
        dataset.SeriesNumber, dataset.InstanceNumber, dataset.PatientOrientation = 2, 1, ""
        dataset.Modality, dataset.ConversionType, dataset.Laterality = "OT", "WSD", ""
        dataset.SeriesDescription, dataset.ImageComments = NOTICE, NOTICE
        dataset.ImageType = ["DERIVED", "SECONDARY"]
        dataset.DerivationDescription = f"{NOTICE}. {model}"
        dataset.Manufacturer = dataset.SecondaryCaptureDeviceManufacturer = "cxrreport"
        dataset.SecondaryCaptureDeviceSoftwareVersions = metadata.version("cxrreport")
        dataset.SourceImageSequence = [_reference(source) for source in sources]
        pixels = _picture(prediction, grey)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.BurnedInAnnotation = "YES"
        data = pixels.tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OB"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(path, enforce_file_format=True)


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = text(source, "SOPClassUID")
    item.ReferencedSOPInstanceUID = text(source, "SOPInstanceUID")
    return item


def _picture(prediction: Prediction, grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The image at the left, the notice and the sections at the right; the panel grows with the text."""
    lines = textwrap.wrap(f"{NOTICE}.", _LETTERS)
    for name, body in (("FINDINGS", prediction.findings), ("IMPRESSION", prediction.impression)):
        if body:
            lines += ["", f"{name}:", *textwrap.wrap(body, _LETTERS)]
    width = max(1, min(_HEIGHT * 2, round(grey.shape[1] * _HEIGHT / grey.shape[0])))
    height = max(_HEIGHT, 2 * _MARGIN + _LINE * len(lines))
    canvas = Image.new("L", (width + _PANEL, height))
    canvas.paste(Image.fromarray(grey).resize((width, _HEIGHT), Image.Resampling.BILINEAR))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(20)
    for number, line in enumerate(lines):
        draw.text((width + _MARGIN, _MARGIN + _LINE * number), line, 255, font)
    return np.asarray(canvas)
