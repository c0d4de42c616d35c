"""The attention of a model on videos that are in no cache."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np

from lus_cli.attention.file_names import MaskFolder
from lus_cli.attention.maps import draw_one, film, remove_outdated
from lus_cli.attention.mask_file import merge_files
from lus_cli.cache.layout import Cache
from lus_cli.config import AttentionConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.files import check_writable
from lus_cli.folders import locked
from lus_cli.model.devices import choose_device
from lus_cli.prediction.models import chosen_model
from lus_cli.prediction.new_study import distinct_ids, with_video
from lus_cli.prediction.new_videos import Search, find_videos
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import SCORES
from lus_cli.training.trained_run import TrainedModel, on_device

COLUMNS = ("", "predicted", *(f"p({score})" for score in SCORES))


def explain_new(config: AttentionConfig, cache: Cache, progress: Progress) -> Result:
    """Draws new videos: each as a video file under its masks, and its clearest frame as PNG.

    Raises UsageError for options about the study of a run, LusError if no video can be explained.
    """
    if not config.paths:
        raise UsageError("--model comes without a study", "give the videos to explain")
    if config.frame or config.video or config.split or config.check or config.exams:
        raise UsageError(
            "--frame, --video, --split, --check and --exams apply to the run's study",
            "omit them, or the paths of new videos",
        )
    run = config.run if config.model else str(cache.run(config.run).root)  # of no cross-validation
    trained = chosen_model(cache, run, config.model)
    if trained.folds:
        raise LusError(f"{config.model} is a cross-validation", "give the run of one fold")
    if not trained.model.has_masks:
        raise LusError(f"{trained.title} has no attention", "train a run with --attention")
    on_device(trained.model, choose_device(config.device), trained.card)
    folder = MaskFolder(trained.run.attention / "new-videos")
    check_writable(folder.root)
    search = find_videos(config.paths)
    with locked(folder.root / ".lock", folder.root, keep=False):
        return draw(trained, search, folder, config.format or "mp4", progress)


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
