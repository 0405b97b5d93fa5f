"""Names that earlier versions wrote into the output folder of `evaluate`, and their current names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CURRENT = {
    "invented": "hallucinated",
    "invented_findings": "hallucinated_findings",
    "invented_priors": "hallucinated_priors",
    "looks": "image_reliance_gap",
    "any omitted or invented finding": "any omitted or hallucinated finding",
    "sentences that mention an earlier study, by the rules of ingest; invented: the reference has none": (
        "sentences that mention a prior study, by the rules of ingest; hallucinated: the reference has none"
    ),
    "counts as there": "counted as present",
}


def current(value: Any) -> Any:
    """Replace old names in nested JSON values: keys of objects, and texts that are an old name as a whole."""
    if isinstance(value, Mapping):
        return {current(name): current(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [current(item) for item in value]
    return _CURRENT.get(value, value) if isinstance(value, str) else value
