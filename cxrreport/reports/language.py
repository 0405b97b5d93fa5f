"""Whether a report is in English, for which the rules of this package are written."""

from __future__ import annotations

import tempfile
from functools import cache
from typing import Any

from cxrreport.errors import OutputError

_LANGUAGES = """
    ar cs da de el en es fa fi fr he hi hu id it ja ko nl no pl pt ro ru sv th tr uk vi zh
"""
_SURE = 0.6
"""Probability of another language. Telegraphic English (`Bibasilar atelectasis.`) has up to 0.6 for some other one."""
_ENOUGH = 4000
"""Characters that are read."""


def is_other_language(text: str) -> bool:
    """True if a report is in another language than English, by its letters; False if it is too short to say."""
    scores = dict(_identifier().rank(text[:_ENOUGH])) if any(map(str.isalpha, text[:_ENOUGH])) else {}
    return any(score >= _SURE for language, score in scores.items() if language != "en")


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    try:
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    except OSError as error:  # it is unpacked into a temporary file
        raise OutputError(
            f"{tempfile.gettempdir()}: no temporary file of 20 MB can be written ({error.strerror}): the disk is full, "
            "or set TMPDIR to another folder"
        ) from error
    identifier.set_languages(_LANGUAGES.split())
    return identifier
