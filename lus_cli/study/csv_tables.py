"""Reads CSV tables as written by spreadsheet programs and people.

Excel separates cells by semicolons in countries with a decimal comma and by tabs in its "Unicode
text"; a first line such as `sep=;` states the delimiter. Column names are case-insensitive.
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

MAX_TEXT = 64 << 20  # bytes of a table: enough for a million videos
DELIMITERS = ",;\t|"
SEPARATOR_LINE = re.compile(r"""["']?sep=(.)["']?[;,\t]*\r?\n?""", re.IGNORECASE)
SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
# First bytes of spreadsheet files: zip archives, OLE2, and HTML pages that are called .xls.
SPREADSHEET_STARTS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"<html", b"<HTML", b"<!DOC", b"<?xml")
# Byte order marks. UTF-32 first: its mark begins with that of UTF-16.
MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# A text that a program wrote for Excel, which drops the zeros of 007 without the equals sign.
FORMULA = re.compile(r'="(.*)"')
AS_CSV = "save it as CSV: in Excel, Save As, `CSV UTF-8 (Comma delimited)`"


def read_text(path: Path, remedy: str) -> str:
    """The text of a table in UTF-8, UTF-16 or UTF-32.

    Raises LusError if it cannot be read, with `remedy` if the file does not exist.
    """
    try:
        size = path.stat().st_size
        if size > MAX_TEXT:
            raise LusError(
                f"{path} is larger than {MAX_TEXT >> 20} MB", "check that it is a table of videos"
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
            f"{path}, line {line}: it is not valid UTF-8, so some letters would be wrong", AS_CSV
        ) from None


@dataclass(frozen=True)
class Header:
    """The header of a table, and its delimiter."""

    columns: list[str]  # as `column_key` writes them
    written: list[str]
    delimiter: str


def column_key(name: str) -> str:
    """A column name in lower case, with _ for spaces: `Severity Score` is severity_score."""
    return re.sub(r"[\s_]+", "_", canonical(name.strip())).casefold()


def without_separator_line(text: str) -> tuple[str, str]:
    """The table without a first line `sep=;`, and the delimiter stated there, or ''."""
    stated = SEPARATOR_LINE.match(text)
    return (text[stated.end() :], stated[1]) if stated else (text, "")


def find_header(text: str, columns: Sequence[str]) -> Header:
    """The first non-empty line, split by the delimiter that yields most of `columns`.

    Raises csv.Error if the line is invalid.
    """
    table, stated = without_separator_line(text)
    headers = []
    for delimiter in stated or DELIMITERS:
        rows = csv.reader(
            io.StringIO(table, newline=""), delimiter=delimiter, skipinitialspace=True
        )
        written = next(([cell_text(cell) for cell in row] for row in rows if has_cells(row)), [])
        headers.append(Header([column_key(name) for name in written], written, delimiter))
    return max(headers, key=lambda header: len(set(columns) & set(header.columns)))


def cell_text(cell: str) -> str:
    """The content of a cell in canonical spelling; that of ="007" is 007."""
    text = cell.strip()
    formula = FORMULA.fullmatch(text)
    return canonical(formula[1].strip() if formula else text)


def has_cells(row: Sequence[str]) -> bool:
    """Whether a row has a cell that is not empty."""
    return any(map(cell_text, row))


def csv_rows(
    path: Path, text: str, columns: Collection[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line number and the cells of each row, by column keys (see `column_key`).

    Cells are in canonical spelling. Raises LusError if one of `columns` is missing, if two columns
    have the same name, if a quote is not closed, or if the number of cells in a row does not match
    the header.
    """
    table, stated = without_separator_line(text)
    line = 0
    try:
        header = find_header(text, list(map(column_key, columns)))
        refuse_columns(path, header, columns)
        # Strict: a quote that is not closed would take the next rows into its cell.
        reader = csv.reader(
            io.StringIO(table, newline=""),
            delimiter=header.delimiter,
            skipinitialspace=True,
            strict=True,
        )
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
        raise LusError(
            f"{path}, line {line + 1}: {error}",
            "correct the line; a cell that begins with a double quote ends with one",
        ) from error


def refuse_columns(path: Path, header: Header, columns: Collection[str]) -> None:
    """Raises LusError if one of `columns` is missing, or if a column name occurs twice."""
    if not any(header.written):
        raise LusError(
            f"the first line of {path} is empty", f"it names the columns: {', '.join(columns)}"
        )
    missing = [name for name in columns if column_key(name) not in header.columns]
    if missing:
        raise LusError(
            f"{path} has no column {', '.join(missing)}", f"it has {', '.join(header.written)}"
        )
    counts = Counter(filter(None, header.columns))
    for key, count in counts.items():
        if count > 1:
            pairs = zip(header.columns, header.written, strict=True)
            names = " and ".join(repr(written) for column, written in pairs if column == key)
            raise LusError(
                f"{path} has {count} columns with the same name: {names}",
                "rename or remove all but one",
            )


def cells_of(
    path: Path, line: int, header: Header, row: Sequence[str], columns: Collection[str]
) -> dict[str, str]:
    """The cells of a row by column key.

    A row may lack empty cells at its end, or have more, as spreadsheet programs differ. Raises
    LusError if a cell of `columns` is missing, or if there is content beyond the last column.
    """
    count = len(header.columns)
    needed = max(header.columns.index(column_key(name)) for name in columns) + 1
    if len(row) < needed or has_cells(row[count:]):
        raise LusError(
            f"{path}, line {line}: the row does not have {count} cells",
            "correct the line; put a cell that contains the delimiter in double quotes",
        )
    filled = [*row[:count], *[""] * (count - len(row))]
    pairs = zip(header.columns, filled, strict=True)
    return {key: cell_text(cell) for key, cell in pairs if key}
