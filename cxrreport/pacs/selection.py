"""Which studies, series and instances are wanted, by what an archive lists or a header states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID

from cxrreport.errors import InputError, RefusedImage
from cxrreport.ingestion.dicom import identify
from cxrreport.ingestion.images import check_body_part, check_modality
from cxrreport.pacs.peers import MB, Query, Record, is_uid
from cxrreport.records import Reason
from cxrreport.settings import LimitSettings, PullSettings, RuleSettings
from cxrreport.storage.tables import read_table

_WILDCARDS = frozenset("*?\\")
_KEYWORDS = {
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "sop_uid": "SOPInstanceUID",
    "sop_class": "SOPClassUID",
    "patient_id": "PatientID",
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, with what stands for it in the exclusion log."""

    query: Query
    shown: str


def queries(settings: PullSettings) -> list[Asked]:
    """The queries of a command: one, or one for each row of its table.

    Raises:
        InputError: a row of the table has neither `study_id` nor `accession`, or an id that is not exact.
    """
    if settings.studies is None:
        dates = [f"{day:%Y%m%d}" if day else "" for day in (settings.since, settings.until)]
        for name in ("patient", "accession"):
            _check_exact(getattr(settings, name) or "", name)
        query = Query(
            study_uid=settings.study or "",
            patient_id=settings.patient or "",
            accession=settings.accession or "",
            dates="-".join(dates) if any(dates) else "",
            description=settings.description or "",
            modalities=settings.modalities,
        )
        return [Asked(query, "query")]
    table = read_table(settings.studies, columns=("study_id", "accession"))
    asked: dict[Query, Asked] = {}
    for number, row in enumerate(table.rows, start=1):
        where = f"{settings.studies}: row {number}"
        study, accession = (str(row.get(name) or "").strip() for name in ("study_id", "accession"))
        if not study and not accession:
            raise InputError(f"{where} has neither study_id nor accession; name the columns so, and remove empty rows")
        if study and not is_uid(study):
            raise InputError(f"{where}: study_id is not a UID; put accession numbers into a column accession")
        _check_exact(accession, where)
        query = Query(study_uid=study, accession="" if study else accession)
        asked.setdefault(query, Asked(query, f"row {number}"))
    return list(asked.values())


def _check_exact(value: str, where: str) -> None:
    """Refuse what an archive would read as a pattern: it could match every patient."""
    if _WILDCARDS.intersection(value):
        raise InputError(f"{where}: an id with a wildcard (*, ?) or a backslash; write the exact id")


def unwanted(record: Record) -> tuple[Reason, str] | None:
    """Why a listed series or instance is not a radiograph of the chest; `None` if it may be one."""
    kind = UID(record.sop_class)
    try:
        check_modality(
            sop_class=record.sop_class,
            sop_class_name=kind.name if kind.name != record.sop_class else "",
            modality=record.modality,
            is_image=True,
        )
        check_body_part(record.body_part)
    except RefusedImage as error:
        return Reason(error.reason), error.detail
    return None


def header(content: bytes | Path, limits: LimitSettings) -> Record:
    """What the header of an instance states.

    Raises:
        RefusedImage: it cannot be parsed, or has no valid UIDs.
    """
    values = identify(content, tuple(_KEYWORDS.values()), max_pixels=limits.instance_mb * MB)
    record = Record(**{name: values[keyword] for name, keyword in _KEYWORDS.items()})
    if not all(is_uid(uid) for uid in (record.study_uid, record.series_uid, record.sop_uid)):
        raise RefusedImage(Reason.NOT_READABLE, "a UID of study, series or instance is missing or not valid")
    return record


def rule_of(rules: Sequence[RuleSettings], otherwise: str, record: Record, sender: str) -> tuple[str, str]:
    """The action for an instance, and the rule that decides it (`rule 1`, or `otherwise`)."""
    values: Mapping[str, str] = {
        "sender": sender,
        "modality": record.modality,
        "body_part": record.body_part,
        "study_description": record.study_description,
        "series_description": record.series_description,
    }
    for number, rule in enumerate(rules, start=1):
        if rule.matches(values):
            return rule.action, f"rule {number}"
    return otherwise, "otherwise"
