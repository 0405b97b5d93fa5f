from __future__ import annotations

import re

import numpy as np
import pytest

from cxrreport.demo.phantoms import wordings
from cxrreport.demo.phantoms.annotated import AnnotatedText, annotate, join
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, masked, sample_findings
from cxrreport.demo.phantoms.grammar import Mentions, sample_annotated, sample_style, write_report
from cxrreport.demo.phantoms.text_findings import contradicts, read_findings
from cxrreport.demo.phantoms.wordings import HOUSE_STYLES
from cxrreport.demo.tiny_models import captions


def words(graph: AnnotatedText, index: int) -> str:
    entity = graph.entities[index]
    return " ".join(graph.tokens[entity.start : entity.end + 1])


def test_a_template_is_parsed_into_text_and_graph():
    graph = annotate("there is a small/O>effusion left/A>pleural pleural/A effusion/O@pleural .")
    assert graph.text == "There is a small left pleural effusion."
    assert [words(graph, i) for i in range(4)] == ["small", "left", "pleural", "effusion"]
    assert {(words(graph, r.head), r.kind, words(graph, r.tail)) for r in graph.relations} == {
        ("small", "modify", "effusion"),
        ("left", "modify", "pleural"),
        ("effusion", "located_at", "pleural"),
    }


def test_positions_in_joined_texts_and_of_entities_of_several_words():
    one = annotate("endotracheal_tube/O is in place .")
    both = join([one, annotate("no effusion/N .")])
    assert words(both, 0).lower() == "endotracheal tube"
    assert words(both, 1) == "effusion"
    assert both.entities[1].label == "Observation::definitely absent"


@pytest.mark.parametrize("templates", ["seen", "held-out"])
def test_tokens_are_those_of_radgraph_xl(templates):
    from radgraph.utils import radgraph_xl_preprocess_report

    rng = np.random.default_rng(0)
    for _ in range(300):
        text = sample_annotated(rng, templates=templates)
        assert radgraph_xl_preprocess_report(text.text).split() == list(text.tokens)


def test_held_out_sentences_occur_in_no_report():
    seen = {template for _, style in HOUSE_STYLES.values() for template in style.values()}
    seen |= set(wordings.TRAINING_ONLY.values())
    own = {key: t for key, t in wordings.HELD_OUT.items() if t != wordings.PLAIN[key]}
    assert len(own) >= 15
    assert not seen & set(own.values())


def test_reports_state_exactly_the_findings_of_the_phantom():
    rng = np.random.default_rng(1)
    for _ in range(1000):
        findings = masked(sample_findings(rng))
        report = write_report(findings, rng, style=sample_style(rng), prior=sample_findings(rng)).report
        assert read_findings(report.findings) == {f.key for f in findings}
        assert not contradicts(report.findings, report.impression)


def test_captions_state_the_visible_findings():
    rng = np.random.default_rng(2)
    for _ in range(1000):
        findings = masked(sample_findings(rng))
        visible = {f.key for f in findings if f.name is not Name.NODULE}
        assert read_findings(captions.caption(findings)) == visible
        assert read_findings(captions.describe(findings)) == visible


def test_pre_training_texts_contain_no_sentence_of_the_reports():
    rng = np.random.default_rng(3)
    shown = set()
    for _ in range(3000):
        findings = masked(sample_findings(rng))
        texts = [captions.caption(findings), captions.describe(findings), captions.statements(findings, rng)[1]]
        shown |= {part.strip().lower() for text in texts for part in re.split("[;.]", text)}
    reports = set()
    for _ in range(3000):
        report = write_report(masked(sample_findings(rng)), rng, style=sample_style(rng)).report
        reports |= {part.strip().lower() for part in f"{report.findings} {report.impression}".split(".")}
    # "Large left pneumothorax" is the finding's name and not a sentence.
    assert not {sentence for sentence in shown & reports if len(sentence.split()) > 3}


@pytest.mark.parametrize(
    ("findings", "impression", "clash"),
    [
        ("There is a small left pleural effusion.", "Small left pleural effusion.", False),
        ("There is a small left pleural effusion.", "Small right pleural effusion.", True),
        ("There is a small left pleural effusion.", "No acute cardiopulmonary process.", True),
        ("There is no pleural effusion.", "Small right pleural effusion.", True),
        ("A left pacemaker is in place.", "No acute cardiopulmonary process.", False),
        ("The heart is mildly enlarged. There is a nodule in the left upper lung.", "Mild cardiomegaly.", False),
    ],
)
def test_contradictions(findings, impression, clash):
    assert contradicts(findings, impression) is clash


def test_a_box_is_four_location_tokens():
    mask = np.zeros((16, 16), bool)
    mask[4:8, 8:16] = True
    finding = PhantomFinding(Name.EFFUSION, "left", "small")
    prompt, answer = captions.detect((finding,), {finding: mask}, np.random.default_rng(0))
    assert prompt == "detect effusion"
    assert answer == "<loc0256><loc0512><loc0512><loc1023> effusion"


@pytest.mark.parametrize("style", HOUSE_STYLES)
def test_reports_that_leave_things_out_state_no_falsehood(style: str) -> None:
    rng = np.random.default_rng(4)
    chances = {"normal": 0.35, "minor": 0.45, "other": 0.85}
    mentioned: dict[str, list[bool]] = {kind: [] for kind in chances}
    denials = {
        Name.CARDIOMEGALY: r"normal/?.* heart|heart .*normal|silhouette is normal",
        Name.EFFUSION: r"\bno (pleural )?effusion",
        Name.PNEUMOTHORAX: r"\bno [^.]*pneumothorax",
        **dict.fromkeys((Name.OEDEMA, Name.OPACITY, Name.NODULE), r"\bclear\b"),
    }
    for _ in range(600):
        findings = masked(sample_findings(rng))
        report = write_report(findings, rng, style=style, mentions=Mentions(**chances)).report
        said = read_findings(report.findings)
        assert report.findings and said <= {f.key for f in findings}
        assert read_findings(report.impression) <= said
        text = report.findings.lower()
        assert not any(re.search(denials[f.name], text) for f in findings if f.name in denials)
        for finding in findings:
            minor = finding.size in ("small", "mild") or finding.doubtful
            mentioned["minor" if minor else "other"].append(finding.key in said)
        if not findings:
            mentioned["normal"].append("heart" in text or "silhouette" in text)
    # A report of a normal study that would say nothing says everything: 0.35 + 0.65 ** 3.
    expected = chances | {"normal": 0.35 + 0.65**3}
    assert {kind: float(np.mean(said)) for kind, said in mentioned.items()} == pytest.approx(expected, abs=0.08)


def test_reports_leave_nothing_out_by_default() -> None:
    findings = masked(sample_findings(np.random.default_rng(1), normal=0.0))
    everything = Mentions(normal=1.0, minor=1.0, other=1.0)
    reports = [write_report(findings, np.random.default_rng(2), mentions=m).report.findings for m in (None, everything)]
    assert reports[0] == reports[1]
