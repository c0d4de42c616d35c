"""Sources of videos: a folder of frames, a video file, an ultrasound DICOM or a MATLAB file.

To the rest of lus, a Source is the id of a video, its files, whose names, sizes and times show
whether it changed, and an iterator of its frames. File formats and the libraries that read them
matter only here; a library is loaded when a file needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import numpy as np
from PIL import Image

from lus_cli.errors import LusError
from lus_cli.files import is_text
from lus_cli.study.dicom_streams import is_dicom
from lus_cli.study.exam_tree import FRAME_SUFFIXES, FrameFile, read_folder
from lus_cli.study.frames import Mode, decode_frame
from lus_cli.study.ids import VideoId, is_name
from lus_cli.study.notes import Note, ignore

Kind = Literal["frames", "video", "dicom", "mat"]
Numbers = Collection[int] | None
Frames = Iterator[tuple[int, Image.Image]]
Item = TypeVar("Item")

DICOM_SUFFIXES = (".dcm", ".dicom")
MAT_SUFFIX = ".mat"
MAT_SCORES = "_score"  # suffix of the stem of the file with the scores of a .mat file's frames


@dataclass(frozen=True)
class Source:
    """The frames of one video. `path`, relative to `root` and with /, is a folder or a file."""

    id: VideoId
    root: Path
    path: str
    kind: ClassVar[Kind]

    @cached_property
    def location(self) -> Path:
        return self.root / self.path

    @property
    def files(self) -> list[Path]:
        """The files that the frames are decoded from."""
        return [self.location]

    @property
    def length(self) -> int | None:
        """The number of frames, or None if it is not known without decoding them."""
        return None

    @property
    def options(self) -> dict[str, bool]:
        """Options of the reader that change the frames."""
        return {}

    def require(self) -> None:
        """Raises LusError if the library that reads the source is not installed."""

    def frames(self, mode: Mode, only: Numbers = None, note: Note = ignore) -> Frames:
        """Yields the number and the upright image in `mode` of each frame, in order.

        `only` restricts the frames to these numbers. `note` is called with each remark on a video
        that is read nevertheless. Raises LusError for a frame that cannot be decoded.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class FrameFolder(Source):
    """A folder of numbered image files."""

    frame_files: tuple[FrameFile, ...]
    kind = "frames"

    @property
    def files(self) -> list[Path]:
        return [frame.path for frame in self.frame_files]

    @property
    def length(self) -> int:
        return len(self.frame_files)

    def frames(self, mode: Mode, only: Numbers = None, note: Note = ignore) -> Frames:
        for number, path in self.frame_files:
            if only is None or number in only:
                yield number, decode_frame(path, mode)


@dataclass(frozen=True)
class VideoFile(Source):
    """A video file that FFmpeg reads; its frames are numbered from 0."""

    kind = "video"

    def frames(self, mode: Mode, only: Numbers = None, note: Note = ignore) -> Frames:
        from lus_cli.study.video_files import read_frames

        for number, frame in chosen(read_frames(self.location, note), only):
            yield number, as_image(frame, mode)


@dataclass(frozen=True)
class DicomFile(Source):
    """An ultrasound DICOM; its frames are numbered from 0."""

    mask_text: bool
    kind = "dicom"

    @property
    def options(self) -> dict[str, bool]:
        return {"mask_text": self.mask_text}

    def require(self) -> None:
        from lus_cli.study import dicom_files  # noqa: F401 - raises if pydicom is missing

    def frames(self, mode: Mode, only: Numbers = None, note: Note = ignore) -> Frames:
        from lus_cli.study.dicom_files import read_frames

        for number, frame in read_frames(self.location, mode == "RGB", self.mask_text, only, note):
            yield number, as_image(frame, mode)


