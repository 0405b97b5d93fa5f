"""The reader for tables that users provide: CSV, gzipped CSV, JSONL, Parquet and workbooks of Excel.

Every command reads them here, so that all agree on names of columns, ids and missing cells.
"""

from __future__ import annotations

import gzip
import math
import re
import stat
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.errors import InputError
from cxrreport.storage.decoding import UnreadableTextError, decode, is_damaged, parse_json
from cxrreport.storage.memory_limit import limited_memory
from cxrreport.storage.table_formats.column_names import IDS, WantedColumns, column_name
from cxrreport.storage.table_formats.csv_text import Lines, csv_rows
from cxrreport.storage.table_formats.messages import say_once, what_was_taken
from cxrreport.storage.table_formats.other_kinds import refused_kind

_ZIP = b"PK\x03\x04"
TABLE_SUFFIXES = (".jsonl", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".xlsx", ".xlsm")
_REFUSED_SUFFIXES = (".xls", ".xlsb", ".ods")
"""Other spreadsheets. Texts and workbooks of Excel have these names too, so what a file is decides."""
MAX_BYTES = 512 << 20
"""Largest text of a table, after decompression."""
MAX_ROW = 16 << 20
"""Longest text of one row, characters."""
MAX_MEMORY = 2 << 30
"""Memory for a table and its reader, bytes. A megabyte of CSV can take 30, and a kilobyte of Parquet gigabytes. The
rows are counted while they grow; what a reader takes besides, the operating system limits, on Linux."""
_OTHER = 64 << 20  # what reserves address space without taking memory: an allocator, modules that are loaded
_ROW, _CELL = 200, 90  # bytes of a dict, and of one of its cells besides its characters
_BATCH, _SMALL_BATCH = 32, 4  # rows of Parquet that are decoded before they are counted
_LARGE_CHUNK = 64 << 20  # of Parquet: a value can be as long, and is there once in a dictionary

MISSING = frozenset({"nan", "none", "null", "na", "<na>", "n/a"})
"""Texts of a missing cell besides the empty one, in lower case, as spreadsheets, R, SQL and pandas write them."""
_NONE: Mapping[str, str] = {}
_NO_METADATA: Mapping[bytes, bytes] = {}
_FILES = frozenset({"image", "filename"})
_WHOLE_NUMBER = re.compile(r"^(\d+)\.0+$")
_EXACT = 2**53  # whole numbers below it have lost no digits as floating-point numbers


@dataclass(frozen=True, slots=True)
class Table:
    """A table in memory.

    Args:
        path: the file that was read.
        columns: names of the columns (`column_name`), in the order of the file.
        rows: one dict per row. JSONL and Parquet values keep their types; CSV values are texts. NaN and the texts of
            `MISSING` are `None`, and an id that is a whole number with decimals (`5000.0`) is a text without them.
        metadata: key-value metadata of a Parquet file.
        taken: what was detected and taken (`messages.what_was_taken`).
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    metadata: Mapping[bytes, bytes] = field(default_factory=dict)
    taken: str = ""

    def require(self, *names: str) -> None:
        """Raise an `InputError` that lists the missing columns unless all of `names` are present."""
        if missing := [name for name in names if name not in self.columns]:
            found = ", ".join(sorted(self.columns)) or "none"
            raise InputError(f"{self.path}: no column {', '.join(missing)}; found {found}")


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its name, also one of a spreadsheet that cannot be read."""
    return path.name.lower().endswith(TABLE_SUFFIXES + _REFUSED_SUFFIXES)


