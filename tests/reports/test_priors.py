"""Mentions of prior studies: detected in labelled sentences, and edited without changing a finding."""

# ruff: noqa: E501

from __future__ import annotations

import csv
import hashlib
import math
import re
from pathlib import Path

import pytest

from cxrreport.reports.priors import edit_sentence, mentions_prior, remove_priors
from cxrreport.reports.sentences import sentences

LABELS = Path(__file__).parent / "data/prior-mentions.csv"
NEGATION = re.compile(r"\b(?:no|not|without|negative|free|neither|nor|never|unlikely|absent)\b", re.IGNORECASE)
MAY_APPEAR = {"is", "are", "seen", "there", "no", "a", "an"}

# fmt: off
EDITED = [
    ('There is decreased opacity.', 'There is opacity.'),
    ('Increased edema.', 'Edema.'),
    ('Right internal jugular line is unchanged, terminating in the mid SVC.', 'Right internal jugular line, terminating in the mid SVC.'),
    ('Left basilar opacity is unchanged and may represent atelectasis.', 'Left basilar opacity may represent atelectasis.'),
    ('There is again seen a large hiatal hernia.', 'There is a large hiatal hernia.'),
    ('The heart is enlarged as before.', 'The heart is enlarged.'),
    ('No new or worsening infiltrate; stable cardiomegaly.', 'Cardiomegaly.'),
    ('Stable cardiomegaly; no new infiltrate.', 'Cardiomegaly.'),
    ('Unchanged right effusion, but increased left effusion.', 'Right effusion, but left effusion.'),
    ('Cardiomegaly without change.', 'Cardiomegaly.'),
    ('Stable absence of pneumothorax.', 'Absence of pneumothorax.'),
    ('Effusion not changed.', 'Effusion.'),
    ('Interval worsening of bilateral airspace opacities.', 'Bilateral airspace opacities.'),
    ('There is interval worsening of pulmonary edema, now moderate.', 'Pulmonary edema, moderate.'),
    ('Stable postoperative appearance.', 'Postoperative appearance.'),
    ('New since the prior study is a left basilar opacity.', 'There is a left basilar opacity.'),
    ('Right lower lobe opacity, new since ___.', 'Right lower lobe opacity.'),
    ('Left pleural effusion, not seen previously.', 'Left pleural effusion.'),
    ('Small left pneumothorax, decreased since yesterday.', 'Small left pneumothorax.'),
    ('Heart size is unchanged and top normal.', 'Heart size is top normal.'),
    ('Cardiomegaly, unchanged; mild edema, new.', 'Cardiomegaly; mild edema.'),
    ('Tracheostomy tube and left subclavian line are stable in position.', 'Tracheostomy tube and left subclavian line.'),
    ('Enteric tube tip remains below the diaphragm.', 'Enteric tube tip is below the diaphragm.'),
    ('Stable, chronic interstitial disease.', 'Chronic interstitial disease.'),
    ('Chronic, unchanged compression deformity at T8.', 'Chronic, compression deformity at T8.'),
    ('Multiple old left rib fractures are again seen.', 'Multiple old left rib fractures are seen.'),
    ('A calcified granuloma is unchanged from prior exams in the left upper lobe.', 'Calcified granuloma in the left upper lobe.'),
    ('Healed left rib fractures, as seen previously.', 'Healed left rib fractures.'),
    ('As seen on the prior CT, there is a 3 cm right hilar mass.', 'There is a 3 cm right hilar mass.'),
    ('Heart is top normal in size, unchanged.', 'Heart is top normal in size.'),
    ('The left-sided effusion has increased and is now moderate.', 'The left-sided effusion is moderate.'),
    ('Interval development of left basilar opacity, which could represent pneumonia.', 'Left basilar opacity, which could represent pneumonia.'),
    ('Lungs are unchanged, with emphysema.', 'Emphysema.'),
    ('Pulmonary vascular congestion is improved.', 'Pulmonary vascular congestion.'),
    ('Pulmonary vascular congestion without interval change.', 'Pulmonary vascular congestion.'),
    ('Persistent low lung volumes.', 'Low lung volumes.'),
    ('Low lung volumes persist.', 'Low lung volumes.'),
    ('Continued low lung volumes with bibasilar atelectasis.', 'Low lung volumes with bibasilar atelectasis.'),
    ('The right-sided pleural effusion is new from prior.', 'Right-sided pleural effusion.'),
    ('Since ___, right pleural effusion has increased.', 'Right pleural effusion.'),
    ('Unchanged position of left PICC.', 'Left PICC.'),
    ('Left PICC in unchanged position with tip in SVC.', 'Left PICC with tip in SVC.'),
    ('Stable bilateral pleural effusions, right greater than left.', 'Bilateral pleural effusions, right greater than left.'),
    ('There are persistent small bilateral pleural effusions, left larger than right.', 'There are small bilateral pleural effusions, left larger than right.'),
    ('Compared with prior exam, no pneumothorax.', 'No pneumothorax.'),
    ('No consolidation is seen, and the small effusion is unchanged.', 'No consolidation is seen, and there is a small effusion.'),
    ('Heart size is not enlarged, unchanged from prior.', 'Heart size is not enlarged.'),
    ('Stable cardiomegaly, no focal consolidation.', 'Cardiomegaly, no focal consolidation.'),
    ('Lines and tubes are unchanged, without pneumothorax.', 'Lines and tubes, without pneumothorax.'),
    ('Unremarkable and unchanged cardiomediastinal silhouette.', 'Unremarkable cardiomediastinal silhouette.'),
    ('The previously seen pneumothorax has decreased and is now tiny.', 'The pneumothorax is tiny.'),
    ('The effusion is unchanged.', 'Effusion.'),
    ('The cardiomegaly is increased.', 'Cardiomegaly.'),
    ('Unchanged pneumothorax.', 'Pneumothorax.'),
    ('There is increased effusion.', 'There is effusion.'),
    ('The lungs are clear without new consolidation.', 'The lungs are clear.'),
    ('Cardiomegaly is stable, no new focal opacity.', 'Cardiomegaly.'),
    ('As compared to the previous radiograph, the patient has received a new right-sided PICC line.', 'Right-sided PICC line.'),
    ('In comparison with the study of ___, there is increasing opacification at the left base.', 'There is opacification at the left base.'),
    ('Compared to the prior study, the lungs are clear.', 'The lungs are clear.'),
    ('The right pleural effusion has decreased in size.', 'Right pleural effusion.'),
    ('The right pleural effusion is slightly increased in size.', 'Right pleural effusion.'),
    ('Bibasilar opacities have worsened.', 'Bibasilar opacities.'),
    ('Previously seen right upper lobe opacity is not visualized.', 'Right upper lobe opacity is not visualized.'),
    ('The previously noted nodule is unchanged.', 'Nodule.'),
    ('ET tube remains in standard position.', 'ET tube is in standard position.'),
    ('Endotracheal tube and nasogastric tube are in unchanged position.', 'Endotracheal tube and nasogastric tube.'),
    ('Monitoring and support devices are unchanged.', 'Monitoring and support devices.'),
    ('Heart size remains normal.', 'Heart size is normal.'),
    ('The lungs remain clear.', 'The lungs are clear.'),
    ('Small left effusion persists.', 'Small left effusion.'),
    ('Again seen is a small left pleural effusion.', 'There is a small left pleural effusion.'),
    ('Again noted are multiple rib fractures.', 'There are multiple rib fractures.'),
    ('Moderate cardiomegaly is again noted.', 'Moderate cardiomegaly is noted.'),
    ('The patient is status post sternotomy with stable cardiomegaly.', 'The patient is status post sternotomy with cardiomegaly.'),
    ('Interval placement of a right PICC with tip in the SVC.', 'Right PICC with tip in the SVC.'),
    ('There has been interval development of a moderate left pleural effusion.', 'Moderate left pleural effusion.'),
    ('There is a new right lower lobe opacity concerning for pneumonia.', 'There is a right lower lobe opacity concerning for pneumonia.'),
    ('A new opacity is seen at the left base.', 'An opacity is seen at the left base.'),
    ('New mild pulmonary edema.', 'Mild pulmonary edema.'),
    ('Mild pulmonary edema is new.', 'Mild pulmonary edema.'),
    ('Interval improvement in pulmonary edema.', 'Pulmonary edema.'),
    ('Improving pulmonary edema.', 'Pulmonary edema.'),
    ('Worsening multifocal pneumonia.', 'Multifocal pneumonia.'),
    ('Pulmonary edema has improved.', 'Pulmonary edema.'),
    ('Unchanged appearance of the left-sided pacemaker.', 'Left-sided pacemaker.'),
    ('Cardiac and mediastinal contours are unchanged and within normal limits.', 'Cardiac and mediastinal contours are within normal limits.'),
    ('The aorta remains tortuous.', 'The aorta is tortuous.'),
    ('No residual pneumothorax.', 'No pneumothorax.'),
    ('No persistent pneumothorax.', 'No pneumothorax.'),
    ('Old healed rib fractures are unchanged.', 'Old healed rib fractures.'),
    ('Right apical scarring, unchanged since ___.', 'Right apical scarring.'),
    ('Stable to slightly improved right effusion.', 'Right effusion.'),
    ('Unchanged small left effusion and no pneumothorax.', 'Small left effusion and no pneumothorax.'),
    ('Mild interstitial edema, slightly improved compared to the prior radiograph from ___ at 5:30.', 'Mild interstitial edema.'),
    ('The nodule has not changed in size since ___.', 'Nodule.'),
    ('No change in the small left apical pneumothorax.', 'Small left apical pneumothorax.'),
    ('There has been no significant change in the bilateral effusions since the prior study.', 'Bilateral effusions.'),
    ('The known right hilar mass is again demonstrated, unchanged from the previous CT.', 'The known right hilar mass is demonstrated.'),
    ('Persistent elevation of the right hemidiaphragm.', 'Elevation of the right hemidiaphragm.'),
    ('The heart is mildly enlarged, unchanged.', 'The heart is mildly enlarged.'),
    ('Sternal wires are intact and unchanged.', 'Sternal wires are intact.'),
    ('Bibasilar atelectasis has slightly increased.', 'Bibasilar atelectasis.'),
    ('Continued enlargement of the cardiac silhouette.', 'Enlargement of the cardiac silhouette.'),
    ('Right hemithorax is now completely opacified.', 'Right hemithorax is completely opacified.'),
    ('There is still a small effusion.', 'There is a small effusion.'),
    ('Stable cardiomegaly.', 'Cardiomegaly.'),
    ('There is no change in the size of the left effusion.', 'Left effusion.'),
    ('No pneumothorax, unchanged.', 'No pneumothorax.'),
    ('Interval increase in the left pneumothorax, now large.', 'Left pneumothorax, large.'),
    ('Lungs remain hyperinflated without focal consolidation.', 'Lungs are hyperinflated without focal consolidation.'),
    ('Not significantly changed cardiomegaly.', 'Cardiomegaly.'),
    ('The left basal opacity is unchanged.', 'Left basal opacity.'),
    ('Opacity in the left base is unchanged.', 'Opacity in the left base.'),
    ('No change in the left basal opacity.', 'Left basal opacity.'),
    ('The left upper lobe nodule is stable in size.', 'Left upper lobe nodule.'),
    ('The right apical pneumothorax has increased.', 'Right apical pneumothorax.'),
    ('Right greater than left effusions, unchanged.', 'Right greater than left effusions.'),
]
DROPPED = [
    'Nodular opacity at the left base seen on prior radiograph is not appreciated today.',
    'The edema is about the same.',
    'Effusion, if anything, is larger.',
    'No new infiltrate is seen.',
    'Without significant interval change.',
    'Right effusion is unchanged while left effusion has increased.',
    'There is no change in cardiomegaly or edema.',
    'The pneumothorax is not larger.',
    'No increase in effusion.',
    'Otherwise, no significant interval change.',
    'Otherwise unchanged.',
    'The remainder of the exam is unchanged.',
    'Unchanged from ___.',
    'Stable.',
    'Not present on the prior study is a right nodule.',
    'Small pneumothorax, larger than on the prior study.',
    'Mediastinal contours and heart size are stable in appearance.',
    'Dobbhoff tube has been advanced and now terminates in the stomach.',
    'A left chest tube has been placed.',
    'This is not significantly changed from prior.',
    'Slightly improved aeration at the lung bases.',
    'There has been interval improvement.',
    'There is no evidence of interval development of pneumothorax.',
    'No pneumothorax after interval removal of chest tube.',
    'Right pleural effusion is smaller.',
    'No pneumothorax compared with prior exam.',
    'Right effusion has decreased, without residual fluid.',
    'No focal consolidation, stable cardiomegaly.',
    'No interval development of effusion or pneumothorax.',
    'Effusions have nearly resolved.',
    'No new effusion.',
    'There is no new focal consolidation.',
    'No new or enlarging effusion.',
    'No significant interval change.',
    'As compared to the previous radiograph, there is no relevant change.',
    'In comparison with the study of ___, there is little change.',
    'Since the prior exam, there has been interval removal of the endotracheal tube.',
    'Right pleural effusion has resolved.',
    'The pneumothorax is no longer seen.',
    'No worsening of pulmonary edema.',
    'No evidence of worsening effusion.',
    'Lung volumes are lower than before.',
    'The cardiomediastinal silhouette is stable.',
    'There is no longer evidence of pneumothorax.',
    'There is no pneumothorax or new effusion.',
    'No pneumothorax, effusion, or new consolidation.',
    'Interval resolution of left pleural effusion.',
    'Right lung is better aerated.',
    'Left lower lobe collapse is more pronounced.',
    'Consider comparison with prior radiographs.',
    'Prior chest radiograph dated ___ is not available.',
    'A right upper lobe nodule was seen on the prior CT.',
    'The patient has been extubated.',
    'Nasogastric tube has been removed.',
    'Neither new consolidation nor effusion.',
    'Free of new infiltrate.',
    'Negative for interval change.',
    'The effusion is not new.',
    'Complete resolution of pneumonia.',
    'Pneumonia has cleared.',
    'Minimal interval clearing of the edema.',
    'Left lower lobe opacity has not resolved.',
    'Slightly more prominent interstitial markings.',
    'There is no evidence of pneumothorax since the removal.',
    'Unlikely new pneumonia.',
    'No obvious new rib fracture.',
]
NO_MENTION = [
    'No acute change.',
    'No acute osseous changes.',
    'Prior median sternotomy.',
    'Status post prior CABG.',
    'Follow-up to resolution is recommended.',
    'Moderate enlargement of the cardiac silhouette.',
    'Recommend follow-up chest CT to document stability.',
    'Clinically stable patient.',
    'New York Heart Association class III.',
    'No evidence of pneumothorax following removal of the chest tube.',
]
# fmt: on


