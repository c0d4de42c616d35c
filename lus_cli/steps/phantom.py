"""lus phantom: a synthetic study with the structure of the original data, without a download.

The folder `<root>-masks/` next to the exam tree holds the true mask of every frame (see true_masks),
and study.json with the parameters of every video, with which one can search for shortcuts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lus_cli.cache.layout import Cache
from lus_cli.config import PhantomConfig
from lus_cli.disk_errors import placed_by
from lus_cli.errors import LusError
from lus_cli.files import write_json
from lus_cli.folders import replacing_folders
from lus_cli.phantom.study import RenderTask, Video, render_all, study, study_record
from lus_cli.phantom.true_masks import STUDY, masks_folder
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import ANNOTATIONS, SCORES, write_annotations
from lus_cli.study.exam_tree import refuse_foreign


def run(config: PhantomConfig, progress: Progress) -> Result:
    """Writes the study. Raises LusError if the folder is not empty and --force is not given."""
    root = (config.root or Cache(config.cache).exams).resolve()
    masks = masks_folder(root)
    videos = videos_of(config)
    refuse_foreign(root)
    if masks.exists() and any(masks.iterdir()) and not (masks / STUDY).is_file():
        raise LusError(
            f"{masks} was not written by `lus phantom`", "move it away, or name another folder"
        )
    with (
        placed_by("folder"),
        replacing_folders(root, masks, force=config.force) as [new_root, new_masks],
    ):
        render_all([RenderTask(v, new_root, new_masks) for v in videos], config.workers, progress)
        write_annotations(new_root / ANNOTATIONS, [(v.id, v.score) for v in videos])
        write_json(new_masks / STUDY, study_record(config.seed, videos))
    return result(videos, root, masks)


def videos_of(config: PhantomConfig) -> list[Video]:
    """The videos of the study in natural order: ids, scores and lengths."""
    return study(
        videos=config.videos,
        patients=config.patients,
        longest=config.max_frames,
        size=config.size,
        seed=config.seed,
    )


def result(videos: Sequence[Video], root: Path, masks: Path) -> Result:
    count, frames = Counter(v.score for v in videos), Counter[int]()
    for video in videos:
        frames[video.score] += video.frames
    numbers = {
        "videos": len(videos),
        "patients": len({v.id.patient for v in videos}),
        "exams": len({v.id.exam for v in videos}),
        "frames": frames.total(),
        "root": root,
        "masks": masks,
    }
    rows = [(score, count[score], frames[score]) for score in SCORES]
    table = Table("The phantom study", ("score", "videos", "frames"), rows)
    return Result(numbers=numbers, tables=[table], files={"exams": root, "masks": masks})
