"""Who scores the same videos better: figures side by side, and their differences, with intervals.

Differences are paired: in each resample of patients everybody is measured on the same patients, so
what makes these patients hard for all of them cancels out. The interval of a difference can leave
out zero although the two intervals overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lus_cli.metrics import FIGURES, LOWER_IS_BETTER, Predictions
from lus_cli.resampling import Bootstrap, PatientSums, number

ENSEMBLE = "ensemble"


def compare(
    candidates: Mapping[str, Sequence[Predictions]], resamples: int, seed: int
) -> dict[str, Any]:
    """Every figure of every candidate, and its difference to the first of them, ready for JSON.

    candidates: by name, what each answered for the same videos, once or several times over (seeds,
        repeated folds). A figure is then the mean over these times, in every resample as well, and
        `sd` is its standard deviation over them.
    resamples: patient resamples behind an interval.

    Raises ValueError if two of them answered for other videos, or know other scores.
    """
    first = next(iter(candidates.values()))[0]
    for predictions in (p for repeats in candidates.values() for p in repeats):
        if predictions.videos != first.videos or (predictions.scores != first.scores).any():
            raise ValueError("candidates that were not measured on the same videos")
    patients = len(set(first.patients))
    bootstrap = Bootstrap.drawn(patients, resamples, np.random.default_rng(seed))
    measured = {name: measure(repeats, bootstrap) for name, repeats in candidates.items()}
    reference = next(iter(candidates))
    rows = []
    for name, (values, resampled) in measured.items():
        figures = {}
        for figure in FIGURES:
            own, theirs = values[figure], measured[reference][0][figure]
            entry = bootstrap.estimate(
                own.mean(), resampled[figure], patients, "undefined for these answers"
            )
            entry["sd"] = number(own.std(ddof=1)) if len(own) > 1 else None
            if name != reference:
                entry["difference"] = bootstrap.estimate(
                    own.mean() - theirs.mean(),
                    resampled[figure] - measured[reference][1][figure],
                    patients,
                    "undefined for one of the two",
                )
            figures[figure] = entry
        rows.append({"name": name, "times": len(candidates[name]), "figures": figures})
    return {
        "reference": reference,
        "videos": len(first.videos),
        "patients": patients,
        "resamples": resamples,
        "seed": seed,
        "candidates": rows,
    }


def measure(
    repeats: Sequence[Predictions], bootstrap: Bootstrap
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each figure of each repeat, (repeat,), and its mean over them in each resample, (resample,)."""
    sums = [PatientSums(predictions) for predictions in repeats]
    values = [one.figures(one.as_they_are) for one in sums]
    resampled = [one.figures(bootstrap.draws) for one in sums]
    return (
        {name: np.array([one[name][0] for one in values]) for name in FIGURES},
        {name: np.mean([one[name] for one in resampled], axis=0) for name in FIGURES},
    )


def verdict(entry: Mapping[str, Any], figure: str) -> str:
    """better, worse or alike: whether the interval of a difference leaves out zero."""
    difference = entry.get("difference")
    if difference is None or difference["low"] is None:
        return ""
    if difference["low"] <= 0 <= difference["high"]:
        return "alike"
    above = difference["low"] > 0
    return "better" if above != (figure in LOWER_IS_BETTER) else "worse"


def less(difference: Mapping[str, Any] | None) -> dict[str, float | None] | None:
    """By how much the reference exceeds a candidate: a candidate's difference to it, turned."""
    if difference is None:
        return None
    turned = {"value": "value", "low": "high", "high": "low"}
    found = {key: difference[other] for key, other in turned.items()}
    return {key: None if value is None else -value for key, value in found.items()}


def ensemble(answers: Sequence[Predictions]) -> Predictions:
    """The mean of what several models answered for the same videos."""
    mean = np.mean([one.probabilities for one in answers], axis=0)
    return Predictions(answers[0].videos, answers[0].scores, mean)
