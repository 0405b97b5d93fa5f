"""Read one DICOM file into one grey image, or refuse it with a reason.

The header is checked before any pixel is read, and memory is bounded by the pixel budget whatever the file declares.
pydicom raises almost any exception on broken content. Each becomes a `RefusedImage` whose text quotes no value of the
file, because values may identify a patient.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cxrreport.dataset import Covariates, reduce_covariates
from cxrreport.errors import PixelError, RefusedImage
from cxrreport.ingestion.dicom.bounded_file import BoundedFile, opened
from cxrreport.ingestion.dicom.colour import PALETTE_TAGS, SAMPLES
from cxrreport.ingestion.dicom.dates import DATE_TAGS, taken_in
from cxrreport.ingestion.dicom.elements import text, translated, whole
from cxrreport.ingestion.dicom.geometry import GEOMETRY_TAGS, geometry_of, view_in
from cxrreport.ingestion.dicom.greyscale import grey_scale
from cxrreport.ingestion.dicom.pixel_data import PIXELS, decode
from cxrreport.ingestion.images.acceptance import check_body_part, check_modality, refused_unless
from cxrreport.ingestion.images.geometry import Geometry
from cxrreport.ingestion.images.greyscale import to_grey
from cxrreport.ingestion.images.polarity import looks_inverted
from cxrreport.ingestion.images.radiograph import Radiograph
from cxrreport.ingestion.images.upright import orientation_notes
from cxrreport.ingestion.moments import Moment
from cxrreport.records import Reason, View

_PIXEL_TAGS = frozenset({b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"})  # (7FE0,0010) in either byte order
_HEADER_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "AccessionNumber", "Modality"),
    "BodyPartExamined",
    *DATE_TAGS,
    *("BurnedInAnnotation", "SamplesPerPixel", "PhotometricInterpretation", *GEOMETRY_TAGS),
    *("PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("WindowCenterWidthExplanation", "ExtendedOffsetTable"),
]

_MAX_VALUE = 1 << 22
"""Largest value of an element besides pixels, bytes: lookup tables have 128 KiB, and sequences some of them."""
_INFLATED_BYTES = 1 << 25
"""Allowance for everything but pixels in a deflated file."""
_IDS = {"patient_id": "PatientID", "study_id": "StudyInstanceUID", "image_id": "SOPInstanceUID"}
_COVARIATE_TAGS = ["PatientSex", "PatientAge", "PatientBirthDate", "StudyDate", "Manufacturer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Values from the header of an acceptable radiograph.

    Args:
        patient_id: PatientID, study_id: StudyInstanceUID, image_id: SOPInstanceUID; an empty string where missing.
        accession: AccessionNumber.
        identity: digest of these ids as they are in the file, also where they are replaced by pseudonyms.
        rows: height as stored, pixels; within the budget, as is `columns`.
        geometry: how the stored pixels are displayed.
        says_no_text: true if Burned In Annotation (0028,0301) is NO.
        taken: when it was made.
        notes: `bodypart-missing`, `bodypart-unclear`, `modality-missing`, `for-processing`, those of `Geometry`, and
            reasons that were kept.
    """

    patient_id: str
    study_id: str
    image_id: str
    identity: str
    accession: str = ""
    view: View
    rows: int
    columns: int
    geometry: Geometry
    says_no_text: bool = False
    taken: Moment | None = None
    notes: tuple[str, ...] = ()


def read_header(path: Path, *, max_pixels: int, keep: Collection[str] = ()) -> Header:
    """Check the header of a DICOM file; no pixel is read.

    Args:
        path: the file.
        max_pixels: largest Rows x Columns x SamplesPerPixel.
        keep: reasons that become notes instead of refusals (`settings.IngestSettings.keep`).

    Raises:
        RefusedImage: with the reason for the exclusion log. It is the only exception for a bad file.
    """
    with opened(path, max_pixels) as file:
        return _check(_parse(file, pixels=False), max_pixels, keep)


def read_covariates(path: Path, *, max_pixels: int, view: View) -> Covariates:
    """Read sex, age and manufacturer from a header, reduced by `reduce_covariates`.

    Args:
        path: a file that `read_header` accepts.
        max_pixels: as in `read_header`.
        view: projection of the radiograph.

    Raises:
        RefusedImage: `not-readable`.
    """
    with opened(path, max_pixels) as file:
        dataset = _parse(file, pixels=False, tags=_COVARIATE_TAGS)
    with translated(Reason.NOT_READABLE, "a header element cannot be read"):
        return reduce_covariates(
            sex=text(dataset, "PatientSex"),
            age=text(dataset, "PatientAge"),
            manufacturer=text(dataset, "Manufacturer"),
            view=view,
            birth_date=text(dataset, "PatientBirthDate"),
            study_date=text(dataset, "StudyDate"),
        )


