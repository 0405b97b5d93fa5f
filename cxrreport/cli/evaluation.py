"""The commands that score and read reports: evaluate, review, compare, agreement, published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cxrreport import runs
from cxrreport.cli.app import app, command
from cxrreport.cli.options import (
    ALLOW_REMOTE,
    BASELINES,
    CONFIG,
    INGESTED,
    OUTPUT,
    SET,
    TRACK,
    Given,
    Json,
    Option,
    argument,
    expanded,
    on_data,
    on_privacy,
    on_scoring,
)
from cxrreport.cli.output import (
    bounds,
    guarded,
    interval,
    perform,
    print_json,
    print_summary,
    rows,
    stdout,
    table_of,
)
from cxrreport.errors import SettingsError
from cxrreport.records import Interval
from cxrreport.settings import AgreementSettings, CompareSettings, EvaluateSettings, FeedbackSettings, ReviewSettings

MAIN_SCORES = ("image_reliance_gap", "actionable_errors", "findings_f1", "bleu4", "cider")
"""Scores that `evaluate` prints without `--all`, if they were computed."""
SHOWN = 5
"""Scores that `evaluate` and `agreement` print without `--all`."""
ALL = Option("all_scores", "--all", kind=bool, default=False, panel="Execution", help="Print all scores.")
MOST_FREQUENT = "most-frequent"
"""The baseline that `evaluate` makes itself."""


@command(
    EvaluateSettings,
    CONFIG,
    on_data("predictions", "-p", metavar="PATH", help="Output folder of generate, or a table."),
    on_data("references", "-r", metavar="PATH", help="Output folder of ingest, or a table."),
    OUTPUT,
    on_scoring(
        "baselines",
        "--baseline",
        kind=list[str],
        metavar="NAME[=PATH]",
        help=f"Baseline to generate ({'|'.join(BASELINES)}), or the predictions of one; repeatable.",
        show_default=False,
    ),
    Option("controls", "--control", kind=list[str], hidden=True),  # former name of --baseline
    on_scoring(
        "metrics",
        "--metric",
        metavar="NAME",
        help="Metric to compute instead of the default ones; repeatable.",
        show_default=False,
    ),
    on_scoring("radgraph", help="RadGraph model or folder."),
    on_scoring("section", help="Sections to score."),
    ALLOW_REMOTE,
    TRACK,
    SET,
    ALL,
)
def evaluate(given: Given[EvaluateSettings]) -> None:
    """Score reports with patient-level intervals, beside baselines.

    Example: `cxrreport evaluate -p reports -r data -o scores --baseline shuffled --baseline nearest`
    """
    baselines = [name for option in ("baselines", "controls") for name in given.options.pop(option, ())]
    everything = given.options.pop("all_scores")
    summary = perform(runs.evaluate, given.settings(**_baselines(baselines)))
    if not (everything or given.as_json):
        summary = replace(summary, facts=_main_scores(summary.facts))
    print_summary(summary, given.as_json)


def _main_scores(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The counts, and five of the scores: the headline of model and baselines, then those of `MAIN_SCORES`."""
    counts = {name: value for name, value in facts.items() if not isinstance(value, Mapping)}
    systems = [name for name in facts if "/" in name][:2]
    names = [*systems, *(name for name in MAIN_SCORES if name in facts)]
    others = [name for name in facts if name not in counts and name != "seconds"]
    return counts | {name: facts[name] for name in list(dict.fromkeys([*names, *others]))[:SHOWN]}


def _baselines(given: list[str]) -> dict[str, Any]:
    """Settings for values of `--baseline`: `NAME=PATH`, or the name of a baseline to generate."""
    paths: dict[str, Path] = {}
    generated: list[str] = []
    most_frequent = None
    for text in given:
        name, _, path = text.partition("=")
        known = text.replace("_", "-")
        if name and path:
            paths[name] = Path(path)
        elif known == MOST_FREQUENT:
            most_frequent = True
        elif known in BASELINES:
            generated.append(known.replace("-", "_"))
        else:
            names = ", ".join([MOST_FREQUENT, *BASELINES])
            raise SettingsError(f"--baseline {text}: write NAME=PATH, e.g. --baseline mine=reports, or one of {names}")
    return {"baselines": paths, "generate_baselines": generated or None, "most_frequent": most_frequent}


