"""Reads annotations: scores, groups and findings, from Annotations.txt or CSV files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lus_cli.errors import LusError, UsageError
from lus_cli.files import csv_text
from lus_cli.study.csv_tables import csv_rows, find_header, read_text, without_separator_line
from lus_cli.study.ids import VideoId, is_name
from lus_cli.study.spellings import canonical, is_shortened

COLUMNS = ("patient", "exam", "area", "score")
GROUP = "group"  # an optional column
CSV_SUFFIXES = (".csv", ".tsv")
LINE_DELIMITERS = ";\t,"


@dataclass(frozen=True)
class Findings:
    """The findings of an expert in a video; None if not stated."""

    a_lines: bool | None
    b_lines: bool | None


def read_annotations(path: Path) -> dict[VideoId, int]:
    """The score of each annotated video.

    Reads `patient/exam/area;score` lines, or a CSV with the columns patient, exam, area and score
    (a row with an empty score is not annotated). Raises LusError naming file and line for a line
    that cannot be read, a score outside 0..3, or a video annotated twice.
    """
    text = text_of(path)
    rows = csv_scores(path, text) if is_csv(path, text) else line_scores(path, text)
    scores: dict[VideoId, int] = {}
    for line, video, score in rows:
        if video in scores:
            raise LusError(
                f"{path}, line {line}: video {video} has two annotations", "keep one line"
            )
        scores[video] = score
    if not scores:
        raise LusError(
            f"{path} contains no annotation", "write one line per video, e.g. 1017/1048/11;2"
        )
    return scores


def read_groups(path: Path) -> dict[VideoId, str]:
    """The group (hospital, scanner) of each video in a CSV with a column `group`; '' if it is empty.

    Other annotations have no groups. Raises LusError naming file and line for an invalid id or name.
    """
    text = text_of(path)
    if not is_csv(path, text):
        return {}
    return {
        row_id(path, line, row): annotated_group(path, line, row[GROUP])
        for line, row in csv_rows(path, text, COLUMNS)
        if row.get(GROUP)
    }


def text_of(path: Path) -> str:
    return read_text(
        path,
        "it has one line per video, such as 1017/1048/11;2; name yours with --annotations, or a "
        "table of files, ids and scores with --labels",
    )


def is_csv(path: Path, text: str) -> bool:
    """Whether the table is a CSV, according to its suffix or its first line."""
    if path.suffix.lower() in CSV_SUFFIXES:
        return True
    try:
        return set(COLUMNS) <= set(find_header(text, COLUMNS).columns)
    except csv.Error:
        return False


def line_scores(path: Path, text: str) -> Iterator[tuple[int, VideoId, int]]:
    table, stated = without_separator_line(text)
    for number, line in enumerate(table.splitlines(), start=1 + bool(stated)):
        cells = line_cells(line)
        if cells and len(cells) != 2:
            raise LusError(
                f"{path}, line {number}: {line.strip()!r} cannot be read",
                "write patient/exam/area;score",
            )
        if cells:
            video, score = cells
            yield number, annotated_id(path, number, video), annotated_score(path, number, score)


def line_cells(line: str) -> list[str]:
    """The id and the score in a line, without quotes and without empty cells at its end."""
    delimiter = next((mark for mark in LINE_DELIMITERS if mark in line), ";")
    cells = [canonical(unquoted(cell.strip())) for cell in unquoted(line.strip()).split(delimiter)]
    while len(cells) > 2 and not cells[-1]:
        cells.pop()
    return cells if any(cells) else []


def unquoted(text: str) -> str:
    """The text without the quotes that spreadsheets put around it."""
    quoted = len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2
    return text[1:-1] if quoted else text


def csv_scores(path: Path, text: str) -> Iterator[tuple[int, VideoId, int]]:
    for number, row in csv_rows(path, text, COLUMNS):
        if row["score"]:
            yield number, row_id(path, number, row), annotated_score(path, number, row["score"])


def annotated_id(path: Path, line: int, text: str) -> VideoId:
    try:
        return VideoId.parse(text)
    except UsageError as error:
        raise LusError(f"{path}, line {line}: {error.message}", error.remedy) from None


def row_id(path: Path, line: int, row: dict[str, str]) -> VideoId:
    """The video named by the cells of a CSV row. Raises LusError for an invalid id."""
    video = VideoId.of(row["patient"], row["exam"], row["area"])
    for column, part in video._asdict().items():
        if is_shortened(part):
            raise LusError(
                f"{path}, line {line}: {column} {part} is a number that a spreadsheet shortened",
                f"format the column {column} as text, and enter the numbers again",
            )
        if not is_name(part):
            raise LusError(
                f"{path}, line {line}: {part!r} is not a valid {column}",
                "ids must not contain / \\ ; , or control characters, nor begin with a dot"
                if part
                else "the cell is empty: fill it in, or remove the row",
            )
    return video


def annotated_score(path: Path, line: int, text: str) -> int:
    """Parses a score such as 2, 2.0 or, with a decimal comma, 2,0. Raises LusError."""
    match = re.fullmatch(r"\s*(\d)(?:[.,]0*)?\s*", text)  # \d includes digits of other scripts
    if not match or int(match[1]) not in SCORES:
        raise LusError(
            f"{path}, line {line}: invalid score {text.strip()!r}",
            "scores are 0, 1, 2 or 3; in a CSV, the cell of a video without one is empty",
        )
    return int(match[1])


def annotated_group(path: Path, line: int, text: str) -> str:
    """The name of a group, or ''. Raises LusError for a name that options could not contain."""
    if text and not is_name(text):
        raise LusError(
            f"{path}, line {line}: {text!r} is not a valid group",
            "names must not contain / \\ ; , or control characters, nor begin with a dot",
        )
    return text


def read_findings(path: Path) -> dict[VideoId, Findings]:
    """The findings of each video: columns patient,exam,area,a_lines,b_lines (yes, no or empty)."""
    findings: dict[VideoId, Findings] = {}
    text = read_text(path, "")
    for line, row in csv_rows(path, text, ("patient", "exam", "area", "a_lines", "b_lines")):
        video = row_id(path, line, row)
        if video in findings:
            raise LusError(f"{path}, line {line}: video {video} is listed twice", "keep one line")
        findings[video] = Findings(
            annotated_finding(path, line, row["a_lines"]),
            annotated_finding(path, line, row["b_lines"]),
        )
    return findings


# Spellings by people, spreadsheets and pandas.
WRITTEN_AS = (
    dict.fromkeys(("yes", "y", "true", "1", "1.0", "1,0"), True)
    | dict.fromkeys(("no", "n", "false", "0", "0.0", "0,0"), False)
    | dict.fromkeys(("", "nan", "na", "n/a"), None)
)


def annotated_finding(path: Path, line: int, text: str) -> bool | None:
    try:
        return WRITTEN_AS[text.strip().lower()]
    except KeyError:
        raise LusError(
            f"{path}, line {line}: invalid finding {text!r}", "write yes, no or nothing"
        ) from None


def write_annotations(
    path: Path, scores: Iterable[tuple[VideoId, int]], groups: Mapping[VideoId, str] | None = None
) -> None:
    """Writes `patient/exam/area;score` lines; a CSV if there are groups, which lines cannot hold."""
    if groups:
        rows = [
            dict(zip((*COLUMNS, GROUP), (*video, score, groups.get(video, "")), strict=True))
            for video, score in scores
        ]
        text = csv_text(rows, decimals=None)
    else:
        text = "".join(f"{video};{score}\n" for video, score in scores)
    path.write_text(text, encoding="utf-8", newline="\n")


UNKNOWN = -1  # stands for a missing score, a missing finding, and the frame number of padding

ANNOTATIONS = "Annotations.txt"
FINDINGS = "Findings.csv"
SCORES = range(4)
