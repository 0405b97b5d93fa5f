"""What the tiny PaliGemma 2 is pre-trained on: short texts about one phantom, all of them true of its image.

The tasks are PaliGemma's own in miniature (arXiv 2407.07726, section 3): captions, answers to questions, boxes. None
is written in the style of a report, so that fine-tuning on reports has something to teach. The fine nodule is left out:
at 224 pixels its image does not show it, and text that the image does not support teaches a model not to look.
"""

from __future__ import annotations

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
        degree = {"mild": "mildly enlarged", "severe": "severely enlarged"}[found[0].size] if found else "normal"
        return "answer en how large is the heart ?", f"The heart is {degree}"
    if kind == 1 and name is Name.OPACITY:
        answer = "No, there is an opacity in a lung" if found else "The lungs have no opacity"
        return "answer en are the lungs clear ?", answer
    if kind == 2 and name in (Name.EFFUSION, Name.OPACITY, Name.PNEUMOTHORAX, Name.PACEMAKER):
        return f"answer en where is the {word} ?", " and ".join(f"{f.side} {f.zone}".strip() for f in found) or "none"
    if not found:
        return f"answer en is there {word} ?", f"No, there is no {word}"
    said = ", ".join(" ".join(_adjectives(f)) or "in place" for f in found)
    return f"answer en is there {word} ?", f"{said[:1].upper()}{said[1:]} {word} is seen"


def detect(
    findings: tuple[Finding, ...], masks: dict[Finding, NDArray[np.bool_]], rng: np.random.Generator
) -> tuple[str, str]:
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
