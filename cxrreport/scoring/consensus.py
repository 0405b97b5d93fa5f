"""Agreement of sampled reports by RadGraph, as the `similarity` argument of `inference.generate.generate`.

The inference package does not depend on scoring; this module connects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cxrreport.evaluation.clinical import SCORED, Finding, mentions, reading, stated_positive
from cxrreport.evaluation.inputs.tables import cut
from cxrreport.evaluation.radgraph import Annotation, Level, agreement
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.settings import ConsensusSettings

T = TypeVar("T")

LEVEL = Level.PARTIAL
"""Level of the headline score of `evaluate`."""


@dataclass
class ReportSimilarity:
    """Agreement of reports by RadGraph F1 or by their findings. The model is loaded once in each process.

    A report that is too long for RadGraph is read up to its limit. An empty report agrees with no other.

    Args:
        settings: measure and RadGraph model.
        cache: SQLite file for annotations.

    Raises:
        WeightsError: RadGraph's weights are missing or not usable.
    """

    settings: ConsensusSettings
    cache: Path
    conditions: Mapping[str, Any] = field(init=False)
    _annotator: RadGraphAnnotator | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.conditions = {"measure": self.settings.measure} | self._radgraph().archive.conditions

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_annotator": None}

    def _radgraph(self) -> RadGraphAnnotator:
        if self._annotator is None:
            wanted = self.settings
            self._annotator = RadGraphAnnotator.find(
                wanted.radgraph, wanted.weights, cache=self.cache, download=wanted.download
            )
        return self._annotator

    def __call__(self, groups: Sequence[Sequence[str]]) -> list[npt.NDArray[np.float64]]:
        """Agreement of every pair of reports within each group, float64[n, n] each, symmetric, from 0 to 1."""
        groups = [[cut(text) for text in group] for group in groups]
        texts = list(dict.fromkeys(text for group in groups for text in group if text))
        graphs = dict(zip(texts, self._radgraph().annotate(texts), strict=True))
        if self.settings.measure == "radgraph":
            return [_pairwise([graphs.get(text) for text in group], _radgraph_f1) for group in groups]
        findings = {text: _positive_findings(graph) for text, graph in graphs.items()}
        return [_pairwise([findings.get(text) for text in group], _findings_f1) for group in groups]


def _pairwise(contents: Sequence[T | None], f1: Callable[[T, T], float]) -> npt.NDArray[np.float64]:
    similarity = np.eye(len(contents))
    for (row, one), (column, other) in combinations(enumerate(contents), 2):
        if one is not None and other is not None:
            similarity[row, column] = similarity[column, row] = f1(one, other)
    return similarity


def _radgraph_f1(one: Annotation, other: Annotation) -> float:
    return agreement(one, other, LEVEL, lower_case=True).f1


def _positive_findings(graph: Annotation) -> set[tuple[Finding, frozenset[str]]]:
    stated = reading(mentions(graph))
    return {(finding, stated[finding].sides) for finding in SCORED if stated_positive(stated.get(finding))}


def _findings_f1(one: set[T], other: set[T]) -> float:
    """F1 of two sets; 1 if both are empty, as for two normal reports."""
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0
