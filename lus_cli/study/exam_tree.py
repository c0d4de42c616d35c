"""The exam tree: ROOT/<patient>/<exam>/<area>/<frame>.jpg, and ROOT/Annotations.txt."""

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
NOT_IN_A_TREE = {"videos.h5", "split.json", "runs", "crossvals", "features"}  # in caches
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
# Pictures that lus does not read. A number in the name marks a frame of a video.
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
ARCHIVES = {".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".iso"}
FRAME_KINDS = ".jpg, .png, .tif, .bmp or .webp"
# A larger frame is a decompression bomb or a mistake, not an ultrasound frame.
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
    """Raises LusError if `root`, which an exam tree will replace, is not an exam tree or empty."""
    entries = sorted(root.iterdir()) if root.is_dir() else []
    tables = {ANNOTATIONS, FINDINGS, SOURCES}
    foreign = [path.name for path in entries if not of_a_tree(path) and path.name not in tables]
    if entries and (foreign or not any(path.name in tables for path in entries)):
        raise LusError(
            f"{root} is not an exam tree: it contains {(foreign or [entries[0].name])[0]}"
            + ("" if foreign else f", but no {ANNOTATIONS}"),
            "name another folder: this one and all its contents would be deleted",
        )


def of_a_tree(path: Path) -> bool:
    """Whether `path` may be a patient, or a leftover of the operating system."""
    if path.is_dir():
        return path.name not in NOT_IN_A_TREE and not path.name.startswith(".")
    return path.name.lower() in CLUTTER or path.name.startswith((".DS_", "._"))


def files_under(root: Path, problems: list[str]) -> Iterator[Path]:
    """Every file under a folder, at any depth, without clutter.

    Follows links to folders after walking all real folders, unless they lead to one of these.
    `problems` gets a line for each folder or file that cannot be read.
    """

    def report(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be read: {error.strerror or error}")

    walked: set[Path] = set()
    starts = [root]
    while starts:
        start = starts.pop(0)
        if start.resolve() in walked:
            continue
        for folder, inner, names in os.walk(start, onerror=report):
            place = Path(folder)
            walked.add(place.resolve())
            inner[:] = sorted(name for name in inner if not is_clutter(name))
            starts += [place / name for name in inner if (place / name).is_symlink()]
            for path in (place / name for name in sorted(names) if not is_clutter(name)):
                try:
                    is_file = path.is_file()
                except OSError as error:
                    report(error)
                else:
                    if is_file:
                        yield path


def visible_entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name, without clutter.

    The sorting makes the result deterministic: 1 and 01 have the same natural_key.
    """
    return [folder / entry.name for entry in scanned(folder)]


def scanned(folder: Path) -> list[os.DirEntry[str]]:
    """Like `visible_entries`, with what the listing itself says of each entry, without a stat."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not is_clutter(entry.name)]
    except OSError as error:
        raise LusError(f"{folder} cannot be read", error.strerror or str(error)) from error
    return sorted(visible, key=lambda entry: entry.name)


def read_folder(video: VideoId, folder: Path) -> VideoFolder:
    """The frames of one video. Raises LusError if their numbers do not order them."""
    if not all(map(is_name, video)):
        raise LusError(
            f"{folder}: ids must not contain / \\ ; , or control characters",
            "rename the folder",
        )
    entries = visible_entries(folder)
    paths = [path for path in entries if path.suffix.lower() in FRAME_SUFFIXES]
    others = [path for path in entries if is_other_frame(path)]
    if others:  # without them, the video would be shorter
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise LusError(
            f"video {video}: {others[0].name}{more} cannot be read as frames",
            "save them as .png, or move them elsewhere if they are not frames",
        )
    if not paths:
        raise LusError(f"video {video}: {folder} contains no frame", f"frames are {FRAME_KINDS}")
    frames = number_frames(video, paths, LARGEST_FRAME)
    return VideoFolder(video, tuple(FrameFile(number, path) for number, path in frames.items()))


def is_other_frame(path: Path) -> bool:
    """Whether a file is a picture with a number, in a format that lus does not read."""
    return path.suffix.lower() in OTHER_PICTURES and bool(re.search(r"\d", path.stem))
