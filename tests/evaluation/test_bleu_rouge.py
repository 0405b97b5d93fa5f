from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from cxrreport.demo.phantoms.grammar import sample_annotated
from cxrreport.evaluation.metrics.bleu_rouge import CONVENTIONS, ORDERS, bleu, rouge_l, signature
from cxrreport.evaluation.statistics import PatientBootstrap

pytestmark = pytest.mark.stock("sacrebleu", "rouge-score")


def reports(seed: int, count: int = 40) -> list[str]:
    rng = np.random.default_rng(seed)
    return [sample_annotated(rng, templates="seen").text for _ in range(count)]


ODD = ["", "clear", "___", "Ünïcödé\nzwei Zeilen", "No effusion. " * 30]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_bleu_is_sacrebleus(convention: str, order: int) -> None:
    candidates, references = reports(0) + ODD, [*reports(1), "clear lungs here now", *ODD[1:]]
    measure = bleu(candidates, references, convention)[f"bleu{order}{convention}"]
    stock = sacrebleu.BLEU(max_ngram_order=order, tokenize=CONVENTIONS[convention])
    expected = stock.corpus_score(candidates, [references]).score / 100
    assert 0 < expected < 1
    assert measure.value == pytest.approx(expected, abs=1e-12)
    sentence = sacrebleu.BLEU(effective_order=True, max_ngram_order=order, tokenize=CONVENTIONS[convention])
    for row in (0, 7, -1, -4):
        score = sentence.sentence_score(candidates[row], [references[row]]).score
        assert measure.values[row] == pytest.approx(score / 100)


def test_bleu_of_a_resample_is_that_of_its_corpus() -> None:
    candidates, references = reports(0, 12), reports(1, 12)
    measure = bleu(candidates, references, "")["bleu4"]
    bootstrap = PatientBootstrap([chr(65 + n) for n in range(12)], samples=1, seed=4)
    chosen = np.random.default_rng(4).integers(0, 12, 12)  # what scipy draws
    expected = sacrebleu.corpus_bleu([candidates[n] for n in chosen], [[references[n] for n in chosen]]).score / 100
    assert bootstrap.interval(measure).low == pytest.approx(expected, abs=1e-12)


# RadEval's tests/fixtures/regression_samples.py and expected_scores_cpu.json (MIT licence).
RADEVAL_REFERENCES = [
    "No acute cardiopulmonary process.",
    "Mild cardiomegaly with small bilateral pleural effusions and basilar atelectasis.",
    (
        "1. Left PICC tip appears to terminate in the distal left brachiocephalic vein."
        "2. Mild pulmonary vascular congestion."
    ),
    (
        "No definite acute cardiopulmonary process. "
        "Enlarged cardiac silhouette could be accentuated by patient's positioning."
    ),
    "Increased mild pulmonary edema and left basal atelectasis.",
]
RADEVAL_CANDIDATES = [
    "No acute cardiopulmonary process.",
    "Mildly enlarged cardiac silhouette with small pleural effusions and dependent bibasilar atelectasis.",
    "Relatively lower lung volumes with no focal airspace consolidation appreciated.",
    "Crowding of the pulmonary vasculature with possible minimal perihilar edema, but no overt pulmonary edema.",
    "No pleural effusions or pneumothoraces.",
]


def test_radevals_regression_fixture() -> None:
    pairs = RADEVAL_CANDIDATES, RADEVAL_REFERENCES
    found = {name: round(one.value, 4) for name, one in bleu(*pairs, "_radeval").items()}
    assert found == {"bleu4_radeval": 0.0826, "bleu1_radeval": 0.1867, "bleu2_radeval": 0.1532, "bleu3_radeval": 0.1189}
    assert rouge_l(*pairs, stems=True).value == pytest.approx(0.3224, abs=5e-5)


def test_both_conventions_keep_case_and_differ_in_tokens() -> None:
    upper, lower = ["The lungs are clear today."], ["the lungs are clear today."]
    assert bleu(upper, lower, "")["bleu4"].value < 1 > bleu(upper, lower, "_radeval")["bleu4_radeval"].value
    apart = ["the lungs are clear today ."]
    assert bleu(apart, lower, "")["bleu4"].value == 1 > bleu(apart, lower, "_radeval")["bleu4_radeval"].value


def test_signatures_identify_the_format() -> None:
    assert "tok:13a" in signature("") and "case:mixed" in signature("")
    assert "tok:none" in signature("_radeval") and "case:mixed" in signature("_radeval")
    assert "eff:no" in signature("")


@pytest.mark.parametrize("stems", [False, True])
def test_rouge_is_rouge_scores(stems: bool) -> None:
    candidates, references = reports(0) + ODD, reports(1) + ODD
    scorer = RougeScorer(["rougeL"], use_stemmer=stems)
    expected = [scorer.score(r, c)["rougeL"].fmeasure for c, r in zip(candidates, references, strict=True)]
    measure = rouge_l(candidates, references, stems=stems)
    assert measure.values.tolist() == expected
    assert measure.value == pytest.approx(np.mean(expected))


def test_perfect_and_empty() -> None:
    texts = reports(2, 5)
    assert [one.value for one in bleu(texts, texts, "").values()] == pytest.approx([1] * 4)
    assert [one.value for one in bleu([""] * 5, texts, "").values()] == [0] * 4
    assert rouge_l([""] * 5, texts).value == 0
