"""A generated report as the transaction of IHE's Interactive Multimedia Report (IMR 1.1, RAD-141).

The bundle has the entries that the profile asks for: report, order, patient, organization, practitioner, observations
and imaging study, in FHIR R4. What an image header does not state (the server of the study, an order without accession
number) is given by identifier alone. Resources that another report shares are created once (`ifNoneExist`).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from html import escape
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid5

from pydicom.dataset import Dataset

from cxrreport.export.fhir import diagnostic_report, import_resources
from cxrreport.export.structured_report import NOTICE
from cxrreport.ingestion.dicom import text
from cxrreport.records import Prediction
from cxrreport.storage.decoding import without_controls

_PROFILE = "https://profiles.ihe.net/RAD/IMR/StructureDefinition/"
_IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
_DCM, _LOINC, _SNOMED = "http://dicom.nema.org/resources/ontology/DCM", "http://loinc.org", "http://snomed.info/sct"
_OBSERVATIONS = {
    "findings": ("59776-5", "Procedure Findings"),
    "impression": ("19005-8", "Radiology Imaging study [Impression] (narrative)"),
}
_SOFTWARE = "cxrreport (software)"


def bundle(prediction: Prediction, sources: list[Dataset], *, report: UUID, language: str) -> str:
    """Build the bundle as JSON, validated by fhir.resources.

    Args:
        prediction: a prediction with findings or impression.
        sources: headers of its images, all of one study.
        report: id of the report; the ids of the entries follow from it.
        language: RFC 5646 tag of the text.
    """
    first = sources[0]
    study_uid, patient_id, accession = (
        without_controls(text(first, name)) for name in ("StudyInstanceUID", "PatientID", "AccessionNumber")
    )
    day = _date(text(first, "StudyDate"))
    links = {name: uuid5(report, name).urn for name in ("order", "patient", "organization", "practitioner", "study")}
    reference = {name: {"reference": link} for name, link in links.items()}
    order = {
        "resourceType": "ServiceRequest",
        "meta": {"profile": [f"{_PROFILE}imr-servicerequest"]},
        "identifier": [
            {"type": {"coding": [{"system": _IDENTIFIER_TYPES, "code": "ACSN"}]}, "value": accession or study_uid}
        ],
        "status": "unknown",
        "intent": "order",
        "category": [{"coding": [{"system": _SNOMED, "code": "363679005", "display": "Imaging"}]}],
        "subject": reference["patient"],
    }
    study = {
        "resourceType": "ImagingStudy",
        "meta": {"profile": [f"{_PROFILE}imr-imagingstudy"]},
        "identifier": [
            {
                "type": {"coding": [{"system": _DCM, "code": "110180", "display": "Study Instance UID"}]},
                "system": "urn:dicom:uid",
                "value": f"urn:oid:{study_uid}",
            }
        ],
        "status": "available",
        "modality": [{"system": _DCM, "code": text(first, "Modality") or "DX"}],
        "subject": reference["patient"],
        **({"started": day} if day else {}),
        "endpoint": [{"type": "Endpoint", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study_uid}"}}],
        "series": _series(sources),
    }
    made = _report(prediction, report, study_uid, patient_id, language, reference)
    practitioner = {"resourceType": "Practitioner", "name": [{"text": _SOFTWARE}]}
    # Link, resource, and the search by which a server finds one that it has already.
    resources: list[tuple[str, dict[str, Any], str]] = [
        (report.urn, made, _search("identifier", f"urn:ietf:rfc:3986|{report.urn}")),
        (links["order"], order, _search("identifier", f"|{accession or study_uid}")),
        (links["patient"], _patient(patient_id, study_uid), _search("identifier", f"|{patient_id or study_uid}")),
        (links["organization"], {"resourceType": "Organization", "name": _SOFTWARE}, _search("name:exact", _SOFTWARE)),
        (links["practitioner"], practitioner, _search("name", _SOFTWARE)),
        (links["study"], study, _search("identifier", f"urn:dicom:uid|urn:oid:{study_uid}")),
    ]
    for section, (code, display) in _OBSERVATIONS.items():
        if body := getattr(prediction, section):
            coding = {"coding": [{"system": _LOINC, "code": code, "display": display}]}
            observation = {
                "resourceType": "Observation",
                "meta": {"profile": [f"{_PROFILE}imr-observation"]},
                "basedOn": [reference["order"]],
                "status": "preliminary",
                "category": [coding],
                "code": coding,
                "subject": reference["patient"],
                **({"effectiveDateTime": day} if day else {}),
                "performer": [reference["organization"]],
                "valueString": f"{NOTICE}. {body}",
                "derivedFrom": [reference["study"]],
            }
            link = uuid5(report, section).urn
            observation["identifier"] = [{"system": "urn:ietf:rfc:3986", "value": link}]
            resources.append((link, observation, _search("identifier", f"urn:ietf:rfc:3986|{link}")))
            made.setdefault("result", []).append({"reference": link})
    content = {
        "resourceType": "Bundle",
        "id": str(uuid5(report, "bundle")),
        "meta": {"profile": [f"{_PROFILE}imr-store-multimedia-report-bundle"]},
        "type": "transaction",
        "entry": [_entry(*resource) for resource in resources],
    }
    import_resources()[1].model_validate(content)
    return json.dumps(content, indent=2, ensure_ascii=False)


def _search(parameter: str, value: str) -> str:
    """A search as a server takes it; an id may hold any character."""
    return f"{parameter}={quote(value, safe=':|.')}"


def _entry(link: str, resource: dict[str, Any], search: str) -> dict[str, Any]:
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": search}
    return {"fullUrl": link, "resource": resource, "request": request}


def _report(
    prediction: Prediction, report: UUID, study_uid: str, patient_id: str, language: str, links: dict[str, Any]
) -> dict[str, Any]:
    made = diagnostic_report(prediction, report=report, study_uid=study_uid, patient_id=patient_id, language=language)
    resource: dict[str, Any] = json.loads(made)
    page = "".join(
        f"<h2>{name}</h2><p>{escape(body)}</p>"
        for name, body in (("Findings", prediction.findings), ("Impression", prediction.impression))
        if body
    )
    html = f'<!DOCTYPE html><html lang="{language}"><title>{NOTICE}</title><body><h1>{NOTICE}</h1>{page}</body></html>'
    data = html.encode()
    return resource | {
        "meta": resource["meta"] | {"profile": [f"{_PROFILE}imr-diagnosticreport"]},
        "basedOn": [links["order"]],
        "subject": links["patient"],
        "issued": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "performer": [links["organization"]],
        "resultsInterpreter": [links["practitioner"]],
        "imagingStudy": [links["study"]],
        "presentedForm": [
            {
                "contentType": "text/html",
                "language": language,
                "data": base64.b64encode(data).decode(),
                "size": len(data),
                "hash": base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode(),
            }
        ],
    }


def _patient(patient_id: str, study_uid: str) -> dict[str, Any]:
    """The patient by id alone; without one, as the patient of the study."""
    return {"resourceType": "Patient", "identifier": [{"value": patient_id or study_uid}]}


def _series(sources: list[Dataset]) -> list[dict[str, Any]]:
    series: dict[str, dict[str, Any]] = {}
    for source in sources:
        uid = text(source, "SeriesInstanceUID")
        one = series.setdefault(
            uid, {"uid": uid, "modality": {"system": _DCM, "code": text(source, "Modality") or "DX"}, "instance": []}
        )
        instance = {"uid": text(source, "SOPInstanceUID")}
        kind = {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{text(source, 'SOPClassUID')}"}
        one["instance"].append(instance | {"sopClass": kind})
    return list(series.values())


def _date(value: str) -> str:
    """A DICOM date as FHIR writes it; empty if it is none."""
    try:
        return datetime.datetime.strptime(value, "%Y%m%d").date().isoformat()
    except ValueError:
        return ""
