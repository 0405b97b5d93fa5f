"""What is read from an entity graph: hand-written phrases, and the phantoms whose findings are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from cxrreport.assets import radgraph_folder
from cxrreport.demo.phantoms.annotated import AnnotatedText
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, sample_findings
from cxrreport.demo.phantoms.grammar import write_report
from cxrreport.demo.phantoms.wordings import HOUSE_STYLES
from cxrreport.evaluation.clinical.chexpert import Presence, Stated, mentions, reading, sentence_starts
from cxrreport.evaluation.clinical.vocabulary import RULES, Finding
from cxrreport.evaluation.radgraph import Annotation, Entity
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator

PRESENCE = {"+": Presence.PRESENT, "?": Presence.UNCERTAIN, "-": Presence.ABSENT}
SIDES = {"L": {"left"}, "R": {"right"}, "LR": {"left", "right"}}
SEVERITY = {"mild": 1, "moderate": 2, "severe": 3}


GraphOf = Callable[[AnnotatedText | str], Annotation]


def stated_by(annotation: Annotation) -> dict[Finding, Stated]:
    return dict(reading(mentions(annotation)))


def expected(text: str) -> dict[Finding, Stated]:
    stated = {}
    for part in text.split(";"):
        if part.strip() == "-":
            continue
        name = next(finding for finding in Finding if part.strip().startswith(finding))
        sign, *details = part.strip().removeprefix(name).split()
        sides = frozenset().union(*(SIDES[one] for one in details if one in SIDES))
        stated[name] = Stated(PRESENCE[sign], sides, max((SEVERITY.get(one, 0) for one in details), default=0))
    return stated


PHRASES = [
    tuple(part.strip() for part in line.split("|"))
    for line in Path(__file__).with_name("phrases.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]


@pytest.mark.parametrize(("template", "wanted"), PHRASES, ids=[one for one, _ in PHRASES])
def test_phrase(graph_of: GraphOf, template: str, wanted: str) -> None:
    stated = expected(wanted)
    found = stated_by(graph_of(template))
    if Finding.NO_FINDING not in stated:
        found.pop(Finding.NO_FINDING, None)
    assert found == stated


def test_the_phrases_are_many_and_cover_every_finding_and_every_kind() -> None:
    assert len(PHRASES) >= 150
    counts = Counter((finding, said.presence) for _, wanted in PHRASES for finding, said in expected(wanted).items())
    assert {finding for finding, _ in counts} == set(Finding)
    for kind, least in ((Presence.PRESENT, 60), (Presence.UNCERTAIN, 25), (Presence.ABSENT, 50)):
        assert sum(count for (_, presence), count in counts.items() if presence is kind) >= least
    sided = sum(bool(said.sides) for _, wanted in PHRASES for said in expected(wanted).values())
    assert sided >= 60


OF_PHANTOMS = {
    Name.CARDIOMEGALY: Finding.CARDIOMEGALY,
    Name.OEDEMA: Finding.EDEMA,
    Name.OPACITY: Finding.LUNG_OPACITY,
    Name.NODULE: Finding.LUNG_LESION,
    Name.EFFUSION: Finding.PLEURAL_EFFUSION,
    Name.PNEUMOTHORAX: Finding.PNEUMOTHORAX,
    Name.TUBE: Finding.SUPPORT_DEVICES,
    Name.PACEMAKER: Finding.SUPPORT_DEVICES,
}
GRADES = {"": 0, "mild": 1, "small": 1, "severe": 3, "large": 3}


def truth(findings: tuple[PhantomFinding, ...]) -> dict[Finding, Stated]:
    """Findings of a phantom in the words of `reading`; the others are absent where reports state it."""
    stated: dict[Finding, Stated] = {}
    for finding in set(OF_PHANTOMS.values()):
        ones = [one for one in findings if OF_PHANTOMS[one.name] is finding]
        sure = [one for one in ones if not one.doubtful]
        if chosen := sure or ones:
            sides = frozenset(one.side for one in chosen if one.side) if finding is not Finding.CARDIOMEGALY else ()
            grade = 0 if finding is Finding.SUPPORT_DEVICES else max(GRADES[one.size] for one in chosen)
            presence = Presence.PRESENT if sure else Presence.UNCERTAIN
            stated[finding] = Stated(presence, frozenset(sides), grade)
    ill = stated.keys() - {Finding.SUPPORT_DEVICES}
    stated[Finding.NO_FINDING] = Stated(Presence.ABSENT if ill else Presence.PRESENT)
    absent = Stated(Presence.ABSENT)
    for finding in (Finding.CARDIOMEGALY, Finding.PLEURAL_EFFUSION, Finding.PNEUMOTHORAX):
        stated.setdefault(finding, absent)
    if not stated.keys() & {Finding.EDEMA, Finding.LUNG_OPACITY, Finding.LUNG_LESION}:
        clear = (Finding.LUNG_OPACITY, Finding.CONSOLIDATION, Finding.EDEMA, Finding.PNEUMONIA)
        stated |= dict.fromkeys(clear, absent)
    return stated


def phantoms(count: int, seed: int = 0) -> list[tuple[dict[Finding, Stated], AnnotatedText]]:
    rng = np.random.default_rng(seed)
    written = []
    for number in range(count):
        findings = sample_findings(rng, normal=0.25)
        prior = sample_findings(rng) if number % 3 == 0 else None
        style = list(HOUSE_STYLES)[number % len(HOUSE_STYLES)]
        written.append((truth(findings), write_report(findings, rng, style=style, prior=prior).graph))
    return written


def macro_f1(pairs: list[tuple[Mapping[Finding, Stated], Mapping[Finding, Stated]]], *, details: bool) -> float:
    """Mean F1 over findings and statements (presence, or with side and severity), over all studies."""
    hits: Counter[object] = Counter()
    total: Counter[object] = Counter()
    for known, found in pairs:
        labels = [
            {
                (finding, said if details and said.presence is not Presence.ABSENT else said.presence)
                for finding, said in one.items()
            }
            for one in (known, found)
        ]
        total.update([*labels[0], *labels[1]])
        hits.update(labels[0] & labels[1])
    return float(np.mean([2 * hits[label] / total[label] for label in total]))


def test_phantoms_by_their_own_graphs(graph_of: GraphOf) -> None:
    pairs = [(known, stated_by(graph_of(graph))) for known, graph in phantoms(300)]
    assert macro_f1(pairs, details=False) == 1.0
    assert macro_f1(pairs, details=True) == 1.0


def test_phantoms_through_the_tiny_radgraph() -> None:
    written = phantoms(48, seed=1)
    annotations = RadGraphAnnotator(radgraph_folder(), device="cpu").annotate([graph.text for _, graph in written])
    pairs = [(known, stated_by(one)) for (known, _), one in zip(written, annotations, strict=True)]
    assert macro_f1(pairs, details=False) >= 0.98
    assert macro_f1(pairs, details=True) >= 0.9  # the tiny model misses a relation now and then


def test_a_finding_that_is_not_mentioned_is_not_stated(graph_of: GraphOf) -> None:
    assert reading(mentions(Annotation((), ()))) == {}
    assert stated_by(graph_of("Scoliosis/O .")) == {}


def test_certainty_outranks_doubt_and_doubt_outranks_denial(graph_of: GraphOf) -> None:
    text = "No left/A effusion/N@left . Large/U>effusions right/A>pleural pleural/A effusions/U@pleural may be there ."
    found = stated_by(graph_of(text))
    assert found[Finding.PLEURAL_EFFUSION] == Stated(Presence.UNCERTAIN, frozenset({"right"}), 3)
    sure = text + " Small/O>pleural_effusion pleural_effusion/O ."
    assert stated_by(graph_of(sure))[Finding.PLEURAL_EFFUSION] == Stated(Presence.PRESENT, frozenset(), 1)


def test_labels_of_the_first_radgraph_are_read_too() -> None:
    labels = {"OBS-DP": Presence.PRESENT, "OBS-U": Presence.UNCERTAIN, "OBS-DA": Presence.ABSENT}
    for label, presence in labels.items():
        found = reading(mentions(Annotation(("effusion",), (Entity("effusion", label, 0, 0),))))
        assert found[Finding.PLEURAL_EFFUSION].presence is presence


def test_cyclic_relations_terminate() -> None:
    entities = (
        Entity("small", "OBS-DP", 0, 0, (("modify", 1),)),
        Entity("effusion", "OBS-DP", 1, 1, (("modify", 0), ("located_at", 1))),
    )
    assert reading(mentions(Annotation(("small", "effusion"), entities)))[Finding.PLEURAL_EFFUSION].severity == 1


def test_sentences_end_at_stops_but_not_inside_numbers() -> None:
    assert sentence_starts(["Nodule", "of", "1", ".", "5", "cm", ".", "Clear", "."]) == [0, 0, 0, 0, 0, 0, 0, 7, 7]
    assert sentence_starts(["end.", "new"]) == [0, 1]


def test_every_finding_but_the_derived_one_has_a_rule() -> None:
    assert {finding for rule in RULES for finding in rule.findings} == set(Finding)
