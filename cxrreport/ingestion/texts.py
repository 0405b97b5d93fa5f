"""What becomes of reports on their way into the manifest: marks of removed text, mentions of earlier studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cxrreport.errors import InputError
from cxrreport.ingestion.study_plan import Plan, StudyPlan, exclude_image
from cxrreport.ingestion.workers import ordered_map
from cxrreport.records import REPORT_SECTIONS, Progress, Reason, Report, Split
from cxrreport.reports.placeholders import edit_placeholders
from cxrreport.settings import IngestSettings
from cxrreport.user_functions import check_allowed, load_function

Rewriter = Callable[[str], str]
"""Takes a section and returns it without mentions of prior studies; see `user_functions` for its declaration."""

_EDITED_SECTIONS = ("findings", "impression")
_FEW_REPORTS = 2000  # are edited faster than worker processes start
_EMPTIED = "nothing is left without mentions of earlier studies"


def allowed_rewriter(settings: IngestSettings, given: Rewriter | None = None) -> Rewriter | None:
    """The rewriter that is given or that the settings name, or None.

    Raises:
        SettingsError: it cannot be imported, says not whether it is remote, or is and may not be.
    """
    name = "the rewriter"
    if given is None:
        if settings.priors_rewriter is None:
            return None
        name = f"priors_rewriter {settings.priors_rewriter}"
        given = load_function(settings.priors_rewriter, "priors_rewriter")
    check_allowed(given, name, allow_remote=settings.allow_remote)
    return given


def prepare_texts(
    plan: Plan, settings: IngestSettings, rewriter: Rewriter | None, progress: Progress
) -> tuple[Plan, dict[str, int]]:
    """Take marks and mentions of earlier studies out of the reports, as the settings say, in `workers` processes.

    Args:
        plan: studies with their reports as they were read.
        settings: `placeholders`, `priors`, `require_report`, `workers`.
        rewriter: takes the place of the rules.
        progress: told about studies.

    Returns:
        The plan, where studies of whose report nothing is left are left out (if reports are required); and counts:
        `sentences`, `mentioned`, `edited`, `dropped` (with a rewriter: `sections`, `edited`), `emptied` studies.

    Raises:
        InputError: the rewriter failed; its own message is not shown, as it may quote the report.
    """
    counts: Counter[str] = Counter()
    studies, excluded = [], list(plan.excluded)
    edit = partial(_edit_report, placeholders=settings.placeholders, rewriter=rewriter)
    todo = [(study.study_id, study.report, _loses_priors(study, settings)) for study in plan.studies]
    # A rewriter may hold a model, so it stays in this process.
    workers = settings.workers if rewriter is None and len(todo) > _FEW_REPORTS else 1
    results = ordered_map(edit, todo, workers=workers, when_killed=edit)
    for done, (study, (report, counted)) in enumerate(zip(plan.studies, results, strict=True), start=1):
        counts.update(counted)
        if counted["emptied"] and settings.require_report:
            for image in study.candidates:
                excluded += exclude_image(image, Reason.EMPTY_SECTIONS, _EMPTIED)
        else:
            studies.append(replace(study, report=report))
        progress(done, len(todo), "reports")
    return replace(plan, studies=studies, excluded=excluded), dict(sorted(counts.items()))


def _loses_priors(study: StudyPlan, settings: IngestSettings) -> bool:
    return settings.priors == "all" or (settings.priors == "training" and study.split is not Split.TEST)


def _edit_report(
    item: tuple[str, Report, bool], *, placeholders: str, rewriter: Rewriter | None
) -> tuple[Report, Counter[str]]:
    """Edit a report, given with its study id and whether it loses mentions of prior studies; with counts."""
    study_id, report, loses_priors = item
    counts: Counter[str] = Counter()
    edited = Report(
        **{section: edit_placeholders(getattr(report, section), placeholders) for section in REPORT_SECTIONS}
    )
    if not loses_priors:
        return edited, counts
    had_text = bool(edited.findings or edited.impression)
    edited = _without_priors(study_id, edited, rewriter, counts)
    if had_text and not (edited.findings or edited.impression):
        counts["emptied"] += 1
    return edited, counts


def _without_priors(study_id: str, report: Report, rewriter: Rewriter | None, counts: Counter[str]) -> Report:
    changed = {}
    for section in _EDITED_SECTIONS:
        text = getattr(report, section)
        if not text:
            continue
        if rewriter is None:
            changed[section] = _edited(text, counts)
        else:
            changed[section] = _rewritten(rewriter, text, study_id, section)
            counts["sections"] += 1
            counts["edited"] += changed[section] != text
    return replace(report, **changed)


def _edited(text: str, counts: Counter[str]) -> str:
    from cxrreport.reports.priors import remove_priors  # slow to import, and not needed by decoder processes

    edited = remove_priors(text)
    for name in ("sentences", "mentioned", "edited", "dropped"):
        counts[name] += getattr(edited, name)
    return edited.text


def _rewritten(rewriter: Rewriter, text: str, study_id: str, section: str) -> str:
    try:
        result = rewriter(text)
    except Exception as error:  # whatever it is, its message may quote the report
        raise InputError(f"the rewriter failed on the {section} of study {study_id} ({type(error).__name__})") from None
    if not isinstance(result, str):
        raise InputError(f"the rewriter gave {type(result).__name__} for the {section} of study {study_id}, not a text")
    return " ".join(result.split())
