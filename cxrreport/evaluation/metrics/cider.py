"""CIDEr-D as computed by `pycocoevalcap` (Vedantam et al. 2015, arXiv 1411.5726), without Java.

There is no maintained package: `pycocoevalcap` 1.2 is from 2020, takes 104 MB and includes Java programs. Values range
from 0 to 10; papers report them times 100.

The weight of an n-gram depends on how many scored references contain it, so the score of a sample of studies is not a
function of sums: document frequencies are recomputed for every resample. N-grams that occur in the same references have
the same weight in every resample and share one column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from scipy import sparse

from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.statistics import Floats, Measure, mean

ORDERS = 4
SIGMA = 6.0
"""Width of the length penalty, bigrams."""
SCALE = 10.0
TOKENS = "13a (sacrebleu), lower-cased, punctuation dropped"
_SAMPLES = 16  # resamples at a time, because weights are dense with one value per column
_WORDS = 1 << 32  # more than there are different words

Integers = NDArray[np.int64]
_split: Callable[[str], str] = Tokenizer13a()  # type: ignore[no-untyped-call]


def tokens(text: str) -> list[str]:
    """Tokenise a text as described in `TOKENS`."""
    return [token for token in _split(text.lower()).split() if any(letter.isalnum() for letter in token)]


@dataclass(frozen=True, slots=True)
class _Grams:
    """The n-grams of one length that occur in some texts, by number.

    Args:
        cells: int64[cells], ascending: index of a text times the number of n-grams, plus an n-gram that it contains.
        count: float64[cells], how often it does.
        keys: int64[n-grams], ascending: number of the first n-1 words times `_WORDS`, plus that of the last word.
        first: int64[n-grams], where each occurs first.
    """

    cells: Integers
    count: Floats
    keys: Integers
    first: Integers

    def split(self) -> tuple[Integers, Integers]:
        """The text and the n-gram of each cell."""
        return np.divmod(self.cells, max(1, len(self.keys)))


@dataclass(frozen=True, slots=True)
class _ReferenceOrder:
    """The n-grams of one length of all references; those that occur in the same references have one column.

    Args:
        grams: the n-grams.
        column: int64[n-grams], column of each.
        found: float64[studies, columns], 1 if the reference of the study contains the n-grams of the column.
        squares: float64[studies, columns], squared counts.
    """

    grams: _Grams
    column: Integers
    found: sparse.csr_array
    squares: sparse.csr_array

    def table(self, text: Integers, gram: Integers, values: Floats) -> sparse.csr_array:
        """float64[studies, columns], the values of n-grams of texts summed by column."""
        return sparse.csr_array((values, (text, self.column[gram])), shape=self.found.shape)


class References:
    """The references of CIDEr, one per study.

    Args:
        texts: one reference per study.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.words: dict[str, int] = {}
        self.written = [_numbers(text, self.words) for text in texts]
        self.orders = [_reference_order(grams, len(texts)) for grams in _by_order(self.written)]


@dataclass(frozen=True, slots=True)
class _Order:
    """The n-grams of one length of candidates and references, float64[studies, columns].

    Args:
        reference: those of the references.
        common: smaller count of both sides times the count of the reference.
        candidate: squared counts of the candidate.
        unknown: float64[studies], squared counts of the candidate's n-grams that no reference contains.
    """

    reference: _ReferenceOrder
    common: sparse.csr_array
    candidate: sparse.csr_array
    unknown: Floats

    def cosines(self, weights: Floats) -> Floats:
        """float64[studies, samples], from the count of each study in each sample, float64[samples, studies]."""
        studies = np.log(weights.sum(axis=1))  # as if one more reference contained every n-gram
        frequencies = self.reference.found.T @ weights.T
        squares = (studies - np.log(np.maximum(frequencies, 1.0))) ** 2
        norms = (self.candidate @ squares + np.outer(self.unknown, studies**2)) * (self.reference.squares @ squares)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(norms > 0, (self.common @ squares) / np.sqrt(norms), 0.0)


