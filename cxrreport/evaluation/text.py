"""BLEU-4 by sacrebleu and ROUGE-L by rouge-score.

BLEU depends on tokenisation and case, so there are two by name: `bleu4` is sacrebleu's own convention (13a, with case),
`bleu4_radeval` that of RadEval (split at white space, lower-cased). Both are corpus scores: the value of a set of
studies is computed from their summed n-gram counts, and only the value shown for one study is a sentence score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from cxrreport.evaluation.statistics import Floats, Measure, mean

CONVENTIONS: dict[str, dict[str, str | bool]] = {
    "bleu4": {"tokenize": "13a", "lowercase": False},
    "bleu4_radeval": {"tokenize": "none", "lowercase": True},
}
ROUGE = "rouge-score, rougeL F-measure per study, no stemming, mean over studies"
_ORDER = 4


def bleu(candidates: Sequence[str], references: Sequence[str], convention: str) -> Measure:
    """BLEU-4 in [0, 1], exponential smoothing.

    Args:
        candidates: one text per study.
        references: in the same order.
        convention: a key of `CONVENTIONS`.
    """
    # Counts come from sentences, where sacrebleu wants the effective order; the corpus score does not use it.
    metric = _bleu(convention, effective_order=True)
    terms = np.zeros((len(candidates), 2 + 2 * _ORDER))
    values = np.zeros(len(candidates))
    for row, (candidate, reference) in enumerate(zip(candidates, references, strict=True)):
        score = metric.sentence_score(candidate, [reference])
        terms[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
        values[row] = score.score / 100
    return Measure(terms, _corpus_bleu, values)


def signature(convention: str) -> str:
    """The signature that sacrebleu gives a convention, version included."""
    metric = _bleu(convention, effective_order=False)
    metric.corpus_score(["a"], [["a"]])  # the number of references is known after a first score
    return str(metric.get_signature())


def _bleu(convention: str, *, effective_order: bool) -> BLEU:
    options = CONVENTIONS[convention]
    tokenize, lowercase = str(options["tokenize"]), bool(options["lowercase"])
    return BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=effective_order)


def _corpus_bleu(sums: Floats) -> Floats:
    rows = sums.reshape(-1, sums.shape[-1]).round().astype(np.int64)
    values = np.array(
        [
            BLEU.compute_bleu(
                correct=row[2 : 2 + _ORDER].tolist(),
                total=row[2 + _ORDER :].tolist(),
                sys_len=int(row[0]),
                ref_len=int(row[1]),
                smooth_method="exp",
            ).score
            / 100
            for row in rows
        ]
    )
    # Rounding lifts a perfect score above 1.
    shaped: Floats = np.minimum(values, 1.0).reshape(sums.shape[:-1])
    return shaped


def rouge_l(candidates: Sequence[str], references: Sequence[str]) -> Measure:
    """Mean ROUGE-L F-measure in [0, 1]."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(candidates, references, strict=True)
    return mean([scorer.score(reference, candidate)["rougeL"].fmeasure for candidate, reference in pairs])


TEXT_METRICS: dict[str, Callable[[Sequence[str], Sequence[str]], Measure]] = {
    "bleu4": lambda candidates, references: bleu(candidates, references, "bleu4"),
    "bleu4_radeval": lambda candidates, references: bleu(candidates, references, "bleu4_radeval"),
    "rouge_l": rouge_l,
}
