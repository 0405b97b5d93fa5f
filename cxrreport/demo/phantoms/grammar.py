"""Reports of phantoms, whose entity graphs are known by construction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cxrreport.demo.phantoms.annotated import AnnotatedText, annotate, join
from cxrreport.demo.phantoms.changes import Change, changes, sample_pair
from cxrreport.demo.phantoms.comparisons import COMPARISONS
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, sample_findings
from cxrreport.demo.phantoms.wordings import FORMAL, HELD_OUT, HOUSE_STYLES, PLAIN, TERSE, TRAINING_ONLY, Style
from cxrreport.records import Report

Templates = Literal["seen", "held-out"]


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """The sections of a report, and one graph of its findings and impression."""

    report: Report
    graph: AnnotatedText


@dataclass(frozen=True, slots=True)
class Mentions:
    """Probabilities that a report mentions what it could; real reports differ in what they leave out.

    Args:
        normal: of each statement that something is normal or absent.
        minor: of each small, mild or doubtful finding.
        other: of each other finding.
    """

    normal: float = 0.35
    minor: float = 0.45
    other: float = 0.85

    def left_out(
        self, findings: tuple[PhantomFinding, ...], rng: np.random.Generator
    ) -> frozenset[PhantomFinding | str]:
        """Draw the findings and the statements (keys of a style) that the report of a study does not mention."""
        minor = {f for f in findings if f.size in ("small", "mild") or f.doubtful}
        chances: dict[PhantomFinding | str, float] = dict.fromkeys(_ABSENT, self.normal)
        chances |= {f: self.minor if f in minor else self.other for f in findings}
        return frozenset(what for what, chance in chances.items() if rng.random() >= chance)


_ABSENT = ("no cardiomegaly", "no lung", "no effusion", "no pneumothorax", "no effusion or pneumothorax")
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
    kind = "doubtful" if finding.doubtful else "posterior" if finding.zone == "posterior" else ""
    return f"{kind} {finding.name}".strip()


def _compared(style: Style, finding: PhantomFinding, change: Change) -> AnnotatedText:
    """Write the sentence of a finding with its change."""
    own = style.get(f"changed {_keyed(finding)}")
    template = own or f"{style[_keyed(finding)].removesuffix('.')}{style['changed']}"
    heart = "enlargement" if "enlargement/O" in template else "enlarged"
    word = {Name.CARDIOMEGALY: heart, Name.OEDEMA: "edema"}.get(finding.name, finding.name.value)
    return _sentence({"": template}, "", finding, prior=change.value, word=word)


def _resolved(style: Style, finding: PhantomFinding) -> AnnotatedText:
    kind = "posterior effusion" if finding.zone == "posterior" else finding.name.value
    word = "edema" if finding.name is Name.OEDEMA else finding.name.value
    return _sentence(style, f"resolved {kind}" if f"resolved {kind}" in style else "resolved", finding, word=word)


def findings_section(
    findings: tuple[PhantomFinding, ...],
    style: Style,
    prior: tuple[PhantomFinding, ...] | None,
    rng: np.random.Generator,
    changed: Mapping[PhantomFinding, Change] | None = None,
    left_out: Collection[PhantomFinding | str] = (),
) -> list[AnnotatedText]:
    """Write the FINDINGS: heart, lungs, pleura, devices, and sometimes a comparison with the prior study.

    With `changed`, every change that it names is stated, and `prior` is not read. What is in `left_out` is not
    mentioned; a finding that is left out is not denied either.
    """
    changed = changed or {}
    by_name: dict[Name, list[PhantomFinding]] = {name: [] for name in Name}
    for finding in findings:
        by_name[finding.name].append(finding)
    sentences: list[AnnotatedText] = []

    def add(names: tuple[Name, ...], absent: str | None) -> None:
        present = [f for name in names for f in by_name[name]]
        sentences.extend(
            _compared(style, f, changed[f]) if f in changed else _sentence(style, _keyed(f), f)
            for f in present
            if f not in left_out
        )
        if not present and absent and absent not in left_out:
            sentences.append(_sentence(style, absent))

    add((Name.CARDIOMEGALY,), "no cardiomegaly")
    add((Name.OEDEMA, Name.OPACITY, Name.NODULE), "no lung")
    if by_name[Name.EFFUSION] or by_name[Name.PNEUMOTHORAX]:
        add((Name.EFFUSION,), "no effusion")
        add((Name.PNEUMOTHORAX,), "no pneumothorax")
    else:
        add((), "no effusion or pneumothorax")
    add((Name.TUBE, Name.PACEMAKER), None)
    sentences.extend(_resolved(style, f) for f, change in changed.items() if change is Change.RESOLVED)
    if prior is not None:
        before = {(f.name, f.side): f for f in prior}
        for finding in findings:
            earlier = before.get((finding.name, finding.side))
            if earlier is None or finding in left_out or finding.name in _NOT_COMPARED or rng.random() > 0.15:
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
    mentions: Mentions | None = None,
) -> WrittenReport:
    """Write the report of a study.

    Args:
        findings: findings of the study.
        rng: source of randomness for the indication, the comparison and what is left out.
        style: name in `HOUSE_STYLES`.
        prior: findings of the patient's previous study, `None` for a first study.
        mentions: how often the report mentions what; everything if `None`. A report that would say
            nothing states what is normal, or everything if nothing is.
    """
    templates = HOUSE_STYLES[style][1]
    drawn = mentions.left_out(findings, rng) if mentions is not None else frozenset()
    for left_out in (drawn, frozenset(findings), frozenset()):
        found = findings_section(findings, templates, prior, rng, left_out=left_out)
        if found:
            break
    concluded = impression_section(tuple(f for f in findings if f not in left_out), templates)
    return _written(found, concluded, rng, "Single frontal view of the chest.", prior)


def write_comparing(
    findings: tuple[PhantomFinding, ...],
    rng: np.random.Generator,
    *,
    style: str,
    prior: tuple[PhantomFinding, ...] | None,
) -> WrittenReport:
    """Write the report of a frontal and a lateral view that states every change since the prior study.

    Args:
        findings: findings of the study.
        rng: source of randomness for the indication.
        style: name in `HOUSE_STYLES`.
        prior: findings of the prior study, `None` for a first study.
    """
    templates = HOUSE_STYLES[style][1] | COMPARISONS[style]
    changed = changes(prior, findings) if prior is not None else {}
    found = findings_section(findings, templates, None, rng, changed)
    return _written(
        found, impression_section(findings, templates), rng, "Frontal and lateral views of the chest.", prior
    )


def _written(
    found: Sequence[AnnotatedText],
    concluded: Sequence[AnnotatedText],
    rng: np.random.Generator,
    technique: str,
    prior: tuple[PhantomFinding, ...] | None,
) -> WrittenReport:
    """The report of the sentences of both sections, with a random indication."""
    report = Report(
        indication=str(rng.choice(_INDICATIONS)),
        technique=technique,
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
    styles = [HELD_OUT] if templates == "held-out" else [PLAIN, TERSE, FORMAL, TRAINING_ONLY]
    findings = sample_findings(rng, normal=0.15)
    prior = sample_findings(rng, normal=0.3) if rng.random() < 0.5 else None
    mixed = {key: styles[int(rng.integers(len(styles)))][key] for key in PLAIN}
    sentences = findings_section(findings, mixed, prior, rng)
    if templates == "seen":
        rng.shuffle(sentences)
    if rng.random() < 0.7:
        sentences += impression_section(findings, mixed)
    return join(sentences)


def sample_compared(rng: np.random.Generator, *, templates: Templates) -> AnnotatedText:
    """Draw an annotated text as `sample_annotated` does, that states changes since a prior study."""
    names = {"seen": ("plain", "terse", "formal", "training"), "held-out": ("held-out",)}[templates]
    base = {"held-out": HELD_OUT, "training": TRAINING_ONLY}
    styles = [base.get(name, HOUSE_STYLES.get(name, (0, PLAIN))[1]) | COMPARISONS[name] for name in names]
    style = styles[int(rng.integers(len(styles)))]
    prior, findings = sample_pair(rng, new=0.08)
    sentences = findings_section(findings, style, None, rng, changes(prior, findings))
    if templates == "seen":
        rng.shuffle(sentences)
    if rng.random() < 0.5:
        sentences += impression_section(findings, style)
    return join(sentences)
