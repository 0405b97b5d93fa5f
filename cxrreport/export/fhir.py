"""A generated report as FHIR R4B DiagnosticReport; the only importer of fhir.resources.

What the resource is made of is checked by that library before it is written.
"""

from __future__ import annotations

from html import escape
from typing import Any
from uuid import UUID

from cxrreport.errors import MissingExtraError
from cxrreport.export.structured_report import NOTICE
from cxrreport.records import Prediction

CHEST_REPORT = "30745-4"
"""LOINC, radiography of the chest, any views."""
NOTICE_URL = "https://github.com/cxrreport/cxrreport/blob/main/docs/interoperability.md#notice"


def resource() -> Any:
    """The class of the resource, imported when it is needed.

    Raises:
        MissingExtraError: fhir.resources is not installed.
    """
    try:
        from fhir.resources.R4B.diagnosticreport import DiagnosticReport
    except ImportError as error:
        raise MissingExtraError("FHIR DiagnosticReport", "fhir") from error
    return DiagnosticReport


def diagnostic_report(prediction: Prediction, *, report: UUID, study_uid: str, patient_id: str, language: str) -> str:
    """The resource as JSON: preliminary, labelled as written by a machine.

    Args:
        prediction: with findings or impression.
        report: its id.
        study_uid: Study Instance UID of the images.
        patient_id: empty where the images have none.
        language: RFC 5646 tag of the text.
    """
    sections = [
        (name, body)
        for name, body in (("Findings", prediction.findings), ("Impression", prediction.impression))
        if body
    ]
    paragraphs = "".join(f"<p><b>{name}</b>: {escape(body)}</p>" for name, body in sections)
    narrative = f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{NOTICE}.</p>{paragraphs}</div>'
    values: dict[str, Any] = {
        "id": str(report),
        "meta": {
            # The label that HL7 has for what a machine asserts.
            "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}]
        },
        "language": language,
        "text": {"status": "generated", "div": narrative},
        "extension": [{"url": NOTICE_URL, "valueString": NOTICE}],
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": report.urn}],
        "status": "preliminary",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": CHEST_REPORT}], "text": "Chest X-ray report"},
        "imagingStudy": [
            {
                "type": "ImagingStudy",
                "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study_uid}"},
            }
        ],
        "conclusion": "\n".join([f"{NOTICE}.", *(f"{name}: {body}" for name, body in sections)]),
    }
    if patient_id:
        values["subject"] = {"type": "Patient", "identifier": {"value": patient_id}}
    written: str = resource()(**values).model_dump_json(indent=2)
    return written
