"""Finds the videos of a study, in an exam tree or anywhere under a folder.

Every file that may be a video, or part of one, becomes a source or is reported as a problem.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lus_cli.errors import LusError
from lus_cli.study.annotations import ANNOTATIONS
from lus_cli.study.exam_tree import (
    ARCHIVES,
    FRAME_KINDS,
    FRAME_SUFFIXES,
    files_under,
    is_other_frame,
    scanned,
    visible_entries,
)
from lus_cli.study.ids import VideoId, is_clutter, video_order
from lus_cli.study.sources import (
    DICOM_SUFFIXES,
    Kind,
    Source,
    kind_of,
    open_source,
    require_libraries,
)
from lus_cli.words import verb

LAYOUT = "a video is patient/exam/area: a folder of frames, or one file"
PREVIEWS = {"thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews"}
SHOWN = 3  # names listed in a line about many
DEEPEST = 12  # levels of folders below an area that are searched

# ------------------------------------------------------------------------------------- exam trees


def find_sources(root: Path, mask_text: bool) -> tuple[list[Source], list[str]]:
    """The videos of an exam tree, in natural order, and a line for each problem.

    A video is ROOT/<patient>/<exam>/<area>: a folder of frames, a folder with one video file, or
    that file itself with its suffix. Raises LusError if `root` is not a folder, if it holds no
    video at all, or if a library is missing.
    """
    if not root.is_dir():
        raise LusError(
            f"there is no exam tree at {root}",
            "create one with `lus phantom`, or name yours: lus prepare DIR",
        )
    tree = Tree(root, mask_text)
    for patient in tree.folders_in(root):
        for exam in tree.folders_in(patient):
            tree.read_exam(exam)
    if not tree.sources and not tree.problems:
        raise LusError(
            f"{root} contains no video",
            "a video is patient/exam/area/Frame_<number>.jpg or patient/exam/area.mp4, .dcm; "
            "videos in other places need --labels CSV",
        )
    single, problems = one_each(tree.sources)
    require_libraries(single)
    return sorted(single, key=lambda source: video_order(source.id)), tree.problems + problems


def one_each(sources: Iterable[Source]) -> tuple[list[Source], list[str]]:
    """The sources whose id and location are unique, and a line for each that are not."""
    by_id: dict[VideoId, list[Source]] = {}
    for source in sources:
        by_id.setdefault(source.id, []).append(source)
    problems = [
        f"video {video} exists {len(same)} times: "
        f"keep one of {', '.join(sorted(source.path for source in same))}"
        for video, same in by_id.items()
        if len(same) > 1
    ]
    single, doubles = unlinked(same[0] for same in by_id.values() if len(same) == 1)
    return single, problems + doubles


@dataclass
class Tree:
    """Walks an exam tree; collects its sources, and a line for each problem."""

    root: Path
    mask_text: bool
    sources: list[Source] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_folder: dict[Path, bool] = field(default_factory=dict)  # entries that are no links

    def entries(self, folder: Path) -> list[Path]:
        """What is in a folder, sorted; a link to a folder that contains the link is a problem."""
        entries = []
        for listed in scanned(folder):
            entry = folder / listed.name
            if not listed.is_symlink():
                entries.append(entry)
                self.is_folder[entry] = listed.is_dir()
            elif entry.is_dir() and contains(entry.resolve(), folder):
                self.problems.append(
                    f"{entry} is a link to {entry.resolve()}, which contains it: remove the link"
                )
            else:
                entries.append(entry)
        return entries

    def is_dir(self, path: Path) -> bool:
        """Whether an entry is a folder: as its listing says, unless it is a link."""
        known = self.is_folder.get(path)
        return path.is_dir() if known is None else known

    def folders_in(self, folder: Path) -> list[Path]:
        """The folders in the root or in a patient; a video there is a problem."""
        entries = self.entries(folder)
        folders = [entry for entry in entries if self.is_dir(entry)]
        videos = []
        for path in entries:
            try:
                if (
                    not self.is_dir(path)
                    and path.is_file()
                    and (is_numbered_picture(path) or kind_of(path))
                ):
                    videos.append(path)
            except LusError as error:
                self.problems.append(str(error))
        if videos:
            place = "in the folder of patients" if folder == self.root else "in a patient"
            self.problems.append(
                f"{folder} holds {file_names(videos)}, {place}: {LAYOUT}; videos in other places need "
                "--labels CSV"
            )
        return folders

    def read_exam(self, exam: Path) -> None:
        """Collects the videos of one exam."""
        entries = self.entries(exam)
        sources = []
        for entry in entries:
            try:
                source = self.area(entry) if self.is_dir(entry) else self.file(entry)
            except LusError as error:
                self.problems.append(str(error))
            else:
                sources += [source] if source else []
        self.sources += sources
        pictures = [path for path in entries if is_picture(path) and not self.is_dir(path)]
        if pictures and any(source.location.is_file() for source in sources):
            self.problems.append(
                f"{exam}: {file_names(pictures)}: treated as previews and not read"
            )
        elif pictures:
            self.problems.append(f"{exam} holds {file_names(pictures)}, in an exam: {LAYOUT}")

    def file(self, path: Path) -> Source | None:
        """The source of a video file in an exam; None for another file."""
        if not path.is_file():
            raise LusError(f"{path} cannot be read", "it is a broken link or a device")
        kind = kind_of(path)
        if kind is None:
            return None
        patient, exam, _ = path.relative_to(self.root).parts
        video = VideoId.of(patient, exam, area_of(path, patient, exam, kind))
        return open_source(kind, video, self.root, path, self.mask_text)

    def area(self, folder: Path) -> Source:
        """The source of a folder in an exam. Raises LusError unless it holds exactly one video."""
        video = VideoId.of(*folder.relative_to(self.root).parts)
        entries = self.entries(folder)
        pictures = [path for path in entries if is_picture(path)]
        others = [path for path in entries if not is_picture(path)]
        clips = {path: kind for path in others if path.is_file() and (kind := kind_of(path))}
        below = [place for path in others if path.is_dir() for place in places_of_videos(path)]
        if len(clips) > 1:
            raise LusError(
                f"video {video}: {folder} holds {len(clips)} videos, {file_names(list(clips))}",
                "keep one video per area; if each is one frame, save them as Frame_<number>.png",
            )
        if not clips and not pictures:
            raise self.no_video_error(video, folder, below)
        if clips and pictures:
            self.problems.append(next_to(folder, pictures, next(iter(clips))))
        self.problems += [
            f"{place} is not read, because it is in area {video}: {LAYOUT}" for place in below
        ]
        path, kind = next(iter(clips.items())) if clips else (folder, "frames")
        return open_source(kind, video, self.root, path, self.mask_text)

    def no_video_error(self, video: VideoId, folder: Path, below: Sequence[Path]) -> LusError:
        """The error for an area without a video, which names places of videos below it."""
        if not below:
            return LusError(
                f"video {video}: {folder} contains no frame",
                f"frames are {FRAME_KINDS}; an area may also hold one video file",
            )
        shown = " and ".join(map(str, below[:SHOWN]))
        too_deep = len(below[0].relative_to(self.root).parts) - 3
        levels = "one folder" if too_deep == 1 else f"{too_deep} folders"
        top = self.root / folder.relative_to(self.root).parts[0]
        patients = f"; if {top} holds the patients, run `lus prepare {top}`"
        return LusError(
            f"video {video}: frames or videos are {levels} too deep, in {shown}",
            f"{LAYOUT}; move them up{patients if is_top(self.root, top) else ''}",
        )


def contains(folder: Path, place: Path) -> bool:
    """Whether `folder`, without links in its path, is `place` or a folder above it."""
    real = place.resolve()
    return folder in (real, *real.parents)


def is_top(root: Path, folder: Path) -> bool:
    """Whether a folder may be the real root: the only folder, or one with annotations."""
    alone = [path for path in visible_entries(root) if path.is_dir()] == [folder]
    return alone or (folder / ANNOTATIONS).is_file()


def places_of_videos(folder: Path) -> list[Path]:
    """The first folders, at or below `folder`, with frames or videos. Does not follow links."""

    def places() -> Iterable[Path]:
        depth = len(folder.parts)
        for place, inner, files in os.walk(folder):
            inner[:] = sorted(name for name in inner if not is_clutter(name))
            if len(Path(place).parts) - depth >= DEEPEST:
                inner.clear()
            if any(may_be_video(Path(place, name)) for name in files if not is_clutter(name)):
                yield Path(place)

    return list(islice(places(), SHOWN))


def may_be_video(path: Path) -> bool:
    try:
        return is_picture(path) or kind_of(path) is not None
    except LusError:
        return True  # a video in an unsupported format


def is_picture(path: Path) -> bool:
    """Whether a file is a frame, of a supported format or not."""
    return path.suffix.lower() in FRAME_SUFFIXES or is_other_frame(path)


def is_numbered_picture(path: Path) -> bool:
    return is_picture(path) and any(character.isdecimal() for character in path.stem)


def file_names(paths: Sequence[Path]) -> str:
    """`a.jpg`, or `12 files (a.jpg, b.jpg, c.jpg, ...)`."""
    if len(paths) == 1:
        return paths[0].name
    shown = ", ".join(path.name for path in paths[:SHOWN])
    return f"{len(paths)} files ({shown}{', ...' if len(paths) > SHOWN else ''})"


def next_to(folder: Path, pictures: Sequence[Path], clip: Path) -> str:
    """A line on pictures that are left out because they are next to a video."""
    return (
        f"{folder}: {file_names(pictures)} {verb(len(pictures))} not read, but {clip.name} next to "
        f"{'it' if len(pictures) == 1 else 'them'} is: move what is not the video elsewhere"
    )


def unlinked(sources: Iterable[Source]) -> tuple[list[Source], list[str]]:
    """The sources with a unique location on the disk, and a line for each that share one.

    A link makes one patient look like two, who could then be in two parts of the split.
    """
    places: dict[Path, list[Source]] = {}
    folders: dict[Path, Path] = {}  # as they are without links
    for source in sources:
        place = source.location
        if place.parent not in folders:
            folders[place.parent] = place.parent.resolve()
        # Resolving each path looks at every folder above it again.
        real = place.resolve() if place.is_symlink() else folders[place.parent] / place.name
        places.setdefault(real, []).append(source)
    doubles = [
        f"videos {' and '.join(str(source.id) for source in group)} are the same, because of a link: "
        "remove the link"
        for group in places.values()
        if len(group) > 1
    ]
    return [group[0] for group in places.values() if len(group) == 1], doubles


def area_of(path: Path, patient: str, exam: str, kind: Kind) -> str:
    """The area in a file name. Raises LusError for the name of another patient or exam."""
    if kind != "mat":
        # 1.2.840.10008 is a complete name: only the usual suffixes are removed.
        has_suffix = kind == "video" or path.suffix.lower() in DICOM_SUFFIXES
        return path.stem if has_suffix else path.name
    match = re.fullmatch(rf"(?:.*_)?{re.escape(patient)}_{re.escape(exam)}_(.+)", path.stem)
    if not match:
        raise LusError(
            f"{path}: its name does not end in _{patient}_{exam}_<area>.mat",
            "rename it, or move it to its exam",
        )
    return match[1]


# --------------------------------------------------------------------------------------- anywhere


def find_files(root: Path, problems: list[str], remarks: list[str]) -> dict[Path, Kind]:
    """Every video under a folder, at any depth: video files, and folders of frames.

    `problems` gets a line for each file that cannot be read or has an unsupported format. `remarks`
    gets a line for pictures next to a video, which are taken for previews, and one for archives.
    """
    archives = []
    videos: dict[Path, Kind] = {}
    pictures: dict[Path, list[Path]] = {}
    for path in files_under(root, problems):
        try:
            if is_picture(path):
                pictures.setdefault(path.parent, []).append(path)
            elif path.suffix.lower() in ARCHIVES:
                archives.append(path)
            elif kind := kind_of(path):
                videos[path] = kind
        except LusError as error:
            problems.append(str(error))
    if archives:
        names = f"{file_names(archives)} {verb(len(archives))}"
        remarks.append(f"{root}: {names} not opened: unpack what holds videos")
    clips = {path.parent: path for path in reversed(videos)}  # the first one in each folder
    for folder, frames in pictures.items():
        if folder in clips:
            remarks.append(next_to(folder, frames, clips[folder]))
        elif folder.name.lower() in PREVIEWS and folder.parent in clips:
            remarks.append(f"{folder}: {file_names(frames)}: treated as previews and not read")
        elif all(is_other_frame(path) for path in frames):
            if len(frames) > 1:
                problems.append(
                    f"{folder}: lus cannot read {file_names(frames)}: convert them to {FRAME_KINDS}"
                )
        else:
            videos[folder] = "frames"
    return videos
