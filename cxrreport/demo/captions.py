"""What the tiny PaliGemma 2 is pre-trained on: short texts about one phantom, all of them true of its image.

The tasks are PaliGemma's own in miniature (arXiv 2407.07726, section 3.2.3): captions, answers to questions, boxes. None is written
in the style of a report, so that fine-tuning on reports has something to teach. The fine nodule is left out: at 224
pixels its image does not show it, and text that the image does not support teaches a model not to look.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from cxrreport.demo.findings import Finding, Name

CAPTION_PROMPT = "cap en"
DESCRIBE_PROMPT = "describe en"

_WORD = {
    Name.CARDIOMEGALY: "cardiomegaly",
    Name.OEDEMA: "edema",
    Name.OPACITY: "opacity",
    Name.NODULE: "nodule",
    Name.EFFUSION: "effusion",
    Name.PNEUMOTHORAX: "pneumothorax",
    Name.TUBE: "tube",
    Name.PACEMAKER: "pacemaker",
}
VISIBLE = tuple(name for name in Name if name is not Name.NODULE)


def caption(findings: tuple[Finding, ...]) -> str:
    """All findings, adjectives first: `mild cardiomegaly ; small left effusion`."""
    parts = [" ".join([*_adjectives(f), _WORD[f.name]]) for f in findings if f.name in VISIBLE]
    return " ; ".join(parts) or "normal"


def describe(findings: tuple[Finding, ...]) -> str:
    """Every finding in a fixed order with its state: `cardiomegaly none ; effusion small left`."""
    parts = []
    for name in VISIBLE:
        states = [" ".join(_adjectives(f)) or "present" for f in findings if f.name is name]
        parts.append(f"{_WORD[name]} {' and '.join(states) or 'none'}")
    return " ; ".join(parts)


def question(findings: tuple[Finding, ...], rng: np.random.Generator) -> tuple[str, str]:
    """A question about one finding and its short answer."""
    name = VISIBLE[int(rng.integers(len(VISIBLE)))]
    found = [f for f in findings if f.name is name]
    word = _WORD[name]
    kind = int(rng.integers(4))
    if kind == 0 and name is Name.CARDIOMEGALY:
        degree = {"": "normal", "mild": "mildly enlarged", "severe": "severely enlarged"}[found[0].size if found else ""]
        return "answer en how large is the heart ?", f"The heart is {degree}"
    if kind == 1 and name is Name.OPACITY:
        return "answer en are the lungs clear ?", "No, there is an opacity in a lung" if found else "The lungs have no opacity"
    if kind == 2 and name in (Name.EFFUSION, Name.OPACITY, Name.PNEUMOTHORAX, Name.PACEMAKER):
        return f"answer en where is the {word} ?", " and ".join(f"{f.side} {f.zone}".strip() for f in found) or "none"
    if not found:
        return f"answer en is there {word} ?", f"No, there is no {word}"
    said = ", ".join(" ".join(_adjectives(f)) or "in place" for f in found)
    return f"answer en is there {word} ?", f"{said[:1].upper()}{said[1:]} {word} is seen"


def detect(findings: tuple[Finding, ...], masks: dict[Finding, NDArray[np.bool_]], rng: np.random.Generator) -> tuple[str, str]:
    """A finding and its box as `<locNNNN>` tokens: y0, x0, y1, x1 in 1024ths, as PaliGemma writes them."""
    visible = [f for f in findings if f.name in VISIBLE and masks[f].any()]
    if not visible:
        return "detect effusion", "none"
    finding = visible[int(rng.integers(len(visible)))]
    boxes = []
    for other in visible:
        if other.name is finding.name:
            rows, columns = (np.flatnonzero(masks[other].any(axis=axis)) for axis in (1, 0))
            height, width = masks[other].shape
            corners = (rows[0] / height, columns[0] / width, (rows[-1] + 1) / height, (columns[-1] + 1) / width)
            boxes.append("".join(f"<loc{min(int(c * 1024), 1023):04d}>" for c in corners) + f" {_WORD[finding.name]}")
    return f"detect {_WORD[finding.name]}", " ; ".join(boxes)


def _adjectives(finding: Finding) -> list[str]:
    words = ("possible" if finding.doubtful else "", finding.size, finding.side, finding.zone)
    return [word for word in words if word]


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
_SIZES = {"small": "small", "large": "large", "mild": "mild", "mildly": "mild", "severe": "severe", "severely": "severe"}
_COMPARED = re.compile(r"\b(?:unchanged|increased|decreased)\b")


def read_findings(text: str) -> frozenset[tuple[str, str, str]]:
    """Findings that a report or a caption of a phantom asserts, as `Finding.key`.

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
