"""The commands that put numbers side by side: of two evaluations, and beside published results."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import Json, Output, Track, settings_of
from cxrreport.cli.output import guarded, print_json, print_summary, progress_bar, stdout, table_of
from cxrreport.settings import CompareSettings

Evaluated = Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of evaluate.", show_default=False)]


@app.command()
def compare(
    first: Evaluated,
    second: Evaluated,
    output: Output = Path("cxrreport-compare"),
    numbers: Annotated[
        list[str] | None,
        typer.Option("--number", metavar="NAME", help="Repeatable.", show_default="the first of every metric"),
    ] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Compare two systems on the same studies: differences, intervals by patient, corrected p-values.

    Numbers whose conditions differ are refused, and the conditions named.

    Example: `cxrreport compare scores-896 scores-448 --number radgraph_partial --output comparison`
    """
    with guarded():
        settings = settings_of(
            CompareSettings,
            None,
            first=first,
            second=second,
            output=output,
            numbers=tuple(numbers) if numbers else None,
            tracking={"enabled": track},
        )
        with progress_bar() as progress:
            summary = runs.compare(settings, progress=progress)
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
                f"{change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})",
                f"{one.p:.4f}",
                f"{one.p_corrected:.4f}",
            )
        stdout().print(table)
        for number, differs in summary.result.refused.items():
            stdout().print(
                f"{number}: not comparable, differing in {', '.join(differs)}", markup=False, highlight=False
            )
        counts = {name: summary.facts[name] for name in ("studies", "patients")}
        print_summary(replace(summary, facts=counts), as_json)


@app.command()
def published(evaluation: Evaluated, as_json: Json = False) -> None:
    """Show published results that an evaluation may be compared with, and why others may not.

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