def read_radiograph(
    path: Path | bytes, *, max_pixels: int, window: int | str = 0, keep: Collection[str] = (), view: View | None = None
) -> Radiograph:
    """Read one file: check its header, decode it, and map its values to display grey (`greyscale.to_grey`), upright.

    The picture is turned and its pixels are made square as the header states (`Geometry`). A frontal that does not look
    upright afterwards (`upright.orientation_notes`) keeps its orientation, with a note.
    A frontal labelled MONOCHROME2 whose pixels are inverted (`polarity.looks_inverted`) is corrected, with a note. Only
    the first of several frames is read; colours become luminance.

    Args:
        path: the file, or its content.
        max_pixels: largest Rows x Columns x SamplesPerPixel; checked before pixels are read or decoded.
        window: of several windows or VOI LUTs, the index from 0 or the explanation.
        keep: as in `read_header`.
        view: if it is known from elsewhere, for example a table; `None` for that of the header.

    Raises:
        RefusedImage: the file is not an acceptable radiograph; `PixelError` if pixels or grey scale are the reason.
    """
    with opened(path, max_pixels) as file:
        dataset = _parse(file, pixels=False)
        header = _check(dataset, max_pixels, keep)
        begins_pixels = file.read(4) in _PIXEL_TAGS
        file.seek(0)
        samples, allocated = whole(dataset, "SamplesPerPixel") or 1, whole(dataset, "BitsAllocated") or 8
        dataset = _parse(file, pixels=True, stored=header.rows * header.columns * samples * allocated // 8)
        if begins_pixels and not any(keyword in dataset for keyword in PIXELS):
            raise PixelError(Reason.BAD_PIXELS, "the pixel data are cut off")
    with translated(Reason.BAD_LUT, "the grey-scale transformations cannot be read", PixelError):
        scale, notes = grey_scale(dataset, window)
    stored = decode(dataset, header.rows, header.columns)
    with translated(Reason.BAD_PIXELS, "the pixel values cannot be mapped to grey", PixelError):
        grey, more = to_grey(stored, scale)
        grey = header.geometry.apply(grey)
        view = view or header.view
        if view.frontal and not scale.inverted and looks_inverted(grey):
            grey, more = to_grey(stored, replace(scale, inverted=True))
            grey = header.geometry.apply(grey)
            more += ("monochrome2-inverted",)
        if not {Reason.NOT_CHEST, Reason.NOT_RADIOGRAPH}.intersection(header.notes):
            more += orientation_notes(grey, view)
    return Radiograph(
        grey=grey,
        rows=grey.shape[0],
        columns=grey.shape[1],
        view=view,
        transposed=header.geometry.transpose,
        patient_id=header.patient_id,
        study_id=header.study_id,
        image_id=header.image_id,
        identity=header.identity,
        says_no_text=header.says_no_text,
        notes=header.notes + notes + more,
    )


def _parse(file: BoundedFile, *, pixels: bool, tags: Sequence[Any] = _HEADER_TAGS, stored: int = 0) -> Dataset:
    """Read elements; `stored` is the size of the pixels by the header, bytes."""
    with translated(Reason.NOT_READABLE, "the data set cannot be parsed"):
        wanted = [*tags, *((*PIXELS, *PALETTE_TAGS) if pixels else ())]
        # pydicom only uses read, seek and tell.
        source: Any = file
        meta = _meta_if_deflated(source)
        if meta is not None:
            source = BoundedFile(*_inflated(source.read(), _INFLATED_BYTES + stored, cut=not pixels))
        dataset = pydicom.dcmread(source, stop_before_pixels=not pixels, force=True, specific_tags=wanted)
        if meta is not None:
            dataset.file_meta = meta
        for element in map(dataset.get_item, dataset.keys()):
            size = len(element.value or b"") if isinstance(element, RawDataElement) else 0
            if size > _MAX_VALUE and keyword_for_tag(element.tag) not in PIXELS:
                raise RefusedImage(Reason.TOO_LARGE, f"{element.tag} has {size} bytes")
        return dataset


def _meta_if_deflated(source: Any) -> FileMetaDataset | None:
    """Read the meta information of a deflated file, and go behind it; of another file, back to its start."""
    if source.read(132)[128:] == b"DICM":
        meta: FileMetaDataset = pydicom.filereader._read_file_meta_info(source)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return meta
    source.seek(0)
    return None


def _inflated(packed: bytes, limit: int, *, cut: bool) -> tuple[io.BytesIO, int]:
    """Inflate to at most `limit` bytes; give them and their number.

    Raises:
        RefusedImage: there are more, unless the rest may be `cut` off.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(packed, limit)
    if not cut and inflater.decompress(inflater.unconsumed_tail, 1):
        raise RefusedImage(Reason.TOO_LARGE, f"the deflated data set inflates to more than {limit} bytes")
    return io.BytesIO(data), len(data)


# --- The header ---


def _check(dataset: Dataset, max_pixels: int, keep: Collection[str]) -> Header:
    with translated(Reason.NOT_READABLE, "a header element cannot be read"):
        sop_class = UID(text(dataset, "SOPClassUID"))
        notes = check_modality(
            sop_class=str(sop_class),
            sop_class_name=sop_class.name if sop_class.name != str(sop_class) else "",
            modality=text(dataset, "Modality").upper(),
            is_image=dataset.get("Rows") is not None,
            keep=keep,
        ) + check_body_part(text(dataset, "BodyPartExamined"), keep)
        rows, columns, more = _check_shape(dataset, max_pixels, keep)
        if text(dataset, "BurnedInAnnotation").upper() == "YES":
            more += refused_unless(keep, Reason.BURNED_IN, "BurnedInAnnotation is YES")
        geometry = geometry_of(dataset)
        if Reason.NOT_CHEST in notes:  # the patient's right is on the left of the picture in chests, not in hands
            geometry = geometry.unturned()
        ids = {name: text(dataset, keyword) for name, keyword in _IDS.items()}
        return Header(
            **ids,
            accession=text(dataset, "AccessionNumber"),
            identity=hashlib.sha256("\0".join(ids.values()).encode()).hexdigest(),
            view=view_in(dataset),
            rows=rows,
            columns=columns,
            geometry=geometry,
            says_no_text=text(dataset, "BurnedInAnnotation").upper() == "NO",
            taken=taken_in(dataset),
            notes=notes + more + geometry.notes,
        )


def _check_shape(dataset: Dataset, max_pixels: int, keep: Collection[str]) -> tuple[int, int, tuple[str, ...]]:
    """Return rows, columns, and notes for reasons in `keep`."""
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if rows is None or columns is None:
        raise RefusedImage(Reason.NO_PIXELS, "no Rows or no Columns")
    if rows < 1 or columns < 1:
        raise PixelError(Reason.BAD_PIXELS, f"{rows} rows and {columns} columns")
    photometric = text(dataset, "PhotometricInterpretation").upper()
    samples = whole(dataset, "SamplesPerPixel") or 1
    notes: tuple[str, ...] = ()
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2", ""}:
        detail = f"{samples} samples per pixel, not MONOCHROME1 or MONOCHROME2"
        notes = refused_unless(keep, Reason.COLOUR, detail)
        if SAMPLES.get(photometric) != samples:
            raise PixelError(Reason.BAD_PIXELS, f"{samples} samples per pixel, of colours that are not read")
    if not photometric:
        raise PixelError(Reason.BAD_PIXELS, "PhotometricInterpretation is missing: polarity is unknown")
    frames = whole(dataset, "NumberOfFrames") or 1
    if frames > 1:
        notes += refused_unless(keep, Reason.MULTI_FRAME, f"{frames} frames")
    if rows * columns * samples > max_pixels:
        what = f"{rows} x {columns} pixels" + (f" of {samples} samples" if samples > 1 else "")
        raise RefusedImage(Reason.TOO_LARGE, f"{what}, and max_pixels is {max_pixels}")
    allocated = whole(dataset, "BitsAllocated") or 0
    stored = whole(dataset, "BitsStored") or allocated
    high = whole(dataset, "HighBit")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high not in (None, stored - 1):
        raise PixelError(Reason.BAD_PIXELS, f"{allocated} bits allocated, {stored} stored, high bit {high}")
    if min(rows, columns) < 2:
        raise PixelError(Reason.BAD_PIXELS, f"{rows} rows and {columns} columns are no picture")
    return rows, columns, notes
