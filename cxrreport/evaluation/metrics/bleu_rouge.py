"""BLEU by sacrebleu and ROUGE-L by rouge-score.

Two conventions have separate names: `bleu1` to `bleu4` follow sacrebleu (13a), `bleu1_radeval` to `bleu4_radeval`
RadEval 2.2.1 (split at white space); both are case-sensitive. `rouge_l` compares words, `rouge_l_radeval` their stems.
BLEU is a corpus score, computed from summed n-gram counts; only the value of a single study is a sentence score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.statistics import Floats, Measure, Score, form, mean

CONVENTIONS = {"": "13a", "_radeval": "none"}
"""Suffix of the names to sacrebleu's tokeniser."""
ORDERS = (4, 1, 2, 3)
"""BLEU-4 first, because the first number of a metric represents it."""
_LAST = max(ORDERS)


def bleu(candidates: Sequence[str], references: Sequence[str], convention: str) -> dict[str, Measure]:
    """BLEU-1 to BLEU-4 in [0, 1], exponential smoothing.

    Args:
        candidates: one text per study.
        references: one text per study, in the same order.
        convention: a key of `CONVENTIONS`.
    """
    # sacrebleu recommends the effective order for sentences; the corpus score does not use it.
    metric = _bleu(convention, effective_order=True)
    terms = np.zeros((len(candidates), 2 + 2 * _LAST))
    for row, (candidate, reference) in enumerate(zip(candidates, references, strict=True)):
        score = metric.sentence_score(candidate, [reference])
        terms[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return {
        f"bleu{order}{convention}": Measure(terms, _CORPUS[order], _bleu_of(terms, order=order, effective_order=True))
        for order in ORDERS
    }


def signature(convention: str) -> str:
    """The signature of a convention, including the version of sacrebleu."""
    metric = _bleu(convention, effective_order=False)
    metric.corpus_score(["a"], [["a"]])  # the signature needs the number of references
    return str(metric.get_signature())


def _bleu(convention: str, *, effective_order: bool) -> BLEU:
    return BLEU(tokenize=CONVENTIONS[convention], effective_order=effective_order)


def _bleu_of(sums: Floats, *, order: int, effective_order: bool = False) -> Floats:
    rows = sums.reshape(-1, sums.shape[-1]).round().astype(np.int64)
    values = np.array(
        [
            BLEU.compute_bleu(
                correct=row[2 : 2 + order].tolist(),
                total=row[2 + _LAST : 2 + _LAST + order].tolist(),
                sys_len=int(row[0]),
                ref_len=int(row[1]),
                smooth_method="exp",
                effective_order=effective_order,
                max_ngram_order=order,
            ).score
            / 100
            for row in rows
        ]
    )
    # Rounding can raise a perfect score above 1.
    shaped: Floats = np.minimum(values, 1.0).reshape(sums.shape[:-1])
    return shaped


_CORPUS: dict[int, Score] = {order: form(f"bleu{order}")(partial(_bleu_of, order=order)) for order in ORDERS}


def rouge_l(candidates: Sequence[str], references: Sequence[str], *, stems: bool = False) -> Measure:
    """Mean ROUGE-L F-measure in [0, 1], of words or of their Porter stems."""
    scorer = RougeScorer(["rougeL"], use_stemmer=stems)
    pairs = zip(candidates, references, strict=True)
    return mean([scorer.score(reference, candidate)["rougeL"].fmeasure for candidate, reference in pairs])


def bleu_metrics() -> list[Metric]:
    """BLEU by both conventions."""

    def by_convention(convention: str) -> Metric:
        def score(pairs: Pairs) -> Mapping[str, Measure]:
            return bleu(list(pairs.candidates.values()), list(pairs.references.values()), convention)

        return Metric(name=f"bleu{convention}", score=score, conditions={"bleu": f"corpus, {signature(convention)}"})

    return [by_convention(convention) for convention in CONVENTIONS]


def rouge_metrics() -> list[Metric]:
    """ROUGE-L of words and, as in RadEval, of stems."""

    def of(name: str, *, stems: bool) -> Metric:
        rule = f"rouge-score {metadata.version('rouge-score')}, rougeL F-measure per study, "
        return Metric(
            name=name,
            score=lambda pairs: rouge_l(list(pairs.candidates.values()), list(pairs.references.values()), stems=stems),
            conditions={"rouge": rule + ("Porter stems" if stems else "no stemming")},
        )

    return [of("rouge_l", stems=False), of("rouge_l_radeval", stems=True)]
