"""Reports as they are stored and pasted become plain text, in linear time and without an error."""

from __future__ import annotations

import random
import unicodedata

import pytest

from cxrreport.reports.plain_text import MOST_CHARACTERS, TooLongError, plain_text

RTF = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Arial;}}{\colortbl;\red0\green0\blue0;}{\*\generator Word;}\pard"
    r"{\b FINDINGS:}  Clear lungs.\par Nodule \u8804?5 mm. Caf\'e9. \{sic\}\line{\field{\*\fldinst{HYPERLINK x}}"
    r"{\fldrslt See}}\par IMPRESSION: Normal.\par} after"
)
AS_TEXT = {
    RTF: "FINDINGS:  Clear lungs.\nNodule ≤5 mm. Café. {sic}\nSee\nIMPRESSION: Normal.\n",
    r"{\rtf1\ansicpg1251 \'cd\'ee\'f0\'ec\'e0}": "Норма",
    r"{\rtf1\uc0\u233 t\u233 \u-10179\u-8704}": "été😀",
    r"{\rtf1 open {\b clear}": "open clear",
    r"{\rtf1{\pict\pngblip 89504e47}Clear.}": "Clear.",
    "<p>FINDINGS:<br/>Clear <b>lungs</b>.</p>": "\nFINDINGS:\nClear lungs.\n",
    "<table><tr><td>Heart</td><td>normal</td></tr></table>": "\n\n Heart  normal \n\n",
    "<html><head><title>t</title><style>p{}</style></head><body>Hi<!-- no -->!</body></html>": "\n\n\nHi!\n\n",
    "<SCRIPT>var a = '<p>';</SCRIPT>Clear.": "\nClear.",
    "Heart &lt; 50%&nbsp;&amp; normal, caf&#233; &#x2264;5": "Heart < 50%\xa0& normal, café ≤5",
    "FINDINGS: a&lt;br&gt;IMPRESSION: b": "FINDINGS: a\nIMPRESSION: b",
    "FINDINGS: a\\nIMPRESSION: b": "FINDINGS: a\nIMPRESSION: b",
    "FINDINGS: a\\.br\\IMPRESSION: b\\X0D\\c": "FINDINGS: a\nIMPRESSION: b\nc",
    "FINDINGS: a_x000D_\nIMPRESSION: b": "FINDINGS: a\nIMPRESSION: b",
    "\ufeff\u202eFIND\u200bINGS\u200f: a\u00ad\u2066b\u2069": "FINDINGS: ab",
    "a\x07\x00\x1b\x7f\x9fb": "ab",
    "a\r\nb\rc\vd\x85e\u2028f": "a\nb\nc\nd\ne\nf",
    "ＦＩＮＤＩＮＧＳ： ﬁne": "FINDINGS: fine",
    "cafe\u0301 10 cm²": "café 10 cm²",
}
AS_IT_IS = (
    "", "Nodule <5 mm and >3 mm.", "A&P", "a<b", "<5", "Fluid < p 5", "R&D; B&W", "A <name> remains", "{rtf}", "a\\b",
    "Line one.\nC:\\new", "50% of T8/T9, 2/3", "été", "肺", "\t a  b ", "&unknown; &;", "<loc0001>", "___ XXXX",
)  # fmt: skip
UNITS = (
    "<", "<p ", "<p>", "<!--", "<script>", "&", "&amp;", "&lt;", "{\\rtf1", "{", "}", "\\", "\\u1", "\\'e9", "{\\pict",
    "a",
    "\\n", "\u0301", "\u200b", "\ufb01", "_x000D_", "\\X0D\\", "<" + "a" * 1990,
)  # fmt: skip


@pytest.mark.parametrize("given", AS_TEXT, ids=[text[:30] for text in AS_TEXT])
def test_becomes_text(given: str) -> None:
    assert plain_text(given) == AS_TEXT[given]


@pytest.mark.parametrize("text", AS_IT_IS)
def test_stays_as_it_is(text: str) -> None:
    assert plain_text(text) == text
    assert plain_text(plain_text(text)) == text


def test_texts_too_long_for_a_report() -> None:
    assert plain_text("a " * (MOST_CHARACTERS // 2))
    with pytest.raises(TooLongError):
        plain_text("a" * (MOST_CHARACTERS + 1))
    assert plain_text("{\\rtf1{\\pict " + "0a" * 10**6 + "}Clear.}") == "Clear."


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", UNITS, ids=repr)
def test_a_million_characters(unit: str) -> None:
    """With any quadratic step this takes hours."""
    for start in ("", "{\\rtf1 ", "<p>"):
        try:
            plain_text(start + unit * (10**6 // len(unit)))
        except TooLongError:
            continue


def test_random_texts() -> None:
    random_ = random.Random(0)
    for _ in range(2000):
        text = "".join(random_.choice((*UNITS, *AS_TEXT, *AS_IT_IS)) for _ in range(random_.randint(1, 6)))
        cut = text[random_.randrange(len(text) + 1) :]
        result = plain_text(cut)
        assert all(letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs") for letter in result)
