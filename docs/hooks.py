"""What the documentation makes from the code: settings, commands, words of findings, pages of the notebooks."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cxrreport import cli, settings
from cxrreport.evaluation.clinical.vocabulary import RULES, Says
from cxrreport.settings import CommandSettings, Settings

ROAD = ("tracking", "ingestion", "model", "training", "reward", "inference", "evaluation", "pacs", "serving", "demo")
"""Modules of `cxrreport.settings`, in the order in which a reader meets them."""
PLACE = "<!-- tables of settings -->"
WORDS = "<!-- table of findings -->"
COMMANDS = "<!-- commands -->"
SAYS = {
    Says.PRESENT: "there",
    Says.DOUBTFUL: "doubtful",
    Says.NORMAL: "absent (implied)",
    Says.DENIED: "absent, when it is denied",
    Says.NO_PROCESS: "normal, when it is denied",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls it with the text of every page."""
    for place, made in ((PLACE, tables), (WORDS, words), (COMMANDS, commands)):
        if place in markdown:
            markdown = markdown.replace(place, "\n".join(made()))
    return markdown


def on_files(files: Any, config: Any) -> Any:
    """MkDocs calls it with all files: adds a page, with its pictures, for each notebook."""
    from mkdocs.structure.files import File  # only the extra `docs` has it, and tests read this file

    made = _notebooks()
    for path in made.NOTEBOOKS:
        text, pictures = made.page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def _notebooks() -> Any:
    """The module `notebooks.py` beside this file; MkDocs does not make a package of the two."""
    if "docs_notebooks" not in sys.modules:
        spec = importlib.util.spec_from_file_location("docs_notebooks", Path(__file__).with_name("notebooks.py"))
        if spec is None or spec.loader is None:
            raise ImportError("docs/notebooks.py")
        sys.modules["docs_notebooks"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["docs_notebooks"])
    return sys.modules["docs_notebooks"]


def commands() -> Iterator[str]:
    """A section for each command, as its `--help` has it."""
    group: Any = typer.main.get_command(cli.app)
    for name, command in sorted(group.commands.items()):
        about, _, example = inspect.cleandoc(command.help or "").partition("Example")
        yield f"\n## {name}\n"
        yield about.strip() + "\n"
        arguments = " ".join(_metavar(one) for one in command.params if _is_argument(one))
        usage = f"cxrreport {name} {arguments} [OPTIONS]".replace("  ", " ")
        shown = re.findall(r"`(cxrreport .+?)`", example, re.DOTALL)
        yield "```sh\n" + "\n".join([f"# {usage}", *(" ".join(one.split()) for one in shown)]) + "\n```\n"
        yield "| argument or option | default | what it does |"
        yield "|---|---|---|"
        for one in command.params:
            if not getattr(one, "hidden", False):
                yield f"| {_names(one)} | {_shown_default(one)} | {_cell(one.help or '')} |"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument") and not getattr(parameter, "hidden", False)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(parameter: Any) -> str:
    if _is_argument(parameter):
        return f"`{_cell(_metavar(parameter))}`"
    metavar = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)) + (
        f" `{_cell(metavar.strip())}`" if metavar else ""
    )


def _shown_default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return _cell(shown)
    default = parameter.default
    return "" if default in (None, False, (), []) or callable(default) else f"`{_cell(str(default))}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def words() -> Iterator[str]:
    """The table by which reports are read for findings."""
    yield "| finding | words of the observation | with | without | is |"
    yield "|---|---|---|---|---|"
    for rule in RULES:
        cells = [_words(pattern) for pattern in (rule.what, rule.where, rule.unless)]
        yield f"| {', '.join(rule.findings)} | {' | '.join(cells)} | {SAYS[rule.says]} |"


def _words(pattern: re.Pattern[str] | None) -> str:
    listed = (pattern.pattern if pattern else "").replace("(?:", "(").removeprefix(r"\b").split(r"|\b")
    return ", ".join(word.replace(r"\b", "·").replace("|", "\\|") for word in listed)


def models() -> list[type[Settings]]:
    """All settings models, in the order of the road and of the source."""
    found = [one for one in vars(settings).values() if inspect.isclass(one) and issubclass(one, Settings)]
    found = [one for one in found if one not in (Settings, CommandSettings)]
    return sorted(found, key=lambda one: (ROAD.index(one.__module__.split(".")[2]), inspect.getsourcelines(one)[1]))


def tables() -> Iterator[str]:
    """A section with a table for each model."""
    for model in models():
        yield f"\n## {model.__name__}\n"
        yield " ".join(inspect.cleandoc(model.__doc__ or "").split()) + "\n"
        yield "| field | type | default | what it is |"
        yield "|---|---|---|---|"
        own = [name for name in model.__annotations__ if name in model.model_fields]
        for name in (*own, *(name for name in model.model_fields if name not in own)):
            field = model.model_fields[name]
            yield f"| `{name}` | {_type(field)} | {_default(field)} | {_text(field)} |"


def _type(field: FieldInfo) -> str:
    return (_named(field.annotation) + _bounds(field.metadata)).replace("|", "\\|")


def _bounds(limits: Iterable[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = re.findall(r"\b(ge|gt|le|lt)=([\d.]+)", " ".join(map(str, limits)))
    return "".join(f", {signs[sign]} {value}" for sign, value in found)


def _named(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is typing.Annotated:
        inner, *limits = get_args(kind)
        return _named(inner) + _bounds(limits)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_named(one) for one in get_args(kind) if one is not types.NoneType)
    if origin is tuple:
        return f"list of {_named(get_args(kind)[0])}"
    if origin is dict:
        return f"mapping of name to {_named(get_args(kind)[1])}"
    if issubclass(kind, Settings):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    words = {"Path": "path", "str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
    return words.get(kind.__name__, kind.__name__)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "none"
    if isinstance(field.default, Settings):
        return "its defaults"
    if isinstance(field.default, tuple):
        return f"`[{', '.join(map(str, field.default))}]`"
    text = " ".join(str(field.default).split()).replace("|", "\\|")
    return f"`{text.lower() if isinstance(field.default, bool) else text}`"


def _text(field: FieldInfo) -> str:
    if field.description:
        return " ".join(field.description.split()).replace("|", "\\|")
    return "see there"  # a model of its own
