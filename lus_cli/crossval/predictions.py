"""The out-of-fold predictions of a cross-validation: those of the folds' models and of the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval import baselines
from lus_cli.crossval.baselines import Baseline
from lus_cli.crossval.features import Features
from lus_cli.crossval.fold_files import read_predictions
from lus_cli.crossval.groups import GROUP, baselines_of
from lus_cli.crossval.plan import Crossval
from lus_cli.crossval.repetitions import Fold
from lus_cli.errors import LusError
from lus_cli.evaluation.clip_encoding import Clip
from lus_cli.evaluation.clips import Clips
from lus_cli.evaluation.intervals import number
from lus_cli.evaluation.metrics import SCORES, Predictions, label_metrics
from lus_cli.evaluation.page import worst_videos
from lus_cli.files import read_json, write_json
from lus_cli.model.checkpoint import weights_digest
from lus_cli.progress import Progress
from lus_cli.study.ids import VideoId
from lus_cli.torchrun.group import ALONE, Group
from lus_cli.training.trained_run import TrainedRun, open_run

METRICS = ("accuracy", "f1_macro", "kappa_quadratic", "mean_absolute_error")
Probabilities = dict[VideoId, list[float]]  # video -> the probability of each score


# ------------------------------------------------------------------------------------- of the models


def predict_fold(trained: TrainedRun, progress: Progress) -> dict[str, Any]:
    """The predictions of a run for its test patients, ready for JSON."""
    videos = trained.videos
    indices = trained.split.indices("test", videos.patients, videos.scores)
    return {
        "run": trained.run.name,
        "epoch": trained.card.epoch,
        "weights": trained.weights,
        "videos": [list(videos.ids[index]) for index in indices],
        "probabilities": trained.probabilities(indices, "score test", progress).tolist(),
    }


def has_current_predictions(study: Crossval, fold: Fold) -> bool:
    """Whether a fold has predictions, made with the current weights of its run."""
    path, best = study.predictions(fold), study.run(fold).best
    if not path.is_file():
        return False
    if not best.is_file():
        return True
    return read_predictions(study.root, fold.name).weights == weights_digest(best)


def weights_of(study: Crossval) -> dict[str, str | None]:
    """The digest of the weights that made each fold's predictions."""
    return {fold.name: read_predictions(study.root, fold.name).weights for fold in study.folds}


def out_of_fold(study: Crossval) -> list[Predictions]:
    """The predictions for all labelled videos in the order of the cache, one per repetition."""
    by_repeat: dict[int, dict[VideoId, np.ndarray]] = {}
    for fold in study.folds:
        rows = read_predictions(study.root, fold.name).probabilities
        by_repeat.setdefault(fold.repeat, {}).update(rows)
    try:
        return [in_cache_order(study.videos, rows) for rows in by_repeat.values()]
    except KeyError as error:
        raise LusError(
            f"no fold of {study.name} has a prediction for video {error.args[0]}",
            f"delete {study.root / 'folds'} and predict all folds again with --resume --run "
            f"{study.name}",
        ) from error


def clips_of_worst(
    study: Crossval,
    predictions: Predictions,
    device: torch.device,
    progress: Progress,
    group: Group = ALONE,
) -> dict[str, Clip]:
    """patient/exam/area -> the clip of each video that the page lists, with the attention of the model
    that predicted it. Each process of the group scores its share of the folds; the first process
    receives all clips. Videos of a fold whose weights are missing have none.

    predictions: the first repetition of `out_of_fold`.
    """
    labelled, videos = labelled_indices(study.videos), study.videos
    worst = [labelled[place] for place in worst_videos(predictions)]
    clips = Clips(videos, study.config, len(worst))
    folds = [fold for fold in study.folds if fold.repeat == 1 and study.run(fold).best.is_file()]
    for fold in group.share(folds):
        tested = [index for index in worst if videos.ids[index].patient in fold.split.test]
        if tested:
            run = study.run(fold)
            trained = open_run(run.cache, run.name, device)
            trained.probabilities(tested, "frames for the page", progress, clips)
    clips.collect(group)
    return clips.by_name


def labelled_indices(videos: VideoCache) -> list[int]:
    return [index for index in range(len(videos)) if videos.scores[index] >= 0]


def in_cache_order(
    videos: VideoCache,
    probabilities: Mapping[VideoId, Sequence[float] | np.ndarray],
    drawn: bool = False,
) -> Predictions:
    """Predictions for the labelled videos. drawn: see Predictions. Raises KeyError for a missing one."""
    indices = labelled_indices(videos)
    ids = [videos.ids[index] for index in indices]
    rows = np.array([probabilities[video] for video in ids])
    return Predictions(list(ids), videos.scores[indices], rows, drawn)


# ---------------------------------------------------------------------------------- of the baselines


