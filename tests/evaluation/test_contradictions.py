from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxrreport.demo.phantoms.annotated import AnnotatedText, annotate, join
from cxrreport.demo.phantoms.findings import sample_findings
from cxrreport.demo.phantoms.grammar import write_report
from cxrreport.demo.phantoms.wordings import HOUSE_STYLES
from cxrreport.evaluation.clinical.chexpert import mentions
from cxrreport.evaluation.clinical.contradictions import contradictions, impression_token
from cxrreport.evaluation.radgraph import Annotation

GraphOf = Callable[[AnnotatedText | str], Annotation]

REPORTS = [
    tuple(part.strip() for part in line.split("|"))
    for line in Path(__file__).with_name("contradictions.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]


def found(graph_of: GraphOf, findings: str, impression: str) -> list[str]:
    # Sentence by sentence: a link of the notation aims at the first word of that name.
    first, second = (
        [annotate(f"{one} .") for one in section.split(" .") if one.strip()] for section in (findings, impression)
    )
    annotation = graph_of(join([*first, *second]))
    place = impression_token(annotation.tokens, join(first).text) if second else None
    return [f"{one.finding} {one.kind}" for one in contradictions(mentions(annotation), place)]


@pytest.mark.parametrize(("findings", "impression", "wanted"), REPORTS)
def test_contradictions(graph_of: GraphOf, findings: str, impression: str, wanted: str) -> None:
    assert found(graph_of, findings, impression) == ([] if wanted == "-" else [wanted])


def test_no_phantom_report_contradicts_itself_and_every_planted_one_does(graph_of: GraphOf) -> None:
    rng = np.random.default_rng(0)
    for number in range(200):
        style = list(HOUSE_STYLES)[number % len(HOUSE_STYLES)]
        written = write_report(sample_findings(rng), rng, style=style)
        graph = written.graph
        place = impression_token(graph.tokens, written.report.findings)
        assert "".join(graph.tokens[:place]) == "".join(written.report.findings.split())
        assert contradictions(mentions(graph_of(graph)), place) == ()
        planted = join([graph, annotate("No pneumothorax/N ."), annotate("Small/O>pneumothorax pneumothorax/O .")])
        assert any(one.finding == "Pneumothorax" for one in contradictions(mentions(graph_of(planted)), place))


def test_white_space_does_not_distinguish_sections() -> None:
    assert impression_token(["No", "effusion", ".", "Clear", "."], "No  effusion.\n") == 3
    assert impression_token(["Clear", "."], "Clear.") == 2
    assert impression_token(["Clear", "."], "") == 0