@pytest.mark.parametrize(("given", "expected"), EDITED)
def test_a_mention_is_removed(given: str, expected: str) -> None:
    assert mentions_prior(given)
    assert edit_sentence(given) == expected
    assert not mentions_prior(expected)


@pytest.mark.parametrize("given", DROPPED)
def test_a_sentence_without_a_safe_edit_is_dropped_and_counted(given: str) -> None:
    edited = remove_priors(given)
    assert (edited.text, edited.mentioned, edited.edited, edited.dropped) == ("", 1, 0, 1)


@pytest.mark.parametrize("given", NO_MENTION)
def test_history_and_recommendations_are_kept(given: str) -> None:
    assert not mentions_prior(given)
    assert remove_priors(given).text == given


def test_an_edit_keeps_side_and_zone() -> None:
    place = re.compile(r"\b(?:left|right|bilateral|upper|lower|mid|apical|bas\w+|hilar|lobe|zone)\b")
    # A sentence that loses a clause may lose the place named in it.
    for given, expected in EDITED:
        if not re.search(r"[;,] ", given):
            assert set(place.findall(given.lower())) == set(place.findall(expected.lower())), given


def test_the_table_has_enough_pairs() -> None:
    assert len(EDITED) + len(DROPPED) >= 120
    assert len({given for given, _ in EDITED} | set(DROPPED)) == len(EDITED) + len(DROPPED)


