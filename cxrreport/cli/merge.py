"""The command that makes one checkpoint of an adapter and its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import Json, Track
from cxrreport.cli.output import guarded, perform
from cxrreport.settings import MergeSettings, build
from cxrreport.settings import merge as merged


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Adapter folder of train.")],
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the checkpoint.")],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", "-c", metavar="NAME", help="Its base.", show_default="adapter's")
    ] = None,
    shard_gb: Annotated[float | None, typer.Option(help="Largest weight file, GB.", show_default="5")] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Merge an adapter into its checkpoint, to be loaded by plain transformers.

    Example: `cxrreport merge runs/train/adapter runs/merged`
    """
    with guarded():
        given = {"checkpoint": {"name": checkpoint}, "shard_gb": shard_gb, "tracking": {"enabled": track}}
        settings = build(MergeSettings, merged({"adapter": adapter, "output": output}, given), where="merge")
        perform(runs.merge, settings, as_json)
