"""Whole reports in the style of MIMIC-CXR, written for this test, with the irregularities of real ones."""

from __future__ import annotations

import pytest

from cxrreport.records import Report
from cxrreport.reports.sections import parse_report

WHOLE = {
    "portable, wet read before it": (
        """ WET READ: ___ ___ ___ 9:12 PM
  Right IJ line ends in the low SVC.  No pneumothorax.
 ______________________________________________________________________________
                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old man with sepsis  // line position

 TECHNIQUE:  Portable semi-upright radiograph of the chest.

 COMPARISON:  Chest radiograph ___ at 14:07

 FINDINGS:

 A right internal jugular catheter ends in the low
 SVC.  There is no pneumothorax.

 Bibasilar opacities are likely atelectasis.

 IMPRESSION:

 Line in standard position.
""",
        Report(
            indication="___ year old man with sepsis // line position",
            technique="Portable semi-upright radiograph of the chest.",
            comparison="Chest radiograph ___ at 14:07",
            findings="A right internal jugular catheter ends in the low SVC. There is no pneumothorax. "
            "Bibasilar opacities are likely atelectasis.",
            impression="Line in standard position.",
        ),
    ),
    "addendum first": (
        """                                 FINAL ADDENDUM
  The tube was advanced after this study.
 ______________________________________________________________________________
                                 FINAL REPORT
 HISTORY:  Intubation.

 FINDINGS:  ET tube ends 7 cm above the carina.

 IMPRESSION:  ET tube is high.
""",
        Report(indication="Intubation.", findings="ET tube ends 7 cm above the carina.", impression="ET tube is high."),
    ),
    "unnamed findings between history and impression": (
        """                                 FINAL REPORT
 CHEST, TWO VIEWS:  ___

 HISTORY:  ___F with chest pain.

 COMPARISON:  None.

 The heart is mildly enlarged.  The lungs are clear.

 There is no effusion.

 IMPRESSION:  Mild cardiomegaly.
""",
        Report(
            indication="___F with chest pain.",
            comparison="None.",
            findings="The heart is mildly enlarged. The lungs are clear. There is no effusion.",
            impression="Mild cardiomegaly.",
        ),
    ),
    "impression only": (
        """                                 FINAL REPORT
 INDICATION:  Chest tube removal.

 COMPARISON:  ___.

 IMPRESSION:

 1.  Tiny right apical pneumothorax.
 2.  Small effusion.

 NOTIFICATION:  Discussed with Dr. ___ by ___, M.D. on the telephone at 3:15 PM.
""",
        Report(
            indication="Chest tube removal.",
            comparison="___.",
            impression="1. Tiny right apical pneumothorax. 2. Small effusion.",
        ),
    ),
    "findings and impression in one": (
        """                                 FINAL REPORT
 REASON FOR EXAMINATION:  Fever after surgery.

 TECHNIQUE:  PA and lateral radiographs were obtained.

 FINDINGS AND IMPRESSION:  Left lower lobe opacity may
 be pneumonia.  There is no effusion.
""",
        Report(
            indication="Fever after surgery.",
            technique="PA and lateral radiographs were obtained.",
            findings="Left lower lobe opacity may be pneumonia. There is no effusion.",
        ),
    ),
    "organs as headers inside the findings": (
        """ INDICATION:  Preoperative.

 FINDINGS:

 LUNGS:  Clear.
 HEART:  Normal in size.
 BONES:  Old healed fracture of the left clavicle.

 IMPRESSION:  No acute disease.
""",
        Report(
            indication="Preoperative.",
            findings="LUNGS: Clear. HEART: Normal in size. BONES: Old healed fracture of the left clavicle.",
            impression="No acute disease.",
        ),
    ),
    "two impressions": (
        """ CLINICAL HISTORY:  Trauma.

 FINDINGS:  Displaced fracture of the right fifth rib.

 IMPRESSION:  Rib fracture.

 RECOMMENDATION(S):  CT if there is concern for injury of the liver.

 IMPRESSION:  No pneumothorax.
""",
        Report(
            indication="Trauma.",
            findings="Displaced fracture of the right fifth rib.",
            impression="Rib fracture. No pneumothorax.",
        ),
    ),
    "everything in lower case": (
        """indication: shortness of breath
comparison: none
findings: the lungs are clear. the heart is
normal in size.
impression: normal chest
""",
        Report(
            indication="shortness of breath",
            comparison="none",
            findings="the lungs are clear. the heart is normal in size.",
            impression="normal chest",
        ),
    ),
    "all on one line": (
        "INDICATION: Cough. TECHNIQUE: PA. COMPARISON: None. FINDINGS: Left lung opacity. IMPRESSION: Pneumonia.",
        Report(
            indication="Cough.",
            technique="PA.",
            comparison="None.",
            findings="Left lung opacity.",
            impression="Pneumonia.",
        ),
    ),
    "a header that ends a wrapped sentence": (
        """ INDICATION:  Follow up.

 FINDINGS:  There is no change from the previous
 findings: the nodule is as it was.  See the
 impression.

 IMPRESSION:  Nodule in the left upper lobe.
""",
        Report(
            indication="Follow up.",
            findings="There is no change from the previous findings: the nodule is as it was. See the impression.",
            impression="Nodule in the left upper lobe.",
        ),
    ),
    "a typing mistake in a header": (
        """ NDICATION:  Dialysis catheter.

 COMPARISION:  ___.

 FINDNGS:  Catheter in the right atrium.

 IMPRESSON:  Catheter in place.
""",
        Report(
            indication="Dialysis catheter.",
            comparison="___.",
            findings="Catheter in the right atrium.",
            impression="Catheter in place.",
        ),
    ),
    "provisional impression, read by two": (
        """ PROVISIONAL FINDINGS IMPRESSION (PFI): ___ ___ ___ 6:01 AM
  Edema.
 ______________________________________________________________________________
                                 FINAL REPORT
 INDICATION:  Heart failure.

 FINDINGS:  Mild interstitial edema.  Moderate cardiomegaly.

 IMPRESSION:  Heart failure.

 DICTATED BY: ___
 SIGNED BY: ___
""",
        Report(
            indication="Heart failure.",
            findings="Mild interstitial edema. Moderate cardiomegaly.",
            impression="Heart failure.",
        ),
    ),
    "no headers": (
        """                                 FINAL REPORT
 PORTABLE CHEST RADIOGRAPH

 Lungs are hyperinflated.  No consolidation.

 Pacemaker leads end in the right atrium and ventricle.
""",
        Report(
            findings="Lungs are hyperinflated. No consolidation. Pacemaker leads end in the right atrium and ventricle."
        ),
    ),
    "headers alone on their lines": (
        """INDICATION
___M with weight loss

COMPARISON
___

FINDINGS
3 cm mass in the right upper lobe.

IMPRESSION
Mass, concerning for cancer.
""",
        Report(
            indication="___M with weight loss",
            comparison="___",
            findings="3 cm mass in the right upper lobe.",
            impression="Mass, concerning for cancer.",
        ),
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_reports(name: str) -> None:
    text, expected = WHOLE[name]
    assert parse_report(text) == expected
    assert parse_report(text.replace("\n", "\r\n")) == expected
