"""CIDEr-D as computed by `pycocoevalcap` (Vedantam et al. 2015, arXiv 1411.5726), without Java.

There is no maintained package: `pycocoevalcap` 1.2 is from 2020, takes 104 MB and includes Java programs. Values range
from 0 to 10; papers report them times 100.

The weight of an n-gram depends on how many scored references contain it, so the score of a sample of studies is not a
function of sums: document frequencies are recomputed for every resample. N-grams that occur in the same references have
the same weight in every resample and share one column.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from scipy import sparse

from cxrreport.evaluation.metrics import Metric
from cxrreport.evaluation.statistics import Floats, Measure, mean

ORDERS = 4
SIGMA = 6.0
"""Width of the length penalty, bigrams."""
SCALE = 10.0
TOKENS = "13a (sacrebleu), lower-cased, punctuation dropped"
_SAMPLES = 16  # resamples at a time, because weights are dense with one value per column

_split: Callable[[str], str] = Tokenizer13a()  # type: ignore[no-untyped-call]


def tokens(text: str) -> list[str]:
    """Tokenise a text as described in `TOKENS`."""
    return [token for token in _split(text.lower()).split() if any(letter.isalnum() for letter in token)]


@dataclass(frozen=True, slots=True)
class _Order:
    """N-grams of one length, summed over those that occur in the same references: float64[studies, columns].

    Args:
        found: 1 if the reference of the study contains the n-grams of the column.
        common: smaller count of both sides times the count of the reference.
        candidate: squared counts of the candidate.
        reference: squared counts of the reference.
        unknown: float64[studies], squared counts of the candidate's n-grams that no reference contains.
    """

    found: sparse.csr_array
    common: sparse.csr_array
    candidate: sparse.csr_array
    reference: sparse.csr_array
    unknown: Floats

    def cosines(self, weights: Floats) -> Floats:
        """float64[studies, samples], from the count of each study in each sample, float64[samples, studies]."""
        studies = np.log(weights.sum(axis=1))  # as if one more reference contained every n-gram
        frequencies = self.found.T @ weights.T
        squares = (studies - np.log(np.maximum(frequencies, 1.0))) ** 2
        norms = (self.candidate @ squares + np.outer(self.unknown, studies**2)) * (self.reference @ squares)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(norms > 0, (self.common @ squares) / np.sqrt(norms), 0.0)


def cider(candidates: Sequence[str], references: Sequence[str]) -> Measure:
    """CIDEr, one reference per study.

    Args:
        candidates: one text per study.
        references: one text per study, in the same order.
    """
    candidate, reference = [tokens(text) for text in candidates], [tokens(text) for text in references]
    orders = [_order(n, candidate, reference) for n in range(1, ORDERS + 1)]
    bigrams = np.array(
        [max(len(one) - 1, 0) - max(len(other) - 1, 0) for one, other in zip(candidate, reference, strict=True)]
    )
    penalty = SCALE / ORDERS * np.exp(-(bigrams**2) / (2 * SIGMA**2))

    def by_study(weights: Floats) -> Floats:
        scores: Floats = penalty[:, None] * sum(order.cosines(weights) for order in orders)
        return scores

    def resampled(weights: Floats) -> Floats:
        blocks = [weights[first : first + _SAMPLES] for first in range(0, len(weights), _SAMPLES)]
        return np.concatenate([(block.T * by_study(block)).sum(axis=0) / block.sum(axis=1) for block in blocks])

    whole = mean(by_study(np.ones((1, len(references))))[:, 0])
    return Measure(whole.terms, whole.score, whole.values, resampled)


def _order(length: int, candidates: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> _Order:
    candidate, reference = [_grams(text, length) for text in candidates], [_grams(text, length) for text in references]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, counts in enumerate(reference):
        for gram in counts:
            holders[gram].append(row)
    columns: dict[tuple[int, ...], int] = {}
    column = {gram: columns.setdefault(tuple(rows), len(columns)) for gram, rows in holders.items()}
    shape = len(references), len(columns)

    def table(cells: Iterable[tuple[int, Mapping[tuple[str, ...], float]]]) -> sparse.csr_array:
        rows, places, values = [], [], []
        for row, counts in cells:
            for gram, value in counts.items():
                if gram in column:
                    rows.append(row)
                    places.append(column[gram])
                    values.append(value)
        return sparse.csr_array((np.array(values, dtype=np.float64), (rows, places)), shape=shape)

    both = [
        {g: min(n, one[g]) * n for g, n in other.items() if g in one}
        for one, other in zip(candidate, reference, strict=True)
    ]
    found = sparse.csr_array(
        (
            np.ones(sum(map(len, columns))),
            ([r for rows in columns for r in rows], [c for rows, c in columns.items() for _ in rows]),
        ),
        shape=shape,
    )
    return _Order(
        found=found,
        common=table(enumerate(both)),
        candidate=table((row, _squares(counts)) for row, counts in enumerate(candidate)),
        reference=table((row, _squares(counts)) for row, counts in enumerate(reference)),
        unknown=np.array(
            [sum(n * n for gram, n in counts.items() if gram not in column) for counts in candidate], float
        ),
    )


def _grams(text: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[first : first + length]) for first in range(len(text) - length + 1))


def _squares(counts: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], float]:
    return {gram: float(count * count) for gram, count in counts.items()}


def cider_metrics() -> list[Metric]:
    """CIDEr as a metric."""
    return [
        Metric(
            name="cider",
            score=lambda pairs: cider(list(pairs.candidates.values()), list(pairs.references.values())),
            conditions={"cider": "CIDEr-D as pycocoevalcap 1.2, references of the cohort, 0 to 10", "tokens": TOKENS},
        )
    ]
