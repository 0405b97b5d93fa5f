"""Phantom patients with two studies: what changes, what only the lateral view shows, and reports that compare."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime

import numpy as np
import pydicom
import pytest

from cxrreport.demo.phantoms.changes import COMPARED, Change, changes, sample_pair
from cxrreport.demo.phantoms.drawing import draw, sample_anatomy
from cxrreport.demo.phantoms.files import write_planned
from cxrreport.demo.phantoms.findings import Name, PhantomFinding
from cxrreport.demo.phantoms.grammar import sample_compared, write_comparing
from cxrreport.demo.phantoms.lateral import draw_lateral
from cxrreport.demo.phantoms.studies import plan_pairs, plan_studies
from cxrreport.demo.phantoms.text_findings import contradicts, read_findings
from cxrreport.demo.phantoms.wordings import HOUSE_STYLES
from cxrreport.demo.tiny_models import comparing_texts
from cxrreport.records import Split
from cxrreport.reports.priors import remove_priors

POSTERIOR = PhantomFinding(Name.EFFUSION, size="small", zone="posterior")


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    return [sample_pair(rng) for _ in range(1500)]


def test_changes_of_side_size_and_presence():
    moved = PhantomFinding(Name.EFFUSION, "left", "small"), PhantomFinding(Name.EFFUSION, "right", "small")
    heart = [PhantomFinding(Name.CARDIOMEGALY, size=size) for size in ("mild", "severe")]
    same = PhantomFinding(Name.OPACITY, "left", "large", "upper")
    tube = PhantomFinding(Name.TUBE)
    assert changes((heart[0], same, moved[0]), (heart[1], same, moved[1], tube)) == {
        heart[1]: Change.WORSE,
        same: Change.UNCHANGED,
        moved[1]: Change.NEW,
        moved[0]: Change.RESOLVED,
    }
    assert changes((heart[1],), (heart[0],)) == {heart[0]: Change.IMPROVED}


def test_every_change_of_every_compared_finding_is_planted(pairs):
    planted = Counter((f.name, change) for pair in pairs for f, change in changes(*pair).items())
    assert set(planted) == {(name, change) for name in COMPARED for change in Change}


@pytest.mark.parametrize("style", HOUSE_STYLES)
def test_a_report_without_its_mentions_of_the_prior_study_is_the_report_of_the_study_alone(pairs, style):
    for prior, findings in pairs[:400]:
        rng = np.random.default_rng(1)
        compared, alone = (write_comparing(findings, rng, style=style, prior=before).report for before in (prior, None))
        assert remove_priors(compared.findings).text == alone.findings
        assert (compared.findings == alone.findings) is not bool(changes(prior, findings))
        assert remove_priors(compared.impression).text == compared.impression
        assert read_findings(compared.findings) == read_findings(alone.findings) == {f.key for f in findings}
        assert not contradicts(compared.findings, compared.impression)


def test_sentences_that_compare_are_tokenised_as_radgraph_xl_does():
    from radgraph.utils import radgraph_xl_preprocess_report

    for templates in ("seen", "held-out"):
        rng = np.random.default_rng(2)
        for text in (sample_compared(rng, templates=templates) for _ in range(200)):
            assert radgraph_xl_preprocess_report(text.text).split() == list(text.tokens)


def test_a_posterior_effusion_is_hidden_on_the_frontal_and_seen_on_the_lateral_view():
    anatomy = sample_anatomy(np.random.default_rng(3))
    frontal, without = (draw(anatomy, findings, 128, 128, 7) for findings in ((POSTERIOR,), ()))
    assert np.array_equal(frontal.grey, without.grey)
    lateral, clear = (draw_lateral(anatomy, 128, 128, findings, 7) for findings in ((POSTERIOR,), ()))
    rows, columns = np.nonzero(np.abs(lateral - clear) > 0.1)
    assert len(rows) > 100
    assert columns.min() > 60  # behind the heart: the spine is on the right of the image
    assert rows.min() > 64


def test_patients_have_two_studies_in_the_order_of_their_dates():
    studies = plan_pairs(200, 4, smallest=64)
    assert len(studies) == 400
    for first, second in zip(studies[::2], studies[1::2], strict=True):
        assert first.patient_id == second.patient_id
        assert first.split is second.split
        assert first.date < second.date
        assert first.written.report.comparison == "None."
    assert Counter(s.split for s in studies[::2]) == {Split.TEST: 40, Split.VALIDATE: 20, Split.TRAIN: 140}
    assert all(s.lateral for s in studies if POSTERIOR in s.findings)
    assert 0.05 < np.mean([not s.lateral for s in studies]) < 0.15


def test_files_of_pairs_have_their_dates_and_their_views(tmp_path):
    studies = plan_pairs(3, 5, smallest=64)
    write_planned(tmp_path, studies, workers=1, progress=lambda *_: None)
    for study in studies:
        headers = [pydicom.dcmread(path) for path in tmp_path.rglob(f"s{study.study_id}/*.dcm")]
        assert sorted(h.ViewPosition for h in headers) == sorted([study.view.value, *["LL"] * study.lateral])
        assert {h.StudyDate + h.StudyTime for h in headers} == {study.date + study.time}
        datetime.strptime(study.date + study.time, "%Y%m%d%H%M%S")


def test_studies_of_one_image_are_those_of_before_pairs():
    plan = [
        (s.study_id, s.split, s.findings, s.written.report, s.date)
        for s in plan_studies(60, 3, smallest=120, full_size=0)
    ]
    assert hashlib.sha256(repr(plan).encode()).hexdigest() == (
        "9b5597689cee1f9f7d5ae4c2e282a4a90fc66b1f7e865c6ea8e11b8c835b5a43"
    )


def test_pre_training_texts_about_two_studies_contain_no_sentence_of_the_reports(pairs):
    rng = np.random.default_rng(6)
    shown, reports = set(), set()
    for prior, findings in pairs:
        told = comparing_texts.prior_report(prior, rng)
        answer = comparing_texts.question(prior, findings, rng)[1]
        for text in (told.findings, told.impression, answer):
            shown |= {part.split(":")[-1].strip().lower() for part in text.split(".")}
        for style in HOUSE_STYLES:
            report = write_comparing(findings, rng, style=style, prior=prior).report
            reports |= {part.strip().lower() for part in f"{report.findings} {report.impression}".split(".")}
    assert not {sentence for sentence in shown & reports if len(sentence.split()) > 3}


def test_answers_state_the_change_of_every_finding(pairs):
    rng = np.random.default_rng(7)
    for prior, findings in pairs[:300]:
        prompt, answer = comparing_texts.question(prior, findings, rng)
        if prompt.startswith("answer en findings"):
            told = Counter(change for change in Change for _ in range(answer.lower().count(change.value)))
            assert told == Counter(changes(prior, findings).values())
