"""The metric of the demo beside RadGraph: findings with side and size, read from phantom reports."""

from __future__ import annotations

import re

from cxrreport.demo.phantoms.text_findings import read_findings
from cxrreport.evaluation.metrics import Pairs, finding_scores, metric
from cxrreport.evaluation.statistics import Measure

_LEFTOVER = re.compile(r"(?:(?<=\. )|^)\w+\.")
"""A sentence of one word: what `ingest` leaves of "The effusion is unchanged."."""


@metric("finding_f1", conditions={"reader": "demo.text_findings"})
def finding_f1(pairs: Pairs) -> Measure:
    """Micro F1 of the findings in candidates against those in references, which are the findings of the phantoms."""
    truth = {study: read_findings(_LEFTOVER.sub("", text)) for study, text in pairs.references.items()}
    return finding_scores(truth, {study: read_findings(text) for study, text in pairs.candidates.items()}).measure
