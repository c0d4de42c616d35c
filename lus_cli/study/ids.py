"""Ids of patients, exams, areas, videos and frames."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np

from lus_cli.errors import UsageError
from lus_cli.study.spellings import canonical

# Made by Windows, macOS, Linux, and the file servers of Synology and QNAP, in lower case: thumbnails,
# settings, and what was deleted.
CLUTTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "lost+found", "@eadir", "#recycle", "@recycle"),
}
DIGITS = re.compile(r"(\d+)")
LARGEST_FRAME = np.iinfo(np.int32).max  # frame numbers are int32 in the cache
# Separators of lus, control characters, Unicode line ends and byte order marks, and surrogates, as
# which Python decodes bytes of a file name that are not valid UTF-8.
FORBIDDEN_IN_ID = re.compile(r"[/\\;,\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")


class VideoId(NamedTuple):
    """A video: one inspection area of one exam of one patient."""

    patient: str
    exam: str
    area: str

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def of(cls, patient: str, exam: str, area: str) -> VideoId:
        """The id made of names in any spelling (see `canonical`)."""
        return cls(canonical(patient), canonical(exam), canonical(area))

    @classmethod
    def parse(cls, text: str) -> VideoId:
        """Reads patient/exam/area. Raises UsageError if `text` is anything else."""
        parts = [canonical(part) for part in text.strip().removesuffix("/").split("/")]
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
    """Whether `part` is valid as a patient, exam or area: one path component, no separators."""
    return bool(part.strip()) and not is_clutter(part) and not FORBIDDEN_IN_ID.search(part)


def leads_out(path: str) -> bool:
    """Whether a relative path, POSIX or Windows, may lead out of its base folder."""
    if not path.startswith("/") and not any(part in path for part in ("..", "\\", ":")):
        return False  # most paths, of which a study may have a million
    posix = PurePosixPath(path.replace("\\", "/"))
    return posix.is_absolute() or ".." in posix.parts or bool(PureWindowsPath(path).drive)


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden or made by the operating system, such as Thumbs.db."""
    return name.startswith(".") or name.lower() in CLUTTER


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """A sort key that puts area 2 before area 10, and numbers before words.

    Numbers are compared by length, then by digits, since int() refuses very long ones.
    """
    return [
        (0, len(digits := piece.lstrip("0")), digits) if piece.isdecimal() else (1, 0, piece)
        for piece in DIGITS.split(text)
        if piece
    ]


def video_order(video: VideoId) -> list[list[tuple[int, int, str]]]:
    """The order in which a study lists its videos."""
    return [natural_key(part) for part in video]
