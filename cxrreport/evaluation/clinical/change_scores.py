"""Agreement on how findings have changed since the prior study, and changes that no prior study supports."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from cxrreport.evaluation.clinical.change_words import Change
from cxrreport.evaluation.clinical.changes import changes
from cxrreport.evaluation.clinical.statements import Codes, common_bits, micro_f1
from cxrreport.evaluation.clinical.vocabulary import Finding
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.statistics import Measure, PatientBootstrap, f1_of_counts, ratio

HALLUCINATED_CHANGE = "hallucinated_change"
_PLACES = {finding: place for place, finding in enumerate(Finding)}
_CHANGES = tuple(Change)


def change_scores(pairs: Pairs) -> dict[str, Measure]:
    """The metric `changes`.

    `change_f1` is the micro F1 of pairs of a finding and its change; it is undefined if neither side states one in any
    study. `hallucinated_change` is the share of the reports that state a change among those for which no prior study
    was shown; it is undefined if there are none, or if what was shown is not known.
    """
    reference, candidate = _stated(pairs)
    hallucinated = np.zeros((len(reference), 2))
    if (priors := pairs.candidate_priors) is not None:
        unshown = np.array([not priors.get(study) for study in pairs.references])
        hallucinated = np.stack([unshown & candidate.any(axis=1), unshown], axis=1).astype(np.float64)
    return {
        "change_f1": micro_f1(reference, candidate),
        HALLUCINATED_CHANGE: Measure(hallucinated, ratio, ratio(hallucinated)),
    }


METRIC = Metric(
    name="changes",
    score=change_scores,
    conditions={
        "changes": "(finding, new, worse, unchanged, improved or resolved), micro F1; read from the text by rules that "
        "radiologists have not validated",
        "hallucinated": "reports without a shown prior study that state a change",
    },
)


def changes_by_group(pairs: Pairs, bootstrap: PatientBootstrap) -> dict[str, dict[str, Any]]:
    """Counts of studies and F1 with its interval for each finding, and for each kind of change over all findings.

    Groups that neither side names are left out.
    """
    reference, candidate = _stated(pairs)
    every = np.uint8((1 << len(Change)) - 1)
    groups = [(finding.value, slice(place, place + 1), every) for place, finding in enumerate(Finding)]
    groups += [(change.value, slice(None), np.uint8(1 << place)) for place, change in enumerate(Change)]
    table = {}
    for name, findings, kinds in groups:
        counts = common_bits(reference[:, findings] & kinds, candidate[:, findings] & kinds)
        agreed, hallucinated, omitted = (int(one) for one in counts.sum(axis=0))
        if agreed or hallucinated or omitted:
            f1 = bootstrap.interval(Measure(counts, f1_of_counts, f1_of_counts(counts)))
            table[name] = {"agreed": agreed, "hallucinated": hallucinated, "omitted": omitted, "change_f1": f1}
    return table


_STATED: WeakKeyDictionary[Pairs, tuple[Codes, Codes]] = WeakKeyDictionary()
"""What was read of pairs that are still in use."""


def _stated(pairs: Pairs) -> tuple[Codes, Codes]:
    """The changes that references and candidates state, uint8[studies, findings] each with a bit for each `Change`."""
    if pairs not in _STATED:
        sides = [texts.values() for texts in (pairs.references, pairs.candidates)]
        reference, candidate = (np.frombuffer(b"".join(map(_packed, side)), np.uint8) for side in sides)
        _STATED[pairs] = reference.reshape(-1, len(Finding)), candidate.reshape(-1, len(Finding))
    return _STATED[pairs]


def _packed(text: str) -> bytes:
    codes = bytearray(len(Finding))
    for finding, change in changes(text):
        codes[_PLACES[finding]] |= 1 << _CHANGES.index(change)
    return bytes(codes)
