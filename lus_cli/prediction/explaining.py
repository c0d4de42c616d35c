"""The attention of a model on videos that are in no cache."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lus_cli.attention.file_names import MaskFolder
from lus_cli.attention.maps import draw_one, film, remove_outdated
from lus_cli.attention.mask_file import merge_files
from lus_cli.errors import LusError
from lus_cli.files import check_writable
from lus_cli.folders import locked
from lus_cli.prediction.new_study import distinct_ids, with_video
from lus_cli.prediction.new_videos import Search, find_videos
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import SCORES
from lus_cli.training.trained_run import TrainedModel

COLUMNS = ("", "predicted", *(f"p({score})" for score in SCORES))


def explain_new(
    trained: TrainedModel, paths: Sequence[Path], suffix: str, progress: Progress
) -> Result:
    """Draws the masks of new videos over their frames: each as a video file, and its clearest frame as
    PNG.

    suffix: mp4 or gif.
    Raises LusError if no video can be explained.
    """
    folder = MaskFolder(trained.run.attention / "new-videos")
    check_writable(folder.root)
    search = find_videos(paths)
    with locked(folder.root / ".lock", folder.root, keep=False):
        return draw(trained, search, folder, suffix, progress)


def draw(
    trained: TrainedModel, search: Search, folder: MaskFolder, suffix: str, progress: Progress
) -> Result:
    """Draws the videos of a search, one at a time, and adds their masks to masks.h5.

    suffix: mp4 or gif.
    """
    problems, notes = list(search.problems), list(search.remarks)
    rows: list[tuple[object, ...]] = []
    files: dict[str, Path] = {}
    videos, parts = distinct_ids(search), {}
    for done, (video, new) in enumerate(videos.items(), start=1):
        try:
            study = with_video(trained, new, video, bool(trained.card.mask_text))
        except LusError as error:
            problems.append(f"{new.name}: {error}")
            continue
        notes += remove_outdated(study, folder)
        root = Path(study.videos.provenance["exams"])
        films = suffix, partial(film, study, root, progress)
        probabilities = draw_one(study, root, folder, 0, films).probabilities
        rows.append((new.name, int(np.argmax(probabilities)), *probabilities))
        files[new.name] = folder.picture(video, suffix)
        for kind in ("png", "pdf"):
            if (path := folder.picture(video, kind)).is_file():
                files[f"{new.name} {kind}"] = path
        parts[video] = folder.part(video)
        progress("draw", done, len(videos))
    if not parts:
        raise LusError("no video can be explained", problems[0], left_out=problems[1:])
    merge_files(folder.masks, parts, trained.weights)
    shutil.rmtree(folder.parts, ignore_errors=True)
    numbers = {
        "run": trained.run.name,
        "weights": trained.weights,
        "predictions": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
    }
    return Result(
        numbers,
        [Table(trained.title, COLUMNS, rows)],
        files | {"masks": folder.masks},
        notes,
        problems=problems,
        failed=bool(problems),
    )
