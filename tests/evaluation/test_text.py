from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from cxrreport.demo.grammar import sample_annotated
from cxrreport.evaluation.statistics import PatientBootstrap
from cxrreport.evaluation.text import CONVENTIONS, bleu, rouge_l, signature


def reports(seed: int, count: int = 40) -> list[str]:
    rng = np.random.default_rng(seed)
    return [sample_annotated(rng, templates="seen").text for _ in range(count)]


ODD = ["", "clear", "___", "Ünïcödé\nzwei Zeilen", "No effusion. " * 30]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_bleu_is_sacrebleus(convention: str) -> None:
    candidates, references = reports(0) + ODD, [*reports(1), "clear lungs here now", *ODD[1:]]
    measure = bleu(candidates, references, convention)
    expected = sacrebleu.corpus_bleu(candidates, [references], **CONVENTIONS[convention]).score / 100
    assert 0 < expected < 1
    assert measure.value == pytest.approx(expected, abs=1e-12)
    sentence = sacrebleu.BLEU(effective_order=True, **CONVENTIONS[convention])
    for row in (0, 7, -1):
        score = sentence.sentence_score(candidates[row], [references[row]]).score
        assert measure.values[row] == pytest.approx(score / 100)


def test_bleu_of_a_resample_is_that_of_its_corpus() -> None:
    candidates, references = reports(0, 12), reports(1, 12)
    measure = bleu(candidates, references, "bleu4")
    bootstrap = PatientBootstrap([str(n) for n in range(12)], samples=1, seed=4)
    counts = bootstrap._draws[0][np.argsort(np.argsort([str(n) for n in range(12)]))]
    chosen = [n for n, count in enumerate(counts) for _ in range(count)]
    expected = sacrebleu.corpus_bleu([candidates[n] for n in chosen], [[references[n] for n in chosen]]).score / 100
    assert bootstrap.interval(measure).low == pytest.approx(expected, abs=1e-12)


def test_the_two_conventions_differ_in_case() -> None:
    both = ["The lungs are clear today."], ["the lungs are clear today."]
    assert bleu(*both, "bleu4").value < 1 == bleu(*both, "bleu4_radeval").value


def test_signatures_say_which() -> None:
    assert "tok:13a" in signature("bleu4") and "case:mixed" in signature("bleu4")
    assert "tok:none" in signature("bleu4_radeval") and "case:lc" in signature("bleu4_radeval")
    assert "eff:no" in signature("bleu4")


def test_rouge_is_rouge_scores() -> None:
    candidates, references = reports(0) + ODD, reports(1) + ODD
    scorer = RougeScorer(["rougeL"])
    expected = [scorer.score(r, c)["rougeL"].fmeasure for c, r in zip(candidates, references, strict=True)]
    measure = rouge_l(candidates, references)
    assert measure.values.tolist() == expected
    assert measure.value == pytest.approx(np.mean(expected))


def test_perfect_and_empty() -> None:
    texts = reports(2, 5)
    assert bleu(texts, texts, "bleu4").value == pytest.approx(1)
    assert bleu([""] * 5, texts, "bleu4").value == 0
    assert rouge_l([""] * 5, texts).value == 0
