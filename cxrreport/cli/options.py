"""Options of commands: fields of their settings, whose types, limits and defaults they have."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import typer
from annotated_types import Ge, Le
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cxrreport.settings import GeneratedBaseline, Settings, assign, build, expand, merge, model_at, put, read_yaml

S = TypeVar("S", bound=Settings)
BASELINES = tuple(name.replace("_", "-") for name in get_args(GeneratedBaseline))


class Option:
    """An option of a command.

    Args:
        field: field of the settings that it sets, nested ones joined by dots.
        flags: as on the command line; `--` and the last part of `field` if there is no long one.
        kind: type of the value if it is not that of the field, or if the command reads the option itself.
        default: value without the option; `None` for that of the settings.
        argument: it is given by its position and has no flags.
        panel: part of `--help` that lists it.
        details: what else `typer.Option` or `typer.Argument` takes.
    """

    def __init__(
        self,
        field: str,
        *flags: str,
        kind: Any = None,
        default: Any = None,
        argument: bool = False,
        panel: str | None = None,
        **details: Any,
    ) -> None:
        self.field, self.flags, self.kind, self.default, self.argument = field, flags, kind, default, argument
        self.details = details | ({"rich_help_panel": panel} if panel else {})
        self.name = field.replace(".", "_")

    def parameter(self, model: type[Settings]) -> inspect.Parameter:
        """The parameter that Typer reads."""
        *parents, name = self.field.split(".")
        info = model_at(model, parents).model_fields.get(name)
        kind, details = _read(info) if info is not None else (self.kind, {})
        make, flags = typer.Argument if self.argument else typer.Option, self.flags
        if not self.argument and not any(flag.startswith("--") for flag in flags):
            flags = (f"--{name.replace('_', '-')}", *flags)
        annotation: Any = Annotated[(self.kind or kind) | None, make(*flags, **details | self.details)]
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=self.default, annotation=annotation)


def _read(info: FieldInfo) -> tuple[Any, dict[str, Any]]:
    """Type, limits and default of a field, as Typer takes them."""
    kind, constraints = info.annotation, [*info.metadata]
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind, *others = (one for one in get_args(kind) if one is not NoneType)
        constraints += [limit for one in others if isinstance(one, FieldInfo) for limit in one.metadata]
    details: dict[str, Any] = {}
    for limit in constraints:
        if isinstance(limit, Ge):
            details["min"] = limit.ge
        elif isinstance(limit, Le):
            details["max"] = limit.le
    if get_origin(kind) is tuple:
        kind = list[str]
    elif get_origin(kind) is Literal and isinstance(get_args(kind)[0], int):
        kind = int
    default = info.default
    if default not in (None, PydanticUndefined, ()):
        text = f"{default:g}" if isinstance(default, float) else str(default)
        details["show_default"] = {"True": "yes", "False": "no"}.get(text, text)
    return kind, details


on_data, on_images, on_model = (partial(Option, panel=name) for name in ("Input and output", "Images", "Model"))
on_query = partial(Option, panel="Query")
on_decoding, on_training, on_gpu = (partial(Option, panel=name) for name in ("Decoding", "Training", "GPU and cost"))
on_scoring, on_privacy, on_work = (partial(Option, panel=name) for name in ("Scoring", "Privacy", "Execution"))
argument = partial(Option, argument=True)

CONFIG = argument("config", kind=Path, metavar="YAML", help="Settings file; options override it.")
OUTPUT = on_data("output", "-o", metavar="DIR", help="Output folder.")
INGESTED = on_data("data", "--input", "-i", metavar="DIR", help="Output folder of ingest.")
GENERATED = on_data("predictions", "-p", metavar="PATH", help="Output folder of generate.")
ADAPTER = on_model("adapter", "-a", metavar="DIR", help="Adapter folder of train.")
CHECKPOINT = on_model(
    "checkpoint.name",
    "--checkpoint",
    "-c",
    kind=str,
    metavar="NAME|DIR",
    help="Base model: published name, hub id or folder.",
)
PSEUDONYMIZE = on_privacy("pseudonymize", metavar="KEYFILE", help="Replace ids and file names by keyed hashes.")
ALLOW_REMOTE = on_privacy("allow_remote", help="Allow functions that send reports to another machine.")
SHARD = on_work("shard", metavar="I/N", help="Process only the I-th of N parts.")
TRACK = on_work("tracking.enabled", "--track/--no-track", help="Log an MLflow run.", show_default="track")
SET = on_work(
    "assignments",
    "--set",
    kind=list[str],
    metavar="FIELD=VALUE",
    help="Set any field of the settings, e.g. seed=1 or checkpoint.device=cpu; applied last; repeatable.",
)
JSON = on_work("as_json", "--json", kind=bool, default=False, help="Print the summary as JSON.")
Json = Annotated[bool, typer.Option("--json", rich_help_panel="Execution", help="Print the summary as JSON.")]


@dataclass
class Given(Generic[S]):
    """The options that were given to a command.

    Args:
        model: of the settings.
        options: values by `Option.field`.
    """

    model: type[S]
    options: dict[str, Any]

    @property
    def as_json(self) -> bool:
        """True if the summary is printed as JSON."""
        return bool(self.options["as_json"])

    def settings(self, **overrides: Any) -> S:
        """Settings from the YAML file, then options and `overrides`, then `--set`.

        Raises:
            SettingsError: the file cannot be read, or a field is unknown, missing or out of range.
        """
        options = {name: value for name, value in self.options.items() if name != "as_json"}
        config, assignments = options.pop("config", None), options.pop("assignments", ())
        for name, value in options.items():
            put(overrides, name.split("."), value)
        values = merge({} if config is None else read_yaml(config), overrides)
        where = "command line" if config is None else str(config)
        return build(self.model, assign(self.model, values, assignments), where=where)


def expanded(path: Path | None) -> Path | None:
    """Callback of arguments that are not settings: expand a path like the settings do."""
    try:
        return None if path is None else expand(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
