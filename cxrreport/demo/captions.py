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


_TOPIC = {
    Name.CARDIOMEGALY: "heart",
    Name.OEDEMA: "edema",
    Name.OPACITY: "opacity",
    Name.EFFUSION: "pleural effusion",
    Name.PNEUMOTHORAX: "pneumothorax",
    Name.TUBE: "tube",
    Name.PACEMAKER: "pacemaker",
}
_STATEMENTS: dict[Name, tuple[str, ...]] = {
    Name.CARDIOMEGALY: (
        "The heart is {degree} enlarged.",
        "There is {size} cardiomegaly.",
        "{size} cardiomegaly is seen.",
        "The cardiac size is {degree} enlarged.",
    ),
    Name.OEDEMA: (
        "Pulmonary edema is {size}.",
        "There is {size} edema in the lungs.",
        "{size} pulmonary edema is seen.",
    ),
    Name.OPACITY: (
        "The {side} {zone} lung has a {doubt}{size} opacity.",
        "There is a {doubt}{size} {side} {zone} opacity.",
        "{doubt}{size} opacity is present in the {side} {zone} lung.",
    ),
    Name.EFFUSION: (
        "A {size} pleural effusion is on the {side}.",
        "There is a {size} effusion, {side}.",
        "{side} pleural effusion, {size}.",
    ),
    Name.PNEUMOTHORAX: (
        "A {size} pneumothorax is on the {side}.",
        "There is a pneumothorax, {size}, {side}.",
        "{side} pneumothorax, {size}.",
    ),
    Name.TUBE: (
        "The endotracheal tube is in place.",
        "An endotracheal tube is seen.",
        "There is an endotracheal tube.",
    ),
    Name.PACEMAKER: (
        "The pacemaker is on the {side}.",
        "There is a {side} pacemaker in place.",
        "A pacemaker is seen, {side}.",
    ),
}
_DENIALS: dict[Name, tuple[str, ...]] = {
    Name.CARDIOMEGALY: ("The heart is normal.", "There is no cardiomegaly.", "The cardiac size is normal."),
    Name.OEDEMA: ("There is no pulmonary edema.", "No edema.", "No edema is seen in the lungs."),
    Name.OPACITY: ("The lungs have no opacity.", "There is no opacity.", "No opacity is seen in the lungs."),
    Name.EFFUSION: ("There is no effusion.", "No pleural effusion is present.", "No effusion is seen."),
    Name.PNEUMOTHORAX: (
        "No pneumothorax is present.",
        "There is no pneumothorax on any side.",
        "No pneumothorax is seen.",
    ),
    Name.TUBE: ("No tube is in place.", "There is no endotracheal tube."),
    Name.PACEMAKER: ("No pacemaker is in place.", "There is no pacemaker."),
}
_NORMAL = ("The chest is normal.", "No acute process is seen.", "There is no cardiopulmonary abnormality or process.")


def statements(findings: tuple[Finding, ...], rng: np.random.Generator) -> tuple[str, str]:
    """A question that names one to four topics, and one sentence on each, in its order.

    The sentences use the words of radiology in another order than any report of the demo does.
    """
    if not findings and rng.random() < 0.2:
        return "answer en is the chest normal ?", _NORMAL[int(rng.integers(len(_NORMAL)))]
    topics = [VISIBLE[i] for i in rng.permutation(len(VISIBLE))[: int(rng.integers(1, 5))]]
    said: list[str] = []
    for name in topics:
        found = [f for f in findings if f.name is name]
        said.extend(_state(name, finding, rng) for finding in found or (None,))
    return f"answer en {' , '.join(_TOPIC[name] for name in topics)} ?", " ".join(said)


def _state(name: Name, finding: Finding | None, rng: np.random.Generator) -> str:
    templates = _STATEMENTS[name] if finding is not None else _DENIALS[name]
    template = templates[int(rng.integers(len(templates)))]
    if finding is None:
        return template
    text = template.format(
        size=finding.size,
        degree=f"{finding.size}ly",
        side=finding.side,
        zone=finding.zone,
        doubt="possible " if finding.doubtful else "",
    )
    return text[:1].upper() + text[1:]


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
