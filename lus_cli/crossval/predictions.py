"""What the model of each fold reached by itself, on the patients it was tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval.baselines import BASELINES, Baseline, answers
from lus_cli.crossval.features import Features
from lus_cli.crossval.folds import Fold
from lus_cli.crossval.plan import Crossval
from lus_cli.errors import LusError
from lus_cli.evaluation.intervals import number
from lus_cli.evaluation.metrics import SCORES, Predictions, label_metrics
from lus_cli.files import read_json, write_json
from lus_cli.model.checkpoint import weights_digest
from lus_cli.progress import Progress
from lus_cli.study.ids import VideoId
from lus_cli.training.trained_run import TrainedRun

FIGURES = ("accuracy", "f1_macro", "kappa_quadratic", "mean_absolute_error")


def by_fold(
    folds: Sequence[Fold], candidates: Mapping[str, Sequence[Predictions]]
) -> list[dict[str, Any]]:
    """A row a fold, ready for JSON; None for a figure that its few videos leave undefined.

    candidates: by name, the recipe first, what each answered for all videos, each time over; the
        last answers of who answered fewer times count for the others.

    `scores` are the numbers of videos of each true score, `answers` of each score that the recipe
    answered.
    """
    recipe = next(iter(candidates))
    rows = []
    for fold in folds:
        tested = set(fold.split.test)
        confusions = {
            name: confusion_of(repeats[min(fold.repeat, len(repeats)) - 1], tested)
            for name, repeats in candidates.items()
        }
        own = confusions[recipe]
        patients = {p for p in candidates[recipe][fold.repeat - 1].patients if p in tested}
        rows.append(
            {
                "name": fold.name,
                "repeat": fold.repeat,
                "fold": fold.number,
                "patients": len(patients),
                "videos": int(own.sum()),
                "scores": own.sum(axis=1).astype(int).tolist(),
                "answers": own.sum(axis=0).astype(int).tolist(),
                "figures": {name: figures_of(matrix) for name, matrix in confusions.items()},
            }
        )
    return rows


def confusion_of(predictions: Predictions, patients: set[str]) -> np.ndarray:
    """(true, answered) numbers of the videos of these patients; expected ones of drawn answers."""
    inside = np.array([patient in patients for patient in predictions.patients])
    counts = np.zeros((len(SCORES), len(SCORES)))
    np.add.at(counts, predictions.scores[inside], predictions.predicted_shares[inside])
    return counts


def figures_of(confusion: np.ndarray) -> dict[str, float | None]:
    if not confusion.sum():
        return dict.fromkeys(FIGURES)
    found = label_metrics(confusion[None])
    return {name: number(found[name][0]) for name in FIGURES}


def constant_folds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether models answered one score for everything though there were others, a sentence."""
    constant = [
        r for r in rows if np.count_nonzero(r["answers"]) == 1 < np.count_nonzero(r["scores"])
    ]
    if not constant:
        return []
    names = ", ".join(row["name"] for row in constant)
    return [
        f"in {len(constant)} of {len(rows)} folds ({names}) the model answers one score for every "
        "video"
    ]


def answers_hold(study: Crossval, fold: Fold) -> bool:
    """Whether a fold has predicted, with the weights that its run has now."""
    path, best = study.answers(fold), study.run(fold).best
    if not path.is_file():
        return False
    if not best.is_file():
        return True
    return bool(read_json(path, remedy_of(study)).get("weights") == weights_digest(best))


def remedy_of(study: Crossval) -> str:
    return f"delete it, and have the fold predict again: --resume --run {study.name}"


def answered(trained: TrainedRun, progress: Progress) -> dict[str, Any]:
    """A run's answers for its own test patients, as JSON."""
    videos = trained.videos
    indices = trained.split.indices("test", videos.patients, videos.scores)
    return {
        "run": trained.run.name,
        "epoch": trained.card.epoch,
        "weights": trained.weights,
        "videos": [list(videos.ids[index]) for index in indices],
        "probabilities": trained.probabilities(indices, "score test", progress).tolist(),
    }


def weights_of(study: Crossval) -> dict[str, str | None]:
    """The digest of the weights that each fold predicted with."""
    contents = {f.name: read_json(study.answers(f), remedy_of(study)) for f in study.folds}
    return {name: content.get("weights") for name, content in contents.items()}


def labelled(videos: VideoCache) -> list[int]:
    return [index for index in range(len(videos)) if videos.scores[index] >= 0]


def out_of_fold(study: Crossval) -> list[Predictions]:
    """One set of answers for all labelled videos, in the cache's order, each time over."""
    given: dict[int, dict[VideoId, list[float]]] = {}
    for fold in study.folds:
        path = study.answers(fold)
        remedy = remedy_of(study)
        content = read_json(path, remedy)
        try:
            ids = [VideoId(*names) for names in content["videos"]]
            answers = np.array(content["probabilities"], float).reshape(len(ids), len(SCORES))
        except (KeyError, TypeError, ValueError) as error:
            raise LusError(f"{path} is damaged ({error!r})", remedy) from error
        given.setdefault(fold.repeat, {}).update(zip(ids, answers, strict=True))
    try:
        return [answered_in_order(study.videos, answers) for answers in given.values()]
    except KeyError as error:
        raise LusError(
            f"no fold of {study.name} answered for video {error.args[0]}",
            f"delete {study.root / 'folds'}, and have them answer again: --resume --run {study.name}",
        ) from error


def answered_in_order(
    videos: VideoCache,
    given: Mapping[VideoId, Sequence[float] | np.ndarray],
    drawn: bool = False,
) -> Predictions:
    indices = labelled(videos)
    ids = [videos.ids[index] for index in indices]
    return Predictions(list(ids), videos.scores[indices], np.array([given[i] for i in ids]), drawn)


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
        for place, fold in enumerate(folds):
            progress("baselines", done * len(folds) + place, len(BASELINES) * len(folds))
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
