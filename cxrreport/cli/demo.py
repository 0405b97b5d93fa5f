"""The demo, and the summary that it prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from cxrreport import tracking
from cxrreport.cli.app import command
from cxrreport.cli.options import Given, Option
from cxrreport.cli.output import echo, interval, mlflow_command, print_json, progress_bar, shown, stdout, table_of
from cxrreport.settings import DemoSettings

if TYPE_CHECKING:
    from cxrreport.demo.first_report import FirstReport

_PICTURE = 36
"""Columns of the first image."""


@command(
    DemoSettings,
    Option("output", "--out", "-o", metavar="DIR", help="Output folder.", default=Path("demo-out")),
    Option("resolution", help="Side length: 224 or 896."),
    Option("prior", help="Pairs of studies: what the lateral view and the prior study add."),
    Option("patients", help="Number of phantom patients.", show_default="960; 800 with --prior; 120 at 896 pixels"),
    Option("seed", help="Random seed."),
)
def demo(given: Given[DemoSettings]) -> None:
    """Run the whole pipeline on phantoms: DICOM, fine-tuning, reports and scores, each step an MLflow run.

    The shipped adapter writes a first report within a minute. With `--prior` patients have two studies, and the model
    also reads the lateral view and the prior study.

    Example: `cxrreport demo --out demo-out`, `cxrreport demo --prior --out demo-prior`
    """
    from cxrreport.demo.pipeline import run_demo
    from cxrreport.demo.prior_pipeline import run_prior_demo

    settings = given.settings()
    with progress_bar() as progress:
        if settings.prior:
            summary = run_prior_demo(settings, progress)
        else:
            summary = run_demo(settings, progress, show=_ignore if given.as_json else _print_first)
    if given.as_json:
        print_json(summary)
    else:
        _print_demo(summary, settings)


def _ignore(_: FirstReport) -> None:
    """Standard output is one JSON object."""


def _print_first(first: FirstReport) -> None:
    from cxrreport.cli.picture import picture

    console = stdout()
    image = picture(first.image, _PICTURE, colours=console.color_system in ("256", "truecolor"))
    report = f"[bold]FINDINGS[/]\n{escape(first.findings)}\n\n[bold]IMPRESSION[/]\n{escape(first.impression)}"
    grid = Table.grid(padding=(0, 2))
    grid.add_row(image, report)
    console.print("A first report by the shipped adapter, for a synthetic image:", highlight=False)
    console.print(grid)
    echo(f"More images: {first.contact_sheet}. The demo now trains an adapter of its own.")


def _print_demo(summary: Mapping[str, Any], settings: DemoSettings) -> None:
    console = stdout()
    if settings.prior:
        _print_changes(summary)
    else:
        _print_findings(summary)
    steps = table_of("", "step", "seconds")
    for step, seconds in summary["seconds"].items():
        steps.add_row(step, shown(seconds))
    steps.add_row("peak memory", f"{summary['peak_memory_mb']:,.0f} MB")
    console.print(steps)
    echo(f"Results are in {settings.output}:")
    echo("  summary.json              these scores")
    echo("  review.html               reports beside their images, lowest scores first")
    echo("  ingest/contact_sheet.png  what the model sees")
    echo("  train/loss.png            the loss curve")
    echo("The runs in MLflow:")
    echo(f"  {mlflow_command(tracking.sqlite_uri(settings.output / 'mlflow.db'))}")


def _print_changes(summary: Mapping[str, Any]) -> None:
    table = table_of(
        "synthetic: phantoms and tiny models", "system", "RadGraph F1 (partial)", "change F1", "finding F1"
    )
    for system, score in summary["radgraph_f1"].items():
        others = (interval(summary[name][system]) for name in ("change_f1", "finding_f1"))
        table.add_row(system.replace("_", " "), interval(score), *others)
    stdout().print(table)
    share = summary["hallucinated_change"]["no_prior"]["value"]
    echo(f"Reports that state a change although no prior study was shown: {100 * share:.1f}%.")


def _print_findings(summary: Mapping[str, Any]) -> None:
    console = stdout()
    table = table_of("synthetic: phantoms and tiny models", "system", "RadGraph F1 (partial)", "finding F1")
    for system, score in summary["radgraph_f1"].items():
        table.add_row(system.replace("_", " "), interval(score), interval(summary["finding_f1"].get(system)))
    table.add_row("base, own style", "", interval(summary["finding_f1"]["base_terse"]))
    console.print(table)
    found = table_of("findings of the fine-tuned model", "finding", "F1")
    for finding, score in summary["finding_f1_by_finding"].items():
        found.add_row(finding, f"{score:.3f}")
    found.add_row("reports with contradictions", f"{100 * summary['contradictions']:.1f}%")
    console.print(found)
