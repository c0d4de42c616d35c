"""Tables of text, as spreadsheet programs and people write them.

Excel separates cells by semicolons where the comma is in numbers, by tabs in its "Unicode text",
and says which with a first line `sep=;`. Columns go by their names, in capitals or not.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lus_cli.errors import LusError
from lus_cli.study.spellings import canonical

MAX_TEXT = 64 << 20  # bytes of a table: those of a million videos
DELIMITERS = ",;\t|"
SEPARATOR_LINE = re.compile(r"""["']?sep=(.)["']?[;,\t]*\r?\n?""", re.IGNORECASE)
SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
# How the files of spreadsheet programs begin: zip archives, OLE2, and the pages some call .xls.
SPREADSHEET_STARTS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"<html", b"<HTML", b"<!DOC", b"<?xml")
# UTF-32 first: its mark begins with that of UTF-16.
MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
AS_CSV = "save it as CSV: in Excel, Save As, `CSV UTF-8 (Comma delimited)`"


def read_text(path: Path, remedy: str) -> str:
    """The text of a table, in UTF-8 or UTF-16. Raises LusError, with `remedy` if there is no file."""
    try:
        size = path.stat().st_size
        if size > MAX_TEXT:
            raise LusError(
                f"{path} is larger than {MAX_TEXT >> 20} MB", "that is not a table of videos"
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise LusError(f"there is no file {path}", remedy) from None
    except OSError as error:
        raise LusError(f"{path} cannot be read", error.strerror or str(error)) from error
    if path.suffix.lower() in SPREADSHEETS or content.lstrip().startswith(SPREADSHEET_STARTS):
        raise LusError(f"{path} is a spreadsheet, not a table of text", AS_CSV)
    return decoded(path, content)


def decoded(path: Path, content: bytes) -> str:
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8-sig")
    if content[1:2] == b"\0" != content[:1] and encoding == "utf-8-sig":
        encoding = "utf-16-le"  # without its mark
    elif content[:1] == b"\0" != content[1:2] and encoding == "utf-8-sig":
        encoding = "utf-16-be"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LusError(
            f"{path}, line {line}: it is not UTF-8 text, so its letters cannot be told", AS_CSV
        ) from None


@dataclass(frozen=True)
class Header:
    """The line of a table that names its columns, and how the table is to be read."""

    columns: list[str]  # as `column_key` writes them
    written: list[str]
    delimiter: str


def column_key(name: str) -> str:
    """A column's name in small letters and with _ for spaces: `Severity Score` is severity_score."""
    return re.sub(r"[\s_]+", "_", canonical(name.strip())).casefold()


def without_separator_line(text: str) -> tuple[str, str]:
    """The table below a first line `sep=;`, and the delimiter that it states; empty: none."""
    stated = SEPARATOR_LINE.match(text)
    return (text[stated.end() :], stated[1]) if stated else (text, "")


def find_header(text: str, columns: Sequence[str]) -> Header:
    """The first line that is not empty, cut by the delimiter that shows most of `columns`.

    Raises csv.Error if it cannot be read.
    """
    table, stated = without_separator_line(text)
    headers = []
    for delimiter in stated or DELIMITERS:
        rows = csv.reader(io.StringIO(table, newline=""), delimiter=delimiter)
        written = next(([canonical(c.strip()) for c in row] for row in rows if has_cells(row)), [])
        headers.append(Header([column_key(name) for name in written], written, delimiter))
    return max(headers, key=lambda header: len(set(columns) & set(header.columns)))


def has_cells(row: Sequence[str]) -> bool:
    """Whether a row holds anything: spreadsheets leave rows of empty cells."""
    return any(canonical(cell.strip()) for cell in row)


def csv_rows(
    path: Path, text: str, columns: Collection[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row, by the keys of the columns (see `column_key`).

    Cells are as `canonical` writes them. Raises LusError if one of `columns` is missing, if two
    columns have one name, or for a row that does not have the header's cells.
    """
    table, stated = without_separator_line(text)
    line = 0
    try:
        header = find_header(text, list(map(column_key, columns)))
        refuse_columns(path, header, columns)
        reader = csv.reader(io.StringIO(table, newline=""), delimiter=header.delimiter)
        is_header = True
        for row in reader:
            line = reader.line_num + bool(stated)
            if not has_cells(row):
                continue
            if is_header:
                is_header = False
                continue
            yield line, cells_of(path, line, header, row, columns)
    except csv.Error as error:
        raise LusError(f"{path}, line {line + 1}: {error}", "correct the line") from error


def refuse_columns(path: Path, header: Header, columns: Collection[str]) -> None:
    """Raises LusError for a column that is missing, or there twice: which of the two is right?"""
    missing = [name for name in columns if column_key(name) not in header.columns]
    if missing:
        raise LusError(
            f"{path} has no column {', '.join(missing)}", f"it has {', '.join(header.written)}"
        )
    times = Counter(filter(None, header.columns))
    for key, count in times.items():
        if count > 1:
            pairs = zip(header.columns, header.written, strict=True)
            names = " and ".join(repr(written) for known, written in pairs if known == key)
            raise LusError(
                f"{path} has {count} columns of one name: {names}", "rename or remove all but one"
            )


def cells_of(
    path: Path, line: int, header: Header, row: Sequence[str], columns: Collection[str]
) -> dict[str, str]:
    """A row's cells by their columns.

    Excel leaves out empty cells at the end of a row, and other programs add some: only a cell of
    `columns` must be there. Raises LusError for other rows.
    """
    count = len(header.columns)
    needed = max(header.columns.index(column_key(name)) for name in columns) + 1
    if len(row) < needed or has_cells(row[count:]):
        raise LusError(
            f"{path}, line {line}: not {count} cells",
            "correct the line; a cell with the delimiter in it stands in double quotes",
        )
    filled = [*row[:count], *[""] * (count - len(row))]
    pairs = zip(header.columns, filled, strict=True)
    return {key: canonical(cell.strip()) for key, cell in pairs if key}
