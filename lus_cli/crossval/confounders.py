"""Whether predictions depend on the lung or on how it was filmed: brightness, depth and others.

A model may score well by reading the gain of the device if diseased patients were filmed with another
gain. Two analyses show this: metrics within videos that are similar in the confounder, and the
correlation of predictions with the confounder beyond what the true scores explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy  # type: ignore[import-untyped]

from lus_cli.evaluation.intervals import CORRELATION, Jackknife
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.strata import stratum

STRATA = 3
CONSTANT = "one of the two is constant"
UNDEFINED = {
    "with_score": CONSTANT,
    "with_prediction": CONSTANT,
    "beyond_score": "one of the three is constant, or the true score determines another",
}


def confounding(
    predictions: Predictions, measured: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """One row per confounder, ready for JSON.

    measured: name -> (video,) float values, in the order of the predictions.

    `strata` are thirds of the videos, from the lowest to the highest values, with their metrics.
    `with_score` and `with_prediction` are the rank correlations (Spearman) of the confounder with
    the true and with the expected score. `beyond_score` is the partial rank correlation with the
    expected score given the true score (Kendall 1942): 0 if the model takes nothing from the
    confounder beyond the score. Intervals are over patients, with the ranks of all videos.
    """
    names, patient = np.unique(predictions.patients, return_inverse=True)
    jackknife = Jackknife(len(names))
    rows = []
    for name, values in measured.items():
        columns = [
            scipy.stats.rankdata(column)
            for column in (values, predictions.scores, predictions.expected)
        ]
        entry: dict[str, Any] = {"name": name, "title": name.replace("_", " ")}
        entry |= with_intervals(columns, patient, jackknife)
        rows.append(entry | {"strata": strata(predictions, values)})
    return rows


def with_intervals(
    columns: list[np.ndarray], patient: np.ndarray, jackknife: Jackknife
) -> dict[str, Any]:
    """`correlations` with intervals. patient: (video,) the index of the patient of each video."""
    whole = correlations(columns, np.ones((1, len(patient))))
    left_out = jackknife.left_out(
        lambda draws: correlations(columns, draws[:, patient]), len(patient)
    )
    return {
        key: jackknife.estimate(
            value[0], left_out[key], jackknife.patients, CORRELATION, UNDEFINED[key]
        )
        for key, value in whole.items()
    }


def correlations(columns: list[np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Correlations of confounder, true score and prediction per resample; NaN if one is constant.

    weights: (resample, video), how often each video counts.
    """
    total = weights.sum(axis=1)
    means = [weights @ column / total for column in columns]

    def moment(i: int, j: int) -> np.ndarray:
        product: np.ndarray = weights @ (columns[i] * columns[j]) / total - means[i] * means[j]
        return product

    def correlation(i: int, j: int) -> np.ndarray:
        spread = np.sqrt(np.maximum(moment(i, i) * moment(j, j), 0))
        return np.divide(
            moment(i, j), spread, out=np.full_like(spread, np.nan), where=spread > 1e-9
        )

    with_score, with_prediction, right = correlation(0, 1), correlation(0, 2), correlation(1, 2)
    left = np.sqrt(np.maximum((1 - with_score**2) * (1 - right**2), 0))
    beyond = np.divide(
        with_prediction - with_score * right,
        left,
        out=np.full_like(left, np.nan),
        where=left > 1e-9,
    )
    return {"with_score": with_score, "with_prediction": with_prediction, "beyond_score": beyond}


def strata(predictions: Predictions, values: np.ndarray) -> list[dict[str, Any]]:
    """The thirds of the videos by value, with their metrics. Equal values are in the same third."""
    edges = np.quantile(values, np.arange(1, STRATA) / STRATA)
    group, rows = np.searchsorted(edges, values, side="right"), []
    for number in range(STRATA):
        inside = np.flatnonzero(group == number)
        if len(inside):
            ends = {"low": float(values[inside].min()), "high": float(values[inside].max())}
            rows.append(ends | stratum(predictions, inside))
    return rows


def excludes_zero(estimate: Mapping[str, Any]) -> bool:
    """Whether an estimate has an interval that does not contain 0."""
    return estimate["low"] is not None and not estimate["low"] <= 0 <= estimate["high"]


def confounder_warnings(rows: list[dict[str, Any]]) -> list[str]:
    """The confounders that predictions follow beyond the true scores, one sentence each."""
    sentences = []
    for row in rows:
        beyond = row["beyond_score"]
        if excludes_zero(beyond):
            sentences.append(
                f"Predictions follow {row['title']} beyond what the true scores "
                f"explain: partial rank correlation {beyond['value']:+.2f} "
                f"({beyond['low']:+.2f} to {beyond['high']:+.2f})."
            )
    return sentences
