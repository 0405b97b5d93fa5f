"""Agreement of labelled findings between candidates and references.

A finding is any hashable label, for example `("effusion", "left", "small")`, from any source: a text reader, ground
truth, a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cxrreport.errors import ScoreError
from cxrreport.evaluation.statistics import Measure, f1_of_counts

if TYPE_CHECKING:
    from cxrreport.evaluation.metrics import Pairs

Findings = Mapping[str, Set[Hashable]]
"""Study id to the findings of the study."""
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of true and false positives and of false negatives over studies."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def f1(self) -> float:
        """F1 in [0, 1]; NaN if neither side has a finding."""
        counts = np.array([self.true_positives, self.false_positives, self.false_negatives], dtype=np.float64)
        return float(f1_of_counts(counts))


@dataclass(frozen=True, slots=True)
class FindingScores:
    """Micro F1 over all findings, and the counts of each.

    Args:
        total: counts over all findings.
        by_finding: label (or group, see `finding_scores`) to its counts, sorted by name.
        measure: micro F1 with one row per study, in the order of the reference.
    """

    total: Counts
    by_finding: Mapping[Hashable, Counts]
    measure: Measure

    @property
    def f1(self) -> float:
        """Micro F1 in [0, 1]."""
        return self.total.f1


def finding_scores(
    reference: Findings, candidate: Findings, *, group: Callable[[Hashable], Hashable] = lambda label: label
) -> FindingScores:
    """Score the findings of candidates against those of references.

    Args:
        reference: true findings of each study.
        candidate: reported findings of the same studies.
        group: function from a label to its key in `by_finding`, for example its name without side and size.

    Raises:
        ScoreError: the two have different studies; the message lists some.
    """
    same_studies(reference, candidate)
    hits: Counter[Hashable] = Counter()
    hallucinated: Counter[Hashable] = Counter()
    missed: Counter[Hashable] = Counter()
    terms = np.zeros((len(reference), 3))
    for row, (study_id, known) in enumerate(reference.items()):
        reported = candidate[study_id]
        terms[row] = len(known & reported), len(reported - known), len(known - reported)
        hits.update(group(label) for label in known & reported)
        hallucinated.update(group(label) for label in reported - known)
        missed.update(group(label) for label in known - reported)
    groups = sorted(hits | hallucinated | missed, key=str)
    by_finding = {name: Counts(hits[name], hallucinated[name], missed[name]) for name in groups}
    total = Counts(*(int(value) for value in terms.sum(axis=0)))
    # F1 is undefined for a study without findings on either side, which is correct.
    values = np.nan_to_num(f1_of_counts(terms), nan=1.0)
    return FindingScores(total, by_finding, Measure(terms, f1_of_counts, values))


def finding_scorer(read: Callable[[str], Set[Hashable]], known: Findings | None = None) -> Callable[[Pairs], Measure]:
    """A scorer for `metric`: micro F1 of the findings that `read` extracts from texts.

    Args:
        read: function from a text to its findings.
        known: true findings by study id; `None` for those that `read` extracts from the reference.

    The scorer raises `ScoreError` if `known` lacks a study.
    """

    def score(pairs: Pairs) -> Measure:
        references, candidates = pairs.references, pairs.candidates
        if known is None:
            truth = {study_id: read(text) for study_id, text in references.items()}
        else:
            if lacking := [study_id for study_id in references if study_id not in known]:
                raise ScoreError(f"no known findings for {_some(lacking)}")
            truth = {study_id: known[study_id] for study_id in references}
        return finding_scores(truth, {study_id: read(candidates[study_id]) for study_id in references}).measure

    return score


def same_studies(reference: Mapping[str, object], candidate: Mapping[str, object]) -> None:
    """Raise `ScoreError` with some ids unless both sides have the same studies, at least one."""
    if not reference:
        raise ScoreError("there is no study to score")
    if missing := sorted(reference.keys() - candidate.keys()):
        raise ScoreError(f"no candidate for {_some(missing)}")
    if unknown := sorted(candidate.keys() - reference.keys()):
        raise ScoreError(f"no reference for {_some(unknown)}")


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return f"{'study' if len(listed) == 1 else 'studies'} {', '.join(listed[:_LISTED])}{more}"
