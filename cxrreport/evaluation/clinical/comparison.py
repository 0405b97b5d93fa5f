"""Clinical agreement of two reports: agreed, omitted and hallucinated findings, and contradictions.

Findings are read from the entity graphs of both texts by `chexpert`. A finding is positive if it is stated as present
or uncertain. It is omitted if it is positive in the reference only, and hallucinated if it is positive in the candidate
only. Certainty, side and severity are compared if it is positive in both.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cxrreport.evaluation.clinical.chexpert import NOT_VALIDATED, Presence, Stated, mentions, reading
from cxrreport.evaluation.clinical.contradictions import Contradiction, contradictions, impression_token
from cxrreport.evaluation.clinical.statements import PRESENCES, SIDES, Statements, packed_reading
from cxrreport.evaluation.clinical.vocabulary import Finding
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.radgraph import Annotation
from cxrreport.evaluation.statistics import Floats, Measure, PatientBootstrap, f1_of_counts, form, mean, ratio
from cxrreport.records import FINDING_COLUMNS
from cxrreport.reports.priors import mentions_prior
from cxrreport.reports.sentences import sentences
from cxrreport.storage.atomic_files import atomic_path

SCORED = tuple(finding for finding in Finding if finding is not Finding.NO_FINDING)
"""All findings but No Finding, which follows from the others and would count them twice."""
SCORED_PLACES = [place for place, finding in enumerate(Finding) if finding in SCORED]
"""Columns of `Statements` of the findings in `SCORED`."""
DETAILS: Mapping[str, Literal["presence", "sides", "severity"]] = {
    "certainty": "presence",
    "laterality": "sides",
    "severity": "severity",
}
"""Name of an agreement to the compared field of `Statements`."""
_GRADES = ("", "mild", "moderate", "severe")
_SENTENCES = 1 << 14  # that are remembered, because reports repeat them


@dataclass(frozen=True, slots=True)
class ReadReports:
    """What reports of one side state, one element or row per study.

    Args:
        stated: statements on every finding.
        contradictions: contradictions within the report.
        priors: int64[studies], number of sentences that mention a prior study.
    """

    stated: Statements
    contradictions: Sequence[tuple[Contradiction, ...]]
    priors: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Compared:
    """What a system's reports and their references state, for the same studies in the same order."""

    studies: Sequence[str]
    reference: ReadReports
    candidate: ReadReports

    def counts(self, kind: Literal["positive", "absent"]) -> Floats:
        """float64[studies, findings, 3]: stated so by both sides, by the candidate only, by the reference only."""
        reference, candidate = (getattr(side.stated, kind) for side in (self.reference, self.candidate))
        sides = [reference & candidate, candidate & ~reference, reference & ~candidate]
        return np.stack(sides, axis=-1).astype(np.float64)

    def details(self, name: Literal["presence", "sides", "severity"]) -> Floats:
        """float64[studies, findings, 2] of the findings on which both sides are positive, zero for the others.

        The columns are whether the field `name` is stated and equal on both sides, and whether either side states it.
        """
        reference, candidate = self.reference.stated, self.candidate.stated
        one, other = getattr(reference, name), getattr(candidate, name)
        stated = reference.positive & candidate.positive & ((one > 0) | (other > 0))
        return np.stack([stated & (one == other), stated], axis=-1).astype(np.float64)


def stated_positive(stated: Stated | None) -> bool:
    """True if a finding is stated as present or uncertain."""
    return stated is not None and stated.presence is not Presence.ABSENT


_COMPARED: WeakKeyDictionary[Pairs, Compared] = WeakKeyDictionary()
"""What was read of pairs that are still in use: several metrics and analyses need it."""


def compare(pairs: Pairs) -> Compared:
    """What both sides state; pairs are read once, however often this is called."""
    read_systems([pairs])
    return _COMPARED[pairs]


def read_systems(systems: Sequence[Pairs]) -> None:
    """Read the reports of several systems for `compare`; repeated texts are read once."""
    new = [pairs for pairs in systems if pairs not in _COMPARED]
    mentioned = lru_cache(_SENTENCES)(mentions_prior)
    rows: dict[tuple[str, str], int] = {}
    readings = []
    clashes: list[tuple[Contradiction, ...]] = []
    priors = array("l")

    def row(text: str, graphs: Mapping[str, Annotation], study: str, findings: str) -> int:
        number = rows.setdefault((text, findings), len(rows))
        if number == len(clashes):
            graph = graphs[study]
            found = mentions(graph)
            place = impression_token(graph.tokens, findings) if findings else None
            readings.append(packed_reading(reading(found)))
            clashes.append(contradictions(found, place))
            priors.append(sum(mentioned(sentence) for sentence in sentences(text)))
        return number

    numbers = [
        [
            np.array([row(text, graphs, study, parts.get(study, "")) for study, text in texts.items()], np.int64)
            for texts, graphs, parts in (
                (pairs.references, pairs.reference_graphs, pairs.reference_findings),
                (pairs.candidates, pairs.candidate_graphs, pairs.candidate_findings),
            )
        ]
        for pairs in new
    ]
    stated, all_priors = Statements.unpacked(readings), np.array(priors, np.int64)
    for pairs, sides in zip(new, numbers, strict=True):
        read = [
            ReadReports(stated.rows(side), [clashes[number] for number in side], all_priors[side]) for side in sides
        ]
        _COMPARED[pairs] = Compared(list(pairs.references), *read)


