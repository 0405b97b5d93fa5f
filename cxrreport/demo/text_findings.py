"""Findings read back from text: what a generated report asserts, and whether its two sections agree."""

from __future__ import annotations

import re

from cxrreport.demo.findings import Name

Keys = frozenset[tuple[str, str, str]]
"""Findings as `PhantomFinding.key`: name, side, size."""

_NAMES = (
    (Name.CARDIOMEGALY, re.compile(r"cardiomegaly|enlarge\w*")),
    (Name.OEDEMA, re.compile(r"edema")),
    (Name.OPACITY, re.compile(r"opacity")),
    (Name.NODULE, re.compile(r"nodule")),
    (Name.EFFUSION, re.compile(r"effusion")),
    (Name.PNEUMOTHORAX, re.compile(r"pneumothorax")),
    (Name.TUBE, re.compile(r"\btube")),
    (Name.PACEMAKER, re.compile(r"pacemaker")),
)
_SIZES = {"mildly": "mild", "severely": "severe"} | {size: size for size in ("small", "large", "mild", "severe")}
_COMPARED = re.compile(r"\b(?:unchanged|increased|decreased)\b")


def read_findings(text: str) -> Keys:
    """Findings that a report or a caption of a phantom asserts, as `PhantomFinding.key`.

    Sentences with `no` or `none` deny what they name, and sentences on the prior study only repeat what another one
    says. A sentence that names a finding but no side, where there should be one, yields a key that matches nothing.
    """
    found = set()
    for sentence in re.split(r"[.;]", text.lower()):
        words = re.findall(r"[a-z]+", sentence)
        if "no" in words or "none" in words or "nor" in words or _COMPARED.search(sentence):
            continue
        sizes = [_SIZES[w] for w in words if w in _SIZES]
        sides = [w for w in words if w in ("left", "right")]
        for name, pattern in _NAMES:
            if pattern.search(sentence) is None:
                continue
            if name in (Name.TUBE, Name.CARDIOMEGALY, Name.OEDEMA):
                sides = [""]
            # `describe` may name two of a kind at once: "effusion small left and large right".
            for index, side in enumerate(sides or ["?"]):
                size = sizes[min(index, len(sizes) - 1)] if sizes else ""
                found.add((name.value, side, "" if name in (Name.NODULE, Name.TUBE, Name.PACEMAKER) else size))
    return frozenset(found)


def contradicts(findings: str, impression: str) -> bool:
    """True where the impression asserts what the findings do not, or calls a study normal that they do not.

    What the impression leaves out is no contradiction, nor is a device that it does not repeat.
    """
    found, concluded = read_findings(findings), read_findings(impression)
    diseases = {key for key in found if key[0] not in (Name.TUBE, Name.PACEMAKER)}
    return bool(concluded - found) or bool(diseases and not concluded)
