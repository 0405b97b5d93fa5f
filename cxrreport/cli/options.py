"""Options that several commands share, and settings made from a YAML file and options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from cxrreport.errors import SettingsError
from cxrreport.settings import GeneratedBaseline, Settings, build, merge

MOST_FREQUENT = "most_frequent"
S = TypeVar("S", bound=Settings)


class Layout(StrEnum):
    """How studies are laid out on disk."""

    AUTO = "auto"
    MIMIC_CXR = "mimic-cxr"
    OPENI = "openi"
    FOLDER = "folder"
    TABLE = "table"


class SplitName(StrEnum):
    """Part of the data."""

    TRAIN = "train"
    VALIDATE = "validate"
    TEST = "test"
    ALL = "all"


class Baseline(StrEnum):
    """What stands in for the study's own image, or for the fine-tuned model."""

    NONE = "none"
    SHUFFLED = "shuffled"
    BLANK = "blank"
    NO_ADAPTER = "no-adapter"
    NEAREST = "nearest"


class EngineName(StrEnum):
    """What runs the model."""

    TORCH = "torch"
    OPENVINO = "openvino"


class Quantize(StrEnum):
    """How weights are held."""

    NONE = "none"
    INT8 = "int8"


class Section(StrEnum):
    """What is scored."""

    FINDINGS = "findings"
    IMPRESSION = "impression"
    BOTH = "findings+impression"


class Priors(StrEnum):
    """Reports from which mentions of earlier studies are removed."""

    TRAINING = "training"
    ALL = "all"
    KEEP = "keep"


Pseudonymize = Annotated[
    Path | None, typer.Option(metavar="KEYFILE", help="Keyed hashes for ids and names of files.", show_default="none")
]
AllowRemote = Annotated[
    bool | None,
    typer.Option("--allow-remote", help="Allow what sends reports to another machine.", show_default="refuse"),
]
Config = Annotated[Path | None, typer.Argument(metavar="YAML", help="Settings; the options below override it.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for what is written.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
Track = Annotated[bool | None, typer.Option("--track/--no-track", help="Log an MLflow run.", show_default="track")]
CheckpointOption = Annotated[
    str | None,
    typer.Option("--checkpoint", "-c", metavar="NAME|DIR", help="Base model: a name of the table, a hub id, a folder."),
]


def settings_of(model: type[S], config: Path | None, **overrides: Any) -> S:
    """Settings from the file, if there is one, and the options that were given."""
    if config is not None:
        return model.from_yaml(config, **overrides)
    return build(model, merge({}, overrides), where="command line")


def baselines_of(given: list[str]) -> dict[str, Any]:
    """The settings that the repeated option `--baseline` stands for: `NAME=PATH`, or the name of one to be made."""
    paths: dict[str, Path] = {}
    made: list[str] = []
    known = [MOST_FREQUENT, *get_args(GeneratedBaseline)]
    for text in given:
        name, sign, path = text.partition("=")
        if name and sign and path:
            paths[name] = Path(path)
        elif (name := text.replace("-", "_")) in known:
            made.append(name)
        else:
            names = ", ".join(one.replace("_", "-") for one in known)
            raise SettingsError(f"--baseline {text}: write NAME=PATH, e.g. --baseline mine=reports, or one of {names}")
    most_frequent = True if MOST_FREQUENT in made else None
    made = [name for name in made if name != MOST_FREQUENT]
    return {"baselines": paths, "generate_baselines": made or None, "most_frequent": most_frequent}
