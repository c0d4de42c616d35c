"""Videos outside the cache: finding them, and decoding them as `lus prepare` does."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zstandard
from PIL import Image

from lus_cli.cache.chunks import CHUNK_FRAMES, FrameFormat, StoredVideo
from lus_cli.cache.decoding import fitted_frames, stored_frames
from lus_cli.cache.layout import Cache
from lus_cli.errors import LusError, printable
from lus_cli.study.exam_tree import FRAME_KINDS, FRAME_SUFFIXES, read_folder
from lus_cli.study.finding import find_files
from lus_cli.study.frames import fit_frame
from lus_cli.study.ids import FORBIDDEN_IN_ID, VideoId, is_name, natural_key
from lus_cli.study.sources import DicomFile, FrameFolder, Kind, MatFile, Source, VideoFile, kind_of

# A recording of one area takes seconds. These limits bound memory, which holds the feature maps of
# all frames that a model uses, and the compressed frames.
MOST_FRAMES = 5000
MOST_BYTES = 4 * 2**30  # of the frames of a video, before they are compressed
KINDS = f"a folder of {FRAME_KINDS} frames, an .mp4, .avi, .mov, .mpeg, DICOM or .mat file"


@dataclass(frozen=True)
class NewVideo:
    """A video to be scored. `name` is unique in one search."""

    name: str
    path: Path
    kind: Kind


@dataclass
class Search:
    """The result of a search: videos in natural order, one line per problem, and remarks."""

    videos: list[NewVideo] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


# ----------------------------------------------------------------------------------------- finding


def find_videos(paths: Sequence[Path]) -> Search:
    """Every video at or under `paths`, once each even if several paths lead to it."""
    search = Search()
    first_paths: dict[Path, Path] = {}  # resolved path -> the first path that led to it
    videos: list[tuple[str, Path, Kind]] = []
    for root in paths:
        try:
            kinds = videos_at(root, search)
        except LusError as error:
            search.problems.append(printable(str(error)))
            continue
        for path, kind in sorted(kinds.items(), key=lambda item: natural_key(str(item[0]))):
            first = first_paths.setdefault(path.resolve(), path)
            if first is path:
                videos.append((name_under(root, path), path, kind))
            else:
                duplicate = (
                    f"{path} is the same as {first}" if first != path else f"{path} is given twice"
                )
                search.remarks.append(printable(f"{duplicate}: scored once"))
    names = [name for name, _, _ in videos]
    if len(set(names)) < len(names):
        names = [path.as_posix() for _, path, _ in videos]
    for name, (_, path, kind) in zip(names, videos, strict=True):
        search.videos.append(NewVideo(printable(name), path, kind))
    return search


def videos_at(root: Path, search: Search) -> dict[Path, Kind]:
    """The videos at or under one path. Raises LusError if there is none."""
    try:
        return search_path(root, search)
    except OSError as error:
        raise LusError(f"{root} cannot be read", error.strerror or str(error)) from error


def search_path(root: Path, search: Search) -> dict[Path, Kind]:
    """The videos at or under one path; adds problems and remarks to `search`. Raises OSError."""
    if not root.exists():
        raise LusError(f"there is nothing at {root}", "check the path")
    if not root.is_dir():
        kind = kind_of(root) if root.is_file() else None
        if kind is None:
            frame = root.suffix.lower() in FRAME_SUFFIXES
            raise LusError(
                f"{root} is {'a single frame' if frame else 'not a video'}",
                "give the folder of its frames" if frame else f"a video is {KINDS}",
            )
        return {root: kind}
    damaged: list[str] = []
    left_out: list[str] = []
    files = find_files(root, damaged, left_out)
    search.problems += map(printable, damaged)
    search.remarks += map(printable, left_out)
    skipped = {folder for path in files if (folder := folder_of_lus(path, root))}
    search.remarks += [
        printable(f"{folder} is skipped: it contains output of lus") for folder in sorted(skipped)
    ]
    videos = {path: kind for path, kind in files.items() if not folder_of_lus(path, root)}
    if not videos and not damaged:
        raise LusError(f"{root} contains no video", f"a video is {KINDS}")
    return videos


def folder_of_lus(path: Path, root: Path) -> Path | None:
    """The folder of runs, models or figures, next to a videos.h5, that contains `path`; None if there is no
    such folder below `root`."""
    for inner in (path, *path.parents):
        if inner == root:
            return None
        cache = Cache(inner.parent)
        if inner in (cache.runs, cache.models, cache.figures) and cache.videos.is_file():
            return inner
    return None


def name_under(root: Path, path: Path) -> str:
    """The name of a video: its path relative to `root`. If it is `root` itself, its file name, or
    patient/exam/area for a folder of frames."""
    if path != root:
        return path.relative_to(root).as_posix()
    parts = root.resolve().relative_to(root.resolve().anchor).parts
    return "/".join(parts[-3:] if root.is_dir() else parts[-1:])


def patients_of(videos: Iterable[NewVideo]) -> list[str]:
    """The patients of the videos that lie in an exam tree, so whose name is patient/exam/area."""
    parts = [video.name.split("/") for video in videos]
    return list(dict.fromkeys(names[0] for names in parts if len(names) == 3))


# ---------------------------------------------------------------------------------------- decoding


def open_video(video: NewVideo, mask_text: bool) -> Source:
    """The source of the frames of a video.

    Raises LusError if frames cannot be put in order, or a library is missing.
    """
    root, name, video_id = video.path.parent, video.path.name, id_from_path(video.path)
    source: Source
    match video.kind:
        case "frames":
            source = FrameFolder(video_id, root, name, read_folder(video_id, video.path).frames)
        case "dicom":
            source = DicomFile(video_id, root, name, mask_text)
        case "mat":
            source = MatFile(video_id, root, name)
        case _:
            source = VideoFile(video_id, root, name)
    source.require()
    return source


def id_from_path(path: Path) -> VideoId:
    """An id for messages, made from the last three names of the path."""
    names = [FORBIDDEN_IN_ID.sub("_", part) for part in ("-", "-", *path.resolve().parts)]
    return VideoId(*(part if is_name(part) else f"_{part}" for part in names[-3:]))


def decode(
    source: Source, frame_format: FrameFormat, ended: threading.Event | None = None
) -> StoredVideo:
    """The frames exactly as `lus prepare` stores them.

    Raises LusError if one cannot be decoded, if there are more than MOST_FRAMES or MOST_BYTES, or
    when `ended` is set.
    """
    notes: list[str] = []
    most = min(MOST_FRAMES, MOST_BYTES // math.prod(frame_format.shape))

    def frames() -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
        for count, frame in enumerate(fitted_frames(source, frame_format, notes.append)):
            if ended is not None and ended.is_set():
                raise LusError(f"{source.location} is not read further")
            if count == most or (source.length or 0) > most:
                raise LusError(
                    f"{source.location} has more than {most} frames",
                    "shorten it to the seconds to be scored",
                )
            yield frame

    return stored_frames(frames(), notes)


def decode_array(frames: np.ndarray, frame_format: FrameFormat) -> StoredVideo:
    """An array of frames as `lus prepare` would store it: resized, in gray or colour, compressed.

    Args:
        frames: uint8 (frame, row, column) or (frame, row, column, RGB), of any size.
        frame_format: the size and colours to store.

    Raises:
        ValueError: the array is something else, or empty.

    """
    is_video = frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 3)
    if frames.dtype != np.uint8 or not is_video or not frames.size:
        raise ValueError(
            f"frames are uint8 (frame, row, column) or (frame, row, column, 3), not {frames.dtype} "
            f"{frames.shape}"
        )
    mode, shape = "RGB" if frame_format.color else "L", (frames.shape[1], frames.shape[2])

    def fitted(frame: np.ndarray) -> np.ndarray:
        pixels = np.asarray(Image.fromarray(frame).convert(mode))
        return fit_frame(pixels, frame_format.size, frame_format.letterbox)

    return stored_frames((number, fitted(frame), shape) for number, frame in enumerate(frames))


def frames_at(video: StoredVideo, positions: np.ndarray, frame_format: FrameFormat) -> np.ndarray:
    """The frames at ascending `positions`: (frame, row, column[, channel]) uint8."""
    shape = (CHUNK_FRAMES, *frame_format.shape)
    out = np.empty((len(positions), *frame_format.shape), np.uint8)
    chunk_of, inside = np.divmod(positions, CHUNK_FRAMES)
    decompressor = zstandard.ZstdDecompressor()
    for chunk in np.unique(chunk_of):
        whole = decompressor.decompress(video.chunks[chunk], max_output_size=math.prod(shape))
        where = np.flatnonzero(chunk_of == chunk)
        out[where] = np.frombuffer(whole, np.uint8).reshape(shape)[inside[where]]
    return out
