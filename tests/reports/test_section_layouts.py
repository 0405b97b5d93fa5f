# ruff: noqa: E501
"""Layouts of whole reports, written after the parser was finished and before it was run on them.

Invented, in the manner of MIMIC-CXR, CheXpert, community hospitals, teleradiology and exported tables. Keys: i(ndication),
t(echnique), c(omparison), f(indings), m (impression). Version 0.1.0 read 10 of the 24 exactly.
"""

from __future__ import annotations

import pytest

from cxrreport.reports.sections import parse_report

LAYOUTS = [
    (
        "EXAMINATION: Chest radiograph, 2 views\n\nCLINICAL INDICATION: Chest pain\n\nCOMPARISON EXAMINATION: None available\n\nFINDINGS: Lungs are clear.\n\nIMPRESSION: No acute disease.",
        {"i": "Chest pain", "c": "None available", "f": "Lungs are clear.", "m": "No acute disease."},
    ),
    (
        "XR CHEST 1 VIEW\n\nREASON FOR EXAM: line placement\n\nFINDINGS/IMPRESSION: Right IJ line in SVC.",
        {"i": "line placement", "f": "Right IJ line in SVC."},
    ),
    (
        "PORTABLE AP CHEST RADIOGRAPH ___ AT 04:35\n\nCLINICAL HISTORY: Intubated.\n\nCOMPARISON: ___.\n\nFINDINGS: ETT in place.\n\nIMPRESSION: As above.",
        {"i": "Intubated.", "c": "___.", "f": "ETT in place.", "m": "As above."},
    ),
    (
        "Indication: SOB. Comparison: none. Findings: The heart is large. Impression: Cardiomegaly.",
        {"i": "SOB.", "c": "none.", "f": "The heart is large.", "m": "Cardiomegaly."},
    ),
    (
        "HISTORY: Cough\nTWO VIEW CHEST: The heart is normal in size.\nNo effusion.\nCONCLUSION: Normal.",
        {"i": "Cough", "f": "The heart is normal in size. No effusion.", "m": "Normal."},
    ),
    (
        "Procedure: CXR PA/LAT\nDate of Service: 01/02/2019\nOrdering Physician: Dr. Jones\n\nImpression:\n1. No pneumonia.\n2. Stable granuloma.",
        {"m": "1. No pneumonia. 2. Stable granuloma."},
    ),
    (
        "CHEST X-RAY PA AND LATERAL: \n\nThe lungs are hyperinflated.\n\nIMPRESSION: COPD.",
        {"f": "The lungs are hyperinflated.", "m": "COPD."},
    ),
    ("FINDINGS :\nclear lungs\n\nIMPRSSION :\nnormal", {"f": "clear lungs", "m": "normal"}),
    (
        "CLINICAL INFORMATION: fall. TECHNIQUE: AP and lateral. COMPARISON: None. FINDINGS: No fracture. IMPRESSION: Negative.",
        {"i": "fall.", "t": "AP and lateral.", "c": "None.", "f": "No fracture.", "m": "Negative."},
    ),
    (
        "CHEST (PORTABLE AP)\n\n  INDICATION:  Fever.\n\n  COMPARISONS:  ___ and ___.\n\n  FINDINGS:  New opacity.\n\n  IMPRESSION:  Pneumonia.",
        {"i": "Fever.", "c": "___ and ___.", "f": "New opacity.", "m": "Pneumonia."},
    ),
    (
        "History: 54M with cough\n\nComparison: Chest radiograph 2018-03-04\n\nTechnique: PA and lateral views\n\nReport:\nHeart size normal.\n\nOpinion:\nNormal study.",
        {
            "i": "54M with cough",
            "c": "Chest radiograph 2018-03-04",
            "t": "PA and lateral views",
            "f": "Heart size normal.",
            "m": "Normal study.",
        },
    ),
    (
        "RADIOLOGY REPORT\nPatient Name: ___\nMRN: ___\nDOB: ___\nExam: XR Chest\n\nCOMPARISON: Prior CXR.\n\nThe cardiac silhouette is enlarged.\n\nIMPRESSION: Enlarged heart.",
        {"c": "Prior CXR.", "f": "The cardiac silhouette is enlarged.", "m": "Enlarged heart."},
    ),
    (
        "AP UPRIGHT AND LATERAL VIEWS OF THE CHEST:  Lung volumes are low.  There is atelectasis.\n\nIMPRESSION:  Low volumes.",
        {"f": "Lung volumes are low. There is atelectasis.", "m": "Low volumes."},
    ),
    (
        "COMPARED TO: prior film of ___\nSINGLE PORTABLE VIEW, CHEST: Tubes unchanged.\nIMPRESSION: No change.",
        {"c": "prior film of ___", "f": "Tubes unchanged.", "m": "No change."},
    ),
    (
        "FINDINGS: The lungs are clear.\nCOMMENT: Old rib fracture.\nIMPRESSION: No acute finding.\nCOMMENT: Dr. X notified by phone.",
        {"f": "The lungs are clear. Old rib fracture.", "m": "No acute finding."},
    ),
    (
        "INDICATON: Hypoxia\nCOMPARISION: None\nFINDINGSS: Edema.\nIMPRESSOIN: Edema.",
        {"i": "Hypoxia", "c": "None", "f": "Edema.", "m": "Edema."},
    ),
    (
        "CHEST, PA & LATERAL\nHISTORY: r/o TB\n\nThere is no cavity.\n\nIMPRESSION: No evidence of TB.",
        {"i": "r/o TB", "f": "There is no cavity.", "m": "No evidence of TB."},
    ),
    (
        "Chest radiograph (two views)\n\nClinical details: weight loss.\n\nFindings: Mass in the left upper lobe.\n\nConclusion: Suspicious mass. CT advised.",
        {"i": "weight loss.", "f": "Mass in the left upper lobe.", "m": "Suspicious mass. CT advised."},
    ),
    (
        "REASON FOR EXAMINATION: post op\n\nFRONTAL CHEST RADIOGRAPH: Sternal wires. \nSmall effusion.\n\nNOTIFICATION: paged",
        {"i": "post op", "f": "Sternal wires. Small effusion."},
    ),
    (
        "IMPRESSION: \n\n1. Right basilar opacity: atelectasis or pneumonia.\n\n2. Heart: enlarged.",
        {"m": "1. Right basilar opacity: atelectasis or pneumonia. 2. Heart: enlarged."},
    ),
    (
        "findings: lungs: clear. heart: normal. impression: normal chest",
        {"f": "lungs: clear. heart: normal.", "m": "normal chest"},
    ),
    ("CXR: Clear lungs. Normal heart.", {"f": "Clear lungs. Normal heart."}),
    (
        "PA AND LATERAL CHEST, ___\n\nCOMPARISON: None.\n\nHISTORY: Syncope.\n\nFINDINGS: Heart normal.\n\nIMPRESSION: Normal.",
        {"c": "None.", "i": "Syncope.", "f": "Heart normal.", "m": "Normal."},
    ),
    (
        "EXAM: XR CHEST PORTABLE 1 VIEW, XR ABDOMEN 1 VIEW\n\nINDICATION: NG tube\n\nFINDINGS:\nChest: Clear.\nAbdomen: Tube in stomach.\n\nIMPRESSION: Tube in stomach.",
        {"i": "NG tube", "f": "Chest: Clear. Abdomen: Tube in stomach.", "m": "Tube in stomach."},
    ),
]


@pytest.mark.parametrize(("text", "expected"), LAYOUTS)
def test_a_layout_that_the_parser_was_not_tuned_to(text: str, expected: dict[str, str]) -> None:
    report = parse_report(text)
    found = {
        "i": report.indication,
        "t": report.technique,
        "c": report.comparison,
        "f": report.findings,
        "m": report.impression,
    }
    assert {name: section for name, section in found.items() if section} == expected