def read_table(
    path: Path,
    *,
    columns: Collection[str] | None = None,
    used: Collection[str] | None = None,
    renamed: Mapping[str, str] = _NONE,
    others: Mapping[str, str] = _NONE,
    sheet: str | None = None,
    most: int | None = None,
    own: bool = False,
) -> Table:
    """Read a table, and log one line about what was taken.

    Args:
        path: a file with one of `TABLE_SUFFIXES`. Text is decoded by `decoding.decode_text`; CSV needs a header row,
            and commas, semicolons or tabs. A workbook under the name of a text is read, and the other way round.
        columns: names of the columns to read, those that are present; `None` for all.
        used: names that may not be those of several columns; other columns of one name are left out. `None` for all.
        renamed: columns of the file (in any spelling) that are read under another name.
        others: `column_name` to the name under which it is read where no column has that name.
        sheet: of a workbook; `None` if only one has data.
        most: rows to read, to look at a table; nothing is logged then. `None` for all.
        own: a file of cxrreport itself; nothing is logged.

    Raises:
        InputError: the file has another suffix, cannot be read, is malformed, or exceeds `MAX_BYTES`, `MAX_ROW` or
            `MAX_MEMORY`.
    """
    wanted = WantedColumns(path, columns, used, renamed, others)
    if not is_table(path):
        raise InputError(f"{path}: expected a table with a name that ends in {', '.join(TABLE_SUFFIXES)}")
    # Causes are dropped: the messages of the parsers, and the decoding error itself, hold text of the table.
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would block
            raise InputError(f"{path}: not a regular file")
        with limited_memory(MAX_MEMORY + _OTHER):
            table = _read(path, wanted, sheet, most)
    except UnreadableTextError as error:
        # Not a row with a reason: what does not decode shows that the rest may not be what it says either.
        raise InputError(f"{path}, {error}; export the table again as UTF-8, or correct that line") from None
    except MemoryError:
        limit = f"{MAX_MEMORY >> 20} MiB, or than there is"
        raise InputError(f"{path}: the table takes more memory than {limit}; split it") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"{path}: the table cannot be read ({reason})") from None
    # Checked for the table, as a row of JSONL may lack any of its columns.
    if missing := sorted(column_name(name) for name, target in renamed.items() if target not in table.columns):
        raise InputError(f"{path}: no column {', '.join(missing)}; found {', '.join(sorted(table.columns))}")
    if most is None and not own:
        say_once(path, table.taken)
    return table


def read_text_table(
    path: Path,
    *,
    required: Sequence[str] = (),
    optional: Collection[str] = (),
    renamed: Mapping[str, str] = _NONE,
    others: Mapping[str, str] = _NONE,
    sheet: str | None = None,
    most: int | None = None,
    own: bool = False,
) -> list[dict[str, str]]:
    """Read a table as texts without surrounding white space; a missing value becomes an empty text.

    Args:
        path: as for `read_table`.
        required: columns that must be present.
        optional: other columns that are used if they are present, besides ids and file names.
        renamed: as for `read_table`.
        others: as for `read_table`.
        sheet: as for `read_table`.
        most: as for `read_table`.
        own: as for `read_table`.

    Returns:
        One dict per row, keyed by `column_name`.

    Raises:
        InputError: the table cannot be read, a required column is missing, or an id or file name lost characters.
    """
    used = {*required, *optional, *IDS, *_FILES}
    table = read_table(path, used=used, renamed=renamed, others=others, sheet=sheet, most=most, own=own)
    table.require(*required)
    for name in (IDS | _FILES).intersection(table.columns):
        for number, row in enumerate(table.rows, start=1):
            if is_damaged(str(row.get(name))):
                raise InputError(f"{path}, row {number}: {name} has a NUL or a character that was decoded with loss")
    return [{name: "" if value is None else str(value).strip() for name, value in row.items()} for row in table.rows]


def _read(path: Path, wanted: WantedColumns, sheet: str | None, most: int | None) -> Table:
    """Read a table by what it is: names of spreadsheets say little."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _read_parquet(path, wanted, most)
    with path.open("rb") as file:
        head = file.read(512)
    if kind := refused_kind(head, path):
        raise InputError(f"{path}: {kind}; save its sheet as XLSX, or as CSV in UTF-8")
    if head.startswith(_ZIP):
        take = _Budget(path).take
        from cxrreport.storage.table_formats.workbook import Limits, read_workbook  # loads openpyxl

        limits = Limits(MAX_BYTES, MAX_ROW, most, take)
        names, texts, kind, note = read_workbook(path, wanted, sheet, limits)
        rows = [{name: _cell(value) for name, value in row.items()} for row in texts]
        return _table(path, names, rows, kind, note)
    if sheet is not None:
        raise InputError(f"{path}: not a workbook, so it has no sheet {sheet}; leave out the name of the sheet")
    return _read_jsonl(path, wanted, most) if name.endswith(".jsonl") else _read_csv(path, wanted, most)


def _read_parquet(path: Path, wanted: WantedColumns, most: int | None) -> Table:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = wanted.of(schema.names)
            budget = _Budget(path)
            rows: list[dict[str, Any]] = []
            budget.check(file.metadata.num_rows, file.metadata.num_rows * len(names))
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
            chunks = [group.column(column) for group in groups for column in range(group.num_columns)]
            large = any(chunk.total_uncompressed_size > _LARGE_CHUNK for chunk in chunks)
            batch_size = _SMALL_BATCH if large else _BATCH
            for batch in file.iter_batches(batch_size, columns=list(names), use_threads=False):
                for column in batch.columns:
                    budget.take(0, batch.num_rows, _dense_size(column))
                budget.take(batch.num_rows, 0, 0)
                rows += batch.to_pylist()
                if most is not None and len(rows) >= most:
                    break
    except MemoryError:
        raise
    except pa.ArrowException:
        raise InputError(f"{path}: not a Parquet file, or damaged") from None
    rows = [{names[name]: _cell(value) for name, value in row.items()} for row in rows]
    return _table(path, names, rows[:most], "Parquet", metadata=schema.metadata or {})


def _dense_size(column: pa.Array) -> int:
    """Bytes of a column when its dictionary, if it has one, is written out."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    return int(column.dictionary.nbytes) * len(column)


