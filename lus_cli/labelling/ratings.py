"""Ratings: what a person pressed, kept in one append-only file per rater.

Each line is a JSON object. The first line of a session states where the videos are. Every other line
is the complete rating of one video after one press; the last line of a video counts. A line is on
the disk before the page is told so. A killed process or a full disk can only cut off the last line,
whose press the page never showed as saved; such a line is left out, and a note says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lus_cli
from lus_cli.disk_errors import explaining_disk_errors
from lus_cli.errors import LusError, UsageError
from lus_cli.files import is_text, wait_for_disk
from lus_cli.folders import hidden, locked
from lus_cli.study.annotations import SCORES
from lus_cli.study.ids import VideoId

SUFFIX = ".jsonl"
LONGEST_COMMENT = 2000  # characters


@dataclass(frozen=True)
class Rating:
    """What a rater says about a video. score: None if it is not scored, or not assessable.

    Raises ValueError for a value that no rating has.
    """

    score: int | None = None
    assessable: bool = True
    a_lines: bool | None = None
    b_lines: bool | None = None
    comment: str = ""

    def __post_init__(self) -> None:
        if self.score is not None and (type(self.score) is not int or self.score not in SCORES):
            raise ValueError("a score is 0, 1, 2 or 3")
        if type(self.assessable) is not bool or (self.score is not None and not self.assessable):
            raise ValueError("a video that is not assessable has no score")
        if {type(self.a_lines), type(self.b_lines)} - {bool, type(None)}:
            raise ValueError("a finding is true, false or null")
        if type(self.comment) is not str or len(self.comment) > LONGEST_COMMENT:
            raise ValueError(f"a comment is a text of at most {LONGEST_COMMENT} characters")
        if not is_text(self.comment):
            raise ValueError("a comment is valid UTF-8")

    @property
    def is_done(self) -> bool:
        """Whether the video needs no further look."""
        return self.score is not None or not self.assessable

    @classmethod
    def of(cls, values: dict[str, Any]) -> Rating:
        """The rating in a JSON object; other keys are ignored. Raises ValueError."""
        return cls(**{name: values[name] for name in RATING_KEYS if name in values})


RATING_KEYS = tuple(asdict(Rating()))
UNRATED = Rating()


@dataclass(frozen=True)
class Rated:
    """A rating, the video that it is of, and the size of the video's files in bytes."""

    file: str
    video: VideoId | None
    bytes: int
    rating: Rating


@dataclass
class RaterFile:
    """The content of a rater's file. by_file: the last rating of each video."""

    rater: str
    by_file: dict[str, Rated] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    session: dict[str, Any] = field(default_factory=dict)
    is_cut_off: bool = False


def ratings_path(folder: Path, rater: str) -> Path:
    """The file of a rater. Raises UsageError for a name that makes no file name."""
    if not re.fullmatch(r"\w[\w.\-]{0,59}", rater):
        raise UsageError(f"{rater!r} is not a valid rater name", "use letters, digits, - _ and .")
    return folder / f"{rater}{SUFFIX}"


def read_ratings(path: Path) -> RaterFile:
    """What a rater's file holds; empty if there is none.

    Raises LusError, naming the line, for one that is complete but is not a rating.
    """
    read = RaterFile(path.stem)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return read
    except OSError as error:
        raise LusError(f"{path} cannot be read", error.strerror or str(error)) from error
    read.is_cut_off = bool(content) and not content.endswith(b"\n")
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):  # also text that is not valid UTF-8
            read.notes.append(
                f"{path}, line {number} was cut off while it was written and is skipped: "
                "that press was not saved"
            )
            continue
        add_line(read, values, f"{path}, line {number}")
    return read


def add_line(read: RaterFile, values: Any, where: str) -> None:
    """Adds what one line says. Raises LusError, naming `where`, if it is not a rating."""
    try:
        if "session" in values:
            read.session = dict(values["session"])
            return
        ids = values["patient"], values["exam"], values["area"]
        video = None if None in ids else VideoId(*map(str, ids))
        rated = Rated(str(values["file"]), video, int(values["bytes"]), Rating.of(values))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise LusError(
            f"{where} is not a rating ({reason})", "correct or remove the line"
        ) from error
    read.by_file[rated.file] = rated


class RatingLog:
    """Appends ratings to a rater's file. Only `writing` makes one."""

    def __init__(self, path: Path, number: int, *, cut_off: bool) -> None:
        self.path, self.number, self.cut_off = path, number, cut_off

    def add(self, rated: Rated) -> None:
        """Returns when the rating is on the disk. Raises LusError if it could not be written."""
        ids = rated.video._asdict() if rated.video else dict.fromkeys(VideoId._fields)
        about = {"file": rated.file, **ids, **asdict(rated.rating), "bytes": rated.bytes}
        self.append(about | {"at": datetime.now(UTC).isoformat(timespec="milliseconds")})

    def append(self, values: dict[str, Any]) -> None:
        line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
        if self.cut_off:  # so that the cut-off line does not damage this one
            line = b"\n" + line
        with explaining_disk_errors(self.path):
            self.cut_off = True
            written = os.write(self.number, line)
            if written < len(line):
                raise LusError(f"{self.path} cannot be written completely", "free some space")
            os.fsync(self.number)
            self.cut_off = False


@contextlib.contextmanager
def writing(path: Path, session: dict[str, Any]) -> Iterator[tuple[RatingLog, RaterFile]]:
    """A rater's file for appending, and what it held before.

    session: where the videos are; written as the first line of the session.
    Raises LusError if another process has the file open, naming it, or if it is damaged.
    """
    with explaining_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(hidden(path, "lock"), path, keep=False):
        before = read_ratings(path)
        with explaining_disk_errors(path):
            number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            log = RatingLog(path, number, cut_off=before.is_cut_off)
            log.append({"session": {"lus": lus_cli.__version__, **session}})
            with explaining_disk_errors(path):
                wait_for_disk(path.parent)  # its name
            yield log, before
        finally:
            os.close(number)
