"""A generated report as DICOM Structured Report; the only importer of highdicom.

The template is Basic Diagnostic Imaging Report (PS3.16 TID 2000): headings, each with a narrative that is inferred from
the images. The SOP class is Enhanced SR, the simplest that highdicom writes; a text needs none of the additions of
Comprehensive SR (references between content items, spatial regions).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxrreport.errors import MissingExtraError
from cxrreport.ingestion.dicom import text, translated
from cxrreport.records import Prediction, Reason

NOTICE = "Research, AI-generated, not for clinical use"
NAMESPACE = UUID("3d2d5a3c-7a55-4d0a-9a3e-6f1f6f6d2c11")
"""Namespace of all UIDs and ids of this package (RFC 9562, version 5); equal content gets equal ids."""
_LANGUAGES = {"en": "English"}
_SOURCE = Code("260753009", "SCT", "Source")
_HEADINGS = (
    ("findings", codes.cid7001.Findings, codes.cid7002.Finding),
    ("impression", codes.cid7001.Impressions, codes.cid7002.Impression),
)


def import_highdicom() -> Any:
    """Import highdicom on first use.

    Raises:
        MissingExtraError: highdicom is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise MissingExtraError("DICOM Structured Report", "sr") from error
    return highdicom


def write(
    path: Path, prediction: Prediction, sources: Sequence[Dataset], *, report: UUID, model: str, language: str
) -> None:
    """Write one report as partial, preliminary and unverified.

    Args:
        path: path of the file.
        prediction: a prediction with findings or impression.
        sources: headers of its images (`ingestion.dicom.reference.reopen`), all of one study.
        report: id of the instance; its series holds no other instance.
        model: name of the observer.
        language: RFC 5646 tag of the text.

    Raises:
        RefusedImage: `not-readable`; patient or study of the source cannot be copied.
    """
    content = _content(prediction, sources, model, language)
    with translated(Reason.NOT_READABLE, "patient and study of the source cannot be copied"):
        document = import_highdicom().sr.EnhancedSR(
            evidence=sources,
            content=content,
            series_instance_uid=uid(uuid5(report, "series")),
            series_number=1,
            sop_instance_uid=uid(report),
            instance_number=1,
            manufacturer="cxrreport",
            manufacturer_model_name="cxrreport",
            software_versions=metadata.version("cxrreport"),
            series_description=NOTICE,
            specific_character_set="ISO_IR 192",
            is_complete=False,
            is_final=False,
            is_verified=False,
        )
        document.save_as(path, enforce_file_format=True)


def _content(prediction: Prediction, sources: Sequence[Dataset], model: str, language: str) -> Any:
    sr = import_highdicom().sr
    root = sr.ContainerContentItem(name=codes.cid7000.XRayReport, template_id="2000")
    root.ContentSequence = sr.ContentSequence()
    # Rows 5, 7 and 8 of the template in their required order: language, observer, headings. The notice is the first
    # heading, because only language and observer may precede headings.
    language_name = sr.CodedConcept(language, "RFC5646", _LANGUAGES.get(language, language))
    root.ContentSequence.extend(sr.LanguageOfContentItemAndDescendants(language_name))
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uid(uuid5(NAMESPACE, model)), name=model, manufacturer_name="cxrreport"
    )
    root.ContentSequence.extend(
        sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
    )
    root.ContentSequence.append(_heading(codes.DCM.Comment, codes.DCM.Comment, f"{NOTICE}.", ()))
    for section, heading, element in _HEADINGS:
        if body := getattr(prediction, section):
            root.ContentSequence.append(_heading(heading, element, body, sources))
    return root


def _heading(heading: Code, element: Code, body: str, sources: Sequence[Dataset]) -> Any:
    """A heading with one text (TID 2002) that is inferred from images (TID 2001)."""
    sr = import_highdicom().sr
    contains, inferred = sr.RelationshipTypeValues.CONTAINS, sr.RelationshipTypeValues.INFERRED_FROM
    container = sr.ContainerContentItem(name=heading, relationship_type=contains)
    narrative = sr.TextContentItem(name=element, value=body, relationship_type=contains)
    if sources:
        narrative.ContentSequence = sr.ContentSequence(
            sr.ImageContentItem(
                name=_SOURCE,
                referenced_sop_class_uid=text(source, "SOPClassUID"),
                referenced_sop_instance_uid=text(source, "SOPInstanceUID"),
                relationship_type=inferred,
            )
            for source in sources
        )
    container.ContentSequence = sr.ContentSequence([narrative])
    return container


def uid(value: UUID) -> str:
    """UID of a UUID (PS3.5 B.2)."""
    return f"2.25.{value.int}"
