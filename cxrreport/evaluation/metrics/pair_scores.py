"""Scores of pairs of texts by a model: each distinct pair is computed once, and cached on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.statistics import Floats
from cxrreport.storage.result_cache import ResultCache

Pair = tuple[str, str]
"""Candidate and reference."""
Compute = Callable[[Sequence[Pair]], Sequence[Sequence[float]]]
"""From pairs to a fixed number of scores of each."""
_CHUNK = 256


class PairScores:
    """Scores of pairs. The model is in memory while `prepare` runs, and from the first call for other pairs.

    Args:
        load: loads the model, for pairs of which it may prepare what they have in common, and returns what computes
            the scores.
        maker: JSON value of everything that scores depend on besides the pair.
        cache: SQLite file; `None` for no cache.
    """

    def __init__(self, load: Callable[[Sequence[Pair]], Compute], maker: Any, cache: Path | None) -> None:
        self._load = load
        self._loaded: Compute | None = None
        self._known: dict[str, Sequence[float]] = {}
        self._cache = ResultCache(cache, json.dumps(maker, sort_keys=True), "scores") if cache else None

    def prepare(self, systems: Sequence[Pairs]) -> None:
        """Compute the scores of all systems; pairs with one reference share its embedding."""
        self._compute(systems, keep=False)

    def _compute(self, systems: Sequence[Pairs], *, keep: bool) -> None:
        wanted = {_key(pair): pair for pairs in systems for pair in _pairs(pairs)}
        new = [key for key in wanted if key not in self._known]
        if self._cache:
            self._known |= self._cache.read(new)
        new = sorted((key for key in new if key not in self._known), key=lambda key: _by_reference(wanted[key]))
        if not new:
            return
        compute = self._loaded or self._load([wanted[key] for key in new])
        self._loaded = compute if keep else None
        for first in range(0, len(new), _CHUNK):
            part = new[first : first + _CHUNK]
            fresh = dict(zip(part, compute([wanted[key] for key in part]), strict=True))
            self._known |= fresh
            if self._cache:
                self._cache.write(fresh)

    def __call__(self, pairs: Pairs) -> Floats:
        """float64[studies, scores], in the order of the pairs."""
        self._compute([pairs], keep=True)
        return np.array([self._known[_key(pair)] for pair in _pairs(pairs)], dtype=np.float64)


def _pairs(pairs: Pairs) -> list[Pair]:
    return [(pairs.candidates[study], reference) for study, reference in pairs.references.items()]


def _key(pair: Pair) -> str:
    return json.dumps(pair)


def _by_reference(pair: Pair) -> tuple[int, str]:
    return len(pair[1]), pair[1]
