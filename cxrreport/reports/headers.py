"""Names of sections in reports, and titles of the examination."""

from __future__ import annotations

import re

OTHER, TITLE, COMMENT = "other", "title", "comment"
"""Blocks that are not sections: administrative text, a title of the examination, and a comment or note."""

NAMES = {
    "indication": (
        "indication, indications, indication for study, indication for exam, indication for examination, ndication, "
        "indication for procedure, exam indication, clinical indication, clinical indications, history, "
        "clinical history, patient history, pertinent history, relevant history, brief history, medical history, "
        "past medical history, provided history, given history, history of present illness, hx, clinical hx, "
        "clinical information, relevant clinical information, clinical info, clinical data, clinical details, "
        "clinical statement, clinical question, clinical context, clinical background, clinical problem, "
        "clinical summary, clinical notes, indication and history, history and indication, indications and history, "
        "reason, reason for exam, reason for examination, reason for study, reason for the study, "
        "reason for this examination, reason for this exam, reason for the exam, reason for the examination, "
        "reason for consultation, reason for request, reason for referral, reason for visit, reason for imaging, "
        "exam reason, chief complaint, presenting complaint, complaint, symptoms, signs and symptoms, "
        "medical condition, underlying medical condition, admitting diagnosis"
    ),
    "technique": "technique, techniques, technqiue, imaging technique, technical information, technical factors",
    "comparison": (
        "comparison, comparisons, comparison study, comparison studies, comparison exam, comparison exams, "
        "comparison examination, comparison examinations, comparison film, comparison films, comparison date, "
        "comparison radiograph, comparison radiographs, comparison with, comparison to, comparision, comparsion, "
        "compared to, compared with, prior studies, prior study, prior exam, prior exams, prior examination, "
        "prior examinations, prior films, prior imaging, priors, relevant priors, previous studies, previous study, "
        "previous exam, previous examination, previous examinations, previous films, previous imaging, old films, "
        "reference exam, reference examination, reference study, reference studies, reference film"
    ),
    # A text that is both is stored once, as findings.
    "findings": (
        "findings, finding, chest findings, radiographic findings, radiological findings, radiology findings, "
        "imaging findings, cxr findings, findngs, finidngs, fidings, findings and impression, impression and findings, "
        "findings and impressions, findings and conclusion, report, description, observation, observations, result, "
        "results, body of report"
    ),
    "impression": (
        "impression, impressions, final impression, overall impression, impresion, impresson, imression, conclusion, "
        "conclusions, opinion, summary, interpretation, assessment, final diagnosis, radiographic impression"
    ),
    COMMENT: "comment, comments, note, notes",
    OTHER: (
        "examination, exam, exams, study, study type, type of exam, type of examination, type of study, exam type, "
        "exam name, exam description, examination performed, exam performed, procedure, procedures, date, exam date, "
        "date of exam, date of examination, date of study, study date, date of service, date and time, time, "
        "report date, accession, accession number, accession no, acc no, mrn, medical record number, record number, "
        "patient, patient name, patient id, name, dob, date of birth, age, sex, gender, doctor, physician, "
        "ordering physician, referring physician, requesting physician, ordering provider, referring doctor, "
        "requested by, ordered by, referred by, attending, attending physician, radiologist, resident, "
        "reading physician, interpreted by, read by, reviewed by, verified by, approved by, transcribed by, "
        "transcriptionist, location, ward, unit, department, facility, hospital, modality, order, order number, "
        "order no, status, report status, priority, wet read, wet read version, addendum, addenda, final addendum, "
        "final report, preliminary report, pfi, provisional findings impression, notification, notifications, "
        "recommendation, recommendations, communication, attestation, dictated by, dictated, signed by, signed, "
        "electronically signed by, end of report, comment on notification, cc"
    ),
}
"""Section to the names of its headers, in lower case, separated by commas."""

_BODY = frozenset(
    """
    chest thorax thoracic cxr
    """.split()  # noqa: SIM905 - easier to read and to extend
)
_IMAGE = frozenset(
    """
    x-ray x-rays xray xrays xr radiograph radiographs radiographic radiography roentgenogram film films view
    views projection projections exam examination study series image images imaging
    """.split()  # noqa: SIM905 - easier to read and to extend
)
_VIEW = frozenset(
    """
    pa ap lat lateral laterals frontal portable port upright supine semi-upright semiupright semi-erect erect
    sitting standing recumbent bedside mobile decubitus oblique obliques lordotic apical posteroanterior
    anteroposterior postero-anterior antero-posterior inspiration inspiratory expiration expiratory left right
    routine digital dx cr dr stat single-view two-view 1-view 2-view
    """.split()  # noqa: SIM905 - easier to read and to extend
)
_COUNT = frozenset(
    """
    one two three four single dual multiple additional repeat 1 2 3 4 1v 2v
    """.split()  # noqa: SIM905 - easier to read and to extend
)
_GLUE = frozenset(
    """
    and of the with a an in at on only or w to for from plus both & / + am pm a.m p.m hours hrs
    """.split()  # noqa: SIM905 - easier to read and to extend
)
_WHEN = re.compile(r"^(?:_{2,}|x{4,}|\d{1,4}(?:[:./-]\d{1,4}){0,2})$")


def is_title(name: str) -> bool:
    """True for a title of the examination, such as `PA AND LATERAL CHEST RADIOGRAPHS` or `AP CHEST, 5:12 A.M. ON ___`.

    Every word is a word of the body part, the modality, a view, a count or a time, and at least one says what was
    examined: the body part, or both a view and the modality.

    Args:
        name: text before a colon, or a whole line, of at most 100 characters.
    """
    if len(name) > 100:
        return False
    words = re.sub(r"[(),;]", " ", name.lower().replace("x ray", "x-ray")).replace("/", " ").split()
    known = [word.strip(".") or word for word in words]
    kinds = [_kind(word) for word in known]
    return "" not in kinds and ("body" in kinds or ("view" in kinds and "image" in kinds))


def _kind(word: str) -> str:
    if word in _BODY:
        return "body"
    if word in _IMAGE:
        return "image"
    if word in _VIEW or word in _COUNT:
        return "view"
    return "glue" if word in _GLUE or _WHEN.match(word) else ""


def misspelled(name: str, target: str) -> bool:
    """True if a word is a header with a letter missing, added, wrong or exchanged; two letters from ten on.

    Args:
        name: one word in lower case.
        target: the header, in lower case.
    """
    most = 2 if len(target) >= 10 and name.endswith(target[-3:]) else 1  # not `impressive`
    if abs(len(name) - len(target)) > most or name[:1] not in (target[0], target[1]):
        return False
    before: list[int] = []
    row = list(range(len(target) + 1))
    for i, letter in enumerate(name, start=1):
        before, last, row = row, before, [i]
        for j, wanted in enumerate(target, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == target[j - 2] and name[i - 2] == wanted:
                cost = min(cost, last[j - 2] + 1)  # Damerau: exchanged neighbours
            row.append(cost)
    return row[-1] <= most
