"""Whether answers follow the lung or how it was filmed: brightness, depth and the like.

A model may score well by reading the gain of the device, if the sick were filmed with another. Two
looks at it: figures within videos that are alike in the confounder, and the correlation of answers
with it beyond what the true scores explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata  # type: ignore[import-untyped]

from lus_cli.evaluation.intervals import CORRELATION, SHARE, Jackknife
from lus_cli.evaluation.metrics import LIMITS, Predictions
from lus_cli.evaluation.resampling import PatientSums

STRATA = 3
FIGURES = ("accuracy", "kappa_quadratic", "mean_absolute_error")


def confounding(
    predictions: Predictions, measured: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """A row a confounder, ready for JSON.

    measured: (video,) float of each, in the order of the predictions.

    `strata` are thirds of the videos, from the lowest values to the highest, with their figures.
    `with_score` and `with_answer` are rank correlations (Spearman) of the confounder with the true
    and with the expected score; `beyond_score` is the partial one, of the answer given the true
    score (Kendall 1942, on ranks): what the model takes from the confounder and not from the lung,
    or 0. Intervals are over patients, ranks being those of all videos.
    """
    names, patient = np.unique(predictions.patients, return_inverse=True)
    jackknife = Jackknife(len(names))
    rows = []
    for name, values in measured.items():
        columns = [
            rankdata(column) for column in (values, predictions.scores, predictions.expected)
        ]
        whole = correlations(columns, np.ones((1, len(patient))))
        left_out = correlations(columns, jackknife.draws[:, patient])
        entry: dict[str, Any] = {"name": name}
        for key in whole:
            why = "one of the two never varies"
            entry[key] = jackknife.estimate(
                whole[key][0], left_out[key], len(names), CORRELATION, why
            )
        entry["strata"] = strata(predictions, values)
        rows.append(entry)
    return rows


def correlations(columns: list[np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Correlations among confounder, true score and answer per resample; NaN where one is constant.

    weights: (resample, video) how often each video counts.
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

    with_score, with_answer, right = correlation(0, 1), correlation(0, 2), correlation(1, 2)
    left = np.sqrt(np.maximum((1 - with_score**2) * (1 - right**2), 0))
    beyond = np.divide(
        with_answer - with_score * right, left, out=np.full_like(left, np.nan), where=left > 1e-9
    )
    return {"with_score": with_score, "with_answer": with_answer, "beyond_score": beyond}


def strata(predictions: Predictions, values: np.ndarray) -> list[dict[str, Any]]:
    """The thirds of the videos by value, with their figures; equal values are never parted."""
    edges = np.quantile(values, np.arange(1, STRATA) / STRATA)
    group, rows = np.searchsorted(edges, values, side="right"), []
    for number in range(STRATA):
        inside = np.flatnonzero(group == number)
        if not len(inside):
            continue
        some = Predictions(
            [predictions.videos[i] for i in inside],
            predictions.scores[inside],
            predictions.probabilities[inside],
        )
        sums = PatientSums(some)
        jackknife = Jackknife(len(sums.names))
        own, left_out = sums.metrics(sums.unweighted), sums.metrics(jackknife.draws)
        row: dict[str, Any] = {
            "low": float(values[inside].min()),
            "high": float(values[inside].max()),
            "videos": len(inside),
            "patients": len(sums.names),
        }
        for figure in FIGURES:
            why = "all videos have one score, and it is every answer"
            limits = LIMITS.get(figure, SHARE)
            row[figure] = jackknife.estimate(
                own[figure][0], left_out[figure], len(sums.names), limits, why
            )
        rows.append(row)
    return rows


def followed(rows: list[dict[str, Any]]) -> list[str]:
    """The confounders that answers follow beyond the true scores, a sentence each."""
    sentences = []
    for row in rows:
        beyond = row["beyond_score"]
        if beyond["low"] is not None and not beyond["low"] <= 0 <= beyond["high"]:
            sentences.append(
                f"answers follow {row['name'].replace('_', ' ')} beyond what the true scores "
                f"explain: partial rank correlation {beyond['value']:+.2f} "
                f"({beyond['low']:+.2f} to {beyond['high']:+.2f})"
            )
    return sentences
