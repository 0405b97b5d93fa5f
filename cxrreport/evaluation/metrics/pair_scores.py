"""Scores of pairs of texts by a model: each distinct pair is computed once, and cached on disk."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
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
_CHARACTERS = 400_000  # of the texts of a chunk, so that its embeddings take about 300 MB at most
_LOOKED_UP = 500


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
        self._rows: dict[bytes, int] = {}  # of pairs, by a hash, in the values
        self._values = array("d")
        self._cache = ResultCache(cache, json.dumps(maker, sort_keys=True), "scores") if cache else None

    def prepare(self, systems: Sequence[Pairs]) -> None:
        """Compute the scores of all systems; pairs with one reference share its embedding."""
        self._compute(systems, keep=False)

    def release(self) -> None:
        """Forget all scores, and the model."""
        self._loaded = None
        self._rows, self._values = {}, array("d")

    def _compute(self, systems: Sequence[Pairs], *, keep: bool) -> None:
        wanted = {key: pair for pairs in systems for pair in _pairs(pairs) if (key := _key(pair)) not in self._rows}
        if self._cache:
            keys = list(wanted)
            for first in range(0, len(keys), _LOOKED_UP):
                texts = {_text(wanted[key]): key for key in keys[first : first + _LOOKED_UP]}
                for text, values in self._cache.read(texts).items():
                    self._add(texts[text], values)
                    del wanted[texts[text]]
        new = sorted(wanted.values(), key=_by_reference)
        if not new:
            return
        compute = self._loaded or self._load(new)
        self._loaded = compute if keep else None
        for part in _chunks(new):
            fresh = dict(zip(part, compute(part), strict=True))
            for pair, values in fresh.items():
                self._add(_key(pair), values)
            if self._cache:
                self._cache.write({_text(pair): values for pair, values in fresh.items()})

    def _add(self, key: bytes, values: Sequence[float]) -> None:
        self._rows[key] = len(self._rows)
        self._values.extend(values)

    def __call__(self, pairs: Pairs) -> Floats:
        """float64[studies, scores], in the order of the pairs."""
        self._compute([pairs], keep=True)
        rows = [self._rows[_key(pair)] for pair in _pairs(pairs)]
        # A copy: an array cannot grow while something refers to its memory.
        found: Floats = np.array(self._values, dtype=np.float64).reshape(len(self._rows), -1)[rows]
        return found


def _pairs(pairs: Pairs) -> Iterator[Pair]:
    return ((pairs.candidates[study], reference) for study, reference in pairs.references.items())


def _text(pair: Pair) -> str:
    return json.dumps(pair)


def _key(pair: Pair) -> bytes:
    return hashlib.blake2b(_text(pair).encode(), digest_size=16).digest()


def _by_reference(pair: Pair) -> tuple[int, str]:
    return len(pair[1]), pair[1]


def _chunks(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Pairs that are computed together, in their order."""
    chunk: list[Pair] = []
    characters = 0
    for pair in pairs:
        size = len(pair[0]) + len(pair[1])
        if chunk and (len(chunk) == _CHUNK or characters + size > _CHARACTERS):
            yield chunk
            chunk, characters = [], 0
        chunk.append(pair)
        characters += size
    if chunk:
        yield chunk
