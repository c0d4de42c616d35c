"""The exam tree: ids, folders and frames.

ROOT/<patient>/<exam>/<area>/<frame>.jpg, with ROOT/Annotations.txt beside the patients.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lus_cli.errors import LusError
from lus_cli.study.annotations import ANNOTATIONS, FINDINGS
from lus_cli.study.frame_order import number_frames
from lus_cli.study.ids import CLUTTER, LARGEST_FRAME, VideoId, is_clutter, is_name

SOURCES = "Sources.csv"  # where imported videos came from
NOT_IN_A_TREE = {"videos.h5", "split.json", "runs", "crossvals", "features"}  # what caches hold
FRAME_SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".tif",
    ".tiff",
    ".bmp",
    ".webp",
}
# Pictures that are not read here. With a number in their names they are frames of a video.
OTHER_PICTURES = {
    ".avif",
    ".heic",
    ".heif",
    ".j2c",
    ".j2k",
    ".jp2",
    ".jpf",
    ".jpx",
    ".jxl",
    ".pbm",
    ".pcx",
    ".pgm",
    ".pnm",
    ".ppm",
    ".tga",
}
FRAME_KINDS = ".jpg, .png, .tif, .bmp or .webp"
# A frame larger than this is a decompression bomb or a mistake, not an ultrasound frame.
MAX_PIXELS = 64_000_000


class FrameFile(NamedTuple):
    """One frame of a video on disk."""

    number: int
    path: Path


@dataclass(frozen=True)
class VideoFolder:
    """The frames of one video, in the order of their numbers."""

    id: VideoId
    frames: tuple[FrameFile, ...]


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

    Links to folders are followed once all real folders are walked, into those that are not among
    them. `problems` is told of what cannot be read.
    """

    def cannot(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be read: {error.strerror or error}")

    walked: set[Path] = set()
    begins = [root]
    while begins:
        begin = begins.pop(0)
        if begin.resolve() in walked:
            continue
        for folder, inner, names in os.walk(begin, onerror=cannot):
            place = Path(folder)
            walked.add(place.resolve())
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
    entries = listed(folder)
    paths = [path for path in entries if path.suffix.lower() in FRAME_SUFFIXES]
    others = [path for path in entries if is_other_frame(path)]
    if others:  # the video without them would be shorter
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise LusError(
            f"video {video}: {others[0].name}{more} cannot be read as frames",
            "save them as .png, or move them elsewhere if they are not frames",
        )
    if not paths:
        raise LusError(f"video {video}: {folder} holds no frame", f"frames are {FRAME_KINDS}")
    frames = number_frames(video, paths, LARGEST_FRAME)
    return VideoFolder(video, tuple(FrameFile(number, path) for number, path in frames.items()))


def is_other_frame(path: Path) -> bool:
    """Whether a file is a picture with a number, of a kind not read here."""
    return path.suffix.lower() in OTHER_PICTURES and bool(re.search(r"\d", path.stem))
