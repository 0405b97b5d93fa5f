"""The settings of the demo: the files of `configs/` whose names have `-demo`, for any output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import cxrreport
from cxrreport.settings import CommandSettings, build, merge, read_yaml

S = TypeVar("S", bound=CommandSettings)
ROOT = "demo-out"
"""The output folder of the demo in these files."""


def folder() -> Path:
    """The folder of the shipped YAML files: inside the package in a wheel, beside it in a clone."""
    package = Path(cxrreport.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def read(model: type[S], name: str, root: Path, **changes: Any) -> S:
    """The settings of one file, with `root` in place of `ROOT` in every path.

    Args:
        model: of the settings.
        name: of the file, without its ending.
        root: output folder of the demo.
        changes: fields to replace, as in `Settings.from_yaml`.

    Raises:
        SettingsError: a field is unknown or out of range.
    """
    path = folder() / f"{name}.yaml"
    return build(model, merge(_moved(read_yaml(path), root), changes), where=str(path))


def _moved(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {name: _moved(one, root) for name, one in value.items()}
    if isinstance(value, str) and value.startswith(f"{ROOT}/"):
        return str(root / value.removeprefix(f"{ROOT}/"))
    return value
