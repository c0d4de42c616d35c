"""Who scores the same videos better: figures side by side, and their differences, with intervals.

Differences are paired: their spread over patients is that of the differences of each patient, so what
makes these patients hard for all of them cancels out. The interval of a difference can leave
out zero although the two intervals overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lus_cli.evaluation.intervals import (
    FEW_PATIENTS,
    METHOD,
    SHARE,
    Jackknife,
    number,
    of_difference,
)
from lus_cli.evaluation.metrics import FIGURES, LIMITS, LOWER_IS_BETTER, Predictions
from lus_cli.evaluation.resampling import PatientSums

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Measured:
    """The figures of one candidate, by name.

    values: of each time over, (time,). centre, left_out: what intervals are made of, the mean over
    the times: a number, and (patient,) without each patient; see intervals and
    PatientSums.steadied.
    """

    values: dict[str, np.ndarray]
    centre: dict[str, float]
    left_out: dict[str, np.ndarray]


def compare(candidates: Mapping[str, Sequence[Predictions]]) -> dict[str, Any]:
    """Every figure of every candidate, and its difference to the first of them, ready for JSON.

    candidates: by name, what each answered for the same videos, once or several times over (seeds,
        repeated folds). A figure is then the mean over these times, and `sd` is its standard
        deviation over them. A `difference` is the candidate's figure less the first one's.

    Raises ValueError if two of them answered for other videos, or know other scores.
    """
    first = next(iter(candidates.values()))[0]
    for predictions in (p for repeats in candidates.values() for p in repeats):
        if predictions.videos != first.videos or (predictions.scores != first.scores).any():
            raise ValueError("candidates that were not measured on the same videos")
    jackknife = Jackknife(len(set(first.patients)))
    measured = {name: measure(repeats, jackknife) for name, repeats in candidates.items()}
    reference = next(iter(candidates))
    return {
        "reference": reference,
        "videos": len(first.videos),
        "patients": len(jackknife.draws),
        "intervals": METHOD,
        "candidates": [
            {
                "name": name,
                "times": len(candidates[name]),
                "figures": {
                    figure: entry_of(
                        figure, own, None if name == reference else measured[reference], jackknife
                    )
                    for figure in FIGURES
                },
            }
            for name, own in measured.items()
        ],
    }


def measure(repeats: Sequence[Predictions], jackknife: Jackknife) -> Measured:
    sums = [PatientSums(predictions) for predictions in repeats]
    values = [one.figures(one.as_they_are) for one in sums]
    centre = [one.steadied(one.as_they_are) for one in sums]
    left_out = [one.left_out(jackknife.draws) for one in sums]
    return Measured(
        {name: np.array([one[name][0] for one in values]) for name in FIGURES},
        {name: float(np.mean([one[name][0] for one in centre])) for name in FIGURES},
        {name: np.mean([one[name] for one in left_out], axis=0) for name in FIGURES},
    )


def entry_of(
    figure: str, own: Measured, reference: Measured | None, jackknife: Jackknife
) -> dict[str, Any]:
    """A figure of a candidate with its interval, and its difference to the reference's, if given."""
    patients, limits = len(jackknife.draws), LIMITS.get(figure, SHARE)
    values, centre, left_out = own.values[figure], own.centre[figure], own.left_out[figure]
    entry = jackknife.estimate(
        values.mean(), left_out, patients, limits, "undefined for these answers", centre
    )
    entry["sd"] = number(values.std(ddof=1)) if len(values) > 1 else None
    if reference is not None:
        entry["difference"] = jackknife.estimate(
            values.mean() - reference.values[figure].mean(),
            left_out - reference.left_out[figure],
            patients,
            of_difference(limits),
            "undefined for one of the two",
            centre - reference.centre[figure],
        )
    return entry


def verdict(entry: Mapping[str, Any], figure: str) -> str:
    """better, worse or alike: whether the interval of a difference leaves out zero; nothing where
    there is none, or where the patients are too few."""
    difference = entry.get("difference")
    if difference is None or difference["low"] is None or difference["patients"] < FEW_PATIENTS:
        return ""
    if difference["low"] <= 0 <= difference["high"]:
        return "alike"
    above = difference["low"] > 0
    return "better" if above != (figure in LOWER_IS_BETTER) else "worse"


def ensemble(answers: Sequence[Predictions]) -> Predictions:
    """The mean of what several models answered for the same videos."""
    mean = np.mean([one.probabilities for one in answers], axis=0)
    return Predictions(answers[0].videos, answers[0].scores, mean)
