"""Clinical agreement of two reports: agreed, omitted and hallucinated findings, and contradictions.

Findings are read from the entity graphs of both texts by `chexpert`. A finding is positive if it is stated as present
or uncertain. It is omitted if it is positive in the reference only, and hallucinated if it is positive in the candidate
only. Certainty, side and severity are compared if it is positive in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.evaluation.clinical.chexpert import NOT_VALIDATED, Presence, Reading, Stated, mentions, reading
from cxrreport.evaluation.clinical.contradictions import Contradiction, contradictions, impression_token
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
DETAILS = {"certainty": "presence", "laterality": "sides", "severity": "severity"}
"""Name of an agreement to the compared field of `Stated`."""
_GRADES = ("", "mild", "moderate", "severe")


@dataclass(frozen=True, slots=True)
class ReadReport:
    """The statements of one report.

    Args:
        stated: statement on each finding.
        contradictions: contradictions within the report.
        priors: number of sentences that mention a prior study.
    """

    stated: Reading
    contradictions: Sequence[Contradiction]
    priors: int


@dataclass(frozen=True, slots=True)
class Compared:
    """The statements of a system's reports and of their references, one element per study, in the same order."""

    studies: Sequence[str]
    reference: Sequence[ReadReport]
    candidate: Sequence[ReadReport]

    def counts(self, finding: Finding, holds: Callable[[Stated | None], bool]) -> Floats:
        """float64[studies, 3]: whether `holds` is true of both sides, of the candidate only, of the reference only."""
        reference, candidate = (
            np.array([holds(one.stated.get(finding)) for one in side]) for side in (self.reference, self.candidate)
        )
        return np.stack([reference & candidate, candidate & ~reference, reference & ~candidate], axis=1).astype(
            np.float64
        )

    def details(self, finding: Finding, name: str) -> Floats:
        """float64[studies, 2] of the studies in which both sides are positive.

        The columns are whether the field `name` is stated and equal on both sides, and whether either side states it.
        """
        rows = np.zeros((len(self.studies), 2))
        for row, (reference, candidate) in enumerate(zip(self.reference, self.candidate, strict=True)):
            one, other = reference.stated.get(finding), candidate.stated.get(finding)
            if stated_positive(one) and stated_positive(other):
                values = getattr(one, name), getattr(other, name)
                rows[row] = any(values) and values[0] == values[1], any(values)
        return rows


def stated_positive(stated: Stated | None) -> bool:
    """True if a finding is stated as present or uncertain."""
    return stated is not None and stated.presence is not Presence.ABSENT


def stated_absent(stated: Stated | None) -> bool:
    """True if a finding is stated as absent."""
    return stated is not None and stated.presence is Presence.ABSENT


def compare(pairs: Pairs) -> Compared:
    """Read both sides; repeated texts are read once."""
    known: dict[tuple[str, str], ReadReport] = {}

    def read(text: str, graph: Annotation, findings: str) -> ReadReport:
        if (text, findings) not in known:
            found = mentions(graph)
            place = impression_token(graph.tokens, findings) if findings else None
            priors = sum(mentions_prior(sentence) for sentence in sentences(text))
            known[text, findings] = ReadReport(reading(found), contradictions(found, place), priors)
        return known[text, findings]

    reference, candidate = (
        [read(text, graphs[study], parts.get(study, "")) for study, text in texts.items()]
        for texts, graphs, parts in (
            (pairs.references, pairs.reference_graphs, pairs.reference_findings),
            (pairs.candidates, pairs.candidate_graphs, pairs.candidate_findings),
        )
    )
    return Compared(list(pairs.references), reference, candidate)


@form("macro_f1")
def macro_f1(sums: Floats) -> Floats:
    """Mean F1 over groups of three counts, without the groups whose counts are all zero; NaN if no group is left."""
    scores = f1_of_counts(sums.reshape(*sums.shape[:-1], -1, 3))
    defined = ~np.isnan(scores)
    return ratio(np.stack([np.where(defined, scores, 0.0).sum(axis=-1), defined.sum(axis=-1)], axis=-1))


def clinical_numbers(pairs: Pairs) -> dict[str, Measure]:
    """The metric `clinical`: F1 over the findings, and mean numbers of errors per report."""
    compared = compare(pairs)
    by_finding = np.stack([compared.counts(finding, stated_positive) for finding in SCORED], axis=1)
    counts = by_finding.sum(axis=1)
    # F1 is undefined for a study without findings on either side, which is correct.
    each = np.nan_to_num(f1_of_counts(counts), nan=1.0)
    priors = [
        (candidate.priors, candidate.priors * (reference.priors == 0))
        for reference, candidate in zip(compared.reference, compared.candidate, strict=True)
    ]
    found = {
        "findings_f1": Measure(counts, f1_of_counts, each),
        "findings_macro_f1": Measure(by_finding.reshape(len(each), -1), macro_f1, each),
        "hallucinated_findings": mean(counts[:, 1]),
        "omitted_findings": mean(counts[:, 2]),
        "contradictions": mean([len(one.contradictions) for one in compared.candidate]),
        "mentions_of_priors": mean([float(mentioned) for mentioned, _ in priors]),
        "hallucinated_priors": mean([float(hallucinated) for _, hallucinated in priors]),
    }
    for name, attribute in DETAILS.items():
        terms = np.sum([compared.details(finding, attribute) for finding in SCORED], axis=0)
        found[f"findings_{name}"] = Measure(terms, ratio, ratio(terms))
    return found


METRIC = Metric(
    name="clinical",
    score=clinical_numbers,
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
    table: dict[str, dict[str, Any]] = {}
    for finding in Finding:
        present, absent = compared.counts(finding, stated_positive), compared.counts(finding, stated_absent)
        agreed, hallucinated, omitted = (int(one) for one in present.sum(axis=0))
        measures = {
            "presence_f1": Measure(present, f1_of_counts, f1_of_counts(present)),
            "absence_f1": Measure(absent, f1_of_counts, f1_of_counts(absent)),
        }
        for name, attribute in DETAILS.items():
            terms = compared.details(finding, attribute)
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
    rows: list[dict[str, Any]] = []
    for system, compared in systems.items():
        for study, reference, candidate in zip(compared.studies, compared.reference, compared.candidate, strict=True):
            clashes = {one.finding: one.kind.value for one in candidate.contradictions}
            for finding in Finding:
                one, other = reference.stated.get(finding), candidate.stated.get(finding)
                if one is None and other is None:
                    continue
                row: dict[str, Any] = {"study_id": study, "system": system, "finding": finding.value}
                for side, stated in (("reference", one), ("candidate", other)):
                    row[side] = stated.presence.value if stated else ""
                    row[f"{side}_side"] = "+".join(sorted(stated.sides)) if stated else ""
                    row[f"{side}_severity"] = _GRADES[stated.severity] if stated else ""
                wrong = finding in SCORED and stated_positive(one) != stated_positive(other)
                row["error"] = ("omitted" if stated_positive(one) else "hallucinated") if wrong else ""
                row["contradiction"] = clashes.get(finding, "")
                rows.append(row)
    table = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in FINDING_COLUMNS})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
