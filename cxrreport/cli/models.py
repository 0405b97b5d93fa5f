"""The commands that make a checkpoint or a served model of an adapter: merge, register."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import Adapter, Assignments, Config, Json, Track, on_model, settings_of
from cxrreport.cli.output import guarded, perform, print_json, print_summary, stdout
from cxrreport.settings import MergeSettings, RegisterSettings


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Adapter folder of train.")],
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the checkpoint.")],
    checkpoint: Annotated[
        str | None,
        on_model("--checkpoint", "-c", metavar="NAME", help="Base model of the adapter.", show_default="from its card"),
    ] = None,
    shard_gb: Annotated[float | None, on_model(help="Largest weight file, GB.", show_default="5")] = None,
    track: Track = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Merge an adapter into its base model, as a checkpoint that transformers loads.

    Example: `cxrreport merge runs/train/adapter runs/merged`
    """
    with guarded():
        settings = settings_of(
            MergeSettings,
            None,
            assignments,
            adapter=adapter,
            output=output,
            checkpoint={"name": checkpoint},
            shard_gb=shard_gb,
            tracking={"enabled": track},
        )
        print_summary(perform(runs.merge, settings), as_json)


@app.command()
def register(
    config: Config = None,
    adapter: Adapter = None,
    name: Annotated[str | None, on_model(help="Name of the registered model.", show_default="cxrreport")] = None,
    alias: Annotated[list[str] | None, on_model(help="Alias to point to this version; repeatable.")] = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Register a fine-tuned model in MLflow as the next version of its name.

    Example: `cxrreport register --adapter runs/train/adapter --alias champion`
    """
    with guarded():
        settings = settings_of(RegisterSettings, config, assignments, adapter=adapter, name=name, aliases=alias or None)
        from cxrreport import serving

        registered = serving.register(settings)
        if as_json:
            print_json(registered.as_dict())
            return
        which = f"@{registered.aliases[0]}" if registered.aliases else f"/{registered.version}"
        stdout().print(
            f"version {registered.version} of {registered.name}, run {registered.run_id}; serve it with:",
            highlight=False,
        )
        typer.echo(f"  export MLFLOW_TRACKING_URI={shlex.quote(registered.tracking_uri)}")
        typer.echo(f"  export {serving.ROOT}=DIR  # below which requests may name files")
        typer.echo(
            f"  mlflow models serve -m models:/{registered.name}{which} -h 127.0.0.1 -p 5001 --env-manager local"
        )
