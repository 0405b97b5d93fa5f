"""Registering a model; MLflow serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrreport.cli.app import app
from cxrreport.cli.options import Config, Json, settings_of
from cxrreport.cli.output import guarded, print_json, stdout
from cxrreport.settings import RegisterSettings


@app.command()
def register(
    config: Config = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", "-a", metavar="DIR", help="Adapter folder of train.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the registered model.", show_default="cxrreport")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Points to this version from now on; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Register a fine-tuned model in MLflow, as the next version of its name, to be served.

    Example: `cxrreport register --adapter runs/train/adapter --alias champion`
    """
    with guarded():
        settings = settings_of(RegisterSettings, config, adapter=adapter, name=name, aliases=alias or None)
        from cxrreport import serving

        done = serving.register(settings)
        if as_json:
            print_json(done.as_dict())
            return
        which = f"@{done.aliases[0]}" if done.aliases else f"/{done.version}"
        stdout().print(f"version {done.version} of {done.name}, run {done.run_id}; to serve it:", highlight=False)
        typer.echo(f"  export MLFLOW_TRACKING_URI={done.tracking_uri}")
        typer.echo(f"  export {serving.ROOT}=DIR  # below which requests may name files")
        typer.echo(f"  mlflow models serve -m models:/{done.name}{which} -h 127.0.0.1 -p 5001 --env-manager local")
