"""Whose a video file is, and how it was scored: label tables, and the files that they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lus_cli.errors import LusError
from lus_cli.study.annotations import Findings, annotated_finding, annotated_score, row_id
from lus_cli.study.csv_tables import csv_rows, read_text
from lus_cli.study.ids import VideoId, leads_out
from lus_cli.study.spellings import alike, canonical
from lus_cli.study.video_containers import VIDEO_SUFFIXES

ONLY_EXAM = "1"  # where nothing tells the exams of a patient apart


@dataclass(frozen=True)
class Label:
    """What a row of the label table says: `file` has no suffix where the table has none."""

    file: str
    video: VideoId
    score: int | None
    findings: Findings
    comment: str


@dataclass(frozen=True)
class LabelledFile:
    """A video file, `name` relative to the folder of videos, and what is known of it."""

    name: str
    path: Path
    label: Label


def by_name(root: Path, paths: Iterable[Path], problems: list[str]) -> dict[str, Path]:
    """Files by their path from `root`, each part as `canonical` writes it.

    File systems and spreadsheets write one name in several ways. Where two files have one name,
    both are left out, and `problems` gets a line.
    """
    files: dict[str, list[Path]] = {}
    for path in paths:
        files.setdefault(normal(path.relative_to(root).as_posix()), []).append(path)
    problems += [
        f"{len(same)} files are called {name}, in letters that look the same: rename all but one"
        for name, same in files.items()
        if len(same) > 1
    ]
    return {name: same[0] for name, same in files.items() if len(same) == 1}


def normal(name: str) -> str:
    """A path, as a file system or a table writes it, in its one spelling."""
    return "/".join(canonical(part) for part in name.split("/"))


def table_labels(path: Path) -> Iterator[tuple[int, Label]]:
    """The rows of a label table, each with its line."""
    text = read_text(path, "name the label table with --labels")
    for line, row in csv_rows(path, text, ("file", "patient", "area", "score")):
        video = row_id(path, line, {"exam": ONLY_EXAM} | row)
        yield line, read_label(path, line, row["file"], video, row)


def read_label(path: Path, line: int, file: str, video: VideoId, row: dict[str, str]) -> Label:
    findings = Findings(
        annotated_finding(path, line, row.get("a_lines", "")),
        annotated_finding(path, line, row.get("b_lines", "")),
    )
    score = annotated_score(path, line, row["score"]) if row["score"] else None
    file = inside_path(path, line, file)
    return Label(file, video, score, findings, row.get("comment", ""))


def inside_path(path: Path, line: int, text: str) -> str:
    """A file's path from the folder of videos. Raises LusError if it leads out of it."""
    file = PurePosixPath(normal(text.replace("\\", "/")))
    if leads_out(text) or not file.parts or "\0" in text:
        raise LusError(
            f"{path}, line {line}: {text!r} is no file in the folder of videos",
            "write its path from there",
        )
    return file.as_posix()


def without_suffix(name: str) -> str:
    """`name` without a video's suffix; `lung.left` has none."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in VIDEO_SUFFIXES else name


def pair(
    files: dict[str, Path], labels: Path, rows: Iterable[tuple[int, Label]]
) -> tuple[list[LabelledFile], list[str]]:
    """The files that have a row, and what is wrong with the rows that have no file.

    Raises LusError for two rows about one file or one video, and for a name that fits two files.
    """
    sources, problems = [], []
    spelt = {alike(without_suffix(name)): name for name in files}
    line_of: dict[object, int] = {}
    # As they are written: .MP4 is not .mp4 on every disk.
    suffixes = sorted({PurePosixPath(name).suffix for name in files})
    for line, row in rows:
        name = match_file(files, suffixes, row.file, f"{labels}, line {line}")
        file, video = name or row.file, folder_key(row.video)
        for key, what in ((file, f"file {row.file}"), (video, f"video {row.video}")):
            if key in line_of:
                raise LusError(
                    f"{labels}, line {line}: {what} is in line {line_of[key]} already",
                    "keep one line",
                )
            line_of[key] = line
        if name is None:
            fitting = spelt.get(alike(without_suffix(row.file)))
            problems.append(
                f"{labels}, line {line}: there is no video file {row.file} that is read here"
                + (f"; there is {fitting}: write its name as it is" if fitting else "")
            )
        else:
            sources.append(LabelledFile(name, files[name], row))
    return sources, problems


def folder_key(video: VideoId) -> tuple[str, ...]:
    """Equal for videos that would share a folder: macOS and Windows tell no case apart."""
    return tuple(part.casefold() for part in video)


def match_file(
    files: dict[str, Path], suffixes: Iterable[str], wanted: str, where: str
) -> str | None:
    """The one of `files` called `wanted`, as it is or with one of `suffixes`."""
    if wanted in files:
        return wanted
    fitting = [wanted + s for s in suffixes if wanted + s in files]
    if len(fitting) > 1:
        raise LusError(f"{where}: {wanted} can be {' or '.join(fitting)}", "write the suffix too")
    return fitting[0] if fitting else None
