"""Diversity of reports: a model that has collapsed writes the same few reports for every image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Set
from typing import Any

from cxrreport.reports.sentences import sentences

SENTENCES = 10
"""Number of listed sentences."""
_MARGIN = 0.2
_FEWEST = 20


def diversity(texts: Iterable[str], findings: Iterable[Set[Hashable]] = ()) -> dict[str, Any]:
    """Describe how much the reports of one system repeat each other. Empty reports are left out.

    Args:
        texts: one report per study; white space is normalised.
        findings: the positive findings of each report, if they were read.

    Returns:
        `reports`; `distinct`, the number of different ones; `identical`, the share that is identical to at least one
        other (NaN without reports); `entropy_of_findings`, in bits, of the distribution of positive findings, and
        `entropy_of_patterns`, of the distribution of their sets by report; `sentences`, the most frequent ones with
        the number of reports that contain them.
    """
    from scipy import stats

    reports = Counter(plain for text in texts if (plain := " ".join(text.split())))
    total = reports.total()
    found: dict[str, Any] = {
        "reports": total,
        "distinct": len(reports),
        "identical": sum(count for count in reports.values() if count > 1) / total if total else float("nan"),
    }
    if patterns := Counter(frozenset(one) for one in findings):
        single = Counter(name for pattern, count in patterns.items() for name in pattern for _ in range(count))
        found["entropy_of_findings"] = float(stats.entropy(list(single.values()), base=2)) if single else 0.0
        found["entropy_of_patterns"] = float(stats.entropy(list(patterns.values()), base=2))
    said: Counter[str] = Counter()
    for text, count in reports.items():
        said.update(dict.fromkeys(sentences(text), count))
    ranked = sorted(said.items(), key=lambda one: (-one[1], one[0]))[:SENTENCES]
    return found | {"sentences": [{"sentence": sentence, "reports": count} for sentence, count in ranked]}


def collapse(system: Mapping[str, Any], references: Mapping[str, Any]) -> tuple[str, ...]:
    """A warning if the share of identical reports is 20 points above the references', from 20 reports on."""
    if system["reports"] < _FEWEST or not system["identical"] >= references["identical"] + _MARGIN:
        return ()
    shares, distinct = (
        [f"{one[name]:{form}}" for one in (system, references)]
        for name, form in (("identical", ".0%"), ("distinct", ","))
    )
    told = f"{shares[0]} of the reports are identical to another one, and {shares[1]} of the references"
    return (f"collapse: {told} ({' and '.join(distinct)} distinct reports)",)
