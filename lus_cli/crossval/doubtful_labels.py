"""Labels that the out-of-fold predictions of a cross-validation doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lus_cli.crossval.confident_learning import (
    chance_share,
    confident_classes,
    confident_joint,
    joint_distribution,
    self_confidence,
    thresholds,
    wrong_share,
)
from lus_cli.crossval.predictions import METRICS, metrics_of
from lus_cli.evaluation.comparison import ensemble
from lus_cli.evaluation.csv_tables import prediction_rows
from lus_cli.evaluation.intervals import FEW_PATIENTS, SHARE, Jackknife, number, of_difference
from lus_cli.evaluation.metrics import SCORES, Predictions
from lus_cli.words import counted


def doubted_labels(repeats: Sequence[Predictions]) -> dict[str, Any]:
    """The numbers behind the doubtful labels, ready for JSON.

    repeats: the out-of-fold predictions, one per repetition. A label is judged by the mean of the
        probabilities.

    `expected_wrong` is the expected number of wrong labels with its 95 % interval, `by_chance` the
    number if predictions and labels were independent, and `below_chance` their difference. `metrics`
    are means over the repetitions, of `all` videos and `without_doubted` ones. A threshold is None
    for a score that no video has.
    """
    mean = ensemble(repeats)
    given, probabilities = mean.scores, mean.probabilities
    least = thresholds(given, probabilities)
    confident = confident_classes(probabilities, least)
    counts = confident_joint(given, confident, len(SCORES))
    doubted = is_doubted(given, confident)
    return {
        "videos": len(given),
        "doubted": int(doubted.sum()),
        **expected_wrong(mean),
        "thresholds": [float(value) if np.isfinite(value) else None for value in least],
        "confident_joint": counts.tolist(),
        "expected_labels": (len(given) * joint_distribution(counts, given)).tolist(),
        "metrics": {
            "all": mean_metrics(repeats, np.ones(len(given), bool)),
            "without_doubted": mean_metrics(repeats, ~doubted),
        },
    }


def expected_wrong(predictions: Predictions) -> dict[str, Any]:
    """`expected_wrong`, `by_chance` and `below_chance`, each a number of labels."""
    names, patient = np.unique(predictions.patients, return_inverse=True)
    jackknife = Jackknife(len(names))
    group = jackknife.group[patient]

    def shares(kept: np.ndarray) -> tuple[float, float]:
        given, probabilities = predictions.scores[kept], predictions.probabilities[kept]
        return wrong_share(given, probabilities), chance_share(given, probabilities)

    wrong, chance = shares(np.ones(len(group), bool))
    left_out = np.array([shares(group != one) for one in range(jackknife.groups)]).reshape(-1, 2)
    expected = jackknife.estimate(wrong, left_out[:, 0], len(names), SHARE)
    below = jackknife.estimate(
        chance - wrong, left_out[:, 1] - left_out[:, 0], len(names), of_difference(SHARE)
    )
    videos = len(group)
    return {
        "expected_wrong": in_videos(expected, videos),
        "by_chance": videos * chance,
        "below_chance": in_videos(below, videos),
    }


def in_videos(share: Mapping[str, Any], videos: int) -> dict[str, Any]:
    """An estimate of a share of the videos, converted to a number of videos."""
    ends = {key: share[key] for key in ("value", "low", "high")}
    return {**share, **{key: end if end is None else videos * end for key, end in ends.items()}}


def is_informative(numbers: Mapping[str, Any]) -> bool:
    """Whether the predictions are shown to doubt fewer labels than predictions by chance would."""
    below = numbers["below_chance"]
    return below["patients"] >= FEW_PATIENTS and below["low"] is not None and below["low"] > 0


def is_doubted(given: np.ndarray, confident: np.ndarray) -> np.ndarray:
    """(video,) bool: whether a video is confidently counted as another score than the given one."""
    return (confident >= 0) & (confident != given)


def mean_metrics(repeats: Sequence[Predictions], kept: np.ndarray) -> dict[str, float | None]:
    """The metrics of the kept videos, means over the repetitions; None where one is undefined.

    kept: (video,) bool.
    """
    rows = []
    for one in repeats:
        confusion = np.zeros((len(SCORES), len(SCORES)))
        np.add.at(confusion, one.scores[kept], one.predicted_shares[kept])
        rows.append(metrics_of(confusion))
    values = {name: np.array([row[name] for row in rows], float) for name in METRICS}
    return {name: number(value.mean()) for name, value in values.items()}


def label_rows(repeats: Sequence[Predictions]) -> list[dict[str, Any]]:
    """One row per video for doubtful-labels.csv, the most doubted first.

    `score` is the given one, `predicted` the most probable one of the mean probabilities `p0` to
    `p3`. `doubted` is 1 for videos that are confidently counted as another score, `suggested`.
    """
    mean = ensemble(repeats)
    confidence = self_confidence(mean.scores, mean.probabilities)
    confident = confident_classes(mean.probabilities, thresholds(mean.scores, mean.probabilities))
    doubted = is_doubted(mean.scores, confident)
    rows, table = prediction_rows(mean), []
    for rank, index in enumerate(np.argsort(confidence, kind="stable").tolist(), 1):
        suggested = int(confident[index]) if doubted[index] else None
        verdict = {"p_given": float(confidence[index]), "suggested": suggested}
        table.append({"rank": rank, **rows[index], **verdict, "doubted": int(doubted[index])})
    return table


def doubt_note(numbers: Mapping[str, Any]) -> str:
    """What the terminal says about the doubtful labels."""
    expected = numbers["expected_wrong"]
    labels = counted(numbers["videos"], "label")
    start = f"The predictions doubt {numbers['doubted']} of {labels}"
    if not is_informative(numbers):
        return f"{start}, but are not shown to do so better than chance: do not use that list."
    return (
        f"{start}; confident learning expects {expected['value']:.0f} to be wrong (95 % interval "
        f"{expected['low']:.0f} to {expected['high']:.0f}), which includes errors of the model."
    )
