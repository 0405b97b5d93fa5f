"""Commands beside the verbs: what has not been sent, and versions."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from cxrreport import __version__, runs
from cxrreport.cli.app import app
from cxrreport.cli.options import Json
from cxrreport.cli.output import guarded, print_json, stdout


@app.command()
def sync(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds the outputs.")] = Path(),
    uri: Annotated[str | None, typer.Option(metavar="URI", help="Tracking URI.", show_default="as the runs'")] = None,
    as_json: Json = False,
) -> None:
    """Send what MLflow did not take while runs were at work: its server was away, or the run was killed.

    Example: `cxrreport sync --uri http://127.0.0.1:5000 results`
    """
    with guarded():
        sent = runs.sync(folder, uri)
        if as_json:
            print_json({"sent": sent})
            return
        stdout().print(f"{sent} {'run' if sent == 1 else 'runs'} sent" if sent else "nothing to send", highlight=False)


@app.command()
def version(as_json: Json = False) -> None:
    """Print the versions of this package and of those that its results depend on.

    Example: `cxrreport version --json`
    """
    versions = {"cxrreport": __version__}
    for package in ("torch", "transformers", "peft", "radgraph", "pydicom", "monai", "mlflow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    if as_json:
        print_json(versions)
    else:
        stdout().print("\n".join(f"{package} {number}" for package, number in versions.items()), highlight=False)
