"""What the documentation makes from the code: tables of settings, and the words of findings."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cxrreport import settings
from cxrreport.evaluation.clinical.vocabulary import RULES, Says
from cxrreport.settings import CommandSettings, Settings

ROAD = ("tracking", "ingestion", "model", "training", "reward", "inference", "evaluation", "pacs", "serving", "demo")
"""Modules of `cxrreport.settings`, in the order in which a reader meets them."""
PLACE = "<!-- tables of settings -->"
WORDS = "<!-- table of findings -->"
SAYS = {
    Says.PRESENT: "there",
    Says.DOUBTFUL: "doubtful",
    Says.NORMAL: "absent (implied)",
    Says.DENIED: "absent, when it is denied",
    Says.NO_PROCESS: "normal, when it is denied",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls it with the text of every page."""
    for place, made in ((PLACE, tables), (WORDS, words)):
        if place in markdown:
            markdown = markdown.replace(place, "\n".join(made()))
    return markdown


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
