"""Workbooks of a few kilobytes that ask for much memory or time."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from workbooks import MAIN, text, workbook

_HEAD = f'<row r="1">{text("A1", "study_id")}{text("B1", "text")}</row>'
_LAUGHS = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
_TYPE = f"<!DOCTYPE x [<!ENTITY a0 'haha'>{_LAUGHS}<!ENTITY file SYSTEM 'file:///etc/hostname'>]>"
_SHEET, _STRINGS, _STYLES = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml", "xl/styles.xml"


def write(folder: Path, within: int, beyond: int) -> dict[str, str]:
    """Write them.

    Args:
        folder: where.
        within: bytes of XML that are below the limit of a table.
        beyond: bytes that are above it.

    Returns:
        Name of the file to a word of the sentence that refuses it; empty if it is read.
    """

    def sheet(rows: str, after: str = "") -> str:
        return f"<sheetData>{_HEAD}{rows}</sheetData>{after}"

    def each(cells: str, size: int) -> str:
        return sheet("".join(f"<row>{cells}</row>" for _ in range(size)))

    def one(name: str, said: str, content: dict[str, str] | str, **options: object) -> None:
        workbook(folder / f"{name}.xlsx", content, **options)  # type: ignore[arg-type]
        expected[f"{name}.xlsx"] = said

    def typed(root: str, content: str) -> str:
        return f'{_TYPE}<{root} xmlns="{MAIN}">{content}</{root}>'

    expected: dict[str, str] = {}
    reference = '<c t="s"><v>0</v></c>'
    one("blank", "MiB of text", sheet(" " * beyond))
    one("strings", "MiB of text", sheet(""), strings=f"<si><t>{'a' * beyond}</t></si>")
    one("long-text", "a row of more than", each(reference, 1), strings=f"<si><t>{'a' * within}</t></si>")
    one("long-cell", "a row of more than", sheet(f"<row>{text('A2', 'a' * within)}</row>"))
    one("short-cells", "MiB of memory", each("<c><v>1</v></c><c><v>2</v></c>", within // 50))
    one("one-text", "MiB of memory", each(reference, 2000), strings=f"<si><t>{'a' * (1 << 19)} </t></si>")
    one("no-texts", "MiB of memory", sheet(""), strings="<si/>" * (within // 5))
    one("deep", "nest too deep", sheet("<is>" * (within // 4)))
    one("deep-texts", "nest too deep", sheet(""), strings="<si>" * (within // 4))
    one("tag", "a tag of more than", sheet(f'<row x="{"a" * within}"/>'))
    one("comment", "a tag of more than", sheet(f"<!--{'a' * within}-->"))
    one("rows", "more than 1048576", sheet('<row r="1048577"/>'))
    one("column", "more than 16384 columns", sheet('<row><c r="XFE2"><v>1</v></c></row>'))
    merges = '<mergeCell ref="A2:A1048576"/>' * 1000
    one("merges", "merged cells that overlap", sheet("", f"<mergeCells>{merges}</mergeCells>"))
    one("cells", "a row of more than 262144 elements", sheet(f"<row>{'<c/>' * (within // 4)}</row>"))
    one("between", "a row of more than 262144 elements", sheet("<x/>" * (within // 4)))
    one("sheets", "more than 1000 sheets", {f"S{n}": "" for n in range(1500)})
    one("name", "damaged", {"S" * 300: sheet("")})
    formats = f'<styleSheet xmlns="{MAIN}"><cellXfs>{"<xf/>" * (within // 5)}</cellXfs></styleSheet>'
    one("formats", "more than 524288 tags", sheet(""), parts={_STYLES: formats})
    one("laughs", "document type", sheet(""), parts={_SHEET: typed("worksheet", sheet("<row>&a9;</row>"))})
    one("laughing-texts", "document type", sheet(""), parts={_STRINGS: typed("sst", "<si><t>&a9;</t></si>")})
    one("file", "document type", sheet(""), parts={_STRINGS: typed("sst", "<si><t>&file;</t></si>")})
    one("media", "", sheet(f"<row>{text('A2', '1')}</row>"), parts={"xl/media/a.png": bytes(4 * beyond)})
    _lie(folder / "blank.xlsx", folder / "lie.xlsx")
    expected["lie.xlsx"] = "damaged"
    return expected


def _lie(source: Path, target: Path) -> None:
    """Copy a workbook, and let its archive state 100 bytes for the sheet."""
    with zipfile.ZipFile(source) as archive:
        size = archive.getinfo(_SHEET).file_size
    target.write_bytes(source.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 100)))