def test_an_edit_keeps_negations_and_adds_no_word() -> None:
    for given, expected in EDITED:
        check_edit(given, expected)


def check_edit(given: str, edited: str) -> None:
    """All words of the edit are in the sentence, and the same words are negated in both."""
    before, after = words(given), words(edited)
    assert set(after) <= set(before) | MAY_APPEAR, (given, edited)
    denied = set(denied_words(edited))
    assert denied <= denied_words(given) | MAY_APPEAR, (given, edited)
    affirmed = set(after) - denied
    affirmed_before = set(before) - denied_words(
        re.sub(r"(?i)\b(no|not|without|little)\b(?= (?:\w+ ){0,3}change)", "", given)
    )
    assert affirmed <= affirmed_before | MAY_APPEAR, (given, edited)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9_]+", text.lower())


def denied_words(text: str) -> set[str]:
    """Words after a negation, up to the end of the clause."""
    denied: set[str] = set()
    for clause in re.split(r"[;.]|, (?=no |and )|\b(?:but|and there|although)\b", text):
        found = NEGATION.search(clause)
        if found:
            denied |= set(words(clause[found.end() :]))
    return denied


def test_a_list_is_renumbered() -> None:
    edited = remove_priors("1. Stable chest. 2. Unchanged cardiomegaly. 3. No pneumothorax.")
    assert edited.text == "1. Cardiomegaly. 2. No pneumothorax."
    assert (edited.sentences, edited.mentioned, edited.edited, edited.dropped) == (3, 2, 1, 1)
    assert remove_priors("1. No new effusion. 2. Cardiomegaly.").text == "Cardiomegaly."


