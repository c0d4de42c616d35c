"""Whose a video file is, and how it was scored: label tables, and the files that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lus_cli.config import ImportConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.study.annotations import Findings, annotated_finding, annotated_score, row_id
from lus_cli.study.csv_tables import csv_rows, read_text
from lus_cli.study.exam_tree import (
    VideoId,
    files_under,
    is_name,
    leads_out,
    natural_key,
    video_order,
)
from lus_cli.study.finding import is_picture, names
from lus_cli.study.spellings import alike, canonical
from lus_cli.study.video_containers import OTHER_SUFFIXES, VIDEO_SUFFIXES

ONLY_EXAM = "1"  # where nothing tells the exams of a patient apart
COVID_BLUES_VIDEO = re.compile(r"patient_([^_]+)_(.+)")


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


def find_labelled(config: ImportConfig) -> tuple[list[LabelledFile], list[str]]:
    """The videos to import, in the study's order, and what is wrong with the others.

    Raises LusError, naming file and line, for a label that cannot be right.
    """
    lost: list[str] = []
    if config.format == "covid-blues":
        labels = config.labels or config.videos / "severity.csv"
        files = find_video_files(config.videos, lost, "lus_videos")
        sources, problems = pair(files, labels, covid_blues_labels(labels))
        unlabelled, strangers = covid_blues_unlabelled(files, sources, labels)
        sources += unlabelled
        problems += strangers
    else:
        if config.labels is None:
            raise UsageError(
                "--labels is missing",
                "name a CSV with the columns file,patient,exam,area,score, or use "
                "--format covid-blues",
            )
        files = find_video_files(config.videos, lost)
        sources, problems = pair(files, config.labels, table_labels(config.labels))
        known = {source.name for source in sources}
        problems += [f"{f}: no row in {config.labels} names it" for f in files if f not in known]
    problems += lost
    if not sources:
        raise LusError(f"no video in {config.videos} has a known patient and area", problems[0])
    return sorted(sources, key=lambda source: video_order(source.label.video)), problems


def find_video_files(root: Path, problems: list[str], folder: str = "") -> dict[str, Path]:
    """The video files under `folder` of `root`, by their path from `root`, in natural order.

    `problems` is told of what cannot be read.
    """
    if not (root / folder).is_dir():
        raise LusError(f"there is no folder {root / folder}", "name the folder of video files")
    paths, pictures = [], []
    for path in files_under(root / folder, problems):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            paths.append(path)
        elif path.suffix.lower() in OTHER_SUFFIXES:
            problems.append(f"{path} is a video of a kind not read here: make .mp4 of it")
        elif is_picture(path):
            pictures.append(path)
    if pictures:
        problems.append(
            f"{names(pictures)} in {pictures[0].parent} and below: pictures are not imported; "
            "`lus prepare` reads folders of frames"
        )
    if not paths:
        raise LusError(
            f"{root / folder} holds no video", "videos are .mp4, .avi, .mpeg and the like"
        )
    files = by_name(root, paths, problems)
    return {name: files[name] for name in sorted(files, key=natural_key)}


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


def covid_blues_labels(path: Path) -> Iterator[tuple[int, Label]]:
    """The rows of COVID-BLUES' severity.csv, each with its line; the file's name holds the ids."""
    names = {
        "score": "severity_score",
        "a_lines": "a-lines",
        "b_lines": "b-lines",
        "comment": "comments",
    }
    text = read_text(path, "it comes with COVID-BLUES; name it with --labels")
    for line, row in csv_rows(path, text, ("video_file", "Severity Score")):
        video = covid_blues_id(row["video_file"])
        if video is None:
            raise LusError(
                f"{path}, line {line}: {row['video_file']!r} names no patient and area",
                "write patient_<patient>_<area>",
            )
        cells = {ours: row.get(theirs, "") for ours, theirs in names.items()}
        yield line, read_label(path, line, f"lus_videos/{row['video_file']}", video, cells)


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


def covid_blues_id(name: str) -> VideoId | None:
    """patient_15_L2_2.mp4 is area L2_2 of patient 15; None for another kind of name."""
    match = COVID_BLUES_VIDEO.fullmatch(without_suffix(name))
    video = VideoId.of(match[1], ONLY_EXAM, match[2]) if match else None
    return video if video and all(map(is_name, video)) else None


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


def covid_blues_unlabelled(
    files: dict[str, Path], labelled: Sequence[LabelledFile], labels: Path
) -> tuple[list[LabelledFile], list[str]]:
    """The files without a row: their names still say whose they are."""
    known = {source.name for source in labelled}
    taken = {folder_key(source.label.video) for source in labelled}
    sources, problems = [], []
    for name, path in files.items():
        if name in known:
            continue
        video = covid_blues_id(path.name)
        if video is None:
            problems.append(f"{name}: its name is not patient_<patient>_<area>")
        elif folder_key(video) in taken:
            problems.append(f"{name}: there is another file of video {video}")
        else:
            taken.add(folder_key(video))
            sources.append(
                LabelledFile(name, path, Label(name, video, None, Findings(None, None), ""))
            )
    return sources, problems
