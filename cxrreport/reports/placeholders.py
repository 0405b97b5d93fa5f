"""Placeholders: marks that replace text removed for privacy, `___` in MIMIC-CXR and `XXXX` in Open-i."""

from __future__ import annotations

import re

_PLACEHOLDER = re.compile(r"(?<!\w)(?:_{3,}|X{4,})(?:'s)?(?!\w)")
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]")


def edit_placeholders(text: str, mode: str) -> str:
    """Keep or remove the placeholders of a section, or write all of them as `___`.

    Args:
        text: one section.
        mode: `keep`, `remove` or `underscores`.
    """
    if mode == "keep":
        return text
    if mode == "underscores":
        return _PLACEHOLDER.sub("___", text)
    text = _EMPTY_BRACKETS.sub("", _PLACEHOLDER.sub("", text))
    text = re.sub(r"\s+([.,;:?!])", r"\1", " ".join(text.split()))
    return re.sub(r"([,;])(?:\s*[,;])+", r"\1", text).strip()
