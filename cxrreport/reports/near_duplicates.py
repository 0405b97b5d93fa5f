"""Reports that are nearly the same on both sides of a split: what a model may know by heart when it is tested.

Reports are compared as sets of three consecutive words. Two are near duplicates when these sets share at least
`SIMILAR` of their union (Jaccard). Pairs worth comparing are found by MinHash with bands (Broder 1997, "On the
resemblance and containment of documents"), and then compared exactly. Only the smaller side is kept in memory.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SIMILAR = 0.8
_BANDS, _ROWS = 20, 5  # of 10,000 pairs as alike as SIMILAR, 4 are missed
_draw = np.random.default_rng(20260101)
_FACTORS = _draw.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64) | np.uint64(1)
_SHIFTS = _draw.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64)


def count_near_duplicates(held_out: Iterable[str], training: Iterable[str]) -> int:
    """Number of held-out reports of which the training split has a near duplicate.

    Args:
        held_out: texts of the reports for validation and test; texts without words do not count.
        training: texts of the training split, read once.
    """
    how_often: dict[frozenset[int], int] = defaultdict(int)
    for text in held_out:
        how_often[_shingles(text)] += 1
    how_often.pop(frozenset(), None)
    buckets: dict[bytes, set[frozenset[int]]] = defaultdict(set)
    for shingles in how_often:
        for key in _keys(shingles):
            buckets[key].add(shingles)
    found: set[frozenset[int]] = set()
    seen: set[frozenset[int]] = set()
    for text in training:
        if len(found) == len(how_often):
            break
        shingles = _shingles(text)
        if not shingles or shingles in seen:
            continue
        seen.add(shingles)
        candidates: set[frozenset[int]] = set().union(*(buckets.get(key, ()) for key in _keys(shingles)))
        found.update(other for other in candidates - found if _jaccard(shingles, other) >= SIMILAR)
    return sum(how_often[shingles] for shingles in found)


def _shingles(text: str) -> frozenset[int]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    last = max(1, len(words) - 2)
    return frozenset(zlib.crc32(" ".join(words[at : at + 3]).encode()) for at in range(last)) if words else frozenset()


def _keys(shingles: frozenset[int]) -> list[bytes]:
    values: NDArray[np.uint64] = np.fromiter(shingles, np.uint64, len(shingles))
    # Multiply and shift: the upper half of the wrapped product is as good as random.
    least = ((values[:, None] * _FACTORS + _SHIFTS) >> np.uint64(32)).min(axis=0).astype(np.uint32)
    return [bytes([band]) + row.tobytes() for band, row in enumerate(least.reshape(_BANDS, _ROWS))]


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)
