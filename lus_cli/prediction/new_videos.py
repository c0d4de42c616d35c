"""Videos that no cache knows: found wherever they lie, decoded as `lus prepare` would."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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

# A recording of one area takes seconds. These bound memory: the feature maps of the frames a model
# looks at are held together, and so are the compressed frames.
MOST_FRAMES = 5000
MOST_BYTES = 4 * 2**30  # of a video's frames, before they are compressed
KINDS = f"a folder of {FRAME_KINDS} frames, .mp4, .avi, .mov, .mpeg and the like, DICOM or .mat"


@dataclass(frozen=True)
class NewVideo:
    """A video to be scored. `name` tells it from the others of one search."""

    name: str
    path: Path
    kind: Kind


@dataclass
class Search:
    """What was found: videos in natural order, a line for each thing that is none, remarks."""

    videos: list[NewVideo] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


# ----------------------------------------------------------------------------------------- finding


def find_videos(paths: Sequence[Path]) -> Search:
    """Every video at or under `paths`, each once however many of the paths lead to it."""
    search = Search()
    known: dict[Path, Path] = {}  # where it really is -> where it was first met
    found: list[tuple[str, Path, Kind]] = []
    for root in paths:
        try:
            there = videos_at(root, search)
        except LusError as error:
            search.problems.append(printable(str(error)))
            continue
        for path, kind in sorted(there.items(), key=lambda item: natural_key(str(item[0]))):
            first = known.setdefault(path.resolve(), path)
            if first is path:
                found.append((name_under(root, path), path, kind))
            else:
                twice = (
                    f"{path} is {first} once more" if first != path else f"{path} is named twice"
                )
                search.remarks.append(printable(f"{twice}: scored once"))
    names = [name for name, _, _ in found]
    if len(set(names)) < len(names):
        names = [path.as_posix() for _, path, _ in found]
    for name, (_, path, kind) in zip(names, found, strict=True):
        search.videos.append(NewVideo(printable(name), path, kind))
    return search


def videos_at(root: Path, search: Search) -> dict[Path, Kind]:
    """The videos at or under one path. Raises LusError if there is none."""
    try:
        return look_at(root, search)
    except OSError as error:
        raise LusError(f"{root} cannot be read", error.strerror or str(error)) from error


def look_at(root: Path, search: Search) -> dict[Path, Kind]:
    if not root.exists():
        raise LusError(f"there is nothing at {root}", "check the path")
    if not root.is_dir():
        kind = kind_of(root) if root.is_file() else None
        if kind is None:
            frame = root.suffix.lower() in FRAME_SUFFIXES
            raise LusError(
                f"{root} is {'a single frame' if frame else 'no video'}",
                "name the folder of its frames" if frame else f"a video is {KINDS}",
            )
        return {root: kind}
    damaged: list[str] = []
    left_out: list[str] = []
    files = find_files(root, damaged, left_out)
    search.problems += map(printable, damaged)
    search.remarks += map(printable, left_out)
    made = {folder for path in files if (folder := folder_of_lus(path, root))}
    search.remarks += [
        printable(f"{folder} holds what lus made: not looked at") for folder in sorted(made)
    ]
    own = {path: kind for path, kind in files.items() if not folder_of_lus(path, root)}
    if not own and not damaged:
        raise LusError(f"{root} holds no video", f"a video is {KINDS}")
    return own


def folder_of_lus(path: Path, root: Path) -> Path | None:
    """The folder of runs or figures beside a videos.h5 in which `path` lies, as seen from `root`."""
    for inner in (path, *path.parents):
        if inner == root:
            return None
        cache = Cache(inner.parent)
        if inner in (cache.runs, cache.figures) and cache.videos.is_file():
            return inner
    return None


def name_under(root: Path, path: Path) -> str:
    """What a video is called: its path from `root`; for one that is `root` its file's name, or for a
    folder of frames patient/exam/area."""
    if path != root:
        return path.relative_to(root).as_posix()
    parts = root.resolve().relative_to(root.resolve().anchor).parts
    return "/".join(parts[-3:] if root.is_dir() else parts[-1:])


# ---------------------------------------------------------------------------------------- decoding


def open_video(video: NewVideo, mask_text: bool) -> Source:
    """Where the frames of a new video come from.

    Raises LusError if frames cannot be put in order, or a library is missing.
    """
    root, name, known = video.path.parent, video.path.name, place(video.path)
    source: Source
    match video.kind:
        case "frames":
            source = FrameFolder(known, root, name, read_folder(known, video.path).frames)
        case "dicom":
            source = DicomFile(known, root, name, mask_text)
        case "mat":
            source = MatFile(known, root, name)
        case _:
            source = VideoFile(known, root, name)
    source.require()
    return source


def place(path: Path) -> VideoId:
    """An id for messages: the last three names of the path, fit to be one."""
    names = [FORBIDDEN_IN_ID.sub("_", part) for part in ("-", "-", *path.resolve().parts)]
    return VideoId(*(part if is_name(part) else f"_{part}" for part in names[-3:]))


def decode(source: Source, frame_format: FrameFormat) -> StoredVideo:
    """The frames as `lus prepare` would store them, bit for bit.

    Raises LusError if one cannot be decoded, or if they are more than memory is meant for.
    """
    notes: list[str] = []
    most = min(MOST_FRAMES, MOST_BYTES // math.prod(frame_format.shape))

    def frames() -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
        for count, frame in enumerate(fitted_frames(source, frame_format, notes.append)):
            if count == most or (source.length or 0) > most:
                raise LusError(
                    f"{source.location} has more than {most} frames",
                    "cut out the seconds that are to be scored",
                )
            yield frame

    return stored_frames(frames(), notes)


def decode_array(frames: np.ndarray, frame_format: FrameFormat) -> StoredVideo:
    """An array of frames as `lus prepare` would store it: resized, in gray or colour, compressed.

    Args:
        frames: uint8 (frame, row, column) or (frame, row, column, RGB), of any size.

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
    """Frames by their ascending positions: (frame, row, column[, channel]) uint8."""
    shape = (CHUNK_FRAMES, *frame_format.shape)
    out = np.empty((len(positions), *frame_format.shape), np.uint8)
    chunk_of, inside = np.divmod(positions, CHUNK_FRAMES)
    decompressor = zstandard.ZstdDecompressor()
    for chunk in np.unique(chunk_of):
        whole = decompressor.decompress(video.chunks[chunk], max_output_size=math.prod(shape))
        where = np.flatnonzero(chunk_of == chunk)
        out[where] = np.frombuffer(whole, np.uint8).reshape(shape)[inside[where]]
    return out


def rate_of(video: NewVideo) -> float | None:
    """Frames per second, where the file says so. Raises LusError if it cannot be read."""
    if video.kind != "video":
        return None
    from lus_cli.study.video_files import frame_rate

    return frame_rate(video.path)
