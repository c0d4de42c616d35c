"""Label tables: which patient, exam and area a video file shows, and its score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lus_cli.errors import LusError
from lus_cli.study.annotations import (
    GROUP,
    Findings,
    annotated_finding,
    annotated_group,
    annotated_score,
    row_id,
)
from lus_cli.study.csv_tables import csv_rows, read_text
from lus_cli.study.ids import VideoId, leads_out
from lus_cli.study.spellings import alike, canonical
from lus_cli.study.video_containers import VIDEO_SUFFIXES

ONLY_EXAM = "1"  # used if a table has no exam column


@dataclass(frozen=True)
class Label:
    """One row of a label table; `file` lacks a suffix if it does in the table."""

    file: str
    video: VideoId
    score: int | None
    findings: Findings
    comment: str
    group: str = ""  # hospital, scanner


@dataclass(frozen=True)
class LabelledFile:
    """A video file, its `name` relative to the folder of videos, and its label."""

    name: str
    path: Path
    label: Label


def by_name(root: Path, paths: Iterable[Path], problems: list[str]) -> dict[str, Path]:
    """Files by their path relative to `root`, in canonical spelling.

    File systems and spreadsheets may encode the same name differently. If several files have the
    same name, all are left out, and `problems` gets a line.
    """
    files: dict[str, list[Path]] = {}
    for path in paths:
        files.setdefault(normal(path.relative_to(root).as_posix()), []).append(path)
    problems += [
        f"{len(same)} files have names that look the same, {name}: rename all but one"
        for name, same in files.items()
        if len(same) > 1
    ]
    return {name: same[0] for name, same in files.items() if len(same) == 1}


def normal(name: str) -> str:
    """A path with each part in canonical spelling."""
    return "/".join(canonical(part) for part in name.split("/"))


def table_labels(path: Path) -> Iterator[tuple[int, Label]]:
    """The rows of a label table, each with its line number."""
    text = read_text(path, "name the label table with --labels")
    line = 0
    for line, row in csv_rows(path, text, ("file", "patient", "area", "score")):
        video = row_id(path, line, {"exam": ONLY_EXAM} | row)
        yield line, read_label(path, line, row["file"], video, row)
    if not line:
        raise LusError(f"{path} has a header but no rows", "add one row per video")


def read_label(path: Path, line: int, file: str, video: VideoId, row: dict[str, str]) -> Label:
    findings = Findings(
        annotated_finding(path, line, row.get("a_lines", "")),
        annotated_finding(path, line, row.get("b_lines", "")),
    )
    score = annotated_score(path, line, row["score"]) if row["score"] else None
    file = inside_path(path, line, file)
    group = annotated_group(path, line, row.get(GROUP, ""))
    return Label(file, video, score, findings, row.get("comment", ""), group)


def inside_path(path: Path, line: int, text: str) -> str:
    """A file path relative to the folder of videos. Raises LusError if it leads out of it."""
    file = PurePosixPath(normal(text.replace("\\", "/")))
    if leads_out(text) or not file.parts or "\0" in text:
        raise LusError(
            f"{path}, line {line}: {text!r} is not a file in the folder of videos",
            "write its path relative to that folder",
        )
    return file.as_posix()


def without_suffix(name: str) -> str:
    """`name` without the suffix of a video file; `lung.left` has none."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in VIDEO_SUFFIXES else name


def pair(
    files: dict[str, Path], labels: Path, rows: Iterable[tuple[int, Label]]
) -> tuple[list[LabelledFile], list[str]]:
    """The files that have a row, and a line for each row without a file.

    Raises LusError if two rows name the same file or video, or if a name matches two files.
    """
    sources, problems = [], []
    by_spelling = {alike(without_suffix(name)): name for name in files}
    line_of: dict[object, int] = {}
    # With their case: .MP4 is not .mp4 on every disk.
    suffixes = sorted({PurePosixPath(name).suffix for name in files})
    for line, row in rows:
        name = match_file(files, suffixes, row.file, f"{labels}, line {line}")
        file, video = name or row.file, folder_key(row.video)
        for key, what in ((file, f"file {row.file}"), (video, f"video {row.video}")):
            if key in line_of:
                raise LusError(
                    f"{labels}, line {line}: {what} is already in line {line_of[key]}",
                    "keep one line" + ("; two patients need two ids" if key == video else ""),
                )
            line_of[key] = line
        if name is None:
            similar = by_spelling.get(alike(without_suffix(row.file)))
            problems.append(
                f"{labels}, line {line}: there is no readable video file {row.file}"
                + (f"; {similar} exists: write the name in the same way" if similar else "")
            )
        else:
            sources.append(LabelledFile(name, files[name], row))
    return sources, problems


def folder_key(video: VideoId) -> tuple[str, ...]:
    """Equal for videos that would share a folder: macOS and Windows ignore case."""
    return tuple(part.casefold() for part in video)


def match_file(
    files: dict[str, Path], suffixes: Iterable[str], name: str, where: str
) -> str | None:
    """The key in `files` of `name`, with or without one of `suffixes`; None if there is none."""
    if name in files:
        return name
    matches = [name + s for s in suffixes if name + s in files]
    if len(matches) > 1:
        raise LusError(f"{where}: {name} can be {' or '.join(matches)}", "write the suffix too")
    return matches[0] if matches else None
