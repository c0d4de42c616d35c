"""The videos to be scored by eye, and the order in which a rater sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lus_cli.errors import LusError
from lus_cli.prediction.new_videos import id_from_path
from lus_cli.study.covid_blues import covid_blues_id
from lus_cli.study.finding import find_files, find_sources, unlinked
from lus_cli.study.ids import VideoId, natural_key
from lus_cli.study.label_tables import by_name, normal
from lus_cli.study.sources import Kind, Source, open_source, require_libraries
from lus_cli.study.study import StudyFiles, table_study


@dataclass(frozen=True)
class LabelVideo:
    """A video to be scored.

    file: its path relative to the folder of videos, as a label table names it; unique.
    id: None if neither a folder, a table nor the file name gives it.
    """

    file: str
    source: Source
    id: VideoId | None

    @property
    def bytes(self) -> int:
        """The size of its files, by which a rating is recognised as one of this video."""
        return sum(path.stat().st_size for path in self.source.files)


@dataclass(frozen=True)
class Found:
    """The videos of a folder in natural order, and a line for each problem."""

    videos: list[LabelVideo]
    problems: list[str]

    @property
    def without_id(self) -> int:
        return sum(video.id is None for video in self.videos)


def find_videos(root: Path, labels: Path | None, mask_text: bool) -> Found:
    """Every video that `lus prepare` could read under `root`.

    labels: a table that gives the ids of the videos; its scores are not read. Without it, ids are
        the folders of an exam tree, or in file names like those of COVID-BLUES.

    Raises LusError if there is no video, or if a library is missing.
    """
    if not root.is_dir():
        raise LusError(f"there is no folder {root}", "name the folder of videos: lus label VIDEOS")
    if labels is not None:
        study = table_study(StudyFiles(root, mask_text=mask_text), labels)
        return of_sources(study.sources.values(), study.problems, root)
    try:
        sources, problems = find_sources(root, mask_text)
    except LusError:  # no exam tree
        sources, problems = [], []
    return of_sources(sources, problems, root) if sources else anywhere(root, mask_text)


def prepared_videos(path: Path) -> tuple[Path, Found]:
    """The folder of the study that `lus prepare` stored in videos.h5 at `path`, and its videos.

    Raises LusError if there is no such file, or none of the videos.
    """
    from lus_cli.cache.video_cache import VideoCache

    videos = VideoCache(path)
    root, mask_text = Path(videos.provenance["exams"]), bool(videos.provenance["mask_text"])
    sources, problems = [], []
    places = zip(videos.source_kinds, videos.ids, videos.source_paths, strict=True)
    for kind, video, name in places:
        try:
            place = root / (name or "/".join(video))
            sources.append(open_source(cast(Kind, kind), video, root, place, mask_text))
        except LusError as error:
            problems.append(str(error))
    return root, of_sources(sources, problems, root)


def of_sources(sources: Iterable[Source], problems: list[str], root: Path) -> Found:
    """The videos of sources that have ids."""
    videos = [LabelVideo(normal(source.path), source, source.id) for source in sources]
    return checked(videos, problems, root)


def anywhere(root: Path, mask_text: bool) -> Found:
    """The videos under `root`, at any depth."""
    problems: list[str] = []
    kinds = find_files(root, problems, problems)
    videos = []
    for name, path in by_name(root, kinds, problems).items():
        video = covid_blues_id(path.name) if kinds[path] == "video" else None
        try:
            source = open_source(kinds[path], video or id_from_path(path), root, path, mask_text)
        except LusError as error:
            problems.append(str(error))
        else:
            videos.append(LabelVideo(name, source, video))
    single, doubles = unlinked(video.source for video in videos)
    places = {source.path for source in single}
    videos = [video for video in videos if video.source.path in places]
    videos.sort(key=lambda video: natural_key(video.file))
    return checked(videos, problems + doubles, root)


def checked(videos: list[LabelVideo], problems: list[str], root: Path) -> Found:
    if not videos:
        raise LusError(
            f"{root} contains no video",
            problems[0] if problems else "a video is a folder of frames or a video file",
            left_out=problems[1:],
        )
    require_libraries(video.source for video in videos)
    return Found(videos, problems)


def shuffled(videos: Sequence[LabelVideo], seed: int, rater: str) -> list[LabelVideo]:
    """The videos in the order in which a rater sees them.

    It depends on the file names, the seed and the rater, so that no rater sees the exams one after
    another, two raters see different orders, and new videos leave the order of the others as it is.
    """

    def key(video: LabelVideo) -> bytes:
        return hashlib.sha256(f"{seed}/{rater}/{video.file}".encode()).digest()

    return sorted(videos, key=key)