def cider(candidates: Sequence[str], references: Sequence[str] | References) -> Measure:
    """CIDEr, one reference per study.

    Args:
        candidates: one text per study.
        references: one text per study, in the same order, or what was made of them for another system.
    """
    known = references if isinstance(references, References) else References(references)
    words = dict(known.words)
    written = [_numbers(text, words) for text in candidates]
    orders: list[_Order] = []
    numbers: Integers = np.zeros(0, np.int64)  # of the n-grams of candidates among those of references; -1 for others
    for reference, grams in zip(known.orders, _by_order(written), strict=True):
        before, last = np.divmod(grams.keys, _WORDS)
        prefixes = numbers[before] if orders else np.where(last < len(known.words), 0, -1)
        numbers = _places(np.where(prefixes < 0, -1, prefixes * _WORDS + last), reference.grams.keys)
        orders.append(_order(reference, grams, numbers))
    lengths = [np.array([max(len(one) - 1, 0) for one in side]) for side in (written, known.written)]
    penalty = SCALE / ORDERS * np.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * SIGMA**2))

    def by_study(weights: Floats) -> Floats:
        scores: Floats = penalty[:, None] * sum(order.cosines(weights) for order in orders)
        return scores

    def resampled(weights: Floats) -> Floats:
        blocks = [weights[first : first + _SAMPLES] for first in range(0, len(weights), _SAMPLES)]
        return np.concatenate([(block.T * by_study(block)).sum(axis=0) / block.sum(axis=1) for block in blocks])

    whole = mean(by_study(np.ones((1, len(known.written))))[:, 0])
    return Measure(whole.terms, whole.score, whole.values, resampled)


def _numbers(text: str, words: dict[str, int]) -> NDArray[np.int32]:
    """The words of a text as numbers; new words are added to `words`."""
    return np.array([words.setdefault(token, len(words)) for token in tokens(text)], np.int32)


def _by_order(texts: Sequence[NDArray[np.int32]]) -> Iterator[_Grams]:
    """The n-grams of texts, from one word to `ORDERS`."""
    words = np.concatenate([*texts, np.zeros(0, np.int32)]).astype(np.int64)
    owners = np.repeat(np.arange(len(texts)), [len(one) for one in texts])
    starts = np.arange(len(words))
    before = np.zeros(len(words), np.int64)  # n-gram that begins at each start, without the last word
    for last in range(ORDERS):
        within = starts + last < len(words)
        within[within] = owners[starts[within] + last] == owners[starts[within]]
        starts = starts[within]
        keys, first, before = np.unique(
            before[within] * _WORDS + words[starts + last], return_index=True, return_inverse=True
        )
        cells, count = np.unique(owners[starts] * len(keys) + before, return_counts=True)
        yield _Grams(cells, count.astype(np.float64), keys, first)


def _reference_order(grams: _Grams, studies: int) -> _ReferenceOrder:
    text, gram = grams.split()
    holders = text[np.argsort(gram, kind="stable")]
    ends = np.cumsum(np.bincount(gram, minlength=len(grams.keys)))
    columns: dict[bytes, int] = {}
    column = np.zeros(len(grams.keys), np.int64)
    for number in np.argsort(grams.first):  # columns in the order of the texts
        held = holders[ends[number - 1] if number else 0 : ends[number]]
        column[number] = columns.setdefault(held.tobytes(), len(columns))
    rows = [np.frombuffer(held, np.int64) for held in columns]
    places = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
    shape = studies, len(columns)
    found = sparse.csr_array((np.ones(len(places)), (np.concatenate([*rows, text[:0]]), places)), shape=shape)
    squares = sparse.csr_array((grams.count**2, (text, column[gram])), shape=shape)
    return _ReferenceOrder(grams, column, found, squares)


def _order(reference: _ReferenceOrder, grams: _Grams, numbers: Integers) -> _Order:
    text, gram = grams.split()
    chosen, count = numbers[gram], grams.count
    held = chosen >= 0
    unknown = np.bincount(text[~held], count[~held] ** 2, minlength=reference.found.shape[0]).astype(np.float64)
    text, chosen, count = text[held], chosen[held], count[held]
    candidate = reference.table(text, chosen, count**2)
    place = _places(text * len(reference.grams.keys) + chosen, reference.grams.cells)
    both = place >= 0
    wanted = reference.grams.count[place[both]]
    common = reference.table(text[both], chosen[both], np.minimum(wanted, count[both]) * wanted)
    return _Order(reference, common, candidate, unknown)


def _places(wanted: Integers, ascending: Integers) -> Integers:
    """The index of each value in an ascending array without repetition; -1 if it is not there."""
    places = np.searchsorted(ascending, wanted)
    found = places < len(ascending)
    found[found] = ascending[places[found]] == wanted[found]
    return np.where(found, places, -1)


def cider_metrics() -> list[Metric]:
    """CIDEr as a metric."""
    made: list[tuple[Mapping[str, str], References]] = []  # of the references that all systems share

    def score(pairs: Pairs) -> Measure:
        if not made or made[0][0] is not pairs.references:
            made[:] = [(pairs.references, References(list(pairs.references.values())))]
        return cider(list(pairs.candidates.values()), made[0][1])

    return [
        Metric(
            name="cider",
            score=score,
            release=made.clear,
            conditions={"cider": "CIDEr-D as pycocoevalcap 1.2, references of the cohort, 0 to 10", "tokens": TOKENS},
        )
    ]
