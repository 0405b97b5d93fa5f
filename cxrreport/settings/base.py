"""What all settings share: how they are read, checked and put together."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cxrreport.errors import SettingsError

Resolution = Literal[224, 448, 896]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def _within(shard: str) -> str:
    number, count = map(int, shard.split("/"))
    if number > count:
        raise ValueError(f"shard {shard}: there are only {count}")
    return shard


def _each_once(names: tuple[Any, ...]) -> tuple[Any, ...]:
    if not names or len(set(names)) != len(names):
        raise ValueError("must name at least one, and each once")
    return names


EachOnce = AfterValidator(_each_once)
"""At least one name, and none twice."""


Shard = Annotated[str, Field(pattern=r"^[1-9]\d*/[1-9]\d*$"), AfterValidator(_within)]
"""The i-th of n parts of the work, `i/n`."""


_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def expand(path: Path) -> Path:
    """Replace a leading `~` or `~user` by the home folder, and `$NAME` or `${NAME}` by environment variables.

    Relative paths stay relative to the working folder. A file or folder whose name contains `$NAME` is kept.

    Raises:
        ValueError: the user does not exist, or a variable is not set.
    """
    text = str(path)

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        end = text.find(os.sep, found.end())
        if Path(text if end < 0 else text[:end]).exists():
            return found[0]
        if os.environ.get(name):
            return os.environ[name]
        raise ValueError(f"{path}: the environment variable {name} is not set; set it, or write the folder")

    try:
        return Path(_VARIABLE.sub(value, text)).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no home folder of that name; write the folder") from error


_LONGEST_NAME = 255
"""Bytes in the name of a file or folder that file systems allow."""
_LONGEST_OUTPUT = _LONGEST_NAME - 15
"""Some commands write beside their output, under its name with an ending (`-images`, `.shards`)."""


def _with_possible_names(path: Path, longest: int) -> Path:
    for name in path.parts:
        if (size := len(os.fsencode(name))) > longest:
            raise ValueError(f"the name {name[:20]}... has {size} bytes; give one of at most {longest}")
        if "\0" in name:
            raise ValueError("a path cannot contain a zero byte")
    return path


def _expand_name(name: str) -> str:
    return str(expand(Path(name))) if name.startswith("~") or "$" in name else name


FolderOrName = Annotated[str, AfterValidator(_expand_name)]
"""A name, or a folder that is expanded like a path."""


RENAMED = {"control": "baseline", "controls": "baselines", "generate_controls": "generate_baselines"}
"""Former to current names of fields. Former names are still read in YAML, in code and in records of output folders."""


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, or a record of an output folder, with the current names of fields.

    Raises:
        ValueError: a field is given under both names.
    """
    if both := [old for old, new in RENAMED.items() if old in values and new in values]:
        raise ValueError(f"{both[0]} is the former name of {RENAMED[both[0]]}; give it once")
    return {RENAMED.get(name, name): value for name, value in values.items()}


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown fields, defaults checked like given values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, values: Any) -> Any:
        return current_names(values) if isinstance(values, dict) else values

    @field_validator("*")
    @classmethod
    def _expand_paths(cls, value: Any, info: ValidationInfo) -> Any:
        longest = _LONGEST_OUTPUT if info.field_name == "output" else _LONGEST_NAME

        def checked(one: Any) -> Any:
            return _with_possible_names(expand(one), longest) if isinstance(one, Path) else one

        if isinstance(value, tuple):
            return tuple(checked(one) for one in value)
        return {name: checked(one) for name, one in value.items()} if isinstance(value, dict) else checked(value)

    def relative_paths(self) -> list[Path]:
        """The paths of these settings that depend on the working folder."""
        values = [one for _, one in self]
        values += [below for one in values if isinstance(one, dict) for below in one.values()]
        values += [below for one in values if isinstance(one, tuple) for below in one]
        return [one for one in values if isinstance(one, Path) and not one.is_absolute()]

    @classmethod
    def from_yaml(cls, path: Path, **overrides: Any) -> Self:
        """Read `path`, replace what `overrides` names (None means: not given), and check the whole.

        An override that is a mapping replaces only the fields that it names, so `checkpoint={"name": "tiny"}` leaves
        the precision of the file as it is.

        Raises:
            SettingsError: the file is missing or is no YAML mapping, or a field is unknown, missing or out of range;
                the message names the file and the field.
        """
        return build(cls, merge(read_yaml(path), overrides), where=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, with the current names of fields.

    Raises:
        SettingsError: the file is missing or holds no mapping, or a field is given under both of its names.
    """
    try:
        loaded = yaml.safe_load(_expanded(path, "settings file").read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the configuration ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    except RecursionError:
        raise SettingsError(
            f"{path}: lists or mappings are nested too deep; a configuration has a few levels"
        ) from None
    if not isinstance(loaded, dict):
        raise SettingsError(f"{path}: expected a mapping of field names to values")
    try:
        return current_names(loaded)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def merge(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`values` with what `overrides` names replaced, mappings field by field; None in `overrides` means: not given."""
    merged = dict(values)
    for name, value in overrides.items():
        if isinstance(value, dict):
            below = merged.get(name)
            inner = merge(below if isinstance(below, dict) else {}, value)
            if inner:
                merged[name] = inner
        elif value is not None:
            merged[name] = value
    return merged


def assign(model: type[Settings], values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`values` with fields replaced by `FIELD=VALUE`, as `--set` takes them.

    Args:
        model: the settings; their name may precede a field (`training.epochs=1` for `TrainSettings`).
        values: not changed.
        assignments: names of fields, nested ones joined by dots, and values as in YAML.

    Raises:
        SettingsError: an assignment has no `=`, or its value is not YAML; fields and values are checked by `build`.
    """
    result = copy.deepcopy(values)
    own_names = {model.__module__.rpartition(".")[2], model.__name__.removesuffix("Settings").lower()}
    for text in assignments:
        path, sign, given = text.partition("=")
        *parents, name = path.strip().split(".")
        if not sign or not name:
            raise SettingsError(f"--set {text}: write FIELD=VALUE, for example --set seed=1")
        try:
            value = yaml.safe_load(given)
        except (yaml.YAMLError, RecursionError) as error:
            raise SettingsError(f"--set {text}: the value is not valid YAML; quote it") from error
        if parents and parents[0] in own_names - model.model_fields.keys():
            parents = parents[1:]
        put(result, [*parents, RENAMED.get(name, name)], value)
    return result


def put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the field at `path` in nested `values`."""
    *parents, name = path
    for parent in parents:
        below = values.get(parent)
        values[parent] = below if isinstance(below, dict) else {}
        values = values[parent]
    values[name] = value


S = TypeVar("S", bound=Settings)


def build(model: type[S], values: dict[str, Any], *, where: str) -> S:
    """Build `model` from `values`.

    Raises:
        SettingsError: a field is unknown, missing or out of range; names `where`, the field, and the known fields.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]) or "settings"
            if problem["type"] == "extra_forbidden":
                known = sorted(model_at(model, problem["loc"][:-1]).model_fields)
                close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
                remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
                lines.append(f"{name}: unknown field; {remedy}")
            else:
                lines.append(f"{name}: {problem['msg']}")
        raise SettingsError(f"{where}: " + "; ".join(lines)) from error


def model_at(model: type[Settings], path: Sequence[int | str]) -> type[Settings]:
    """The settings that are the value of the field at `path`; `model` for an empty path."""
    for name in path:
        field = model.model_fields.get(str(name))
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Settings)), model)
    return model


def _expanded(path: Path, where: str) -> Path:
    """A path that is not a field of settings, expanded like one.

    Raises:
        SettingsError: it cannot be expanded; the message names `where`.
    """
    try:
        return expand(path)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


WEIGHTS = "CXRREPORT_WEIGHTS"


def weights_folder() -> Path | None:
    """Folder that `cxrreport weights` has filled, from the environment variable `CXRREPORT_WEIGHTS` (`--weights`).

    It is not a setting: like the hub's `HF_HOME`, it is the location of weights and does not affect results.
    """
    folder = os.environ.get(WEIGHTS)
    return _expanded(Path(folder), WEIGHTS) if folder else None
