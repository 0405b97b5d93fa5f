"""Phantom radiographs as valid DICOM objects."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from cxrreport.demo.phantoms.drawing import draw, expose
from cxrreport.demo.phantoms.lateral import draw_lateral
from cxrreport.demo.phantoms.studies import PhantomStudy, plan_studies

_SYNTAXES: tuple[tuple[UID, float], ...] = (
    (ExplicitVRLittleEndian, 0.55),
    (ImplicitVRLittleEndian, 0.15),
    (DeflatedExplicitVRLittleEndian, 0.10),
    (RLELossless, 0.10),
    (JPEG2000Lossless, 0.10),
)


def example(seed: int = 0) -> bytes:
    """Return an example DICOM file: a phantom of about 100 x 100 pixels."""
    (study, *_) = plan_studies(1, seed, smallest=96, full_size=0)
    content = io.BytesIO()
    to_dicom(study, lateral=False).save_as(content, enforce_file_format=True)
    return content.getvalue()


def to_dicom(study: PhantomStudy, lateral: bool) -> Dataset:
    """Encode the frontal or lateral image of a study as a CR or DX object (PS3.3 A.2, A.26)."""
    rng = np.random.default_rng([study.seed, int(lateral)])
    if lateral:
        grey = draw_lateral(study.anatomy, study.rows, study.columns, study.seen_laterally, study.seed)
    else:
        grey = draw(study.anatomy, study.findings, study.rows, study.columns, study.seed).grey
    # Noise per pixel grows with resolution, because each pixel receives fewer photons.
    grey = expose(grey, rng, noise=0.012 * min(study.rows, study.columns) / 224)
    digital = bool(rng.random() < 0.5)
    inverted = bool(rng.random() < 0.3)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    _identify(dataset, study, lateral, digital)
    stored = _store(dataset, grey, inverted, rng)
    syntax = list(_SYNTAXES)[int(rng.choice(len(_SYNTAXES), p=[share for _, share in _SYNTAXES]))][0]
    if min(stored.shape) > 1500:
        syntax = ExplicitVRLittleEndian  # the pure-Python encoders take many seconds for a full-size image
    native = syntax if not syntax.is_encapsulated else ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = native
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    if syntax.is_encapsulated:
        dataset.compress(syntax, stored, generate_instance_uid=False)
    return dataset


def _identify(dataset: Dataset, study: PhantomStudy, lateral: bool, digital: bool) -> None:
    def uid(*parts: str) -> UID:
        return generate_uid(entropy_srcs=["cxrreport phantom", str(study.seed), *parts])

    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = uid("image", str(lateral))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = uid("study")
    dataset.SeriesInstanceUID = uid("series")
    dataset.Modality = "DX" if digital else "CR"
    dataset.Manufacturer = "cxrreport phantoms"
    dataset.PatientName = f"PHANTOM^{study.patient_id}"
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = study.date, study.time, study.study_id
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 2 if lateral else 1
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "LL" if lateral else study.view.value
    dataset.PatientOrientation = ["A", "F"] if lateral else ["L", "F"]
    dataset.BurnedInAnnotation = "NO"
    if digital:
        dataset.ImageLaterality, dataset.PresentationIntentType = "U", "FOR PRESENTATION"
        dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1


def _store(dataset: Dataset, grey: NDArray[np.float32], inverted: bool, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return the stored values of a grey image, and set the attributes needed to display them (PS3.3 C.7.6.3)."""
    bits = int(rng.choice([10, 12, 14, 15]))
    top = 2**bits - 1
    low, high = int(rng.uniform(0.02, 0.15) * top), int(rng.uniform(0.7, 0.95) * top)
    shown = 1.0 - grey if inverted else grey
    stored = np.rint(low + shown * (high - low)).astype(np.uint16)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    if rng.random() < 0.8:
        # C.11.2.1.2.1, LINEAR: grey 0 at c - 0.5 - (w - 1) / 2.
        width = high - low + 1
        dataset.WindowCenter, dataset.WindowWidth = f"{low + 0.5 + (width - 1) / 2:.1f}", str(width)
    else:
        item = Dataset()
        table = np.rint(np.clip((np.arange(low, high + 1) - low) / (high - low), 0, 1) * 65535).astype(np.uint16)
        item.LUTDescriptor = [len(table), low, 16]
        item["LUTDescriptor"].VR = "US"
        item.LUTData = table.tobytes()
        item["LUTData"].VR = "OW"
        dataset.VOILUTSequence = Sequence([item])
    return stored
