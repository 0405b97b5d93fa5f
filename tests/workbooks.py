"""Workbooks by hand, as no library would write them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRICT = ("http://purl.oclc.org/ooxml/spreadsheetml/main", "http://purl.oclc.org/ooxml/officeDocument/relationships")
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"
STYLES = (
    '<numFmts><numFmt numFmtId="164" formatCode="00000000"/><numFmt numFmtId="165" formatCode="dd/mm/yyyy hh:mm"/>'
    '<numFmt numFmtId="166" formatCode="[h]:mm"/><numFmt numFmtId="167" formatCode="0.0 &quot;days&quot;"/></numFmts>'
    '<cellStyleXfs count="1"><xf numFmtId="14"/></cellStyleXfs><cellXfs>'
    + "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 164, 165, 166, 167, 49))
    + "</cellXfs>"
)
"""Styles 1 to 6: a date, eight digits, a date with time, hours, days as a number, text."""


def text(place: str, value: str) -> str:
    """A cell with its own text."""
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{value}</t></is></c>'


def rows(*lines: Sequence[str], first: int = 1) -> str:
    """Sheet data: each value an own text, or the XML of a cell; an empty value is no cell."""
    found = []
    for number, line in enumerate(lines, start=first):
        cells = [
            value if value.startswith("<c") else text(f"{chr(ord('A') + column)}{number}", value)
            for column, value in enumerate(line)
            if value
        ]
        found.append(f'<row r="{number}">{"".join(cells)}</row>')
    return f"<sheetData>{''.join(found)}</sheetData>"


def workbook(
    path: Path,
    sheets: Mapping[str, str] | str,
    *,
    strings: str = "",
    before: str = "",
    after: str = "",
    states: Mapping[str, str] | None = None,
    namespaces: tuple[str, str] = (MAIN, RELATIONS),
    parts: Mapping[str, bytes | str] | None = None,
) -> Path:
    """Write a workbook.

    Args:
        path: the file.
        sheets: content of `worksheet` by name of the sheet; or of the only one.
        strings: content of `sst`.
        before: elements before the list of sheets.
        after: elements after it.
        states: sheets that are not visible.
        namespaces: of sheets and of references.
        parts: other parts, or other content of these.
    """
    main, relations = namespaces
    named = {"Sheet1": sheets} if isinstance(sheets, str) else dict(sheets)
    listed = {f"rId{n}": ("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(named) + 1)}
    listed |= {"rS": ("sharedStrings", "sharedStrings.xml"), "rT": ("styles", "styles.xml")}
    content: dict[str, bytes | str] = {
        "[Content_Types].xml": f'<Types xmlns="{_TYPES}"><Default Extension="xml" ContentType="application/xml"/>'
        + "".join(
            f'<Override PartName="/xl/{name}.xml" ContentType="{_KIND}.{kind}+xml"/>'
            for name, kind in (("workbook", "sheet.main"), ("sharedStrings", "sharedStrings"), ("styles", "styles"))
        )
        + "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}"><Relationship Id="r" Type="{relations}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}">'
        + "".join(
            f'<Relationship Id="{name}" Type="{relations}/{kind}" Target="{target}"/>'
            for name, (kind, target) in listed.items()
        )
        + "</Relationships>",
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}">{before}<sheets>'
        + "".join(
            f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}" state="{(states or {}).get(name, "visible")}"/>'
            for n, name in enumerate(named, start=1)
        )
        + f"</sheets>{after}</workbook>",
        "xl/sharedStrings.xml": f'<sst xmlns="{main}">{strings}</sst>',
        "xl/styles.xml": f'<styleSheet xmlns="{main}">{STYLES}</styleSheet>',
    }
    for n, one in enumerate(named.values(), start=1):
        content[f"xl/worksheets/sheet{n}.xml"] = f'<worksheet xmlns="{main}">{one}</worksheet>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (content | dict(parts or {})).items():
            archive.writestr(name, data)
    return path
