"""Pre-training texts of the tiny PaliGemma 2: short descriptions of a phantom that are true of its image.

The tasks are a small version of PaliGemma's (arXiv 2407.07726, section 3): captions, answers to questions, and boxes.
None is in the style of a report, which the model learns in fine-tuning. The fine nodule is excluded: it is not visible
at 224 pixels, and text that the image does not support teaches a model to ignore the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrreport.demo.phantoms.findings import Name, PhantomFinding

CAPTION_PROMPT = "cap en"
DESCRIBE_PROMPT = "describe en"

WORD = {name: name.value for name in Name} | {Name.OEDEMA: "edema"}
VISIBLE = tuple(name for name in Name if name is not Name.NODULE)


def caption(findings: tuple[PhantomFinding, ...]) -> str:
    """List the findings, adjectives first: `mild cardiomegaly ; small left effusion`."""
    parts = [" ".join([*adjectives(f), WORD[f.name]]) for f in findings if f.name in VISIBLE]
    return " ; ".join(parts) or "normal"


def describe(findings: tuple[PhantomFinding, ...]) -> str:
    """List every finding in a fixed order with its state: `cardiomegaly none ; effusion small left`."""
    parts = []
    for name in VISIBLE:
        states = [" ".join(adjectives(f)) or "present" for f in findings if f.name is name]
        parts.append(f"{WORD[name]} {' and '.join(states) or 'none'}")
    return " ; ".join(parts)


_TOPIC = WORD | {Name.CARDIOMEGALY: "heart", Name.EFFUSION: "pleural effusion"}
_STATEMENTS: dict[Name, tuple[str, ...]] = {
    Name.CARDIOMEGALY: (
        "The heart is {degree} enlarged.",
        "There is {size} cardiomegaly.",
        "{size} cardiomegaly is seen.",
        "The cardiac size is {degree} enlarged.",
        "Heart is {degree} enlarged.",
        "The silhouette of the heart is {degree} enlarged.",
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
        "{side} {zone} lung: {doubt}{size} opacity.",
    ),
    Name.EFFUSION: (
        "A {size} pleural effusion is on the {side}.",
        "There is a {size} effusion, {side}.",
        "{side} pleural effusion, {size}.",
        "{size} pleural effusion, {side}.",
    ),
    Name.PNEUMOTHORAX: (
        "A {size} pneumothorax is on the {side}.",
        "There is a pneumothorax, {size}, {side}.",
        "{side} pneumothorax, {size}.",
        "{size} pneumothorax, {side}.",
    ),
    Name.TUBE: (
        "The endotracheal tube is in place.",
        "An endotracheal tube is seen.",
        "Endotracheal tube is seen.",
    ),
    Name.PACEMAKER: (
        "The pacemaker is on the {side}.",
        "There is a {side} pacemaker in place.",
        "A pacemaker is seen, {side}.",
    ),
}
_DENIALS: dict[Name, tuple[str, ...]] = {
    Name.CARDIOMEGALY: (
        "The heart is normal.",
        "Heart is normal.",
        "Normal heart.",
        "The cardiac size is normal.",
        "The silhouette of the heart is normal.",
    ),
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
_CLEAR = ("Both lungs are clear.", "Clear lungs, both.", "Lungs are clear.")
NORMAL = (
    "The chest is normal.",
    "Normal chest on this image.",
    "There is no acute process.",
    "No acute abnormality or process is seen.",
    "No cardiopulmonary process is present.",
    "There is no acute cardiopulmonary abnormality.",
)
_DOUBTS = ("Possible {size} opacity, {side} {zone} lung.", "There may be a {size} opacity, {side} {zone}.")
_NEITHER = ("There is no {0} or {1} on this image.", "No {1} or {0} is present.", "No {1} or {0} on any side.")


def statements(findings: tuple[PhantomFinding, ...], rng: np.random.Generator) -> tuple[str, str]:
    """Draw a question that names topics, and its answer: one sentence per topic, in the order of the question.

    The answers use the vocabulary of radiology, but no sentence of the demo's reports. Fine-tuning then only has to
    teach the style, as with a language model that was pre-trained on general text.
    """
    match rng.choice(["normal", "either", "twice", "all twice", "each"], p=[0.08, 0.1, 0.25, 0.4, 0.17]):
        case "normal":
            pathological = [f for f in findings if f.name not in (Name.TUBE, Name.PACEMAKER, Name.NODULE)]
            answer = " ".join(state(f.name, f, rng) for f in pathological) or pick(NORMAL, rng)
            return "answer en is the chest normal ?", answer
        case "either":
            first, second = (VISIBLE[i] for i in rng.permutation(len(VISIBLE))[:2])
            if rng.random() < 0.4:
                first, second = Name.OEDEMA, Name.OPACITY
            return f"answer en {_TOPIC[first]} or {_TOPIC[second]} ?", _either(first, second, findings, rng)
        case "twice":
            topics = _topics(rng, most=len(VISIBLE))
            listed = " , ".join(_TOPIC[name] for name in topics)
            return f"answer en findings : {listed} ; impression ?", _two_sections(topics, findings, rng)
        case "all twice":
            # As for a report, the question does not list the topics of the answer.
            return "answer en findings ; impression ?", _two_sections(_topics(rng, least=len(VISIBLE)), findings, rng)
        case _:
            topics = _topics(rng, most=4)
            return f"answer en {' , '.join(_TOPIC[name] for name in topics)} ?", _each(topics, findings, rng)


def _topics(rng: np.random.Generator, *, least: int = 1, most: int = len(VISIBLE)) -> list[Name]:
    return [VISIBLE[i] for i in rng.permutation(len(VISIBLE))[: int(rng.integers(least, most + 1))]]


def _two_sections(topics: list[Name], findings: tuple[PhantomFinding, ...], rng: np.random.Generator) -> str:
    """Write one sentence per topic, then a second one for each topic that is present, half of the time the same.

    An impression repeats the findings, often in different words. This task teaches the model to keep two sections
    consistent over the length of a report.
    """
    first: list[str] = []
    repeated: list[str] = []
    for name in topics:
        found = [f for f in findings if f.name is name]
        if not found:
            first.append(state(name, None, rng))
        for finding in found:
            first.append(state(name, finding, rng))
            repeated.append(first[-1] if rng.random() < 0.5 else state(name, finding, rng))
    return f"FINDINGS: {' '.join(first)} IMPRESSION: {' '.join(repeated) or pick(NORMAL, rng)}"


def _each(topics: list[Name], findings: tuple[PhantomFinding, ...], rng: np.random.Generator) -> str:
    sentences: list[str] = []
    for name in topics:
        found = [f for f in findings if f.name is name]
        sentences.extend(state(name, finding, rng) for finding in found or (None,))
    return " ".join(sentences)


def _either(first: Name, second: Name, findings: tuple[PhantomFinding, ...], rng: np.random.Generator) -> str:
    """Deny both in one sentence if neither is present."""
    if any(f.name in (first, second) for f in findings):
        return _each([first, second], findings, rng)
    if {first, second} == {Name.OEDEMA, Name.OPACITY}:
        return pick(_CLEAR, rng)
    return pick(_NEITHER, rng).format(WORD[first], WORD[second])


def state(name: Name, finding: PhantomFinding | None, rng: np.random.Generator) -> str:
    """State a finding, or with `None` deny it, in one sentence."""
    if finding is None:
        return pick(_DENIALS[name], rng)
    templates = _DOUBTS if finding.doubtful and rng.random() < 0.5 else _STATEMENTS[name]
    text = pick(templates, rng).format(
        size=finding.size,
        degree=f"{finding.size}ly",
        side=finding.side,
        zone=finding.zone,
        doubt="possible " if finding.doubtful else "",
    )
    return text[:1].upper() + text[1:]


def pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    """Draw one of the options."""
    return options[int(rng.integers(len(options)))]


def detect(
    findings: tuple[PhantomFinding, ...], masks: dict[PhantomFinding, NDArray[np.bool_]], rng: np.random.Generator
) -> tuple[str, str]:
    """Draw a finding and write its box in PaliGemma's format: `<locNNNN>` for y0, x0, y1, x1, in units of 1/1024."""
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
            boxes.append("".join(f"<loc{min(int(c * 1024), 1023):04d}>" for c in corners) + f" {WORD[finding.name]}")
    return f"detect {WORD[finding.name]}", " ; ".join(boxes)


def adjectives(finding: PhantomFinding) -> list[str]:
    """Doubt, size, side and zone, where they are stated."""
    words = ("possible" if finding.doubtful else "", finding.size, finding.side, finding.zone)
    return [word for word in words if word]


def sample_task(
    findings: tuple[PhantomFinding, ...], masks: dict[PhantomFinding, NDArray[np.bool_]], rng: np.random.Generator
) -> tuple[str, str]:
    """Draw a task about one image, as its prefix and its suffix."""
    match rng.choice(["caption", "describe", "statements", "detect"], p=[0.15, 0.1, 0.7, 0.05]):
        case "caption":
            return CAPTION_PROMPT, caption(findings)
        case "describe":
            return DESCRIBE_PROMPT, describe(findings)
        case "statements":
            return statements(findings, rng)
        case _:
            return detect(findings, masks, rng)
