"""RTF and HTML as plain text, in time that is linear in the length of the text.

Only what a report needs is read: text, line breaks and characters; fonts, pictures, styles and scripts are skipped.
"""

from __future__ import annotations

import codecs
import html
import re

_RTF = re.compile(
    r"\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})? ?|\\'(?P<hex>[0-9a-fA-F]{2})|\\(?P<symbol>[^a-zA-Z])"
    r"|(?P<brace>[{}])|[\r\n]+|(?P<text>[^\\{}\r\n]+)",
    re.DOTALL,
)
_RTF_TEXT = {
    "par": "\n", "line": "\n", "sect": "\n", "page": "\n", "row": "\n", "cell": " ", "tab": " ", "emspace": " ",
    "enspace": " ", "emdash": "-", "endash": "-", "bullet": "-", "lquote": "'", "rquote": "'", "ldblquote": '"',
    "rdblquote": '"',
}  # fmt: skip
_RTF_HIDDEN = frozenset(
    [
        "fonttbl",
        "colortbl",
        "stylesheet",
        "info",
        "pict",
        "object",
        "header",
        "headerl",
        "headerr",
        "headerf",
        "footer",
        "footerl",
        "footerr",
        "footerf",
        "footnote",
        "listtable",
        "listoverridetable",
        "revtbl",
        "rsidtbl",
        "generator",
        "fldinst",
        "themedata",
        "datastore",
        "xmlnstbl",
        "latentstyles",
    ]
)
_TAG_NAMES = (
    r"a|abbr|address|article|b|big|blockquote|body|br|caption|center|cite|code|col|colgroup|dd|div|dl|dt|em|font|footer|"
    r"form|h[1-6]|head|header|hr|html|i|img|input|label|li|link|main|meta|nav|o:p|ol|p|pre|s|script|section|small|span|"
    r"strike|strong|style|sub|sup|table|tbody|td|tfoot|th|thead|title|tr|tt|u|ul|xml"
)
# Each attempt ends at the next `<` or after 2000 characters.
_TAG = re.compile(rf"<(?P<close>/?)(?P<name>{_TAG_NAMES})(?=[\s/>])[^<>]{{0,2000}}>|<!doctype[^<>]{{0,2000}}>", re.I)
_INLINE = frozenset(
    [
        "a",
        "abbr",
        "b",
        "big",
        "cite",
        "code",
        "em",
        "font",
        "i",
        "label",
        "o:p",
        "s",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "tt",
        "u",
    ]
)
_CELLS = frozenset({"td", "th", "col"})
_HIDDEN = frozenset({"head", "script", "style", "title", "xml"})
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def without_markup(text: str) -> str:
    """The text of RTF or HTML, with entities resolved; a plain text as it is.

    What is not closed ends with the text. HTML that was escaped once more (`&lt;br&gt;`) is read as well.
    """
    if text.lstrip().startswith("{\\rtf"):
        text = _from_rtf(text)
    for _ in range(2):
        if _TAG.search(text):
            text = _from_html(text)
        if not _ENTITY.search(text):
            break
        text = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
    return text


def _from_rtf(text: str) -> str:
    out: list[str] = []
    encoding = "cp1252"
    hidden_since, depth, skip = 0, 0, 0  # 0: nothing is hidden
    skip_after: list[int] = [1]  # characters that repeat the one before for readers without Unicode, per group
    starts = False  # just after an opening brace
    for match in _RTF.finditer(text):
        word, symbol, brace = match["word"], match["symbol"], match["brace"]
        if brace == "{":
            depth += 1
            skip_after.append(skip_after[-1])
        elif brace == "}":
            if depth == hidden_since:
                hidden_since = 0
            depth -= 1
            if depth <= 0:
                break  # what follows the document is not part of it
            skip_after.pop()
        elif (word and starts and word in _RTF_HIDDEN) or (symbol == "*" and starts):
            hidden_since = hidden_since or depth
        elif word == "ansicpg":
            encoding = _known_encoding(match["number"])
        elif word == "uc":
            skip_after[-1] = min(int(match["number"] or 1), 8)
        elif hidden_since:
            pass
        elif word == "u":
            code = int(match["number"] or 63) % 0x10000
            out.append(chr(code))
            skip = skip_after[-1]
            continue
        elif word:
            out.append(_RTF_TEXT.get(word, ""))
        elif symbol:
            out.append(
                {"~": " ", "_": "-", "-": "", "\n": "\n", "\r": "\n"}.get(symbol, symbol if symbol in "\\{}" else "")
            )
        elif match["hex"]:
            if skip:
                skip -= 1
                continue
            out.append(bytes.fromhex(match["hex"]).decode(encoding, errors="replace"))
        elif match["text"]:
            out.append(match["text"][skip:])
        starts = brace == "{" or (starts and symbol == "*")
        skip = 0
    # Characters beyond U+FFFF are written as two halves.
    return "".join(out).encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


def _known_encoding(number: str | None) -> str:
    try:
        return codecs.lookup(f"cp{number}").name
    except LookupError:
        return "cp1252"


def _from_html(text: str) -> str:
    out: list[str] = []
    end, hidden = 0, ""
    for match in _TAG.finditer(text):
        name = (match["name"] or "").lower()
        if hidden:
            if match["close"] and name == hidden:
                end, hidden = match.end(), ""
            continue
        out.append(text[end : match.start()])
        out.append("" if name in _INLINE else " " if name in _CELLS else "\n")
        end = match.end()
        if name in _HIDDEN and not match["close"] and match.group()[-2] != "/":
            hidden = name
    return _without_comments("".join([*out, "" if hidden else text[end:]]))


def _without_comments(text: str) -> str:
    parts = text.split("<!--")
    return "".join([parts[0], *(part.partition("-->")[2] for part in parts[1:])])
