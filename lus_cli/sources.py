"""Where videos come from: a folder of frames, a video file, an ultrasound DICOM, a MATLAB file.

The rest of lus knows a Source by its video's id, by the files whose name, size and time tell
whether it changed, and by its frames, one after the other. What kind of file they lie in, and which
library reads it, matters only here; libraries are loaded when their kind of file turns up.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import numpy as np
from PIL import Image

from lus_cli.cache import is_text
from lus_cli.errors import LusError
from lus_cli.exam_tree import (
    FRAME_SUFFIXES,
    FrameFile,
    VideoId,
    is_name,
    listed,
    read_folder,
    video_order,
    visible_folders,
)
from lus_cli.frames import Mode, decode_frame
from lus_cli.notes import Note, unheard

Kind = Literal["frames", "video", "dicom", "mat"]
Numbers = Collection[int] | None
Frames = Iterator[tuple[int, Image.Image]]
Item = TypeVar("Item")

DICOM_SUFFIXES = (".dcm", ".dicom")
DICOM_MAGIC = (128, b"DICM")  # where it lies, and what it is (DICOM PS3.10, section 7.1)
MAT_SUFFIX = ".mat"
MAT_SCORES = "_score"  # ends the stem of the file with the scores of a .mat file's frames


@dataclass(frozen=True)
class Source:
    """Where the frames of one video are: `path`, from `root` and with /, is a folder or a file."""

    id: VideoId
    root: Path
    path: str
    kind: ClassVar[Kind]

    @property
    def location(self) -> Path:
        return self.root / self.path

    @property
    def files(self) -> list[Path]:
        """The files that the frames are decoded from."""
        return [self.location]

    @property
    def length(self) -> int | None:
        """The number of frames, where that is known without decoding them."""
        return None

    @property
    def options(self) -> dict[str, bool]:
        """What beside the files decides how the frames look."""
        return {}

    def require(self) -> None:
        """Raises LusError if the library that reads the source is not installed."""

    def frames(self, mode: Mode, only: Numbers = None, note: Note = unheard) -> Frames:
        """Each frame's number and its upright image in `mode`, in the order of the numbers.

        `only` leaves out all frames but those with these numbers. `note` is called with what a
        user must know of a video that is read all the same. Raises LusError for a frame that
        cannot be decoded.
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

    def frames(self, mode: Mode, only: Numbers = None, note: Note = unheard) -> Frames:
        for number, path in self.frame_files:
            if only is None or number in only:
                yield number, decode_frame(path, mode)


@dataclass(frozen=True)
class VideoFile(Source):
    """A file that FFmpeg plays; its frames are numbered from 0."""

    kind = "video"

    def frames(self, mode: Mode, only: Numbers = None, note: Note = unheard) -> Frames:
        from lus_cli.video_files import read_frames

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
        from lus_cli import dicom_files  # noqa: F401 - raises if pydicom is missing

    def frames(self, mode: Mode, only: Numbers = None, note: Note = unheard) -> Frames:
        from lus_cli.dicom_files import read_frames

        for number, frame in read_frames(self.location, mode == "RGB", self.mask_text, only, note):
            yield number, as_image(frame, mode)


@dataclass(frozen=True)
class MatFile(Source):
    """A MATLAB file as the report's data came in; its frames are numbered from 0."""

    kind = "mat"

    def highest_score(self) -> int:
        """The highest score that a frame has in the file beside this one. Raises LusError."""
        from lus_cli.mat_files import highest_score

        scores = self.location.with_name(f"{self.location.stem}{MAT_SCORES}{MAT_SUFFIX}")
        return highest_score(self.location, scores)

    def require(self) -> None:
        from lus_cli import mat_files  # noqa: F401 - raises if SciPy is missing

    def frames(self, mode: Mode, only: Numbers = None, note: Note = unheard) -> Frames:
        from lus_cli.mat_files import read_frames

        for number, frame in chosen(read_frames(self.location), only):
            yield number, as_image(frame, mode)


def chosen(frames: Iterable[Item], only: Numbers) -> Iterator[tuple[int, Item]]:
    """Numbers frames from 0 and yields those wanted; what follows the last of them is not read."""
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


# ----------------------------------------------------------------------------------------- finding


def find_sources(root: Path, mask_text: bool) -> tuple[list[Source], list[str]]:
    """Every video of an exam tree, in natural order, and what is wrong with the others.

    A video is ROOT/<patient>/<exam>/<area>: a folder of frames, a folder with one video file, or
    the file itself with its suffix. Raises LusError if `root` is no folder, if it holds no video at
    all, or if a library is missing.
    """
    if not root.is_dir():
        raise LusError(
            f"there is no exam tree at {root}",
            "make one with `lus phantom`, or name yours: lus prepare DIR",
        )
    found: dict[VideoId, list[Source]] = {}
    problems = []
    for patient in visible_folders(root):
        for exam in visible_folders(patient):
            for entry in listed(exam):
                try:
                    source = source_at(root, entry, mask_text)
                except LusError as error:
                    problems.append(str(error))
                else:
                    if source is not None:
                        found.setdefault(source.id, []).append(source)
    if not found and not problems:
        raise LusError(
            f"{root} holds no video",
            "a video is patient/exam/area/Frame_<number>.jpg or patient/exam/area.mp4, .dcm; "
            "others are named by --labels CSV",
        )
    for video, sources in found.items():
        if len(sources) > 1:
            problems.append(
                f"video {video} is there {len(sources)} times: "
                f"keep one of {', '.join(sorted(s.path for s in sources))}"
            )
    single = [sources[0] for sources in found.values() if len(sources) == 1]
    single, doubles = told_apart(single)
    problems += doubles
    require_libraries(single)
    return sorted(single, key=lambda source: video_order(source.id)), problems


