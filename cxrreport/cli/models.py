"""The commands that make a checkpoint or a served model of an adapter: merge, register."""

from __future__ import annotations

import shlex

import typer

from cxrreport import runs
from cxrreport.cli.app import command
from cxrreport.cli.options import ADAPTER, CONFIG, SET, TRACK, Given, argument, on_model
from cxrreport.cli.output import perform, print_json, print_summary, stdout
from cxrreport.settings import MergeSettings, RegisterSettings


@command(
    MergeSettings,
    argument("adapter", metavar="ADAPTER", help="Adapter folder of train.", default=...),
    argument("output", metavar="DIR", help="Folder for the checkpoint.", default=...),
    on_model(
        *("checkpoint.name", "--checkpoint", "-c"),
        metavar="NAME",
        help="Base model of the adapter.",
        show_default="from its card",
    ),
    on_model("shard_gb", help="Largest weight file, GB."),
    TRACK,
    SET,
)
def merge(given: Given[MergeSettings]) -> None:
    """Merge an adapter into its base model, as a checkpoint that transformers loads.

    Example: `cxrreport merge runs/train/adapter runs/merged`
    """
    print_summary(perform(runs.merge, given.settings()), given.as_json)


@command(
    RegisterSettings,
    CONFIG,
    ADAPTER,
    on_model("name", help="Name of the registered model."),
    on_model("aliases", "--alias", help="Alias to point to this version; repeatable."),
    SET,
)
def register(given: Given[RegisterSettings]) -> None:
    """Register a fine-tuned model in MLflow as the next version of its name.

    Example: `cxrreport register --adapter runs/train/adapter --alias champion`
    """
    settings = given.settings()
    from cxrreport import serving

    registered = serving.register(settings)
    if given.as_json:
        print_json(registered.as_dict())
        return
    which = f"@{registered.aliases[0]}" if registered.aliases else f"/{registered.version}"
    stdout().print(
        f"version {registered.version} of {registered.name}, run {registered.run_id}; serve it with:",
        highlight=False,
    )
    typer.echo(f"  export MLFLOW_TRACKING_URI={shlex.quote(registered.tracking_uri)}")
    typer.echo(f"  export {serving.ROOT}=DIR  # below which requests may name files")
    typer.echo(f"  mlflow models serve -m models:/{registered.name}{which} -h 127.0.0.1 -p 5001 --env-manager local")
