"""Finding the videos of a study: in an exam tree, or anywhere under a folder.

What may be a video, or a part of one, is never passed over in silence: it is a source, or there is
a line about it.
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
from lus_cli.study.exam_tree import FRAME_KINDS, FRAME_SUFFIXES, files_under, is_other_frame, listed
from lus_cli.study.ids import VideoId, is_clutter, video_order
from lus_cli.study.sources import (
    DICOM_SUFFIXES,
    Kind,
    Source,
    kind_of,
    open_source,
    require_libraries,
)

LAYOUT = "a video is patient/exam/area: a folder of frames, or one file"
PREVIEWS = {"thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews"}
SHOWN = 3  # names in a line about many
DEEPEST = 12  # folders below an area that are looked through, so that no link leads in circles


# ------------------------------------------------------------------------------------- exam trees


def find_sources(root: Path, mask_text: bool) -> tuple[list[Source], list[str]]:
    """Every video of an exam tree, in natural order, and what is wrong with the others.

    A video is ROOT/<patient>/<exam>/<area>: a folder of frames, a folder with one video file, or
    the file itself with its suffix. Raises LusError if `root` is not a folder, if it holds no video
    at all, or if a library is missing.
    """
    if not root.is_dir():
        raise LusError(
            f"there is no exam tree at {root}",
            "make one with `lus phantom`, or name yours: lus prepare DIR",
        )
    tree = Tree(root, mask_text)
    for patient in tree.folders_in(root):
        for exam in tree.folders_in(patient):
            tree.read_exam(exam)
    if not tree.sources and not tree.problems:
        raise LusError(
            f"{root} holds no video",
            "a video is patient/exam/area/Frame_<number>.jpg or patient/exam/area.mp4, .dcm; "
            "others are named by --labels CSV",
        )
    single, problems = one_each(tree.sources)
    require_libraries(single)
    return sorted(single, key=lambda source: video_order(source.id)), tree.problems + problems


def one_each(sources: Iterable[Source]) -> tuple[list[Source], list[str]]:
    """The sources that share neither id nor place with another, and a line for those that do."""
    by_id: dict[VideoId, list[Source]] = {}
    for source in sources:
        by_id.setdefault(source.id, []).append(source)
    problems = [
        f"video {video} is there {len(same)} times: "
        f"keep one of {', '.join(sorted(source.path for source in same))}"
        for video, same in by_id.items()
        if len(same) > 1
    ]
    single, doubles = told_apart(same[0] for same in by_id.values() if len(same) == 1)
    return single, problems + doubles


@dataclass
class Tree:
    """An exam tree as it is walked: its sources, and a line for what is left out."""

    root: Path
    mask_text: bool
    sources: list[Source] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def folders_in(self, folder: Path) -> list[Path]:
        """The folders in the root or in a patient; videos do not lie there."""
        entries = listed(folder)
        folders = [entry for entry in entries if entry.is_dir()]
        videos = []
        for path in entries:
            try:
                if path.is_file() and (is_numbered_picture(path) or kind_of(path)):
                    videos.append(path)
            except LusError as error:
                self.problems.append(str(error))
        if videos:
            place = "in the folder of the patients" if folder == self.root else "in a patient"
            self.problems.append(
                f"{folder} holds {names(videos)}, {place}: {LAYOUT}; videos that lie elsewhere are "
                "named by --labels CSV"
            )
        return folders

    def read_exam(self, exam: Path) -> None:
        """The videos of one exam."""
        entries = listed(exam)
        sources = []
        for entry in entries:
            try:
                source = self.area(entry) if entry.is_dir() else self.file(entry)
            except LusError as error:
                self.problems.append(str(error))
            else:
                sources += [source] if source else []
        self.sources += sources
        pictures = [path for path in entries if is_picture(path) and not path.is_dir()]
        if pictures and any(source.location.is_file() for source in sources):
            self.problems.append(f"{exam}: {names(pictures)}: taken for previews, not read")
        elif pictures:
            self.problems.append(f"{exam} holds {names(pictures)}, in an exam: {LAYOUT}")

    def file(self, path: Path) -> Source | None:
        """A video that is a file in an exam; None for another file."""
        if not path.is_file():
            raise LusError(f"{path} cannot be read", "it is a broken link or a device")
        kind = kind_of(path)
        if kind is None:
            return None
        patient, exam, _ = path.relative_to(self.root).parts
        video = VideoId.of(patient, exam, area_of(path, patient, exam, kind))
        return open_source(kind, video, self.root, path, self.mask_text)

    def area(self, folder: Path) -> Source:
        """A video that is a folder in an exam. Raises LusError if there is not just one in it."""
        video = VideoId.of(*folder.relative_to(self.root).parts)
        entries = listed(folder)
        pictures = [path for path in entries if is_picture(path)]
        others = [path for path in entries if not is_picture(path)]
        clips = {path: kind for path in others if path.is_file() and (kind := kind_of(path))}
        below = [place for path in others if path.is_dir() for place in places_of_videos(path)]
        if len(clips) > 1:
            raise LusError(
                f"video {video}: {folder} holds {len(clips)} videos, {names(list(clips))}",
                "leave one video an area",
            )
        if not clips and not pictures:
            raise self.nothing_in(video, folder, below)
        if clips and pictures:
            self.problems.append(next_to(folder, pictures, next(iter(clips))))
        self.problems += [
            f"{place} is not read: it lies in area {video}, and {LAYOUT}" for place in below
        ]
        path, kind = next(iter(clips.items())) if clips else (folder, "frames")
        return open_source(kind, video, self.root, path, self.mask_text)

    def nothing_in(self, video: VideoId, folder: Path, below: Sequence[Path]) -> LusError:
        """Says what is wrong with an area that holds no video, and where videos lie below it."""
        if not below:
            return LusError(
                f"video {video}: {folder} holds no frame",
                f"frames are {FRAME_KINDS}; or is it the folder of one video file?",
            )
        shown = " and ".join(map(str, below[:SHOWN]))
        too_deep = len(below[0].relative_to(self.root).parts) - 3
        levels = "one folder" if too_deep == 1 else f"{too_deep} folders"
        top = self.root / folder.relative_to(self.root).parts[0]
        patients = f", or, if {top} holds the patients, run `lus prepare {top}`"
        return LusError(
            f"video {video}: frames or videos lie {levels} too deep, in {shown}",
            f"{LAYOUT}; move them up{patients if is_top(self.root, top) else ''}",
        )


def is_top(root: Path, folder: Path) -> bool:
    """Whether a folder may be the real root of the tree: it is alone, or has the annotations."""
    alone = [path for path in listed(root) if path.is_dir()] == [folder]
    return alone or (folder / ANNOTATIONS).is_file()


def places_of_videos(folder: Path) -> list[Path]:
    """The first folders at or below one that hold frames or videos. Links are not followed."""

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
        return True  # a video of a kind not read here


def is_picture(path: Path) -> bool:
    """Whether a file is a frame, or would be one if its kind were read."""
    return path.suffix.lower() in FRAME_SUFFIXES or is_other_frame(path)


def is_numbered_picture(path: Path) -> bool:
    return is_picture(path) and any(character.isdecimal() for character in path.stem)


def names(paths: Sequence[Path]) -> str:
    """`a.jpg`, or `12 files (a.jpg, b.jpg, c.jpg, ...)`."""
    if len(paths) == 1:
        return paths[0].name
    shown = ", ".join(path.name for path in paths[:SHOWN])
    return f"{len(paths)} files ({shown}{', ...' if len(paths) > SHOWN else ''})"


def next_to(folder: Path, pictures: Sequence[Path], clip: Path) -> str:
    """That pictures are left out for the video they lie next to."""
    verb = "is" if len(pictures) == 1 else "are"
    return (
        f"{folder}: {names(pictures)} {verb} not read, but {clip.name} next to "
        f"{'it' if len(pictures) == 1 else 'them'}: move the one that is not the video elsewhere"
    )


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


# --------------------------------------------------------------------------------------- anywhere


def find_files(root: Path, problems: list[str], remarks: list[str]) -> dict[Path, Kind]:
    """Every video under a folder, however deep: files, and folders of frames.

    `problems` gets a line for what cannot be read, and for videos and frames in formats that are
    not; `remarks` one for pictures that lie next to a video, which are taken for its preview.
    """
    videos: dict[Path, Kind] = {}
    pictures: dict[Path, list[Path]] = {}
    for path in files_under(root, problems):
        try:
            if path.suffix.lower() in FRAME_SUFFIXES or is_other_frame(path):
                pictures.setdefault(path.parent, []).append(path)
            elif kind := kind_of(path):
                videos[path] = kind
        except LusError as error:
            problems.append(str(error))
    clips: dict[Path, Path] = {}
    for path in videos:
        clips.setdefault(path.parent, path)
    for folder, held in pictures.items():
        if folder in clips:
            remarks.append(next_to(folder, held, clips[folder]))
        elif folder.name.lower() in PREVIEWS and folder.parent in clips:
            remarks.append(f"{folder}: {names(held)}: taken for previews, not read")
        elif all(is_other_frame(path) for path in held):
            if len(held) > 1:
                problems.append(
                    f"{folder}: {names(held)} are not read here: make {FRAME_KINDS} of them"
                )
        else:
            videos[folder] = "frames"
    return videos