def test_text_without_a_mention_is_unchanged() -> None:
    text = "The lungs are clear. No effusion; no pneumothorax. 2.5 cm nodule, T 8."
    assert remove_priors(text).text == text
    assert remove_priors("").text == ""


def reports(shared: Path) -> list[dict[str, str]]:
    with (shared / "openi/reports.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def interval(hits: int, of: int) -> tuple[float, float]:
    """Wilson, 95%."""
    share, z = hits / of, 1.96
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return middle - half, middle + half


def test_detection_on_the_held_out_half(shared: Path) -> None:
    texts = {row["uid"]: sentences(row["findings"]) + sentences(row["impression"]) for row in reports(shared)}
    counts = {half: {"hit": 0, "missed": 0, "false": 0, "right": 0} for half in ("tuning", "held-out")}
    with LABELS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            sentence = texts[row["uid"]][int(row["sentence"]) - 1]
            assert hashlib.sha256(sentence.encode()).hexdigest()[:8] == row["sha256"], (
                "the sentence splitter has changed"
            )
            found = mentions_prior(sentence)
            kind = ("hit" if found else "missed") if row["prior"] == "1" else ("false" if found else "right")
            counts[row["half"]][kind] += 1
    held_out = counts["held-out"]
    assert sum(held_out.values()) == sum(counts["tuning"].values()) == 170
    precision = interval(held_out["hit"], held_out["hit"] + held_out["false"])
    recall = interval(held_out["hit"], held_out["hit"] + held_out["missed"])
    assert precision[0] > 0.90, held_out
    assert recall[0] > 0.90, held_out


def test_two_readers_agree() -> None:
    """Cohen's kappa of the labels of two readers, as reported in `docs/reports.md`."""
    with LABELS.open(encoding="utf-8", newline="") as file:
        pairs = [(row["prior"], row["second_reader"]) for row in csv.DictReader(file) if row["second_reader"]]
    assert len(pairs) == 60
    agreed = sum(first == second for first, second in pairs) / len(pairs)
    shares = [sum(pair[reader] == "1" for pair in pairs) / len(pairs) for reader in (0, 1)]
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    assert (agreed - chance) / (1 - chance) > 0.9 and chance < 0.6


def test_every_edit_of_the_open_i_reports(shared: Path) -> None:
    """The edited text has no mention and no new word, and a second removal changes nothing."""
    edits = dropped = 0
    for row in reports(shared):
        for section in ("findings", "impression"):
            edited = remove_priors(row[section])
            edits, dropped = edits + edited.edited, dropped + edited.dropped
            assert remove_priors(edited.text).mentioned == 0, row["uid"]
            new = set(words(edited.text)) - set(words(row[section])) - MAY_APPEAR
            assert not {word for word in new if not word.isdigit()}, row["uid"]
            assert len(NEGATION.findall(edited.text)) <= len(NEGATION.findall(row[section])), row["uid"]
    assert edits > 1000
    assert dropped / (edits + dropped) < 0.45


def test_phantom_reports_lose_their_mentions() -> None:
    from cxrreport.demo.phantoms.studies import plan_studies

    studies = plan_studies(60, 0, smallest=64, full_size=0)
    found = [study.written.report.findings for study in studies]
    assert any(remove_priors(text).mentioned for text in found)
    assert not any(mentions_prior(sentence) for text in found for sentence in sentences(remove_priors(text).text))
