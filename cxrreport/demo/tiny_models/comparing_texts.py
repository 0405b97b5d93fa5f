"""Pre-training texts of the tiny PaliGemma 2 about two studies: the current one and what changed since the prior one.

As in `captions`, nothing is in the style of a report: the report of the prior study in the prefix and the answers use
the vocabulary of radiology, but no sentence of the demo's reports.
"""

from __future__ import annotations

import numpy as np

from cxrreport.demo.phantoms.changes import Change, changes, sample_pair
from cxrreport.demo.phantoms.findings import Name, PhantomFinding
from cxrreport.demo.tiny_models.captions import NORMAL, VISIBLE, WORD, pick, state
from cxrreport.records import Report

_POSTERIOR = (
    "A {size} effusion is in the posterior pleural space.",
    "There is a {size} effusion, posterior.",
    "Posterior pleural effusion, {size}.",
    "{size} pleural effusion, posterior.",
)
_RESOLVED = (
    "{place} {word}: resolved.",
    "Resolved: {place} {word}.",
    "Prior {place} {word} has now resolved.",
)
_CHANGED = (
    "{statement}, {change} now.",
    "{statement}: {change}.",
    "{statement}, this is {change}.",
)
_ALONE = ("{change}: {place} {word}.", "{place} {word}: {change}.", "The {place} {word}, {change} now.")
_NO_CHANGE = ("There is no change.", "No change is seen.", "Normal, as on the prior study.")
_NO_PRIOR = ("There is no prior study.", "No prior study is present.")


def stated(rng: np.random.Generator) -> tuple[str, Report, str]:
    """Draw a question without an image, the report of the prior study, and an answer with the change of each finding.

    Nothing shows the findings of the answer, so that only its words of change can be learned: given a finding, the
    model looks up its size in the prior report. A model of four layers needs many examples of this, and texts alone are
    cheap. Most pairs have a change of size, because otherwise "unchanged" is right so often that nothing else is
    learned.
    """
    while True:
        prior, findings = sample_pair(rng, new=0.25)
        changed: dict[PhantomFinding, Change] = {
            f: c for f, c in changes(prior, findings).items() if c is not Change.RESOLVED
        }
        if sized(changed) or (changed and rng.random() < 0.3):
            break
    found, _ = _sections(findings, changed, rng)
    return "answer en findings ; impression ?", prior_report(prior, rng), f"FINDINGS: {found}"


def sized(changed: dict[PhantomFinding, Change]) -> bool:
    """Whether a finding has changed its size."""
    return not {Change.WORSE, Change.IMPROVED}.isdisjoint(changed.values())


def prior_report(findings: tuple[PhantomFinding, ...], rng: np.random.Generator) -> Report:
    """Describe a study as the prior one in the prefix of the next."""
    found, concluded = _sections(findings, {}, rng)
    return Report(findings=found, impression=concluded)


def question(
    prior: tuple[PhantomFinding, ...] | None, findings: tuple[PhantomFinding, ...], rng: np.random.Generator
) -> tuple[str, str]:
    """Draw a question about a study and what changed since the prior one, and its answer.

    Args:
        prior: findings of the prior study, `None` if it is not shown.
        findings: findings of the study.
        rng: source of randomness.
    """
    changed = changes(prior, findings) if prior is not None else {}
    match rng.choice(["sections", "changes", "prior"], p=[0.6, 0.3, 0.1]):
        case "changes":
            if prior is None:
                return "answer en changes ?", pick(_NO_PRIOR, rng)
            told = [_change(f, change, rng) for f, change in changed.items()]
            return "answer en changes ?", " ".join(told) or pick(_NO_CHANGE, rng)
        case "prior" if prior is not None:
            names = [f for f in prior if f.name in VISIBLE]
            return "answer en prior ?", " ".join(_state(f.name, f, rng) for f in names) or pick(NORMAL, rng)
        case _:
            found, concluded = _sections(findings, changed, rng)
            return "answer en findings ; impression ?", f"FINDINGS: {found} IMPRESSION: {concluded}"


def _sections(
    findings: tuple[PhantomFinding, ...], changed: dict[PhantomFinding, Change], rng: np.random.Generator
) -> tuple[str, str]:
    """Write one sentence per topic in any order, with its change if there is a prior study, and an impression."""
    first: list[str] = []
    repeated: list[str] = []
    for name in (VISIBLE[i] for i in rng.permutation(len(VISIBLE))):
        found = [f for f in findings if f.name is name]
        if not found:
            first.append(state(name, None, rng))
        for finding in found:
            stated = _state(name, finding, rng)
            first.append(_with_change(stated, changed[finding], rng) if finding in changed else stated)
            repeated.append(stated if rng.random() < 0.5 else _state(name, finding, rng))
        first += [_change(f, c, rng) for f, c in changed.items() if c is Change.RESOLVED and f.name is name]
    return " ".join(first), " ".join(repeated) or pick(NORMAL, rng)


def _state(name: Name, finding: PhantomFinding, rng: np.random.Generator) -> str:
    if finding.zone == "posterior":
        return _capital(pick(_POSTERIOR, rng).format(size=finding.size))
    return state(name, finding, rng)


def _with_change(stated: str, change: Change, rng: np.random.Generator) -> str:
    return pick(_CHANGED, rng).format(statement=stated.removesuffix("."), change=change.value)


def _change(finding: PhantomFinding, change: Change, rng: np.random.Generator) -> str:
    place = " ".join(word for word in (finding.side, finding.zone) if word)
    options = _RESOLVED if change is Change.RESOLVED else _ALONE
    text = pick(options, rng).format(place=place, word=WORD[finding.name], change=change.value)
    return _capital(" ".join(text.split()))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
