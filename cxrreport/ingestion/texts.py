"""What becomes of the text of a study on its way into the manifest.

Markup and control characters go, the report is split into sections, and identifiers, placeholders and mentions of prior
studies are edited as the settings say.

The worker that reads the images of a study prepares its text too. Only a rewriter, which may hold a model, runs in the
parent process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Protocol

from cxrreport.dataset import Pseudonyms
from cxrreport.errors import InputError, SettingsError
from cxrreport.ingestion.study_plan import LONG_REPORT, StudyPlan, has_text, read_report
from cxrreport.ingestion.workers import ordered_map
from cxrreport.records import Progress, Reason, Report, Split
from cxrreport.reports.placeholders import edit_placeholders
from cxrreport.reports.plain_text import TooLongError
from cxrreport.settings import IngestSettings
from cxrreport.user_functions import check_allowed, load_function

FunctionRewriter = Callable[[str], str]
"""Takes a section and returns it without mentions of prior studies; see `user_functions` for its declaration."""
MODEL = "model"
"""Value of `priors_rewriter` for a language model."""

_EDITED_SECTIONS = ("findings", "impression")
TOO_LONG, IDENTIFIERS = "too_long", "identifiers."
"""Counts of reports that are too long to be read, and of identifiers, by kind."""

_EMPTIED = "nothing is left without mentions of earlier studies"
_FEW_STUDIES = 2000  # are searched faster than worker processes start


class SentenceEditor(Protocol):
    """Proposes edits of sentences that mention a prior study, for example a language model."""

    digest: str
    """SHA-256 of all that its answers depend on, hex."""

    def edit(self, sentences: Sequence[str], progress: Progress) -> list[str]:
        """One proposal for each sentence. Proposals are checked, so they may be anything."""


Rewriter = FunctionRewriter | SentenceEditor
Proposals = Mapping[str, str]
"""Proposed edits by sentence."""


@dataclass(frozen=True, slots=True)
class PreparedText:
    """The text of a study as it enters the manifest.

    Args:
        report: the sections.
        excluded: why the study is excluded, and a detail; `None` if it is not.
        counts: `sentences`, `mentioned`, `edited`, `dropped`; with a model also `accepted`, `unchanged` and `rejected`
            proposals; with a function `sections` and `edited`; `emptied` if nothing is left; and the others
            above.
        with_mentions: the sections before mentions of prior studies were removed; `None` if none were.
    """

    report: Report
    excluded: tuple[Reason, str] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    with_mentions: Report | None = None


def allowed_rewriter(settings: IngestSettings, given: Rewriter | None = None) -> Rewriter | None:
    """The rewriter that is given or that the settings name, or None.

    Raises:
        SettingsError: it cannot be imported, does not declare whether it is remote, or is remote and not allowed.
    """
    name = "the rewriter"
    if given is None:
        if settings.priors_rewriter is None:
            return None
        if settings.priors_rewriter == MODEL:
            raise SettingsError("priors_rewriter: model is loaded by `cxrreport ingest` and `runs.ingest`; call those")
        name = f"priors_rewriter {settings.priors_rewriter}"
        given = load_function(settings.priors_rewriter, "priors_rewriter")
    if callable(given):
        check_allowed(given, name, allow_remote=settings.allow_remote)
    return given


def deidentification_of(settings: IngestSettings) -> dict[str, str]:
    """How identifiers are found and replaced, for `ingest.json`: the setting, and versions of the libraries.

    Raises:
        MissingExtraError: they are to be found, and the libraries are not installed.
    """
    if settings.texts.deidentify == "off":
        return {"deidentify": "off"}
    from cxrreport.reports.deidentify import libraries

    return {"deidentify": settings.texts.deidentify, **libraries()}


def seeded(studies: list[StudyPlan], settings: IngestSettings, pseudonyms: Pseudonyms | None) -> list[StudyPlan]:
    """The studies with the seed of the surrogates of their patient, if surrogates are written."""
    if settings.texts.deidentify != "surrogate":
        return studies
    seed = pseudonyms.of if pseudonyms is not None else lambda _, patient_id: patient_id
    return [replace(study, seed=seed("surrogates", study.patient_id)) for study in studies]


def name_of(rewriter: Rewriter | None) -> str:
    """What identifies a rewriter: the digest of a model, the name of a function; empty for the rules."""
    if rewriter is None:
        return ""
    if not callable(rewriter):
        return rewriter.digest
    return f"{rewriter.__module__}:{getattr(rewriter, '__qualname__', type(rewriter).__qualname__)}"


def prepare_text(
    study: StudyPlan,
    settings: IngestSettings,
    *,
    proposals: Proposals | None = None,
    rewriter: FunctionRewriter | None = None,
) -> PreparedText:
    """Split the report of a study into sections, and edit placeholders and mentions of prior studies in them.

    Args:
        study: with its report as the layout has it.
        settings: `placeholders`, `priors`, `require_report`.
        proposals: edits by a model, used where they pass the checks.
        rewriter: takes the place of the rules.

    Raises:
        InputError: the rewriter failed; its own message is not shown, as it may quote the report.
    """
    report, counts = _sections(study, settings)
    if settings.require_report and not has_text(report):
        why = (Reason.NO_REPORT, LONG_REPORT) if counts[TOO_LONG] else (Reason.EMPTY_SECTIONS, "")
        return PreparedText(report, excluded=why, counts=counts)
    if not _loses_priors(study, settings) or not has_text(report):
        return PreparedText(report, counts=counts)
    changed = {}
    for section in _EDITED_SECTIONS:
        if not (text := getattr(report, section)):
            continue
        if rewriter is None:
            changed[section], counted = _by_rules(text, proposals)
        else:
            changed[section], counted = _by_function(rewriter, text, f"the {section} of study {study.study_id}")
        counts.update(counted)
    edited = replace(report, **changed)
    excluded = None
    if not any(changed.values()):
        counts["emptied"] += 1
        excluded = (Reason.EMPTY_SECTIONS, _EMPTIED) if settings.require_report else None
    return PreparedText(edited, excluded, counts, with_mentions=report if edited != report else None)


def propose_edits(
    studies: Sequence[StudyPlan], settings: IngestSettings, editor: SentenceEditor, progress: Progress
) -> list[Proposals]:
    """The proposals of a model for each study, in one pass over the different sentences of all of them."""
    find = partial(_sentences_to_edit, settings=settings)
    workers = settings.workers if len(studies) > _FEW_STUDIES else 1
    found = list(ordered_map(find, studies, workers=workers, when_killed=find))
    sentences = list(dict.fromkeys(sentence for of_study in found for sentence in of_study))
    proposals = dict(zip(sentences, editor.edit(sentences, progress), strict=True))
    return [{sentence: proposals[sentence] for sentence in of_study} for of_study in found]


def _sentences_to_edit(study: StudyPlan, settings: IngestSettings) -> list[str]:
    from cxrreport.reports.priors import prior_sentences

    if not _loses_priors(study, settings):
        return []
    report, _ = _sections(study, settings)
    return [sentence for section in _EDITED_SECTIONS for sentence in prior_sentences(getattr(report, section))]


def _sections(study: StudyPlan, settings: IngestSettings) -> tuple[Report, Counter[str]]:
    """The sections, with identifiers and placeholders as the settings say, and counts; empty if it is too long."""
    try:
        report = read_report(study.report)
    except TooLongError:
        return Report(), Counter({TOO_LONG: 1})
    counts: Counter[str] = Counter()
    texts = asdict(report)
    if settings.texts.deidentify != "off":
        texts = {name: _deidentified(text, study, settings, counts) for name, text in texts.items()}
    return Report(**{name: edit_placeholders(text, settings.placeholders) for name, text in texts.items()}), counts


def _deidentified(text: str, study: StudyPlan, settings: IngestSettings, counts: Counter[str]) -> str:
    from cxrreport.reports.deidentify import deidentify  # slow to import

    result = deidentify(text, settings.texts.deidentify, seed=study.seed)
    counts.update({f"{IDENTIFIERS}{kind}": count for kind, count in result.counts.items()})
    return result.text


def _loses_priors(study: StudyPlan, settings: IngestSettings) -> bool:
    return settings.priors == "all" or (settings.priors == "training" and study.split is not Split.TEST)


def _by_rules(text: str, proposals: Proposals | None) -> tuple[str, dict[str, int]]:
    from cxrreport.reports.priors import remove_priors  # slow to import, and not needed by decoder processes

    edited = remove_priors(text, proposals)
    counts = {name: getattr(edited, name) for name in ("sentences", "mentioned", "edited", "dropped")}
    if proposals is not None:
        counts |= {name: getattr(edited, name) for name in ("accepted", "unchanged", "rejected")}
    return edited.text, counts


def _by_function(rewriter: FunctionRewriter, text: str, name: str) -> tuple[str, dict[str, int]]:
    try:
        result = rewriter(text)
    except Exception as error:  # whatever it is, its message may quote the report
        raise InputError(f"the rewriter failed on {name} ({type(error).__name__})") from None
    if not isinstance(result, str):
        raise InputError(f"the rewriter gave {type(result).__name__} for {name}, not a text")
    result = " ".join(result.split())
    return result, {"sections": 1, "edited": result != text}
