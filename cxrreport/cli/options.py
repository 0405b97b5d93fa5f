"""Options that several commands share, and settings made from a YAML file and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from cxrreport.errors import SettingsError
from cxrreport.settings import GeneratedBaseline, Settings, assign, build, merge, read_yaml

MOST_FREQUENT = "most_frequent"
S = TypeVar("S", bound=Settings)

DATA, MODEL, DECODING, TRAINING, SCORING, PRIVACY, WORK = (
    "Input and output",
    "Model",
    "Decoding",
    "Training",
    "Scoring",
    "Privacy",
    "Execution",
)
"""Panels of `--help`, with the options that are needed most often at the top."""

Config = Annotated[Path | None, typer.Argument(metavar="YAML", help="Settings file; options override it.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Output folder.", rich_help_panel=DATA)
]
Ingested = Annotated[
    Path | None, typer.Option("--input", "-i", metavar="DIR", help="Output folder of ingest.", rich_help_panel=DATA)
]
Generated = Annotated[
    Path | None,
    typer.Option("--predictions", "-p", metavar="PATH", help="Output folder of generate.", rich_help_panel=DATA),
]
Adapter = Annotated[
    Path | None,
    typer.Option("--adapter", "-a", metavar="DIR", help="Adapter folder of train.", rich_help_panel=MODEL),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="NAME|DIR",
        help="Base model: published name, hub id or folder.",
        rich_help_panel=MODEL,
    ),
]
Pseudonymize = Annotated[
    Path | None,
    typer.Option(metavar="KEYFILE", help="Replace ids and file names by keyed hashes.", rich_help_panel=PRIVACY),
]
AllowRemote = Annotated[
    bool | None,
    typer.Option(
        "--allow-remote",
        help="Allow functions that send reports to another machine.",
        show_default="refuse",
        rich_help_panel=PRIVACY,
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes.", show_default="1", rich_help_panel=WORK)]
Part = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Process only the I-th of N parts.", rich_help_panel=WORK),
]
Track = Annotated[
    bool | None,
    typer.Option("--track/--no-track", help="Log an MLflow run.", show_default="track", rich_help_panel=WORK),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set any field of the settings, e.g. seed=1 or checkpoint.device=cpu; applied last; repeatable.",
        rich_help_panel=WORK,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=WORK)]


def settings_of(model: type[S], config: Path | None, assignments: list[str] | None, /, **options: Any) -> S:
    """Settings from the YAML file, then options that were given, then `--set`.

    Raises:
        SettingsError: the file cannot be read, or a field is unknown, missing or out of range.
    """
    where = "command line" if config is None else str(config)
    values = merge(read_yaml(config) if config is not None else {}, options)
    return build(model, assign(model, values, assignments or []), where=where)


def baselines_of(given: list[str]) -> dict[str, Any]:
    """Settings for the repeated option `--baseline`: `NAME=PATH`, or the name of a baseline to generate.

    Raises:
        SettingsError: the name is unknown.
    """
    paths: dict[str, Path] = {}
    generated: list[str] = []
    known = [MOST_FREQUENT, *get_args(GeneratedBaseline)]
    for text in given:
        name, sign, path = text.partition("=")
        if name and sign and path:
            paths[name] = Path(path)
        elif (name := text.replace("-", "_")) in known:
            generated.append(name)
        else:
            names = ", ".join(name.replace("_", "-") for name in known)
            raise SettingsError(f"--baseline {text}: write NAME=PATH, e.g. --baseline mine=reports, or one of {names}")
    most_frequent = True if MOST_FREQUENT in generated else None
    generated = [name for name in generated if name != MOST_FREQUENT]
    return {"baselines": paths, "generate_baselines": generated or None, "most_frequent": most_frequent}
