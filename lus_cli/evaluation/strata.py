"""Metrics within parts of the videos: similar ones, or those of one group (hospital, scanner)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lus_cli.evaluation.intervals import FEW_PATIENTS, SHARE, Jackknife
from lus_cli.evaluation.metric_labels import LIMITS
from lus_cli.evaluation.metrics import SCORES, Predictions
from lus_cli.evaluation.resampling import PatientSums
from lus_cli.study.ids import natural_key

METRICS = ("accuracy", "kappa_quadratic", "mean_absolute_error")
CONSTANT = "all videos have one score, and it is every prediction"


def stratum(predictions: Predictions, inside: np.ndarray) -> dict[str, Any]:
    """The number of `videos` and `patients` of some videos, and METRICS with their intervals.

    inside: the indices of the videos, at least one. Intervals are over the patients of these videos.
    """
    sums = PatientSums(predictions.of(inside))
    patients = len(sums.names)
    jackknife = Jackknife(patients)
    point = sums.metrics(sums.unweighted)
    left_out = jackknife.left_out(sums.metrics, len(inside))
    return {"videos": len(inside), "patients": patients} | {
        metric: jackknife.estimate(
            point[metric][0], left_out[metric], patients, LIMITS.get(metric, SHARE), CONSTANT
        )
        for metric in METRICS
    }


def group_rows(predictions: Predictions, groups: Sequence[str]) -> list[dict[str, Any]]:
    """One row per group, in natural order: its `stratum`, and how often each score occurs in it.

    groups: of each video. `few` marks groups with few patients. There are no rows if no video has a
    group.
    """
    rows = []
    for group in sorted(set(groups) - {""}, key=natural_key):
        inside = np.flatnonzero([name == group for name in groups])
        row = {"group": group, **stratum(predictions, inside)}
        for name, scores in (("scores", predictions.scores), ("predicted", predictions.predicted)):
            row[name] = np.bincount(scores[inside], minlength=len(SCORES)).tolist()
        rows.append(row | {"few": row["patients"] < FEW_PATIENTS})
    return rows
