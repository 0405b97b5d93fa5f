"""Options that several commands share, and settings made from a YAML file and options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from cxrreport.errors import SettingsError
from cxrreport.settings import GeneratedBaseline, Settings, assign, build, expand, merge, read_yaml

MOST_FREQUENT = "most_frequent"
S = TypeVar("S", bound=Settings)


def expanded(path: Path | None) -> Path | None:
    """Callback of arguments that are not settings: expand a path like the settings do."""
    try:
        return None if path is None else expand(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def panel(name: str) -> Callable[..., Any]:
    """`typer.Option` for options of one panel of `--help`."""
    return partial(typer.Option, rich_help_panel=name)


on_data, on_model, on_decoding = panel("Input and output"), panel("Model"), panel("Decoding")
on_training, on_scoring = panel("Training"), panel("Scoring")
on_privacy, on_work = panel("Privacy"), panel("Execution")

Config = Annotated[Path | None, typer.Argument(metavar="YAML", help="Settings file; options override it.")]
Output = Annotated[Path | None, on_data("--output", "-o", metavar="DIR", help="Output folder.")]
Ingested = Annotated[Path | None, on_data("--input", "-i", metavar="DIR", help="Output folder of ingest.")]
Generated = Annotated[
    Path | None,
    on_data("--predictions", "-p", metavar="PATH", help="Output folder of generate."),
]
Adapter = Annotated[
    Path | None,
    on_model("--adapter", "-a", metavar="DIR", help="Adapter folder of train."),
]
Checkpoint = Annotated[
    str | None,
    on_model("--checkpoint", "-c", metavar="NAME|DIR", help="Base model: published name, hub id or folder."),
]
Pseudonymize = Annotated[
    Path | None,
    on_privacy(metavar="KEYFILE", help="Replace ids and file names by keyed hashes."),
]
AllowRemote = Annotated[
    bool | None,
    on_privacy("--allow-remote", help="Allow functions that send reports to another machine.", show_default="refuse"),
]
Workers = Annotated[int | None, on_work(min=1, help="Worker processes.", show_default="1")]
Part = Annotated[
    str | None,
    on_work("--shard", metavar="I/N", help="Process only the I-th of N parts."),
]
Track = Annotated[
    bool | None,
    on_work("--track/--no-track", help="Log an MLflow run.", show_default="track"),
]
Assignments = Annotated[
    list[str] | None,
    on_work(
        "--set",
        metavar="FIELD=VALUE",
        help="Set any field of the settings, e.g. seed=1 or checkpoint.device=cpu; applied last; repeatable.",
    ),
]
Json = Annotated[bool, on_work("--json", help="Print the summary as JSON.")]


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
