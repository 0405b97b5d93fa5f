"""What a clinician asks of a report: which findings are agreed on, omitted or invented, and does it contradict itself.

Read from the entity graphs of both texts through `chexpert`. One rule holds throughout: a doubtful finding counts as
there. So omitted is what the reference states as present or uncertain and the candidate as neither, and invented the
reverse. Certainty, side and severity are compared where both have the finding.
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
from cxrreport.evaluation.radgraph.graph import Annotation
from cxrreport.evaluation.statistics.bootstrap import Floats, Measure, PatientBootstrap, f1_of_counts, form, mean, ratio
from cxrreport.reports.priors.removal import mentions_prior
from cxrreport.reports.sentences import sentences
from cxrreport.storage.files import atomic_path

SCORED = tuple(finding for finding in Finding if finding is not Finding.NO_FINDING)
"""No Finding follows from the others, and would count them twice."""
DETAILS = {"certainty": "presence", "laterality": "sides", "severity": "severity"}
"""Name of an agreement to the field of `Stated` that is compared."""
_GRADES = ("", "mild", "moderate", "severe")


@dataclass(frozen=True, slots=True)
class Said:
    """What one text says.

    Args:
        stated: of each finding.
        contradictions: inside the text.
        priors: number of sentences that mention an earlier study.
    """

    stated: Reading
    contradictions: Sequence[Contradiction]
    priors: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What the reports of one system say, and what their references do: one element per study, in the same order."""

    studies: Sequence[str]
    reference: Sequence[Said]
    candidate: Sequence[Said]

    def counts(self, finding: Finding, holds: Callable[[Stated | None], bool]) -> Floats:
        """float64[studies, 3]: whether it `holds` in both, in the candidate only, in the reference only."""
        wanted, written = (
            np.array([holds(one.stated.get(finding)) for one in side]) for side in (self.reference, self.candidate)
        )
        return np.stack([wanted & written, written & ~wanted, wanted & ~written], axis=1).astype(np.float64)

    def details(self, finding: Finding, name: str) -> Floats:
        """float64[studies, 2]: whether both have the finding and are alike in the field `name`; whether both have it
        and one of them says something there.
        """
        rows = np.zeros((len(self.studies), 2))
        for row, (wanted, written) in enumerate(zip(self.reference, self.candidate, strict=True)):
            one, other = wanted.stated.get(finding), written.stated.get(finding)
            if there(one) and there(other):
                said = getattr(one, name), getattr(other, name)
                rows[row] = any(said) and said[0] == said[1], any(said)
        return rows


def there(said: Stated | None) -> bool:
    """Present or uncertain."""
    return said is not None and said.presence is not Presence.ABSENT


def denied(said: Stated | None) -> bool:
    """Stated as absent."""
    return said is not None and said.presence is Presence.ABSENT


def compare(pairs: Pairs) -> Compared:
    """Read both sides; texts that repeat are read once."""
    known: dict[tuple[str, str], Said] = {}

    def read(text: str, graph: Annotation, findings: str) -> Said:
        if (text, findings) not in known:
            found = mentions(graph)
            place = impression_token(graph.tokens, findings) if findings else None
            priors = sum(mentions_prior(sentence) for sentence in sentences(text))
            known[text, findings] = Said(reading(found), contradictions(found, place), priors)
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
    """Mean F1 of groups of three counts, over those that any side has; NaN where there is none."""
    scores = f1_of_counts(sums.reshape(*sums.shape[:-1], -1, 3))
    defined = ~np.isnan(scores)
    return ratio(np.stack([np.where(defined, scores, 0.0).sum(axis=-1), defined.sum(axis=-1)], axis=-1))


