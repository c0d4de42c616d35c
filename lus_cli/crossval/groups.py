"""The group of a patient (hospital, scanner) as a predictor of the score: a confounder and a baseline.

If one hospital sent the healthy patients, a model that recognises the hospital seems to read the lung.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval.baselines import BASELINES, Baseline, Training, shares, videos_in
from lus_cli.crossval.confounders import confounding, excludes_zero
from lus_cli.crossval.features import Features
from lus_cli.evaluation.metrics import Predictions
from lus_cli.study.ids import natural_key
from lus_cli.words import joined


def membership(groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Group -> (video,) float64, 1 for its videos and 0 for others; in natural order of the names.

    groups: of each video, '' for none.
    """
    names = sorted(set(groups) - {""}, key=natural_key)
    return {name: np.array([group == name for group in groups], float) for name in names}


# ------------------------------------------------------------------------------------- confounders


def group_confounding(predictions: Predictions, groups: Sequence[str]) -> list[dict[str, Any]]:
    """One row per group, as `confounding` returns them, of whether a video is of the group.

    groups: of each video. Of two groups only the first has a row, since the row of the second would be
    the same with the opposite sign. A single group has none. `strata` is empty:
    `strata.group_rows` has the metrics.
    """
    members = membership(groups)
    if len(members) < 3:
        members = dict([*members.items()][: len(members) - 1])
    rows = confounding(predictions, {f"group {name}": inside for name, inside in members.items()})
    return [row | {"title": row["name"], "strata": [], "group": True} for row in rows]


def group_warnings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence if the group alone correlates with the true score.

    rows: as `group_confounding` returns them, possibly with others.
    """
    told = [
        f"{row['name']} {entry['value']:+.2f} ({entry['low']:+.2f} to {entry['high']:+.2f})"
        for row in rows
        if row.get("group") and excludes_zero(entry := row["with_score"])
    ]
    if not told:
        return []
    return [
        f"The true scores differ between groups: rank correlation with {joined(told)}. A model that "
        "only recognises the group is better than chance over all videos, so compare the metrics "
        "within each group."
    ]


# ---------------------------------------------------------------------------------------- baseline


def of_group(train: Training, test: Features) -> np.ndarray:
    """The frequencies of the scores among the training videos of the same group.

    A group without training videos, as in folds by group, gets the frequencies of all training videos.
    """
    training, new = train.features["group"] > 0, test["group"] > 0
    predicted = np.tile(shares(train.scores), (videos_in(test), 1))
    for inside, tested in zip(training.T, new.T, strict=True):
        if inside.any():
            predicted[tested] = shares(train.scores[inside])
    return predicted


GROUP = Baseline(
    "group", "only the group; the most frequent score of its training videos", of_group
)


def group_features(videos: VideoCache) -> Features:
    """The features of the baseline GROUP, (video, group); none if the videos have no groups."""
    members = membership(videos.groups)
    return {"group": np.stack([*members.values()], axis=1)} if members else {}


def baselines_of(videos: VideoCache) -> tuple[Baseline, ...]:
    """All baselines: GROUP only if the videos have groups."""
    return (*BASELINES, GROUP) if any(videos.groups) else BASELINES
