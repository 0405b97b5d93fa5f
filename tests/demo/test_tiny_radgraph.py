from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrreport.assets import radgraph_folder
from cxrreport.demo.phantoms.annotated import LABELS, RELATIONS, AnnotatedText, join
from cxrreport.demo.phantoms.findings import sample_findings
from cxrreport.demo.phantoms.grammar import impression_section, sample_annotated, write_report
from cxrreport.demo.phantoms.wordings import HOUSE_STYLES
from cxrreport.demo.tiny_models.radgraph import document, graph_f1, judge, make, with_fillers
from cxrreport.evaluation.radgraph import Annotation, Entity
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator


@pytest.fixture(scope="module")
def annotator() -> RadGraphAnnotator:
    return RadGraphAnnotator(radgraph_folder(), device="cpu")


def test_tiny_radgraph_reads_held_out_templates() -> None:
    scores = judge(radgraph_folder(), texts=60, seed=99)
    assert scores["held-out"]["entity_f1"] >= 0.95 and scores["held-out"]["relation_f1"] >= 0.90
    assert scores["seen"]["entity_f1"] >= 0.98 and scores["seen"]["relation_f1"] >= 0.94


@pytest.mark.parametrize("style", HOUSE_STYLES)
def test_tiny_radgraph_reads_reports_of_every_house_style_in_any_case(annotator: RadGraphAnnotator, style: str) -> None:
    rng = np.random.default_rng(3)
    written = [write_report(sample_findings(rng), rng, style=style) for _ in range(25)]
    texts = [f"{one.report.findings} {one.report.impression}" for one in written]
    truths = [one.graph for one in written]
    entity, relation = graph_f1(annotator.annotate(texts), truths)
    assert entity >= 0.98 and relation >= 0.95
    assert graph_f1(annotator.annotate([text.upper() for text in texts]), truths) == (entity, relation)


@pytest.mark.parametrize("style", HOUSE_STYLES)
def test_tiny_radgraph_reads_an_impression_without_findings(annotator: RadGraphAnnotator, style: str) -> None:
    rng = np.random.default_rng(6)
    truths = [join(impression_section(sample_findings(rng), HOUSE_STYLES[style][1])) for _ in range(60)]
    entity, relation = graph_f1(annotator.annotate([truth.text for truth in truths]), truths)
    assert entity >= 0.95 and relation >= 0.90


def test_texts_are_tokenised_as_their_graphs_state(annotator: RadGraphAnnotator) -> None:
    rng = np.random.default_rng(4)
    for number in range(100):
        text = sample_annotated(rng, templates="held-out" if number % 2 else "seen")
        assert annotator.tokens(text.text) == list(text.tokens)


def test_provenance_of_the_shipped_archive() -> None:
    folder = radgraph_folder()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["synthetic"] is True
    assert provenance["weights_sha256"] == hashlib.sha256((folder / "weights.th").read_bytes()).hexdigest()
    assert provenance["scores"]["held-out"]["entity_f1"] >= 0.95
    assert provenance["scores"]["held-out"]["relation_f1"] >= 0.90
    labels = (folder / "vocabulary" / "radgraph-xl__ner_labels.txt").read_text().split("\n")
    assert labels == ["", *LABELS.values(), ""]
    assert (folder / "vocabulary" / "radgraph-xl__relation_labels.txt").read_text().split() == list(RELATIONS.values())
    state = torch.load(folder / "weights.th", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_the_script_writes_an_archive_that_depends_on_the_seed_only(tmp_path: Path) -> None:
    first = make(tmp_path / "a", seed=7, steps=3, judged=2)
    again = make(tmp_path / "b", seed=7, steps=3, judged=2)
    other = make(tmp_path / "c", seed=8, steps=3, judged=2)
    assert first["weights_sha256"] == again["weights_sha256"] != other["weights_sha256"]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {path.name for path in radgraph_folder().iterdir()}
    assert json.loads((tmp_path / "a" / "config.json").read_text()) == json.loads(
        (radgraph_folder() / "config.json").read_text()
    )


def test_fillers_change_neither_graph_nor_negation_words() -> None:
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(50):
        text = sample_annotated(rng, templates="seen")
        filled = with_fillers(text, rng)
        assert (filled.entities, filled.relations, len(filled.tokens)) == (
            text.entities,
            text.relations,
            len(text.tokens),
        )
        for entity in text.entities:
            assert filled.tokens[entity.start : entity.end + 1] == text.tokens[entity.start : entity.end + 1]
        assert [t for t in filled.tokens if t.lower() == "no"] == [t for t in text.tokens if t.lower() == "no"]
        changed += filled.tokens != text.tokens
    assert changed > 25


def test_token_positions_continue_across_sentences() -> None:
    rng = np.random.default_rng(1)
    texts = [sample_annotated(rng, templates="seen") for _ in range(3)]
    made = document(texts)
    flat = [token for sentence in made["sentences"] for token in sentence]
    for text, ner in zip(texts, made["ner"], strict=True):
        words = [" ".join(text.tokens[e.start : e.end + 1]) for e in text.entities]
        assert [" ".join(flat[start : end + 1]) for start, end, _ in ner] == words


def test_graph_f1_counts_spans_and_kinds() -> None:
    truth = sample_annotated(np.random.default_rng(2), templates="seen")

    def annotation(text: AnnotatedText) -> Annotation:
        relations: dict[int, list[tuple[str, int]]] = {}
        for one in text.relations:
            relations.setdefault(one.head, []).append((one.kind, one.tail))
        return Annotation(
            text.tokens,
            tuple(
                Entity("", e.label, e.start, e.end, tuple(relations.get(number, ())))
                for number, e in enumerate(text.entities)
            ),
        )

    perfect = annotation(truth)
    assert graph_f1([perfect], [truth]) == (1.0, 1.0)
    assert graph_f1([Annotation(perfect.tokens, ())], [truth]) == (0.0, 0.0)
    half = Annotation(perfect.tokens, perfect.entities[:1])
    entity, _ = graph_f1([Annotation(half.tokens, (Entity("", "x", 0, 0),))], [truth])
    assert entity == 0.0
