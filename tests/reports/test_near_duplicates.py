"""Near duplicates agree with a comparison of all pairs."""

from __future__ import annotations

import random
import re

from cxrreport.reports.near_duplicates import SIMILAR, count_near_duplicates


def by_all_pairs(held_out: list[str], training: list[str]) -> int:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))} if words else set()

    def similar(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> bool:
        return bool(first and second) and len(first & second) / len(first | second) >= SIMILAR

    known = [shingles(text) for text in training]
    return sum(any(similar(shingles(text), other) for other in known) for text in held_out)


def test_agrees_with_all_pairs() -> None:
    draw = random.Random(3)
    words = [f"w{number}" for number in range(300)]
    training = [" ".join(draw.choices(words, k=draw.randint(5, 60))) for _ in range(200)]
    held_out = []
    for text in training[:120]:
        changed = text.split()
        for _ in range(draw.randint(0, 4)):
            changed[draw.randrange(len(changed))] = draw.choice(words)
        held_out.append(" ".join(changed))
    held_out += [" ".join(draw.choices(words, k=30)) for _ in range(50)]
    expected = by_all_pairs(held_out, training)
    assert 30 < expected < 120
    assert abs(count_near_duplicates(held_out, training) - expected) <= 1


def test_edges() -> None:
    assert count_near_duplicates([], ["a b c"]) == 0 == count_near_duplicates(["a b c"], [])
    assert count_near_duplicates(["", "  . "], ["", "..."]) == 0
    assert count_near_duplicates(["Clear.", "clear", "Not clear."], ["CLEAR"]) == 2
