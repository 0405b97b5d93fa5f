"""What becomes of reports on their way into the manifest: marks of removed text, mentions of earlier studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple, Protocol

from cxrreport.errors import InputError, SettingsError
from cxrreport.ingestion.study_plan import StudyPlan
from cxrreport.records import Report, Split
from cxrreport.reports.placeholders import edit_placeholders
from cxrreport.settings import IngestSettings
from cxrreport.user_functions import check_allowed, load_function

FunctionRewriter = Callable[[str], str]
"""Takes a section and returns it without mentions of prior studies; see `user_functions` for its declaration."""
MODEL = "model"
"""Value of `priors_rewriter` for a language model."""

_EDITED_SECTIONS = ("findings", "impression")


class SentenceEditor(Protocol):
    """Proposes edits of sentences that mention a prior study, for example a language model."""

    digest: str
    """SHA-256 of all that its answers depend on, hex."""

    def edit(self, sentences: Sequence[str]) -> list[str]:
        """One proposal for each sentence. Proposals are checked, so they may be anything."""


Rewriter = FunctionRewriter | SentenceEditor


class PreparedText(NamedTuple):
    """A report as it enters the manifest, and counts.

    The counts are `sentences`, `mentioned`, `edited`, `dropped`, with a model also `proposed` (edits of the model that
    passed the checks), with a function `sections` and `edited`; and `emptied` if nothing is left.
    """

    report: Report
    counts: Counter[str]


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


def prepare_text(study: StudyPlan, settings: IngestSettings) -> PreparedText:
    """Edit placeholders, and remove mentions of prior studies by the rules, as the settings say."""
    return _prepared(study, settings, _by_rules)


def rewrite_texts(studies: Sequence[StudyPlan], settings: IngestSettings, rewriter: Rewriter) -> Iterator[PreparedText]:
    """The same with a rewriter instead of the rules. A model edits the sentences of all `studies` together.

    Raises:
        InputError: the rewriter failed; its own message is not shown, as it may quote the report.
    """
    if callable(rewriter):
        for study in studies:
            yield _prepared(study, settings, lambda text, name: _by_function(rewriter, text, name))
        return
    from cxrreport.reports.priors import prior_sentences

    found = dict.fromkeys(
        sentence
        for study in studies
        if _loses_priors(study, settings)
        for section in _EDITED_SECTIONS
        for sentence in prior_sentences(edit_placeholders(getattr(study.report, section), settings.placeholders))
    )
    proposals = dict(zip(found, rewriter.edit(list(found)), strict=True))
    for study in studies:
        yield _prepared(study, settings, lambda text, _: _by_rules(text, _, proposals.get))


Edit = Callable[[str, str], tuple[str, dict[str, int]]]
"""Takes a section and its name for messages; returns it without mentions of prior studies, and counts."""


def _prepared(study: StudyPlan, settings: IngestSettings, edit: Edit) -> PreparedText:
    counts: Counter[str] = Counter()
    report = Report(
        **{name: edit_placeholders(text, settings.placeholders) for name, text in asdict(study.report).items()}
    )
    if not _loses_priors(study, settings):
        return PreparedText(report, counts)
    changed = {}
    for section in _EDITED_SECTIONS:
        if text := getattr(report, section):
            changed[section], counted = edit(text, f"the {section} of study {study.study_id}")
            counts.update(counted)
    counts["emptied"] += bool(changed) and not any(changed.values())
    return PreparedText(replace(report, **changed), counts)


def _loses_priors(study: StudyPlan, settings: IngestSettings) -> bool:
    return settings.priors == "all" or (settings.priors == "training" and study.split is not Split.TEST)


def _by_rules(text: str, _: str, propose: Callable[[str], str | None] | None = None) -> tuple[str, dict[str, int]]:
    from cxrreport.reports.priors import remove_priors  # slow to import, and not needed by decoder processes

    edited = asdict(remove_priors(text, propose))
    return edited.pop("text"), edited


def _by_function(rewriter: FunctionRewriter, text: str, name: str) -> tuple[str, dict[str, int]]:
    try:
        result = rewriter(text)
    except Exception as error:  # whatever it is, its message may quote the report
        raise InputError(f"the rewriter failed on {name} ({type(error).__name__})") from None
    if not isinstance(result, str):
        raise InputError(f"the rewriter gave {type(result).__name__} for {name}, not a text")
    result = " ".join(result.split())
    return result, {"sections": 1, "edited": result != text}