@command(
    ReviewSettings,
    CONFIG,
    on_data("evaluation", "-e", metavar="DIR", help="Output folder of evaluate."),
    on_data("predictions", "-p", metavar="DIR", help="Output folder of generate, without references or scores."),
    INGESTED,
    on_data("output", "-o", metavar="FILE", help="HTML file to write."),
    on_data("blind", help="Show two reports as A and B; the key is a separate file."),
    on_data("against", metavar="SYSTEM", help="Second report of a blind page."),
    on_data("sources", metavar="DIR", help="Input folder of ingest, for images at full resolution."),
    on_data("priors", metavar="TABLE", help="Table with study_id and prior_study_id, instead of the manifest's."),
    on_data("limit", help="Include only the first studies of the page."),
    on_data("megabytes", help="Size limit for all images together."),
    on_privacy("tracking.log_reports", "--log-page", help="Log the page with its images and reports to MLflow."),
    TRACK,
    SET,
)
def review(given: Given[ReviewSettings]) -> None:
    """Write one HTML page with images and reports, lowest scores first.

    Example: `cxrreport review -e scores --input data --output review.html`
    """
    print_summary(perform(runs.review, given.settings()), given.as_json)


@command(
    CompareSettings,
    *(argument(f, metavar="DIR", help="Output folder of evaluate.", default=...) for f in ("first", "second")),
    on_data("output", "-o", metavar="DIR", help="Output folder.", default=Path("cxrreport-compare")),
    on_scoring(
        "numbers",
        "--number",
        metavar="NAME",
        help="Score to compare; repeatable.",
        show_default="the first of every metric",
    ),
    TRACK,
    SET,
)
def compare(given: Given[CompareSettings]) -> None:
    """Compare two systems on the same studies: differences, patient-level intervals, corrected p-values.

    Scores whose conditions differ are refused, and the conditions are named.

    Example: `cxrreport compare scores-896 scores-448 --number radgraph_partial --output comparison`
    """
    summary = perform(runs.compare, given.settings())
    if given.as_json:
        print_summary(summary, given.as_json)
        return
    table = table_of("", "number", "first", "second", "difference (95%)", "p", "Holm")
    for number, one in summary.result.differences.items():
        change = one.difference
        table.add_row(
            number,
            *(_defined(score, ".3f") for score in (one.first, one.second)),
            f"{_defined(change.value, '+.3f')} {bounds(change.low, change.high, '+.3f')}",
            *(_defined(p, ".4f") for p in (one.p, one.p_corrected)),
        )
    stdout().print(table)
    for number, differs in summary.result.refused.items():
        stdout().print(f"{number}: not comparable, different {', '.join(differs)}", markup=False, highlight=False)
    counts = {name: summary.facts[name] for name in ("studies", "patients")}
    print_summary(replace(summary, facts=counts), given.as_json)


def _defined(value: float, form: str) -> str:
    return "undefined" if math.isnan(value) else f"{value:{form}}"


