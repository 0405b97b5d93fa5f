"""A filled checklist as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from cxrreport import __version__
from cxrreport.reporting.checklist import NOT_KNOWN, Answer
from cxrreport.storage.atomic_files import atomic_path

_INTRODUCTION = (
    "Items by topic, in the words of cxrreport, with what the records of the runs say. The guidelines have the exact "
    "wording and more items. Check every value; complete what is not known."
)
_HTML = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Reporting checklist</title><style>
body { font: 15px/1.4 sans-serif; margin: 2em auto; max-width: 70em; }
table { border-collapse: collapse; width: 100%; } th, td { border: 1px solid #bbb; padding: .3em .5em; text-align: left;
vertical-align: top; overflow-wrap: anywhere; } .unknown { color: #a00; }
</style></head><body>
<h1>Reporting checklist</h1>
<p>{{ introduction }} {{ known }} of {{ answers | length }} items are filled. cxrreport {{ version }}.</p>
{% for section in sections %}
<h2>{{ section }}</h2>
<table><tr><th>item</th><th>value</th><th>from</th><th>guidelines</th></tr>
{% for one in answers if one.section == section %}
<tr><td>{{ one.item }}</td><td{% if one.value == unknown %} class="unknown"{% endif %}>{{ one.value }}</td>
<td>{{ one.source }}</td><td>{{ one.guidelines | join(", ") }}</td></tr>
{% endfor %}
</table>
{% endfor %}
</body></html>
"""
)


def write_documents(answers: Sequence[Answer], folder: Path) -> tuple[Path, Path]:
    """Write `reporting.md` and `reporting.html`; returns both paths.

    Raises:
        OutputError: a file cannot be written.
    """
    paths = folder / "reporting.md", folder / "reporting.html"
    for path, text in zip(paths, (markdown(answers), html(answers)), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def markdown(answers: Sequence[Answer]) -> str:
    """The checklist as Markdown, one table per section."""
    lines = ["# Reporting checklist", "", f"{_INTRODUCTION} {_known(answers)} of {len(answers)} items are filled."]
    section = ""
    for one in answers:
        if one.section != section:
            section = one.section
            lines += ["", f"## {section}", "", "| item | value | from | guidelines |", "|---|---|---|---|"]
        cells = (one.item, one.value, one.source, ", ".join(one.guidelines))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def html(answers: Sequence[Answer]) -> str:
    """The checklist as one HTML page."""
    return _HTML.render(
        answers=answers,
        sections=list(dict.fromkeys(one.section for one in answers)),
        introduction=_INTRODUCTION,
        known=_known(answers),
        unknown=NOT_KNOWN,
        version=__version__,
    )


def _known(answers: Sequence[Answer]) -> int:
    return sum(one.value != NOT_KNOWN for one in answers)