def numbers(pairs: Pairs) -> dict[str, Measure]:
    """The metric `clinical`: F1 over the findings, and means per report of what is wrong."""
    compared = compare(pairs)
    by_finding = np.stack([compared.counts(finding, there) for finding in SCORED], axis=1)
    counts = by_finding.sum(axis=1)
    # A study without findings on both sides is right, and has no F1 of its own.
    each = np.nan_to_num(f1_of_counts(counts), nan=1.0)
    priors = [
        (written.priors, written.priors * (wanted.priors == 0))
        for wanted, written in zip(compared.reference, compared.candidate, strict=True)
    ]
    found = {
        "findings_f1": Measure(counts, f1_of_counts, each),
        "findings_macro_f1": Measure(by_finding.reshape(len(each), -1), macro_f1, each),
        "invented_findings": mean(counts[:, 1]),
        "omitted_findings": mean(counts[:, 2]),
        "contradictions": mean([len(one.contradictions) for one in compared.candidate]),
        "mentions_of_priors": mean([float(all_of_them) for all_of_them, _ in priors]),
        "invented_priors": mean([float(invented) for _, invented in priors]),
    }
    for name, attribute in DETAILS.items():
        terms = np.sum([compared.details(finding, attribute) for finding in SCORED], axis=0)
        found[f"findings_{name}"] = Measure(terms, ratio, ratio(terms))
    return found


METRIC = Metric(
    name="clinical",
    score=numbers,
    graphs=True,
    conditions={
        "findings": f"the names of CheXpert without No Finding, from {NOT_VALIDATED}",
        "uncertain": "counts as there",
        "priors": "sentences that mention an earlier study, by the rules of ingest; invented: the reference has none",
    },
)


def by_finding(compared: Compared, bootstrap: PatientBootstrap) -> dict[str, dict[str, Any]]:
    """Per finding, counts of studies and agreement with intervals: F1 of presence and of absence, and among the studies
    where both have it (and one says something of it) the share with the same certainty, side and severity.
    """
    table: dict[str, dict[str, Any]] = {}
    for finding in Finding:
        present, absent = compared.counts(finding, there), compared.counts(finding, denied)
        agreed, invented, omitted = (int(one) for one in present.sum(axis=0))
        measures = {
            "presence_f1": Measure(present, f1_of_counts, f1_of_counts(present)),
            "absence_f1": Measure(absent, f1_of_counts, f1_of_counts(absent)),
        }
        for name, attribute in DETAILS.items():
            terms = compared.details(finding, attribute)
            measures[name] = Measure(terms, ratio, ratio(terms))
        table[finding.value] = {
            "agreed": agreed,
            "invented": invented,
            "omitted": omitted,
            **{name: bootstrap.interval(measure) for name, measure in measures.items()},
        }
    return table


def write(path: Path, systems: Mapping[str, Compared]) -> None:
    """`findings.parquet`: one row per study, system and finding that one of both texts says something of."""
    rows: list[dict[str, Any]] = []
    for system, compared in systems.items():
        for study, wanted, written in zip(compared.studies, compared.reference, compared.candidate, strict=True):
            clashes = {one.finding: one.kind.value for one in written.contradictions}
            for finding in Finding:
                one, other = wanted.stated.get(finding), written.stated.get(finding)
                if one is None and other is None:
                    continue
                row: dict[str, Any] = {"study_id": study, "system": system, "finding": finding.value}
                for side, said in (("reference", one), ("candidate", other)):
                    row[side] = said.presence.value if said else ""
                    row[f"{side}_side"] = "+".join(sorted(said.sides)) if said else ""
                    row[f"{side}_severity"] = _GRADES[said.severity] if said else ""
                wrong = finding in SCORED and there(one) != there(other)
                row["error"] = ("omitted" if there(one) else "invented") if wrong else ""
                row["contradiction"] = clashes.get(finding, "")
                rows.append(row)
    columns = (
        "study_id",
        "system",
        "finding",
        *(f"{side}{part}" for side in ("reference", "candidate") for part in ("", "_side", "_severity")),
        "error",
        "contradiction",
    )
    table = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in columns})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