@dataclass(frozen=True)
class MatFile(Source):
    """A MATLAB file in the format of the report's data; its frames are numbered from 0."""

    kind = "mat"

    def highest_score(self) -> int:
        """The highest frame score in the file of scores next to this one. Raises LusError."""
        from lus_cli.study.mat_files import highest_score

        scores = self.location.with_name(f"{self.location.stem}{MAT_SCORES}{MAT_SUFFIX}")
        return highest_score(self.location, scores)

    def require(self) -> None:
        from lus_cli.study import mat_files  # noqa: F401 - raises if SciPy is missing

    def frames(self, mode: Mode, only: Numbers = None, note: Note = ignore) -> Frames:
        from lus_cli.study.mat_files import read_frames

        for number, frame in chosen(read_frames(self.location), only):
            yield number, as_image(frame, mode)


def chosen(frames: Iterable[Item], only: Numbers) -> Iterator[tuple[int, Item]]:
    """Numbers frames from 0 and yields those in `only`; does not read beyond the last of them."""
    last = None if only is None else max(only, default=-1)
    for number, frame in enumerate(frames):
        if only is None or number in only:
            yield number, frame
        if number == last:
            return


def as_image(frame: np.ndarray, mode: Mode) -> Image.Image:
    """A (row, column[, 3]) uint8 frame as an image in `mode`."""
    image = Image.fromarray(frame)
    return image if image.mode == mode else image.convert(mode)


def kind_of(path: Path) -> Kind | None:
    """The kind of a video file, from its suffix and, for DICOM, its content; None if it is not one.

    Raises LusError if the file cannot be read, or if it is a video in an unsupported format.
    """
    from lus_cli.study.video_containers import OTHER_SUFFIXES, VIDEO_SUFFIXES

    suffix = path.suffix.lower()
    # 1.2.840.264 is a complete DICOM file name: .264 is not its suffix.
    if suffix in VIDEO_SUFFIXES and not (suffix[1:].isdecimal() and holds_dicom(path)):
        return "video"
    if suffix in DICOM_SUFFIXES:
        return "dicom"
    if suffix == MAT_SUFFIX:
        return None if path.stem.endswith(MAT_SCORES) else "mat"
    if suffix in FRAME_SUFFIXES or path.name.upper() == "DICOMDIR":
        return None
    if suffix in OTHER_SUFFIXES:
        raise LusError(
            f"{path} is a video in a format that lus does not read", "convert it to .mp4"
        )
    return "dicom" if holds_dicom(path) else None


def holds_dicom(path: Path) -> bool:
    """Whether a file has DICOM content. Raises LusError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(132))
    except OSError as error:
        raise LusError(f"{path} cannot be read", error.strerror or str(error)) from error


def open_source(kind: Kind, video: VideoId, root: Path, path: Path, mask_text: bool) -> Source:
    """The source of the given kind at `path`, which is under `root`.

    Raises LusError if `path` does not exist, if its name is not valid, or if the numbers of frames do
    not order them.
    """
    if not path.exists():
        raise LusError(f"video {video}: {path} does not exist", "check whether it was moved")
    if not all(map(is_name, video)):
        raise LusError(f"{path}: ids must not contain / \\ ; , or control characters", "rename it")
    name = path.as_posix().removeprefix(f"{root.as_posix()}/")  # Path.relative_to is slow
    if not is_text(name):
        raise LusError(f"{path}: its name is not valid UTF-8", "rename it")
    if kind == "frames":
        return FrameFolder(video, root, name, read_folder(video, path).frames)
    if kind == "dicom":
        return DicomFile(video, root, name, mask_text)
    return MatFile(video, root, name) if kind == "mat" else VideoFile(video, root, name)


def recorded_rate(kind: Kind, path: Path) -> float | None:
    """Frames per second, or None if files of this kind do not state it. Raises LusError if the file
    cannot be read."""
    if kind != "video":
        return None
    from lus_cli.study.video_files import frame_rate

    return frame_rate(path)


def require_libraries(sources: Iterable[Source]) -> None:
    """Raises LusError if a library that one of the sources needs is not installed."""
    for source in {source.kind: source for source in sources}.values():
        source.require()
