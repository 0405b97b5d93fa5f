"""Which deletions the rules may make, and which words mention a prior study by their kind."""

from __future__ import annotations

import pytest

from cxrreport.reports.priors import mentions_prior
from cxrreport.reports.priors.constructions import is_known_whole


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Chest stable, lines in place", "Chest lines in place"),
        ("Hardware is intact and shows no change in alignment", "Hardware is intact and shows alignment"),
        ("Opacities have improved after surfactant", "Opacities have after surfactant"),
        ("Air fluid level is new finding", "Air fluid level is finding"),
        ("Although edema is unchanged and lungs are clear, the heart is big", "Lungs are clear, the heart is big"),
        ("Old rib fractures, again seen is a tortuous aorta", "Old rib fractures, seen is a tortuous aorta"),
        ("The tube is low, but the silhouette is unchanged", "The tube is low, but the silhouette"),
        ("Left opacity, new since ___, could be pneumonia", "Left opacity, could be pneumonia"),
        ("Stable edema with patient in stable condition", "Edema with patient in condition"),
        ("Position is the same as before", "Position is the same"),
        ("Previously seen rib fractures not well visualized", "Rib fractures not well visualized"),
        ("The mass measures 4 cm today against 3 cm", "The mass measures 4 cm against 3 cm"),
    ],
)  # fmt: skip
def test_a_deletion_that_is_not_known_whole_is_refused(before: str, after: str) -> None:
    assert not is_known_whole(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Moderate cardiomegaly (unchanged) with effusion", "Moderate cardiomegaly with effusion"),
        ("Interval increase in size of the right effusion", "Right effusion"),
        ("Left opacity is unchanged and may reflect aspiration", "Left opacity may reflect aspiration"),
        ("No change in the large right effusion since ___", "Large right effusion"),
        ("The right lung is clear; edema has resolved", "The right lung is clear"),
        ("Cardiomegaly is stable, no new focal opacity", "Cardiomegaly"),
        ("There is a new right effusion", "There is a right effusion"),
        ("An opacity has developed in the lingula", "An opacity is seen in the lingula"),
    ],
)
def test_a_deletion_of_whole_phrases_is_known(before: str, after: str) -> None:
    assert is_known_whole(before, after)


@pytest.mark.parametrize(
    "sentence",
    [
        "The opacities are dwindling.",
        "The effusion is getting bigger.",
        "Opacity is slow to clear.",
        "The nodule did not grow.",
        "Edema is a shade better.",
        "LLL opacity ↑.",
        "w/o change.",
        "There's less fluid.",
        "Compression of T12 was evident on the 2014 study.",
        "Two of these were absent in September.",
        "No pneumothorax is seen on either film.",
        "Mosaic attenuation described on HRCT is not confirmed.",
        "The nodule went from 4 to 6 mm.",
        "Nodule 6 mm, was 4 mm.",
        "In hindsight the lesion is visible in March.",
        "Overall impression is of deterioration.",
        "The lines are where they were.",
        "The opacity comes and goes from film to film.",
        "Slightly greater prominence of the hilum.",
        "Lower lung volumes.",
        "Worse on right.",
        "Good response to antibiotics.",
        "The tube came out.",
        "Follow-up: nodule not confirmed.",
        "Repeat lateral shows no abnormality.",
    ],
)
def test_kinds_of_mentions(sentence: str) -> None:
    assert mentions_prior(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "Patient fell last night.",
        "Surgery yesterday, please check line position.",
        "K/c/o CAD, now presenting with breathlessness since 2 days.",
        "Rec f/u CXR 4-6 wks.",
        "Serial films are recommended to monitor the small pneumothorax.",
        "She had a lobectomy in 2015.",
        "Rule out new infiltrate.",
        "Reason: interval change.",
        "Old versus new fracture cannot be determined.",
        "The lungs were clear to auscultation.",
        "Findings were called at 3 pm.",
        "The patient was rotated to the left.",
        "There is widening of the mediastinum.",
        "Contrast from a recent CT is in the kidneys.",
        "The two sides are similar.",
        "If this area does not resolve, CT is advised.",
        "Left lower lobe opacity.",
        "Degenerative change, advanced.",
        "Currently on chemotherapy.",
        "Resolution of symptoms.",
    ],
)
def test_what_resembles_a_mention_and_is_none(sentence: str) -> None:
    assert not mentions_prior(sentence)
