"""Reports as they are stored and pasted, as plain text, in time linear in their length."""

from __future__ import annotations

import re
import unicodedata

from cxrreport.reports.rich_text import without_markup

MOST_CHARACTERS = 100_000
"""A longer text is no report of one examination: the longest report of MIMIC-CXR has a few thousand."""

# Line breaks as HL7 version 2 (`\.br\`, `\X0D\`), spreadsheets and escaped exports write them.
_ESCAPED_BREAK = re.compile(r"\\\.br\\|\\X0[AaDd]\\|_x000[dD]_\n?")
_LITERAL_BREAK = re.compile(r"(?:\\r)?\\n|\\r")
_BREAK = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
_LIGATURE = re.compile("[\ufb00-\ufb06\uff01-\uff5e]")
_PLAIN = re.compile(r"[\n\t -%'-;=-\[\]-~]*")  # ASCII without `&`, `<` and the backslash
_DROPPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Categories of control, format, surrogate, private and unassigned characters."""


class TooLongError(ValueError):
    """A text that is too long for a report."""


def plain_text(text: str) -> str:
    """A report without markup, control characters and characters without width or with a direction only.

    RTF and HTML become their text, escaped line breaks become line breaks, and full-width letters and ligatures become
    plain ones. The rest is composed (Unicode normalisation form C).

    Raises:
        TooLongError: the result has more than `MOST_CHARACTERS`.
    """
    if len(text) <= MOST_CHARACTERS and _PLAIN.fullmatch(text) and "_x000" not in text:
        return text
    text = _ESCAPED_BREAK.sub("\n", without_markup(text))
    if "\n" not in text and "\\" in text:
        text = _LITERAL_BREAK.sub("\n", text)
    if len(text) > 50 * MOST_CHARACTERS:
        raise TooLongError
    text = _BREAK.sub("\n", text)
    if not text.isascii():
        text = _LIGATURE.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)
        text = unicodedata.normalize("NFC", text)
    text = "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in _DROPPED)
    if len(text) > MOST_CHARACTERS:
        raise TooLongError
    return text
