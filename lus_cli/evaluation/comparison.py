"""Comparison of candidates on the same videos: their metrics and paired differences, with intervals.

A difference is paired: its interval comes from the difference of each patient, so what makes a
patient hard for all candidates cancels out. It can exclude zero although the intervals of the two
candidates overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lus_cli.evaluation.intervals import (
    FEW_PATIENTS,
    SHARE,
    Jackknife,
    number,
    of_difference,
)
from lus_cli.evaluation.metric_labels import LIMITS, LOWER_IS_BETTER, METRICS
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.resampling import PatientSums

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Measured:
    """The metrics of one candidate, by name.

    values: (repetition,) the values. centre, left_out: what intervals are computed from, as means
    over repetitions: a number, and (group,) without each group of patients; see `Jackknife.estimate` and
    `PatientSums.steadied`.
    """

    values: dict[str, np.ndarray]
    centre: dict[str, float]
    left_out: dict[str, np.ndarray]


def compare(candidates: Mapping[str, Sequence[Predictions]]) -> dict[str, Any]:
    """Every metric of every candidate, and its difference from the first candidate, ready for JSON.

    candidates: by name, the predictions of each for the same videos, in one or several repetitions
        (seeds, repeated folds). A metric is the mean over the repetitions, and `sd` is its standard
        deviation over them. A `difference` is the metric minus that of the first candidate.

    Raises ValueError if two candidates differ in their videos or true scores.
    """
    first = next(iter(candidates.values()))[0]
    for predictions in (p for repeats in candidates.values() for p in repeats):
        if predictions.videos != first.videos or (predictions.scores != first.scores).any():
            raise ValueError("the candidates do not have the same videos and scores")
    jackknife = Jackknife(len(set(first.patients)))
    measured = {name: measure(repeats, jackknife) for name, repeats in candidates.items()}
    reference = next(iter(candidates))
    return {
        "reference": reference,
        "videos": len(first.videos),
        "patients": jackknife.patients,
        "intervals": jackknife.method,
        "candidates": [
            {
                "name": name,
                "repetitions": len(candidates[name]),
                "metrics": {
                    metric: entry_of(
                        metric, one, None if name == reference else measured[reference], jackknife
                    )
                    for metric in METRICS
                },
            }
            for name, one in measured.items()
        ],
    }


def measure(repeats: Sequence[Predictions], jackknife: Jackknife) -> Measured:
    sums = [PatientSums(predictions) for predictions in repeats]
    values = [one.metrics(one.unweighted) for one in sums]
    centre = [one.steadied(one.unweighted) for one in sums]
    left_out = [one.left_out(jackknife) for one in sums]
    return Measured(
        {name: np.array([one[name][0] for one in values]) for name in METRICS},
        {name: float(np.mean([one[name][0] for one in centre])) for name in METRICS},
        {name: np.mean([one[name] for one in left_out], axis=0) for name in METRICS},
    )


def entry_of(
    metric: str, candidate: Measured, reference: Measured | None, jackknife: Jackknife
) -> dict[str, Any]:
    """A metric of a candidate with its interval, and its difference from the reference, if given."""
    patients, limits = jackknife.patients, LIMITS.get(metric, SHARE)
    values, centre = candidate.values[metric], candidate.centre[metric]
    left_out = candidate.left_out[metric]
    entry = jackknife.estimate(
        values.mean(), left_out, patients, limits, "undefined for these predictions", centre
    )
    entry["sd"] = number(values.std(ddof=1)) if len(values) > 1 else None
    if reference is not None:
        entry["difference"] = jackknife.estimate(
            values.mean() - reference.values[metric].mean(),
            left_out - reference.left_out[metric],
            patients,
            of_difference(limits),
            "undefined for one of the two candidates",
            centre - reference.centre[metric],
        )
    return entry


def conclusion(entry: Mapping[str, Any], metric: str) -> str:
    """'better' or 'worse' if the interval of the difference excludes zero, 'alike' if it contains
    zero, '' if there is no interval or there are too few patients."""
    difference = entry.get("difference")
    if difference is None or difference["low"] is None or difference["patients"] < FEW_PATIENTS:
        return ""
    if difference["low"] <= 0 <= difference["high"]:
        return "alike"
    above = difference["low"] > 0
    return "better" if above != (metric in LOWER_IS_BETTER) else "worse"


def ensemble(members: Sequence[Predictions]) -> Predictions:
    """The mean of the probabilities of several models for the same videos."""
    mean = np.mean([one.probabilities for one in members], axis=0)
    return Predictions(members[0].videos, members[0].scores, mean)
