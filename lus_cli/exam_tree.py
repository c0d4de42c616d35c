"""The exam tree: ids, folders and annotations.

ROOT/<patient>/<exam>/<area>/<frame>.jpg, with ROOT/Annotations.txt beside the patients.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np

from lus_cli.errors import LusError, UsageError

ANNOTATIONS = "Annotations.txt"
FINDINGS = "Findings.csv"
SOURCES = "Sources.csv"  # where imported videos came from
NOT_IN_A_TREE = {"videos.h5", "split.json", "runs", "crossvals", "features"}  # what caches hold
SCORES = range(4)
FRAME_SUFFIXES = {".jpg", ".jpeg", ".png"}
CLUTTER = {"thumbs.db", "desktop.ini"}
# A frame larger than this is a decompression bomb or a mistake, not an ultrasound frame.
MAX_PIXELS = 64_000_000
MAX_TEXT = 64 << 20  # bytes of a table of annotations: those of a million videos
LARGEST_FRAME = np.iinfo(np.int32).max  # what the cache holds of a frame's number
# Our separators, control characters, what ends a line or marks a file's start in Unicode, and what is
# no character: half of a pair, as Python writes bytes of a file's name that are no UTF-8.
FORBIDDEN_IN_ID = re.compile(r"[/\\;,\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")


class VideoId(NamedTuple):
    """A video: one inspection area of one exam of one patient."""

    patient: str
    exam: str
    area: str

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def parse(cls, text: str) -> VideoId:
        """Reads patient/exam/area. Raises UsageError if `text` is anything else."""
        parts = text.strip().removesuffix("/").split("/")
        if len(parts) != 3 or not all(map(is_name, parts)):
            raise UsageError(
                f"{text!r} is not a video id", "write patient/exam/area, e.g. 1017/1048/11"
            )
        return cls(*parts)


def parse_frame_id(text: str) -> tuple[VideoId, int]:
    """Reads patient/exam/area/frame as a video and a frame number. Raises UsageError."""
    video, _, frame = text.strip().removesuffix("/").rpartition("/")
    number = int(frame) if re.fullmatch(r"\d{1,10}", frame) else -1
    if not 0 <= number <= LARGEST_FRAME or video.count("/") != 2:
        raise UsageError(
            f"{text!r} is not a frame id", "write patient/exam/area/frame, e.g. 1017/1048/11/86"
        )
    return VideoId.parse(video), number


def is_name(part: str) -> bool:
    """Whether `part` can be a patient, exam or area: one path component, no separators of ours."""
    return bool(part.strip()) and not is_clutter(part) and not FORBIDDEN_IN_ID.search(part)


def leads_out(path: str) -> bool:
    """Whether a path, with / or \\, can end elsewhere than below the folder it starts from."""
    posix = PurePosixPath(path.replace("\\", "/"))
    return posix.is_absolute() or ".." in posix.parts or bool(PureWindowsPath(path).drive)


def is_clutter(name: str) -> bool:
    """Whether a file or folder is what operating systems leave behind, or `.` or `..`."""
    return name.startswith(".") or name.lower() in CLUTTER


class FrameFile(NamedTuple):
    """One frame of a video on disk."""

    number: int
    path: Path


@dataclass(frozen=True)
class VideoFolder:
    """The frames of one video, in the order of their numbers."""

    id: VideoId
    frames: tuple[FrameFile, ...]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorts area 2 before area 10, and numbers before words.

    A number is compared by its length, then digit by digit: Python reads none of 5000 digits.
    """
    return [
        (0, len(digits := piece.lstrip("0")), digits) if piece.isdecimal() else (1, 0, piece)
        for piece in re.split(r"(\d+)", text)
        if piece
    ]


def video_order(video: VideoId) -> list[list[tuple[int, int, str]]]:
    """The order in which a study lists its videos."""
    return [natural_key(part) for part in video]