def predict_folds(
    root: Path,
    folds: Sequence[Fold],
    videos: VideoCache,
    features: Features,
    progress: Progress,
    group: Group = ALONE,
) -> dict[str, list[Probabilities]]:
    """The predictions of each baseline for every labelled video, one per repetition.

    root: the folder of the cross-validation. A baseline learns from the patients on which the
    fold's model was trained or validated. Each process of the group computes its share.
    """
    by_baseline: dict[str, list[Probabilities]] = {}
    every = baselines_of(videos)
    pairs = [(baseline, fold) for baseline in every for fold in folds]
    progress = group.whole(progress)
    for done, (baseline, fold) in enumerate(group.share(pairs)):
        progress("baselines", done, len(pairs))
        path = path_of(root, baseline, fold)
        # Older versions stored drawn scores; groups may have changed since the start.
        if not path.is_file() or baseline.drawn or baseline is GROUP:
            rows = predict_fold_baseline(baseline, fold, videos, features)
            write_json(path, {"videos": rows})
    progress("baselines", len(group.share(pairs)), len(pairs))
    group.meet()
    for baseline in every:
        repeats: dict[int, Probabilities] = {}
        for fold in folds:
            path = path_of(root, baseline, fold)
            rows = read_json(path, "delete it and resume the cross-validation")["videos"]
            repeats.setdefault(fold.repeat, {}).update({VideoId(*row[:3]): row[3] for row in rows})
        by_baseline[baseline.name] = list(repeats.values())
    return by_baseline


def path_of(root: Path, baseline: Baseline, fold: Fold) -> Path:
    """The file with the predictions of a baseline for the test patients of a fold."""
    return root / "baselines" / baseline.name / f"{fold.name}.json"


def predict_fold_baseline(
    baseline: Baseline, fold: Fold, videos: VideoCache, features: Features
) -> list[list[object]]:
    """One row per test video: patient, exam, area and the probabilities."""
    labelled = np.array(labelled_indices(videos))
    patients = np.asarray(videos.patients)[labelled]
    train = labelled[np.isin(patients, [*fold.split.train, *fold.split.validation])].tolist()
    test = labelled[np.isin(patients, fold.split.test)].tolist()
    predicted = baselines.predict(baseline, features, videos.scores, videos.patients, (train, test))
    return [[*videos.ids[index], row] for index, row in zip(test, predicted.tolist(), strict=True)]


# --------------------------------------------------------------------------------- metrics of a fold


def by_fold(
    folds: Sequence[Fold], candidates: Mapping[str, Sequence[Predictions]]
) -> list[dict[str, Any]]:
    """One row per fold, ready for JSON, with None for metrics that are undefined.

    candidates: by name, the recipe first, the predictions for all videos, one per repetition. If a
        candidate has fewer repetitions, its last one counts for the missing ones.

    `scores` and `predicted` are the numbers of videos of each true score, and of each score that
    the recipe predicted.
    """
    recipe = next(iter(candidates))
    rows = []
    for fold in folds:
        tested = set(fold.split.test)
        confusions = {
            name: confusion_of(repeats[min(fold.repeat, len(repeats)) - 1], tested)
            for name, repeats in candidates.items()
        }
        confusion = confusions[recipe]
        patients = {p for p in candidates[recipe][fold.repeat - 1].patients if p in tested}
        rows.append(
            {
                "name": fold.name,
                "repeat": fold.repeat,
                "fold": fold.number,
                "patients": len(patients),
                "videos": int(confusion.sum()),
                "scores": confusion.sum(axis=1).astype(int).tolist(),
                "predicted": confusion.sum(axis=0).astype(int).tolist(),
                "metrics": {name: metrics_of(matrix) for name, matrix in confusions.items()},
            }
        )
    return rows


def confusion_of(predictions: Predictions, patients: set[str]) -> np.ndarray:
    """(true, predicted) numbers of videos of these patients; expected numbers of drawn predictions."""
    inside = np.array([patient in patients for patient in predictions.patients])
    counts = np.zeros((len(SCORES), len(SCORES)))
    np.add.at(counts, predictions.scores[inside], predictions.predicted_shares[inside])
    return counts


def metrics_of(confusion: np.ndarray) -> dict[str, float | None]:
    if not confusion.sum():
        return dict.fromkeys(METRICS)
    values = label_metrics(confusion[None])
    return {name: number(values[name][0]) for name in METRICS}


def constant_fold_warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence if models of folds with several true scores predict one score for every video."""
    constant = [
        row["name"]
        for row in rows
        if np.count_nonzero(row["predicted"]) == 1 < np.count_nonzero(row["scores"])
    ]
    if not constant:
        return []
    return [
        f"In {len(constant)} of {len(rows)} folds ({', '.join(constant)}) the model predicts one "
        "score for every video."
    ]