@form("macro_f1")
def macro_f1(sums: Floats) -> Floats:
    """Mean F1 over groups of three counts, without the groups whose counts are all zero; NaN if no group is left."""
    scores = f1_of_counts(sums.reshape(*sums.shape[:-1], -1, 3))
    defined = ~np.isnan(scores)
    return ratio(np.stack([np.where(defined, scores, 0.0).sum(axis=-1), defined.sum(axis=-1)], axis=-1))


def clinical_numbers(pairs: Pairs) -> dict[str, Measure]:
    """The metric `clinical`: F1 over the findings, and mean numbers of errors per report."""
    compared = compare(pairs)
    by_finding = compared.counts("positive")[:, SCORED_PLACES]
    counts = by_finding.sum(axis=1)
    # F1 is undefined for a study without findings on either side, which is correct.
    each = np.nan_to_num(f1_of_counts(counts), nan=1.0)
    mentioned = compared.candidate.priors.astype(np.float64)
    found = {
        "findings_f1": Measure(counts, f1_of_counts, each),
        "findings_macro_f1": Measure(by_finding.reshape(len(each), -1), macro_f1, each),
        "hallucinated_findings": mean(counts[:, 1]),
        "omitted_findings": mean(counts[:, 2]),
        "contradictions": mean([len(one) for one in compared.candidate.contradictions]),
        "mentions_of_priors": mean(mentioned),
        "hallucinated_priors": mean(mentioned * (compared.reference.priors == 0)),
    }
    for name, attribute in DETAILS.items():
        terms = compared.details(attribute)[:, SCORED_PLACES].sum(axis=1)
        found[f"findings_{name}"] = Measure(terms, ratio, ratio(terms))
    return found


METRIC = Metric(
    name="clinical",
    score=clinical_numbers,
    prepare=read_systems,
    graphs=True,
    conditions={
        "findings": f"the names of CheXpert without No Finding, from {NOT_VALIDATED}",
        "uncertain": "counted as present",
        "priors": "sentences that mention a prior study, by the rules of ingest; hallucinated: the reference has none",
    },
)


def by_finding(compared: Compared, bootstrap: PatientBootstrap) -> dict[str, dict[str, Any]]:
    """Counts of studies and agreement with intervals for each finding.

    Agreement is the F1 of presence and of absence and, among the studies in which both sides are positive and either
    states the detail, the share with the same certainty, side and severity.
    """
    positive, denied = compared.counts("positive"), compared.counts("absent")
    details = {name: compared.details(attribute) for name, attribute in DETAILS.items()}
    table: dict[str, dict[str, Any]] = {}
    for place, finding in enumerate(Finding):
        present, absent = positive[:, place], denied[:, place]
        agreed, hallucinated, omitted = (int(one) for one in present.sum(axis=0))
        measures = {
            "presence_f1": Measure(present, f1_of_counts, f1_of_counts(present)),
            "absence_f1": Measure(absent, f1_of_counts, f1_of_counts(absent)),
        }
        for name, of_all in details.items():
            terms = of_all[:, place]
            measures[name] = Measure(terms, ratio, ratio(terms))
        table[finding.value] = {
            "agreed": agreed,
            "hallucinated": hallucinated,
            "omitted": omitted,
            **{name: bootstrap.interval(measure) for name, measure in measures.items()},
        }
    return table


def write_findings(path: Path, systems: Mapping[str, Compared]) -> None:
    """Write `findings.parquet`: one row per study, system and finding that either report states."""
    schema = pa.schema([(name, pa.string()) for name in FINDING_COLUMNS])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for system, compared in systems.items():
            columns = dict(_finding_columns(system, compared))
            writer.write_table(pa.table({name: columns[name] for name in FINDING_COLUMNS}, schema=schema))


def _finding_columns(system: str, compared: Compared) -> Iterator[tuple[str, pa.Array]]:
    sides = {"reference": compared.reference.stated, "candidate": compared.candidate.stated}
    stated = (sides["reference"].presence > 0) | (sides["candidate"].presence > 0)
    studies, places = np.nonzero(stated)

    def named(names: Sequence[str], codes: NDArray[Any]) -> pa.Array:
        return pa.array(np.array([str(name) for name in names], object)[codes], pa.string())

    yield "study_id", named(compared.studies, studies)
    yield "system", pa.array([system] * len(studies), pa.string())
    yield "finding", named(list(Finding), places)
    of_sides = ["", *SIDES, "+".join(SIDES)]
    for name, one in sides.items():
        yield name, named(PRESENCES, one.presence[stated])
        yield f"{name}_side", named(of_sides, one.sides[stated])
        yield f"{name}_severity", named(_GRADES, one.severity[stated])
    expected, found = (one.positive[stated] & np.isin(places, SCORED_PLACES) for one in sides.values())
    yield "error", named(("", "omitted", "hallucinated"), np.where(expected == found, 0, np.where(expected, 1, 2)))
    clashes = {
        (row, one.finding): one.kind.value
        for row, several in enumerate(compared.candidate.contradictions)
        for one in several
    }
    findings = list(Finding)
    kinds = [
        clashes.get((row, findings[place]), "") for row, place in zip(studies.tolist(), places.tolist(), strict=True)
    ]
    yield "contradiction", pa.array(kinds, pa.string())