def refuse_foreign(root: Path) -> None:
    """Raises LusError if a folder that an exam tree is to replace holds anything but one."""
    there = sorted(root.iterdir()) if root.is_dir() else []
    tables = {ANNOTATIONS, FINDINGS, SOURCES}
    foreign = [path.name for path in there if not of_a_tree(path) and path.name not in tables]
    if there and (foreign or not any(path.name in tables for path in there)):
        raise LusError(
            f"{root} is no exam tree: it holds {(foreign or [there[0].name])[0]}"
            + ("" if foreign else f", and no {ANNOTATIONS}"),
            "name another folder: this one would be deleted, with all that is in it",
        )


def of_a_tree(path: Path) -> bool:
    """Whether it may be a patient, or what an operating system left."""
    if path.is_dir():
        return path.name not in NOT_IN_A_TREE and not path.name.startswith(".")
    return path.name.lower() in CLUTTER or path.name.startswith((".DS_", "._"))


def files_under(root: Path, problems: list[str]) -> Iterator[Path]:
    """Every file under a folder, however deep, without clutter.

    Links to folders are followed once all real folders are known, into those that are not among
    them. `problems` is told of what cannot be read.
    """

    def cannot(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be read: {error.strerror or error}")

    known: set[Path] = set()
    begins = [root]
    while begins:
        begin = begins.pop(0)
        if begin.resolve() in known:
            continue
        for folder, inner, names in os.walk(begin, onerror=cannot):
            place = Path(folder)
            known.add(place.resolve())
            inner[:] = sorted(name for name in inner if not is_clutter(name))
            begins += [place / name for name in inner if (place / name).is_symlink()]
            for path in (place / name for name in sorted(names) if not is_clutter(name)):
                try:
                    is_file = path.is_file()
                except OSError as error:
                    cannot(error)
                else:
                    if is_file:
                        yield path


def visible_folders(parent: Path) -> Iterator[Path]:
    return (entry for entry in listed(parent) if entry.is_dir())


def listed(folder: Path) -> list[Path]:
    """The entries of a folder by name, without what operating systems leave behind.

    Sorted because folders list their entries in any order, and 1 and 01 sort alike later on.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise LusError(f"{folder} cannot be read", error.strerror or str(error)) from error
    return [entry for entry in entries if not is_clutter(entry.name)]


def read_folder(video: VideoId, folder: Path) -> VideoFolder:
    """The frames of one video. Raises LusError if their numbers cannot order them."""
    if not all(map(is_name, video)):
        raise LusError(
            f"{folder}: ids hold no / \\ ; , and no control characters", "rename the folder"
        )
    numbered: dict[int, Path] = {}
    for path in listed(folder):
        if path.suffix.lower() not in FRAME_SUFFIXES:
            continue
        digits = re.findall(r"\d+", path.stem)
        if not digits:
            raise LusError(f"video {video}: {path.name} has no frame number", "rename or remove it")
        number = int(digits[-1])
        if number in numbered:
            raise LusError(
                f"video {video}: {numbered[number].name} and {path.name} are both frame {number}",
                "remove one",
            )
        numbered[number] = path
    if not numbered:
        raise LusError(f"video {video}: {folder} holds no .jpg, .jpeg or .png frame", "remove it")
    if max(numbered) > LARGEST_FRAME:
        raise LusError(f"video {video}: frame number {max(numbered)} is too large", "rename it")
    return VideoFolder(video, tuple(FrameFile(n, numbered[n]) for n in sorted(numbered)))


# ------------------------------------------------------------------------------------ annotations


@dataclass(frozen=True)
class Findings:
    """What an expert saw in a video; None where nobody said."""

    a_lines: bool | None
    b_lines: bool | None


def read_annotations(path: Path) -> dict[VideoId, int]:
    """The score of each annotated video.

    Reads `patient/exam/area;score` lines, or a CSV with the columns patient, exam, area and score
    (a row with an empty score is not annotated). Raises LusError naming file and line for a line
    that cannot be read, a score outside 0..3, or a video annotated twice.
    """
    text = read_text(path, f"it holds a line a video, 1017/1048/11;2 (looked for {path.name})")
    is_csv = path.suffix.lower() == ".csv"
    rows = csv_scores(path, text) if is_csv else line_scores(path, text)
    scores: dict[VideoId, int] = {}
    for line, video, score in rows:
        if video in scores:
            raise LusError(
                f"{path}, line {line}: video {video} is annotated twice", "keep one line"
            )
        scores[video] = score
    if not scores:
        raise LusError(f"{path} holds no annotation", "write a line a video, e.g. 1017/1048/11;2")
    return scores


def read_text(path: Path, remedy: str) -> str:
    try:
        if path.stat().st_size > MAX_TEXT:
            raise LusError(
                f"{path} is larger than {MAX_TEXT >> 20} MB", "that is no table of videos"
            )
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LusError(f"there is no file {path}", remedy) from None
    except OSError as error:
        raise LusError(f"{path} cannot be read", error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise LusError(f"{path} is not UTF-8 text", str(error)) from error


def line_scores(path: Path, text: str) -> Iterator[tuple[int, VideoId, int]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            video, semicolon, score = line.partition(";")
            if not semicolon:
                raise LusError(
                    f"{path}, line {number}: {line.strip()!r} cannot be read",
                    "write patient/exam/area;score",
                )
            yield number, annotated_id(path, number, video), annotated_score(path, number, score)


def csv_scores(path: Path, text: str) -> Iterator[tuple[int, VideoId, int]]:
    for number, row in csv_rows(path, text, ("patient", "exam", "area", "score")):
        if row["score"]:
            yield number, row_id(path, number, row), annotated_score(path, number, row["score"])


def csv_rows(path: Path, text: str, columns: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped cells of each row. Raises LusError if a named column is missing."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        missing = [name for name in columns if name not in header]
        if missing:
            raise LusError(
                f"{path} has no column {', '.join(missing)}", f"it has {', '.join(header)}"
            )
        reader.fieldnames = header
        for row in reader:
            if not any("".join(cells).strip() for cells in row.values() if cells):
                continue  # spreadsheets leave rows of empty cells
            if None in row or None in row.values():
                raise LusError(
                    f"{path}, line {reader.line_num}: not {len(header)} cells", "mend the line"
                )
            yield reader.line_num, {key: value.strip() for key, value in row.items()}
    except csv.Error as error:
        raise LusError(f"{path}, line {reader.line_num}: {error}", "mend the line") from error


def annotated_id(path: Path, line: int, text: str) -> VideoId:
    try:
        return VideoId.parse(text)
    except UsageError as error:
        raise LusError(f"{path}, line {line}: {error.message}", error.remedy) from None


def row_id(path: Path, line: int, row: dict[str, str]) -> VideoId:
    """The video that a CSV row's cells name. Raises LusError if one of them is no name."""
    video = VideoId(row["patient"], row["exam"], row["area"])
    for column, part in video._asdict().items():
        if not is_name(part):
            raise LusError(
                f"{path}, line {line}: {part!r} is no {column}", "ids hold no / \\ ; or ,"
            )
    return video


def annotated_score(path: Path, line: int, text: str) -> int:
    match = re.fullmatch(r"\s*([0-9])(?:\.0*)?\s*", text)
    if not match or int(match[1]) not in SCORES:
        raise LusError(f"{path}, line {line}: score {text.strip()!r}", "scores are 0, 1, 2 or 3")
    return int(match[1])


def read_findings(path: Path) -> dict[VideoId, Findings]:
    """Expert findings per video from patient,exam,area,a_lines,b_lines (yes, no or empty)."""
    findings: dict[VideoId, Findings] = {}
    text = read_text(path, "")
    for line, row in csv_rows(path, text, ("patient", "exam", "area", "a_lines", "b_lines")):
        video = row_id(path, line, row)
        if video in findings:
            raise LusError(f"{path}, line {line}: video {video} is there twice", "keep one line")
        findings[video] = Findings(
            annotated_finding(path, line, row["a_lines"]),
            annotated_finding(path, line, row["b_lines"]),
        )
    return findings


def annotated_finding(path: Path, line: int, text: str) -> bool | None:
    try:
        return {"yes": True, "no": False, "": None}[text.strip().lower()]
    except KeyError:
        raise LusError(f"{path}, line {line}: {text!r}", "write yes, no or nothing") from None


def write_annotations(path: Path, scores: Iterable[tuple[VideoId, int]]) -> None:
    lines = "".join(f"{video};{score}\n" for video, score in scores)
    path.write_text(lines, encoding="utf-8")
