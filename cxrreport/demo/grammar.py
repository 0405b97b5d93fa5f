"""Reports of phantoms, whose entity graphs are known by construction.

A template is a sentence with its annotation in RadGraph's schema (Jain et al. 2021, arXiv 2106.14463):

    "There is a {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural ."

`word/LABEL` is an entity with label A (anatomy), O (observation, definitely present), N (definitely absent) or U
(uncertain). `>word`, `@word` and `~word` are relations to another entity of the same sentence: modify, located at and
suggestive of. Words joined by `_` are one entity. Text and graph come from one source and always agree.

House styles are sets of templates. One report uses one style, and its impression describes an opacity in the same words
as its findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cxrreport.demo.findings import Name, PhantomFinding, sample_findings
from cxrreport.records import Report

Templates = Literal["seen", "held-out"]

LABELS = {
    "A": "Anatomy::definitely present",
    "O": "Observation::definitely present",
    "N": "Observation::definitely absent",
    "U": "Observation::uncertain",
}
RELATIONS = {">": "modify", "@": "located_at", "~": "suggestive_of"}


@dataclass(frozen=True, slots=True)
class TemplateEntity:
    """An entity that spans tokens `start` to `end`, inclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation of type `kind` from `entities[head]` to `entities[tail]`."""

    head: int
    tail: int
    kind: str


@dataclass(frozen=True, slots=True)
class AnnotatedText:
    """A tokenised text (wordpunct, as `radgraph-xl` splits it) and its graph."""

    tokens: tuple[str, ...]
    entities: tuple[TemplateEntity, ...]
    relations: tuple[Relation, ...]

    @property
    def text(self) -> str:
        """The tokens joined with normal spacing."""
        return re.sub(r" ([.,:])", r"\1", " ".join(self.tokens)).replace(" - ", "-")


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """The sections of a report, and one graph of its findings and impression."""

    report: Report
    graph: AnnotatedText


_WORD = re.compile(r"(?P<text>[^/]+)(?:/(?P<label>[AONU])(?P<links>(?:[>@~][^>@~]+)*))?$")


def annotate(template: str) -> AnnotatedText:
    """Parse a template whose slots are filled, and capitalise its first letter."""
    tokens: list[str] = []
    entities: list[TemplateEntity] = []
    links: list[tuple[int, str, str]] = []
    places: dict[str, int] = {}
    for word in template.split():
        match = _WORD.match(word)
        if match is None:
            raise ValueError(f"template word {word!r} in {template!r}")
        parts = match["text"].split("_")
        start = len(tokens)
        tokens.extend(parts)
        if match["label"]:
            places.setdefault(match["text"].lower(), len(entities))
            for kind, target in re.findall(r"([>@~])([^>@~]+)", match["links"] or ""):
                links.append((len(entities), kind, target.lower()))
            entities.append(TemplateEntity(start, len(tokens) - 1, LABELS[match["label"]]))
    if tokens:
        tokens[0] = tokens[0][:1].upper() + tokens[0][1:]
    relations = tuple(Relation(head, places[target], RELATIONS[kind]) for head, kind, target in links)
    return AnnotatedText(tuple(tokens), tuple(entities), relations)


def join(texts: Iterable[AnnotatedText]) -> AnnotatedText:
    """Concatenate texts and their graphs."""
    tokens: list[str] = []
    entities: list[TemplateEntity] = []
    relations: list[Relation] = []
    for text in texts:
        shift, first = len(tokens), len(entities)
        tokens.extend(text.tokens)
        entities.extend(TemplateEntity(e.start + shift, e.end + shift, e.label) for e in text.entities)
        relations.extend(Relation(r.head + first, r.tail + first, r.kind) for r in text.relations)
    return AnnotatedText(tuple(tokens), tuple(entities), tuple(relations))


# A slot is {size}, {degree} (mildly), {side}, {zone}, {prior} (unchanged, increased, ...).
Style = dict[str, str]

_PLAIN: Style = {
    "cardiomegaly": "Heart/A size/A>heart is {degree}/O>enlarged enlarged/O@heart .",
    "no cardiomegaly": "Heart/A size/A>heart is normal/O@heart .",
    "oedema": "There is {size}/O>edema pulmonary/A edema/O@pulmonary .",
    "opacity": "There is a {size}/O>opacity opacity/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "doubtful opacity": (
        "There is a possible {size}/U>opacity opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A ."
    ),
    "nodule": "There is a nodule/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "no lung": "The lungs/A are clear/O@lungs .",
    "effusion": "There is a {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural .",
    "no effusion": "There is no pleural/A effusion/N@pleural .",
    "pneumothorax": "There is a {size}/O>pneumothorax {side}/A pneumothorax/O@{side} .",
    "no pneumothorax": "There is no pneumothorax/N .",
    "no effusion or pneumothorax": "There is no pleural/A effusion/N@pleural or pneumothorax/N .",
    "tube": "An endotracheal/O>tube tube/O is in place .",
    "pacemaker": "A {side}/A pacemaker/O@{side} is in place .",
    "prior": "The {word}/O is {prior}/O>{word} .",
    "impression cardiomegaly": "{size}/O>cardiomegaly cardiomegaly/O .",
    "impression oedema": "{size}/O>edema pulmonary/A edema/O@pulmonary .",
    "impression opacity": "{size}/O>opacity opacity/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "impression doubtful opacity": (
        "Possible {size}/U>opacity opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A ."
    ),
    "impression nodule": "Nodule/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "impression effusion": "{size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural .",
    "impression pneumothorax": "{size}/O>pneumothorax {side}/A pneumothorax/O@{side} .",
    "impression devices": "No acute/N>process cardiopulmonary/A process/N@cardiopulmonary .",
    "impression normal": "No acute/N>process cardiopulmonary/A process/N@cardiopulmonary .",
}
_TERSE: Style = _PLAIN | {
    "no cardiomegaly": "Normal/O@heart heart/A size/A>heart .",
    "oedema": "{size}/O>edema pulmonary/A edema/O@pulmonary is present .",
    "opacity": "{size}/O>opacity opacity/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "doubtful opacity": "Possible {size}/U>opacity opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "nodule": "Nodule/O@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "no lung": "Clear/O@lungs lungs/A .",
    "effusion": "{size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural is present .",
    "no effusion": "No pleural/A effusion/N@pleural .",
    "pneumothorax": "{size}/O>pneumothorax {side}/A pneumothorax/O@{side} is present .",
    "no pneumothorax": "No pneumothorax/N .",
    "no effusion or pneumothorax": "No pleural/A effusion/N@pleural or pneumothorax/N .",
    "tube": "Endotracheal/O>tube tube/O in place .",
    "pacemaker": "{side}/A pacemaker/O@{side} in place .",
    "impression normal": "Normal/O@chest chest/A .",
}
_FORMAL: Style = _PLAIN | {
    "cardiomegaly": "The cardiac/A>silhouette silhouette/A is {degree}/O>enlarged enlarged/O@silhouette .",
    "no cardiomegaly": "The cardiac/A>silhouette silhouette/A is normal/O@silhouette .",
    "effusion": "A {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural is seen .",
    "opacity": "A {size}/O>opacity {side}/A>lung {zone}/A>lung lung/A opacity/O@lung is seen .",
    "doubtful opacity": "A {size}/U>opacity {side}/A>lung {zone}/A>lung lung/A opacity/U@lung may be present .",
    "pneumothorax": "A {size}/O>pneumothorax {side}/A pneumothorax/O@{side} is seen .",
    "no effusion or pneumothorax": "No pleural/A effusion/N@pleural or pneumothorax/N is seen .",
    "impression opacity": "{size}/O>opacity {side}/A>lung {zone}/A>lung lung/A opacity/O@lung .",
    "impression doubtful opacity": "Possible {size}/U>opacity {side}/A>lung {zone}/A>lung lung/A opacity/U@lung .",
    "impression normal": "No acute/N>abnormality cardiopulmonary/A abnormality/N@cardiopulmonary .",
}
HOUSE_STYLES: dict[str, tuple[float, Style]] = {
    "plain": (0.70, _PLAIN),
    "terse": (0.15, _TERSE),
    "formal": (0.15, _FORMAL),
}

# Sentences that no report of the demo uses. They test whether the tiny RadGraph generalises beyond its templates.
_HELD_OUT: Style = _PLAIN | {
    "cardiomegaly": "{size}/O>enlargement enlargement/O@heart of the heart/A is noted .",
    "no cardiomegaly": "The heart/A is normal/O@heart in size/A>heart .",
    "oedema": "Findings are those of {size}/O>edema pulmonary/A edema/O@pulmonary .",
    "opacity": "In the {side}/A>lung {zone}/A>lung lung/A there is a {size}/O>opacity opacity/O@lung .",
    "doubtful opacity": "There may be a {size}/U>opacity opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "nodule": "A nodule/O@lung projects over the {side}/A>lung {zone}/A>lung lung/A .",
    "no lung": "Both lungs/A appear clear/O@lungs .",
    "effusion": "The patient has a {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural .",
    "no effusion": "There is no evidence of a pleural/A effusion/N@pleural .",
    "pneumothorax": "{size}/O>pneumothorax pneumothorax/O@{side} is noted on the {side}/A .",
    "no pneumothorax": "A pneumothorax/N is not seen .",
    "no effusion or pneumothorax": "Neither pleural/A effusion/N@pleural nor pneumothorax/N is seen .",
    "tube": "Note is made of an endotracheal/O>tube tube/O .",
    "pacemaker": "There is a pacemaker/O@{side} on the {side}/A .",
    "prior": "There is {prior}/O>{word} {word}/O .",
    "impression normal": "The chest/A is normal/O@chest .",
}

# Training sentences with the vocabulary of the held-out ones, which a two-layer model could not learn otherwise.
_TRAINING_ONLY: Style = _PLAIN | {
    "cardiomegaly": "{size}/O>enlargement enlargement/O@heart of the heart/A is seen .",
    "no cardiomegaly": "Heart/A is normal/O@heart .",
    "oedema": "There is evidence of {size}/O>edema pulmonary/A edema/O@pulmonary .",
    "opacity": "In the {side}/A>lung lung/A there is a {size}/O>opacity opacity/O@lung .",
    "doubtful opacity": "There may be an opacity/U@lung in the {side}/A>lung {zone}/A>lung lung/A .",
    "nodule": "The {side}/A>lung {zone}/A>lung lung/A has a nodule/O@lung .",
    "no lung": "The lungs/A appear clear/O@lungs .",
    "effusion": "Note is made of a {size}/O>effusion pleural/A effusion/O@pleural on the {side}/A>pleural .",
    "no effusion": "No evidence of pleural/A effusion/N@pleural .",
    "pneumothorax": "A {size}/O>pneumothorax pneumothorax/O@{side} is on the {side}/A .",
    "no pneumothorax": "Pneumothorax/N is not seen .",
    "no effusion or pneumothorax": "Neither pneumothorax/N nor pleural/A effusion/N@pleural .",
    "tube": "There is an endotracheal/O>tube tube/O .",
    "pacemaker": "The patient has a {side}/A pacemaker/O@{side} .",
    "prior": "{prior}/O>{word} {word}/O .",
    "impression normal": "Chest/A is normal/O@chest .",
}

_NOT_COMPARED = (Name.NODULE, Name.TUBE, Name.PACEMAKER)
_INDICATIONS = (
    "Shortness of breath.",
    "Cough and fever.",
    "Chest pain.",
    "Evaluate for pneumonia.",
    "Follow-up examination.",
    "Preoperative evaluation.",
)


def _sentence(style: Style, key: str, finding: PhantomFinding | None = None, **slots: str) -> AnnotatedText:
    if finding is not None:
        degree = f"{finding.size}ly" if finding.size in ("mild", "severe") else ""
        slots |= {"size": finding.size, "side": finding.side, "zone": finding.zone, "degree": degree}
    return annotate(style[key].format(**slots))


def _keyed(finding: PhantomFinding) -> str:
    return f"doubtful {finding.name}" if finding.doubtful else str(finding.name)


def findings_section(
    findings: tuple[PhantomFinding, ...],
    style: Style,
    prior: tuple[PhantomFinding, ...] | None,
    rng: np.random.Generator,
) -> list[AnnotatedText]:
    """Write the FINDINGS: heart, lungs, pleura, devices, and sometimes a comparison with the prior study."""
    by_name: dict[Name, list[PhantomFinding]] = {name: [] for name in Name}
    for finding in findings:
        by_name[finding.name].append(finding)
    sentences: list[AnnotatedText] = []

    def add(names: tuple[Name, ...], absent: str | None) -> None:
        present = [f for name in names for f in by_name[name]]
        sentences.extend(_sentence(style, _keyed(f), f) for f in present)
        if not present and absent:
            sentences.append(_sentence(style, absent))

    add((Name.CARDIOMEGALY,), "no cardiomegaly")
    add((Name.OEDEMA, Name.OPACITY, Name.NODULE), "no lung")
    if by_name[Name.EFFUSION] or by_name[Name.PNEUMOTHORAX]:
        add((Name.EFFUSION,), "no effusion")
        add((Name.PNEUMOTHORAX,), "no pneumothorax")
    else:
        sentences.append(_sentence(style, "no effusion or pneumothorax"))
    add((Name.TUBE, Name.PACEMAKER), None)
    if prior is not None:
        before = {(f.name, f.side): f for f in prior}
        for finding in findings:
            earlier = before.get((finding.name, finding.side))
            if earlier is None or finding.name in _NOT_COMPARED or rng.random() > 0.15:
                continue
            word = "edema" if finding.name is Name.OEDEMA else finding.name.value
            change = "unchanged"
            if earlier.size != finding.size:
                change = "increased" if finding.size in ("large", "severe") else "decreased"
            sentences.append(_sentence(style, "prior", word=word, prior=change))
    return sentences


def impression_section(findings: tuple[PhantomFinding, ...], style: Style) -> list[AnnotatedText]:
    """Write the IMPRESSION: every finding except devices, or a statement that the study is normal."""
    pathological = [f for f in findings if f.name not in (Name.TUBE, Name.PACEMAKER)]
    if pathological:
        return [_sentence(style, f"impression {_keyed(f)}", f) for f in pathological]
    return [_sentence(style, "impression devices" if findings else "impression normal")]


def write_report(
    findings: tuple[PhantomFinding, ...],
    rng: np.random.Generator,
    *,
    style: str = "plain",
    prior: tuple[PhantomFinding, ...] | None = None,
) -> WrittenReport:
    """Write the report of a study.

    Args:
        findings: findings of the study.
        rng: source of randomness for the indication and the comparison.
        style: name in `HOUSE_STYLES`.
        prior: findings of the patient's previous study, `None` for a first study.
    """
    templates = HOUSE_STYLES[style][1]
    found = findings_section(findings, templates, prior, rng)
    concluded = impression_section(findings, templates)
    report = Report(
        indication=str(rng.choice(_INDICATIONS)),
        technique="Single frontal view of the chest.",
        comparison="None." if prior is None else "Prior chest radiograph.",
        findings=" ".join(s.text for s in found),
        impression=" ".join(s.text for s in concluded),
    )
    return WrittenReport(report, join([*found, *concluded]))


def sample_style(rng: np.random.Generator) -> str:
    """Draw the name of a house style according to its probability."""
    return str(rng.choice(list(HOUSE_STYLES), p=[share for share, _ in HOUSE_STYLES.values()]))


def sample_annotated(rng: np.random.Generator, *, templates: Templates) -> AnnotatedText:
    """Draw an annotated text to train (`seen`) or test (`held-out`) the tiny RadGraph.

    `seen` mixes the house styles sentence by sentence and shuffles the order. `held-out` uses FINDINGS templates that
    occur in no report and no training text.
    """
    styles = [_HELD_OUT] if templates == "held-out" else [_PLAIN, _TERSE, _FORMAL, _TRAINING_ONLY]
    findings = sample_findings(rng, normal=0.15)
    prior = sample_findings(rng, normal=0.3) if rng.random() < 0.5 else None
    mixed = {key: styles[int(rng.integers(len(styles)))][key] for key in _PLAIN}
    sentences = findings_section(findings, mixed, prior, rng)
    if templates == "seen":
        rng.shuffle(sentences)
    if rng.random() < 0.7:
        sentences += impression_section(findings, mixed)
    return join(sentences)
