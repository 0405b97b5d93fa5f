"""Texts with their entity graphs in RadGraph's schema (Jain et al. 2021, arXiv 2106.14463), made from templates.

    "There is a {size}/O>effusion {side}/A>pleural pleural/A effusion/O@pleural ."

`word/LABEL` is an entity with label A (anatomy), O (observation, definitely present), N (definitely absent) or U
(uncertain). `>word`, `@word` and `~word` are relations to another entity of the same sentence: modify, located at and
suggestive of. Words joined by `_` are one entity. Text and graph come from one source and always agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

LABELS = {
    "A": "Anatomy::definitely present",
    "O": "Observation::definitely present",
    "N": "Observation::definitely absent",
    "U": "Observation::uncertain",
}
RELATIONS = {">": "modify", "@": "located_at", "~": "suggestive_of"}


@dataclass(frozen=True, slots=True)
class TemplateEntity:
    """An entity that spans tokens `start` to `end`, inclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation of type `kind` from `entities[head]` to `entities[tail]`."""

    head: int
    tail: int
    kind: str


@dataclass(frozen=True, slots=True)
class AnnotatedText:
    """A tokenised text (wordpunct, as `radgraph-xl` splits it) and its graph."""

    tokens: tuple[str, ...]
    entities: tuple[TemplateEntity, ...]
    relations: tuple[Relation, ...]

    @property
    def text(self) -> str:
        """The tokens joined with normal spacing."""
        return re.sub(r" ([.,:])", r"\1", " ".join(self.tokens)).replace(" - ", "-")


_WORD = re.compile(r"(?P<text>[^/]+)(?:/(?P<label>[AONU])(?P<links>(?:[>@~][^>@~]+)*))?$")


def annotate(template: str) -> AnnotatedText:
    """Parse a template whose slots are filled, and capitalise its first letter."""
    tokens: list[str] = []
    entities: list[TemplateEntity] = []
    links: list[tuple[int, str, str]] = []
    places: dict[str, int] = {}
    for word in template.split():
        match = _WORD.match(word)
        if match is None:
            raise ValueError(f"template word {word!r} in {template!r}")
        parts = match["text"].split("_")
        start = len(tokens)
        tokens.extend(parts)
        if match["label"]:
            places.setdefault(match["text"].lower(), len(entities))
            for kind, target in re.findall(r"([>@~])([^>@~]+)", match["links"] or ""):
                links.append((len(entities), kind, target.lower()))
            entities.append(TemplateEntity(start, len(tokens) - 1, LABELS[match["label"]]))
    if tokens:
        tokens[0] = tokens[0][:1].upper() + tokens[0][1:]
    relations = tuple(Relation(head, places[target], RELATIONS[kind]) for head, kind, target in links)
    return AnnotatedText(tuple(tokens), tuple(entities), relations)


def join(texts: Iterable[AnnotatedText]) -> AnnotatedText:
    """Concatenate texts and their graphs."""
    tokens: list[str] = []
    entities: list[TemplateEntity] = []
    relations: list[Relation] = []
    for text in texts:
        shift, first = len(tokens), len(entities)
        tokens.extend(text.tokens)
        entities.extend(TemplateEntity(e.start + shift, e.end + shift, e.label) for e in text.entities)
        relations.extend(Relation(r.head + first, r.tail + first, r.kind) for r in text.relations)
    return AnnotatedText(tuple(tokens), tuple(entities), tuple(relations))
