"""What the baselines answer on the folds of a cross-validation; kept, so that a resumed one goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval.baselines import BASELINES, Baseline, answers
from lus_cli.crossval.features import Features
from lus_cli.crossval.folds import Fold
from lus_cli.files import read_json, write_json
from lus_cli.progress import Progress
from lus_cli.study.exam_tree import VideoId

Answers = dict[VideoId, list[float]]  # the probabilities of a video's scores


def answer_folds(
    root: Path,
    folds: Sequence[Fold],
    videos: VideoCache,
    features: Features,
    progress: Progress,
) -> dict[str, list[Answers]]:
    """Of each baseline its answers for every labelled video, each time over.

    root: the folder of the cross-validation. A fold's baselines learn from everybody whom its model
    was trained or validated on.
    """
    given: dict[str, dict[int, Answers]] = {}
    for done, baseline in enumerate(BASELINES):
        repeats = given.setdefault(baseline.name, {})
        for number, fold in enumerate(folds):
            progress("baselines", done * len(folds) + number, len(BASELINES) * len(folds))
            path = root / "baselines" / baseline.name / f"{fold.name}.json"
            if not path.is_file() or baseline.drawn:  # once they were drawn here, and kept
                write_json(path, {"videos": answer_fold(baseline, fold, videos, features)})
            rows = read_json(path, "delete it and resume the cross-validation")["videos"]
            repeats.setdefault(fold.repeat, {}).update({VideoId(*row[:3]): row[3] for row in rows})
    progress("baselines", len(BASELINES) * len(folds), len(BASELINES) * len(folds))
    return {name: list(repeats.values()) for name, repeats in given.items()}


def answer_fold(
    baseline: Baseline, fold: Fold, videos: VideoCache, features: Features
) -> list[list[object]]:
    """A row a test video: patient, exam, area and the probabilities."""
    labelled = np.flatnonzero(videos.scores >= 0)
    patients = np.asarray(videos.patients)[labelled]
    train = labelled[np.isin(patients, [*fold.split.train, *fold.split.validation])].tolist()
    test = labelled[np.isin(patients, fold.split.test)].tolist()
    found = answers(baseline, features, videos.scores, videos.patients, (train, test))
    return [[*videos.ids[index], row] for index, row in zip(test, found.tolist(), strict=True)]