def told_apart(sources: Iterable[Source]) -> tuple[list[Source], list[str]]:
    """The sources that share their place on the disk with no other, and a line for those that do.

    A link makes one patient look like two, who may then be in two parts of the split.
    """
    places: dict[Path, list[Source]] = {}
    for source in sources:
        places.setdefault(source.location.resolve(), []).append(source)
    doubles = [
        f"videos {' and '.join(str(source.id) for source in group)} are one and the same by a link: "
        "remove the link"
        for group in places.values()
        if len(group) > 1
    ]
    return [group[0] for group in places.values() if len(group) == 1], doubles


def source_at(root: Path, entry: Path, mask_text: bool) -> Source | None:
    """What lies at ROOT/<patient>/<exam>/<entry>; None for a file that is no video.

    Raises LusError if it should be a video and is none.
    """
    patient, exam, name = entry.relative_to(root).parts
    if entry.is_dir():
        video = VideoId(patient, exam, name)
        inside = listed(entry)
        if any(path.suffix.lower() in FRAME_SUFFIXES for path in inside):
            return open_source("frames", video, root, entry, mask_text)
        kinds = {path: kind for path in inside if path.is_file() and (kind := kind_of(path))}
        if len(kinds) != 1:
            raise LusError(
                f"video {video}: {entry} holds {f'{len(kinds)} videos' if kinds else 'no frame'}",
                "leave one video an area" if kinds else "remove it",
            )
        [(path, kind)] = kinds.items()
    else:
        if not entry.is_file():
            raise LusError(f"{entry} cannot be read", "it is a broken link or a device")
        path, kind = entry, kind_of(entry)
        if kind is None:
            return None
        video = VideoId(patient, exam, area_of(entry, patient, exam, kind))
    return open_source(kind, video, root, path, mask_text)


def area_of(path: Path, patient: str, exam: str, kind: Kind) -> str:
    """The area that a file's name names. Raises LusError if it names another patient or exam."""
    if kind != "mat":
        # 1.2.840.10008 is a whole name: only what is known as a suffix is one.
        known = kind == "video" or path.suffix.lower() in DICOM_SUFFIXES
        return path.stem if known else path.name
    match = re.fullmatch(rf"(?:.*_)?{re.escape(patient)}_{re.escape(exam)}_(.+)", path.stem)
    if not match:
        raise LusError(
            f"{path}: its name does not end in _{patient}_{exam}_<area>.mat",
            "rename it, or move it where it belongs",
        )
    return match[1]


def kind_of(path: Path) -> Kind | None:
    """What kind of video a file is, by its suffix and, for DICOM, by its content; None: none.

    Raises LusError if that cannot be read, or for a video of another kind: somebody may miss it.
    """
    from lus_cli.video_containers import OTHER_SUFFIXES, VIDEO_SUFFIXES

    suffix = path.suffix.lower()
    # 1.2.840.264 is a DICOM file's whole name.
    if suffix in VIDEO_SUFFIXES and not (suffix[1:].isdecimal() and is_dicom(path)):
        return "video"
    if suffix in DICOM_SUFFIXES:
        return "dicom"
    if suffix == MAT_SUFFIX:
        return None if path.stem.endswith(MAT_SCORES) else "mat"
    if suffix in FRAME_SUFFIXES or path.name == "DICOMDIR":
        return None
    if suffix in OTHER_SUFFIXES:
        raise LusError(f"{path} is a video of a kind not read here", "make .mp4 of it")
    return "dicom" if is_dicom(path) else None


def is_dicom(path: Path) -> bool:
    """Whether a file's content says so. Raises LusError if it cannot be read."""
    offset, magic = DICOM_MAGIC
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(len(magic)) == magic
    except OSError as error:
        raise LusError(f"{path} cannot be read", error.strerror or str(error)) from error


def open_source(kind: Kind, video: VideoId, root: Path, path: Path, mask_text: bool) -> Source:
    """The source of a known kind at `path`, which lies under `root`.

    Raises LusError if nothing is there, or no video that can be told from others.
    """
    if not path.exists():
        raise LusError(f"video {video}: there is nothing at {path}", "has it been moved?")
    if not all(map(is_name, video)):
        raise LusError(f"{path}: ids hold no / \\ ; , and no control characters", "rename it")
    name = path.relative_to(root).as_posix()
    if not is_text(name):
        raise LusError(f"{path}: its name is no UTF-8", "rename it")
    if kind == "frames":
        return FrameFolder(video, root, name, read_folder(video, path).frames)
    if kind == "dicom":
        return DicomFile(video, root, name, mask_text)
    return MatFile(video, root, name) if kind == "mat" else VideoFile(video, root, name)


def require_libraries(sources: Iterable[Source]) -> None:
    """Raises LusError if a library that reads one of the sources is not installed."""
    for source in {source.kind: source for source in sources}.values():
        source.require()