@command(
    AgreementSettings,
    argument("more", kind=list[Path], metavar="[FILE]...", help="Further tables.", hidden=True),
    on_data("verdicts", "-v", metavar="FILE...", help="Verdicts exported by the review page, or ratings."),
    on_data("scores", metavar="DIR", help="Output folder of evaluate."),
    on_data("key", metavar="FILE", help="Key of a blind page."),
    on_data("output", "-o", metavar="DIR", help="Output folder.", default=Path("cxrreport-agreement")),
    TRACK,
    SET,
    ALL,
)
def agreement(given: Given[AgreementSettings]) -> None:
    """Compare readers with each other, and metrics with the readers.

    Example: `cxrreport agreement --verdicts verdicts-A.csv verdicts-B.csv --scores scores`
    """
    given.options["verdicts"] = [*given.options.get("verdicts", ()), *given.options.pop("more", ())]
    everything = given.options.pop("all_scores")
    summary = perform(runs.agreement, given.settings())
    if given.as_json:
        print_summary(summary, given.as_json)
        return
    taus = summary.result.metrics
    numbers = list(dict.fromkeys(number for ones in taus.values() for number in ones))
    undefined = [n for n in numbers if all(n not in ones or math.isnan(ones[n].value) for ones in taus.values())]
    first = [number for number in numbers if number in summary.result.first_numbers and number not in undefined]
    chosen = numbers if everything else first[:SHOWN]
    table = table_of("Kendall's tau-b with the readers (95%)", "metric", *taus)
    for number in chosen:
        table.add_row(number, *(_tau(ones.get(number)) for ones in taus.values()))
    if chosen:
        stdout().print(table)
    if left := len(numbers) - len(chosen):
        equal = f"; {len(undefined)} undefined, because scores or ratings are all equal" if undefined else ""
        stdout().print(f"{left} more with --all{equal}", markup=False, highlight=False)
    facts = {name: value for name, value in summary.facts.items() if name != "kendall_tau_b"}
    print_summary(replace(summary, facts=facts), given.as_json)


def _tau(one: Interval | None) -> str:
    if one is None:
        return ""
    return _defined(one.value, ".3f") if math.isnan(one.value) else f"{one.value:.3f} {bounds(one.low, one.high)}"


@command(
    FeedbackSettings,
    on_data("verdicts", "-v", metavar="FILE", help="Verdicts exported by the review page; repeatable.", default=...),
    on_data("predictions", "-p", metavar="DIR", help="Output folder of generate with traces.", default=...),
    on_data("key", metavar="FILE", help="Key of a blind page."),
    SET,
)
def feedback(given: Given[FeedbackSettings]) -> None:
    """Attach the verdicts of readers to the MLflow traces of the reports.

    Example: `cxrreport feedback --verdicts verdicts-A.csv --predictions reports`
    """
    found = runs.feedback(given.settings())
    if given.as_json:
        print_json(found)
        return
    table = table_of("cxrreport feedback", "", "")
    for name, value in rows(found):
        table.add_row(name, value)
    stdout().print(table)


@app.command()
@guarded()
def published(
    evaluation: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output folder of evaluate.", show_default=False, callback=expanded)
    ],
    as_json: Json = False,
) -> None:
    """Show published results, and which conditions keep them from being compared with an evaluation.

    Example: `cxrreport published scores`
    """
    from cxrreport.evaluation.published import NOT_PUBLISHED

    found = runs.published(evaluation)
    if as_json:
        print_json({"published": [asdict(one) for one in found]})
        return
    for number in dict.fromkeys(one.number for one in found):
        ones = [one for one in found if one.number == number]
        unknown = [{name for name, (theirs, _) in one.differs.items() if theirs == NOT_PUBLISHED} for one in ones]
        by_all = set.intersection(*unknown)
        table = table_of(number, "yours (95%)", "published", "system", "kept apart by")
        for one in ones:
            apart = [
                name if theirs == NOT_PUBLISHED else f"[bold]{escape(f'{name}: {theirs}')}[/]"
                for name, (theirs, _) in one.differs.items()
                if name not in by_all
            ]
            also = ["what none states"] if by_all else []
            table.add_row(
                interval(one.ours), f"{one.value:.3f}", escape(one.system), ", ".join(apart + also) or "nothing"
            )
        stdout().print(table)
        if by_all:
            stdout().print(
                f"None states {', '.join(name for name in ones[0].differs if name in by_all)}.", markup=False
            )
    stdout().print("Conditions with a value (the published one) differ from yours; the others are not published.")
    for source in dict.fromkeys(one.source for one in found):
        systems = dict.fromkeys(one.system for one in found if one.source == source)
        stdout().print(f"{source}: {'; '.join(systems)}", markup=False, highlight=False)