def _read_jsonl(path: Path, wanted: WantedColumns, most: int | None) -> Table:
    rows: list[dict[str, Any]] = []
    all_names: dict[str, str] = {}
    budget = _Budget(path)
    text, encoding = _text(path)
    lines = Lines(path, text, MAX_ROW)
    for number, line in enumerate(lines, start=1):
        lines.begin_row()
        if not line.strip():
            continue
        if len(rows) == most:
            break
        budget.take(1, sum(map(line.count, ",:[{")), len(line))
        try:
            row = parse_json(line)
        except ValueError:
            raise InputError(f"{path}, line {number}: not JSON; a .jsonl file holds one object per line") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object")
        names = wanted.of(row)
        rows.append({normal: _cell(row[name]) for name, normal in names.items()})
        all_names |= names
    return _table(path, all_names, rows, f"JSONL, {encoding}")


def _read_csv(path: Path, wanted: WantedColumns, most: int | None) -> Table:
    text, encoding = _text(path)
    delimiter, lines = csv_rows(path, text, MAX_ROW)
    _, header = next(lines, (0, []))
    if not header:
        raise InputError(f"{path}: not a CSV file (it is empty)")
    names = wanted.of(header)
    places = [(header.index(name), normal) for name, normal in names.items()]
    rows: list[dict[str, Any]] = []
    budget = _Budget(path)
    for number, cells in lines:
        if len(rows) == most:
            break
        if len(cells) != len(header):
            detail = f"{len(cells)} cells, and the header has {len(header)}"
            raise InputError(f"{path}, line {number}: not a CSV file ({detail}); check the quotes of this line")
        if any(cells):
            budget.take(1, len(places), sum(len(cells[place]) for place, _ in places))
            rows.append({normal: _cell(cells[place]) for place, normal in places})
    return _table(path, names, rows, f"CSV, {encoding}, {delimiter}")


class _Budget:
    """Counts the memory of a table while it grows, so that nothing much larger is ever held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = 0

    def check(self, rows: int, cells: int) -> None:
        """Raise an `InputError` if so many rows and cells alone exceed `MAX_MEMORY`."""
        taken = self._taken
        self.take(rows, cells, 0)
        self._taken = taken

    def take(self, rows: int, cells: int, size: int) -> None:
        """Count some rows, their cells, and the size of their contents, bytes or characters.

        Raises:
            InputError: the table exceeds `MAX_MEMORY`.
        """
        self._taken += _ROW * rows + _CELL * cells + size
        if self._taken > MAX_MEMORY:
            raise InputError(f"{self._path}: its rows take more than {MAX_MEMORY >> 20} MiB of memory; split the table")


def _text(path: Path) -> tuple[str, str]:
    """The text of a file, which may be gzipped, and its encoding.

    Raises:
        InputError: it has more than `MAX_BYTES`.
    """
    data = bytearray()
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        while part := file.read(1 << 20):
            data += part
            if len(data) > MAX_BYTES:
                raise InputError(f"{path}: more than {MAX_BYTES >> 20} MiB of text; split it, or write it as Parquet")
    if data.startswith(_ZIP):
        raise InputError(f"{path}: a compressed workbook; unpack it, as workbooks are compressed in themselves")
    return decode(data)


def _cell(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return None if isinstance(value, str) and value.strip().lower() in MISSING else value


def _table(
    path: Path,
    names: Mapping[str, str],
    rows: list[dict[str, Any]],
    kind: str,
    note: str = "",
    metadata: Mapping[bytes, bytes] = _NO_METADATA,
) -> Table:
    """A table with whole numbers as ids: a column of `5000.0` was a column of numbers with a missing value once."""
    columns = tuple(dict.fromkeys(names.values()))
    for name in IDS.intersection(columns):
        ids = [_id(row.get(name)) for row in rows]
        # With `1.2` among them they are no numbers, but for example UIDs.
        if all("." not in value or _WHOLE_NUMBER.fullmatch(value) for value in ids if isinstance(value, str)):
            ids = [_WHOLE_NUMBER.sub(r"\1", value) if isinstance(value, str) else value for value in ids]
        for row, value in zip(rows, ids, strict=True):
            if name in row:
                row[name] = value
    return Table(path, columns, rows, metadata, what_was_taken(kind, len(rows), names, note))


def _id(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return value.strip() if isinstance(value, str) else value
