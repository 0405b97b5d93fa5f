"""The commands that score and read reports: evaluate, review, compare, published."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import (
    AllowRemote,
    Assignments,
    Config,
    Ingested,
    Json,
    Output,
    Track,
    baselines_of,
    expanded,
    on_data,
    on_privacy,
    on_scoring,
    settings_of,
)
from cxrreport.cli.output import bounds, guarded, perform, print_json, print_summary, stdout, table_of
from cxrreport.settings import CompareSettings, EvaluateSettings, GeneratedBaseline, ReviewSettings, ScoredSection

_BASELINES = "|".join(name.replace("_", "-") for name in get_args(GeneratedBaseline))
_Evaluated = Annotated[
    Path, typer.Argument(metavar="DIR", help="Output folder of evaluate.", show_default=False, callback=expanded)
]


@app.command()
def evaluate(
    config: Config = None,
    predictions: Annotated[
        Path | None, on_data("--predictions", "-p", metavar="PATH", help="Output folder of generate, or a table.")
    ] = None,
    references: Annotated[
        Path | None, on_data("--references", "-r", metavar="PATH", help="Output folder of ingest, or a table.")
    ] = None,
    output: Output = None,
    baselines: Annotated[
        list[str] | None,
        on_scoring(
            "--baseline",
            metavar="NAME[=PATH]",
            help=f"Baseline to generate ({_BASELINES}), or the predictions of one; repeatable.",
        ),
    ] = None,
    controls: Annotated[list[str] | None, typer.Option("--control", hidden=True)] = None,  # former name of --baseline
    metrics: Annotated[
        list[str] | None,
        on_scoring("--metric", metavar="NAME", help="Metric to compute instead of the default ones; repeatable."),
    ] = None,
    radgraph: Annotated[str | None, on_scoring(help="RadGraph model or folder.", show_default="radgraph-xl")] = None,
    section: Annotated[
        ScoredSection | None, on_scoring(help="Sections to score.", show_default="findings+impression")
    ] = None,
    allow_remote: AllowRemote = None,
    track: Track = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Score reports with patient-level intervals, beside baselines.

    Example: `cxrreport evaluate -p reports -r data -o scores --baseline shuffled --baseline nearest`
    """
    with guarded():
        settings = settings_of(
            EvaluateSettings,
            config,
            assignments,
            predictions=predictions,
            references=references,
            output=output,
            **baselines_of([*(baselines or []), *(controls or [])]),
            metrics=metrics or None,
            radgraph=radgraph,
            section=section,
            allow_remote=allow_remote,
            tracking={"enabled": track},
        )
        print_summary(perform(runs.evaluate, settings), as_json)


@app.command()
def review(
    config: Config = None,
    evaluation: Annotated[
        Path | None, on_data("--evaluation", "-e", metavar="DIR", help="Output folder of evaluate.")
    ] = None,
    data: Ingested = None,
    output: Annotated[Path | None, on_data("--output", "-o", metavar="FILE", help="HTML file to write.")] = None,
    limit: Annotated[int | None, on_data(min=1, help="Include only the lowest-scoring studies.")] = None,
    megabytes: Annotated[float | None, on_data(help="Size limit for all images together.", show_default="150")] = None,
    log_page: Annotated[
        bool | None,
        on_privacy("--log-page", help="Log the page with its images and reports to MLflow.", show_default="no"),
    ] = None,
    track: Track = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page with images, reports and their entities, lowest scores first.

    Example: `cxrreport review -e scores --input data --output review.html`
    """
    with guarded():
        settings = settings_of(
            ReviewSettings,
            config,
            assignments,
            evaluation=evaluation,
            data=data,
            output=output,
            limit=limit,
            megabytes=megabytes,
            tracking={"enabled": track, "log_reports": log_page},
        )
        print_summary(perform(runs.review, settings), as_json)


@app.command()
def compare(
    first: _Evaluated,
    second: _Evaluated,
    output: Output = Path("cxrreport-compare"),
    numbers: Annotated[
        list[str] | None,
        on_scoring(
            "--number", metavar="NAME", help="Score to compare; repeatable.", show_default="the first of every metric"
        ),
    ] = None,
    track: Track = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Compare two systems on the same studies: differences, patient-level intervals, corrected p-values.

    Scores whose conditions differ are refused, and the conditions are named.

    Example: `cxrreport compare scores-896 scores-448 --number radgraph_partial --output comparison`
    """
    with guarded():
        settings = settings_of(
            CompareSettings,
            None,
            assignments,
            first=first,
            second=second,
            output=output,
            numbers=tuple(numbers) if numbers else None,
            tracking={"enabled": track},
        )
        summary = perform(runs.compare, settings)
        if as_json:
            print_summary(summary, as_json)
            return
        table = table_of("", "number", "first", "second", "difference (95%)", "p", "Holm")
        for number, one in summary.result.differences.items():
            change = one.difference
            table.add_row(
                number,
                f"{one.first:.3f}",
                f"{one.second:.3f}",
                f"{change.value:+.3f} {bounds(change.low, change.high, '+.3f')}",
                *("undefined" if math.isnan(p) else f"{p:.4f}" for p in (one.p, one.p_corrected)),
            )
        stdout().print(table)
        for number, differs in summary.result.refused.items():
            stdout().print(f"{number}: not comparable, different {', '.join(differs)}", markup=False, highlight=False)
        counts = {name: summary.facts[name] for name in ("studies", "patients")}
        print_summary(replace(summary, facts=counts), as_json)


@app.command()
def published(evaluation: _Evaluated, as_json: Json = False) -> None:
    """Show published results, and which conditions keep them from being compared with an evaluation.

    Example: `cxrreport published scores`
    """
    with guarded():
        found = runs.published(evaluation)
        if as_json:
            print_json({"published": [asdict(one) for one in found]})
            return
        table = table_of("", "system", "number", "published", "comparable")
        for one in found:
            verdict = f"no: {', '.join(one.differs)}" if one.differs else "yes"
            table.add_row(one.system, one.number, f"{one.value:.3f}", verdict)
        stdout().print(table)
