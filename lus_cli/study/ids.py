"""Ids of patients, exams, areas, videos and frames."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np

from lus_cli.errors import UsageError
from lus_cli.study.spellings import canonical

CLUTTER = {"thumbs.db", "desktop.ini"}
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
    def of(cls, patient: str, exam: str, area: str) -> VideoId:
        """The id of names as they are written anywhere, in their one spelling (see `canonical`)."""
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
    """Whether `part` can be a patient, exam or area: one path component, no separators of ours."""
    return bool(part.strip()) and not is_clutter(part) and not FORBIDDEN_IN_ID.search(part)


def leads_out(path: str) -> bool:
    """Whether a path, with / or \\, can end elsewhere than below the folder it starts from."""
    posix = PurePosixPath(path.replace("\\", "/"))
    return posix.is_absolute() or ".." in posix.parts or bool(PureWindowsPath(path).drive)


def is_clutter(name: str) -> bool:
    """Whether a file or folder is what operating systems leave behind, or `.` or `..`."""
    return name.startswith(".") or name.lower() in CLUTTER


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
