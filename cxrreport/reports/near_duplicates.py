"""Near-duplicate reports across splits, which a model may have memorised when it is tested.

A report is compared as its set of three-word sequences. Two reports are near duplicates if the Jaccard similarity of
their sets is at least `SIMILAR`. Candidate pairs are found by MinHash with bands (Broder 1997, "On the resemblance and
containment of documents") and then compared exactly. Only the held-out reports are kept in memory.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SIMILAR = 0.8
_BANDS, _ROWS = 20, 5  # miss 4 of 10,000 pairs with a similarity of exactly SIMILAR
_rng = np.random.default_rng(20260101)
_FACTORS = _rng.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64) | np.uint64(1)
_SHIFTS = _rng.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64)


def count_near_duplicates(held_out: Iterable[str], training: Iterable[str]) -> int:
    """Number of held-out reports with a near duplicate in the training split.

    Args:
        held_out: reports of validation and test; texts without words do not count.
        training: reports of the training split, read once.
    """
    copies: dict[frozenset[int], int] = defaultdict(int)
    for text in held_out:
        copies[_shingles(text)] += 1
    copies.pop(frozenset(), None)
    buckets: dict[bytes, set[frozenset[int]]] = defaultdict(set)
    for shingles in copies:
        for key in _bucket_keys(shingles):
            buckets[key].add(shingles)
    found: set[frozenset[int]] = set()
    seen: set[frozenset[int]] = set()
    for text in training:
        if len(found) == len(copies):
            break
        shingles = _shingles(text)
        if not shingles or shingles in seen:
            continue
        seen.add(shingles)
        candidates: set[frozenset[int]] = set().union(*(buckets.get(key, ()) for key in _bucket_keys(shingles)))
        found.update(other for other in candidates - found if _jaccard(shingles, other) >= SIMILAR)
    return sum(copies[shingles] for shingles in found)


def _shingles(text: str) -> frozenset[int]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    last = max(1, len(words) - 2)
    return frozenset(zlib.crc32(" ".join(words[at : at + 3]).encode()) for at in range(last)) if words else frozenset()


def _bucket_keys(shingles: frozenset[int]) -> list[bytes]:
    values: NDArray[np.uint64] = np.fromiter(shingles, np.uint64, len(shingles))
    # Multiply-shift hashing: the upper half of the wrapped product is close to uniform.
    least = ((values[:, None] * _FACTORS + _SHIFTS) >> np.uint64(32)).min(axis=0).astype(np.uint32)
    return [bytes([band]) + row.tobytes() for band, row in enumerate(least.reshape(_BANDS, _ROWS))]


def _jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    return len(first & second) / len(first | second)
