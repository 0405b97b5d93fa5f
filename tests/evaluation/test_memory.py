"""Systems are scored one after the other: what one of them needs is not held while the next is scored."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cxrreport.demo.phantoms.grammar import sample_annotated
from cxrreport.evaluation.clinical import METRIC, READINGS, severity_metric
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.metrics.bleu_rouge import bleu_metrics
from cxrreport.evaluation.metrics.cider import References, cider, cider_metrics
from cxrreport.evaluation.metrics.pair_scores import PairScores
from cxrreport.evaluation.radgraph import NO_ENTITIES, Annotation, Entity, PackedAnnotations, StudyAnnotations
from cxrreport.evaluation.registry import BUILT_IN
from cxrreport.evaluation.scoring import score_systems
from cxrreport.evaluation.statistics import PatientBootstrap, mean
from cxrreport.settings import EvaluateSettings

STUDIES = [f"s{number}" for number in range(40)]
GROWTH = 3_000
"""Bytes of a study that one more system may take: its texts are those of others, so only values and readings do."""


def graph(seed: int) -> tuple[str, Annotation]:
    written = sample_annotated(np.random.default_rng(seed), templates="seen")
    links: dict[int, list[tuple[str, int]]] = {}
    for one in written.relations:
        links.setdefault(one.head, []).append((one.kind, one.tail))
    entities = [
        Entity(" ".join(written.tokens[e.start : e.end + 1]), e.label, e.start, e.end, tuple(links.get(n, ())))
        for n, e in enumerate(written.entities)
    ]
    return written.text, Annotation(written.tokens, tuple(entities))


def systems(count: int) -> dict[str, Pairs]:
    packed = PackedAnnotations()
    texts = []
    for number in range(2 * len(STUDIES)):
        text, annotation = graph(number)
        packed.add(text, annotation)
        texts.append(text)
    references = dict(zip(STUDIES, texts, strict=False))
    reference_graphs = StudyAnnotations(references, packed)
    found = {}
    for system in range(count):
        candidates = {study: texts[(place * 7 + system) % len(texts)] for place, study in enumerate(STUDIES)}
        candidates[STUDIES[0]] = ""
        found[f"system {system}"] = Pairs(
            references=references,
            candidates=candidates,
            reference_graphs=reference_graphs,
            candidate_graphs=StudyAnnotations(candidates, packed),
        )
    return found


def metrics() -> list[Metric]:
    settings = EvaluateSettings(predictions=Path(), references=Path(), output=Path())
    return [*BUILT_IN["radgraph"](settings), METRIC, severity_metric(None), READINGS, *cider_metrics()]


def bootstrap() -> PatientBootstrap:
    return PatientBootstrap(STUDIES, samples=8, seed=0)


def peak(count: int) -> int:
    """Greatest number of bytes while some systems are scored, above what their texts and graphs take."""
    pairs = systems(count)
    score_systems(metrics(), pairs, bootstrap())  # what is computed once in a process
    pairs = systems(count)
    tracemalloc.start()
    try:
        score_systems(metrics(), pairs, bootstrap())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_hardly_grows_with_the_number_of_systems() -> None:
    assert (peak(4) - peak(2)) / 2 < GROWTH * len(STUDIES)


def test_a_system_has_the_same_scores_alone_and_beside_others() -> None:
    several = systems(3)
    found = score_systems(metrics(), several, bootstrap())
    for name, pairs in systems(3).items():
        alone = score_systems(metrics(), {name: pairs}, bootstrap())
        assert alone.scores[name] == found.scores[name]
        assert alone.values[name].keys() == found.values[name].keys()
        for number, values in alone.values[name].items():
            assert np.array_equal(values, found.values[name][number], equal_nan=True)


def test_packed_graphs_are_the_graphs() -> None:
    packed = PackedAnnotations()
    made = [graph(seed) for seed in range(50)]
    odd = Annotation(("Größe", "ö", "10", "cm"), (Entity("Größe ö", "X", 0, 1, (("modify", 1), ("located_at", 0))),))
    for text, annotation in [*made, ("odd", odd)]:
        packed.add(text, annotation)
    assert [packed[text] for text, _ in made] == [annotation for _, annotation in made]
    assert packed["odd"] == odd and packed[""] == NO_ENTITIES and "other" not in packed
    with pytest.raises(KeyError):
        packed["other"]


def test_references_are_prepared_once_for_all_systems_of_cider() -> None:
    pairs = systems(2)
    references = References(list(pairs["system 0"].references.values()))
    for one in pairs.values():
        candidates = list(one.candidates.values())
        alone, shared = cider(candidates, list(one.references.values())), cider(candidates, references)
        weights = np.random.default_rng(0).integers(0, 3, (5, len(STUDIES))).astype(float)
        assert alone.values.tolist() == shared.values.tolist()
        assert alone.weighted(weights).tolist() == shared.weighted(weights).tolist()


def test_the_baselines_are_compared_in_the_same_resamples() -> None:
    pairs = systems(2)
    found = score_systems(bleu_metrics(), pairs, bootstrap())
    for metric in bleu_metrics():
        ours, theirs = (metric(one) for one in pairs.values())
        for number in ours:
            expected = bootstrap().difference(ours[number], theirs[number])
            assert found.differences["system 1"][number] == expected


def test_a_main_system_is_resampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    sampled = PatientBootstrap.sampled
    monkeypatch.setattr(PatientBootstrap, "sampled", lambda self, one: seen.append(1) or sampled(self, one))
    metric = Metric(name="one", score=lambda pairs: mean(np.arange(float(len(pairs.references)))))
    score_systems([metric], systems(4), bootstrap())
    assert len(seen) == 4


def test_pairs_of_long_texts_are_computed_in_smaller_parts() -> None:
    parts: list[int] = []

    def compute(pairs: list[tuple[str, str]]) -> list[list[float]]:
        parts.append(len(pairs))
        return [[float(len(one)), float(len(other))] for one, other in pairs]

    scores = PairScores(lambda _: compute, "test", None)  # type: ignore[arg-type, return-value]
    candidates = {str(n): f"{n} " + "word " * (20_000 if n % 2 else 1) for n in range(40)}
    pairs = Pairs(references=dict.fromkeys(candidates, "reference"), candidates=candidates)
    scores.prepare([pairs])
    assert sum(parts) == 40 and max(parts) < 40
    assert scores(pairs)[:, 0].tolist() == [len(text) for text in candidates.values()]
    scores.release()
    assert scores(pairs)[:, 1].tolist() == [9.0] * 40
