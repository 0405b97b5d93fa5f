"""Findings that the text of a phantom report asserts, and contradictions between its findings and impression."""

from __future__ import annotations

import re

from cxrreport.demo.phantoms.findings import Name

Keys = frozenset[tuple[str, str, str]]
"""Findings as `PhantomFinding.key`: name, side, size."""

_PATTERNS = {name: re.compile(name.value) for name in Name} | {
    Name.CARDIOMEGALY: re.compile(r"cardiomegaly|enlarge\w*"),
    Name.OEDEMA: re.compile(r"edema"),
    Name.TUBE: re.compile(r"\btube"),
}
_SIZES = {"mildly": "mild", "severely": "severe"} | {size: size for size in ("small", "large", "mild", "severe")}
_NEGATIONS = {"no", "none", "nor", "resolved"}
_COMPARED = re.compile(r"\b(?:unchanged|increased|decreased)\b")


def read_findings(text: str) -> Keys:
    """Extract the findings that a report or caption of a phantom asserts, as `PhantomFinding.key`.

    Sentences with `no`, `none`, `nor` or `resolved` are negations. Comparisons with the prior study without a size
    repeat another sentence and are skipped. If a finding needs a side and the sentence has none, the side is `?`, which
    matches no true finding.
    """
    found = set()
    for sentence in re.split(r"[.;]", text.lower()):
        words = re.findall(r"[a-z]+", sentence)
        sizes = [_SIZES[w] for w in words if w in _SIZES]
        if not _NEGATIONS.isdisjoint(words) or (_COMPARED.search(sentence) and not sizes):
            continue
        sides = [w for w in words if w in ("left", "right")]
        for name, pattern in _PATTERNS.items():
            if pattern.search(sentence) is None:
                continue
            if name in (Name.TUBE, Name.CARDIOMEGALY, Name.OEDEMA) or "posterior" in words:
                sides = [""]
            # `describe` can list two findings of one name together: "effusion small left and large right".
            for index, side in enumerate(sides or ["?"]):
                size = sizes[min(index, len(sizes) - 1)] if sizes else ""
                found.add((name.value, side, "" if name in (Name.NODULE, Name.TUBE, Name.PACEMAKER) else size))
    return frozenset(found)


def contradicts(findings: str, impression: str) -> bool:
    """Check whether the impression asserts a finding that the findings lack, or none although they have a disease.

    An impression that omits some of the findings, or a device, does not contradict them.
    """
    found, concluded = read_findings(findings), read_findings(impression)
    diseases = {key for key in found if key[0] not in (Name.TUBE, Name.PACEMAKER)}
    return bool(concluded - found) or bool(diseases and not concluded)
