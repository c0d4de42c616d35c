"""Totals, as clinicians use them: the total score of an exam and of a patient; and single areas.

The total is the sum of the scores of the areas (Soldati et al. 2020, J Ultrasound Med 39:1413, score
a standard sequence of 14). If areas are missing, it is the sum over the available videos, the same
ones for true and predicted totals. A total grows with the number of videos whatever the model
predicts, so the mean per video is compared, too. Constant scores are evaluated in the same way as
the model's predictions, and the difference of the errors is paired by patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lus_cli.evaluation.intervals import (
    ANY,
    CORRELATION,
    FEW_PATIENTS,
    POSITIVE,
    Jackknife,
    Limits,
    of_difference,
)
from lus_cli.evaluation.metric_labels import LIMITS
from lus_cli.evaluation.metrics import SCORES, Predictions, quotient
from lus_cli.study.ids import natural_key
from lus_cli.words import counted

UNITS = {"exam": 2, "patient": 1}  # -> number of parts of a video's id that identify the unit
MEASURES = ("total", "mean")
DRAWN = "predicted"  # the estimate in the figures: the sum of the predicted scores
VS_CONSTANT = "vs one score for all"  # the title of the column with `less`, see `sums`
AGREEMENT = 1.96  # standard deviations: 95 % of normal differences lie within
RANGES: dict[str, Limits] = {
    "icc": CORRELATION,
    "mae": POSITIVE,
    "bias": ANY,
    "low_limit": ANY,
    "high_limit": ANY,
}
UNDEFINED = {
    "icc": "there are fewer than two totals, or all of them are equal",
    "low_limit": "there are fewer than two totals",
    "high_limit": "there are fewer than two totals",
}


def few_patients(patients: int) -> list[str]:
    """The warning about metrics over so few patients; nothing if there are enough."""
    if patients >= FEW_PATIENTS:
        return []
    return [
        f"only {counted(patients, 'patient')}: fewer than {FEW_PATIENTS} say little about other "
        "patients and are too few for a comparison"
    ]


def agreement(
    true: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The agreement of two measurements of the same units, each (draw,); NaN where undefined.

    true, predicted: (unit,). weights: (draw, unit) float64, the weight of each unit.

    icc: ICC(A,1) of McGraw and Wong 1996, Psychol Methods 1:30 (ICC(2,1) of Shrout and Fleiss
    1979, Psychol Bull 86:420), from the two-way mean squares of units R, measurements C, error E:
    (R - E) / (R + E + 2 (C - E) / n). 1 is perfect; at 0 two measurements of one unit are as
    different as those of different units.
    bias, low_limit, high_limit: the mean of predicted - true, and this minus and plus 1.96 standard
    deviations (Bland and Altman 1986, Lancet 327:307). mae: mean absolute difference.
    """
    units = weights.sum(axis=1)
    difference, both = predicted - true, predicted + true

    def mean(values: np.ndarray) -> np.ndarray:
        return quotient(weights @ values, units)

    def mean_square(values: np.ndarray) -> np.ndarray:
        around = np.abs(values - mean(values)[:, None])
        return quotient((weights * around**2).sum(axis=1), units - 1)

    bias = mean(difference)
    rows, error = mean_square(both) / 2, mean_square(difference) / 2
    columns = units * bias**2 / 2
    deviation = np.sqrt(2 * error)
    whole = rows + error + 2 * quotient(columns - error, units)
    return {
        "icc": quotient(rows - error, np.where(whole > 1e-12, whole, 0.0)),
        "mae": mean(np.abs(difference)),
        "bias": bias,
        "low_limit": bias - AGREEMENT * deviation,
        "high_limit": bias + AGREEMENT * deviation,
    }


def sums(
    predictions: Predictions, jackknife: Jackknife, constants: dict[str, float]
) -> dict[str, Any]:
    """The sums of exams and patients: their rows, and the agreement of predicted with true sums.

    constants: name -> score that every video gets, for comparison.

    There is an agreement for each unit, measure (total, mean per video) and estimate: `predicted`,
    the sum of the most probable scores; `expected`, the sum of the expected scores; each of
    `constants`. The `mae` of the first two has `less`: its difference from that of each constant.
    """
    estimates = {"predicted": predictions.predicted, "expected": predictions.expected}
    estimates |= {
        name: np.full(len(predictions.scores), score) for name, score in constants.items()
    }
    results: dict[str, Any] = {"drawn": DRAWN}
    for unit, parts in UNITS.items():
        results[unit] = unit_sums(predictions, jackknife, parts, estimates)
    return results


def unit_sums(
    predictions: Predictions, jackknife: Jackknife, parts: int, estimates: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The sums of one unit; see `sums`.

    parts: number of parts of a video's id that identify the unit.
    estimates: name -> (video,) scores to add up; all but `predicted` and `expected` are constants.
    """
    patients = np.unique(predictions.patients)
    names, group = grouped([video[:parts] for video in predictions.videos])
    videos = np.bincount(group)
    owner = np.searchsorted(patients, [name[0] for name in names])
    true = np.bincount(group, predictions.scores)
    entry: dict[str, Any] = {
        "units": len(names),
        "patients": len(patients),
        "videos": [int(videos.min()), int(videos.max())],
    }
    totals = {name: np.bincount(group, scores) for name, scores in estimates.items()}
    of_model = ("predicted", "expected")
    for measure in MEASURES:
        size = videos if measure == "mean" else np.ones(len(names))
        means = {name: total / size for name, total in totals.items()}
        entry[measure] = {
            name: agreement_with_intervals(true / size, mean, owner, jackknife)
            for name, mean in means.items()
        }
        for name in of_model:
            entry[measure][name]["mae"]["less"] = {
                other: error_difference(true / size, means[name], mean, owner, jackknife)
                for other, mean in means.items()
                if other not in of_model
            }
    entry["rows"] = [
        dict(zip(("patient", "exam"), name, strict=False))
        | {"videos": int(videos[i]), "true": int(true[i])}
        | {"predicted": int(totals["predicted"][i]), "expected": float(totals["expected"][i])}
        for i, name in enumerate(names)
    ]
    return entry


def agreement_with_intervals(
    true: np.ndarray, predicted: np.ndarray, owner: np.ndarray, jackknife: Jackknife
) -> dict[str, Any]:
    """`agreement` with intervals. owner: (unit,) the index of the patient of each unit."""
    values = agreement(true, predicted, np.ones((1, len(true))))
    left_out = jackknife.left_out(
        lambda draws: agreement(true, predicted, draws[:, owner]), len(owner)
    )
    patients = len(np.unique(owner))
    return {
        name: jackknife.estimate(
            float(v[0]), left_out[name], patients, RANGES[name], UNDEFINED.get(name, "")
        )
        for name, v in values.items()
    }


def error_difference(
    true: np.ndarray,
    predicted: np.ndarray,
    constant: np.ndarray,
    owner: np.ndarray,
    jackknife: Jackknife,
) -> dict[str, Any]:
    """The mean absolute error of `predicted` minus that of `constant`, paired by patient.

    owner: (unit,) the index of the patient of each unit.
    """
    difference = np.abs(predicted - true) - np.abs(constant - true)

    def mean(draws: np.ndarray) -> dict[str, np.ndarray]:
        weights = draws[:, owner]
        return {"mean": quotient(weights @ difference, weights.sum(axis=1))}

    left_out = jackknife.left_out(mean, len(owner))["mean"]
    patients = len(np.unique(owner))
    return jackknife.estimate(float(difference.mean()), left_out, patients, of_difference(POSITIVE))


def areas(predictions: Predictions, jackknife: Jackknife) -> list[dict[str, Any]]:
    """The accuracy and mean absolute error of each area; `few` marks those with few patients."""
    names, area = grouped([video[2:] for video in predictions.videos])
    patient = np.unique(predictions.patients, return_inverse=True)[1]
    error = np.abs(predictions.predicted - predictions.scores)
    rows = []
    for index, (name,) in enumerate(names):
        inside = area == index
        values = np.stack([np.ones(len(error)), error == 0, error])
        count, right, distance = jackknife.sums_without(values[:, inside], patient[inside])
        patients = len(set(patient[inside]))
        rows.append(
            {
                "area": name,
                "videos": int(inside.sum()),
                "patients": patients,
                "few": patients < FEW_PATIENTS,
                "scores": np.bincount(predictions.scores[inside], minlength=len(SCORES)).tolist(),
                "accuracy": jackknife.estimate(
                    float((error[inside] == 0).mean()), quotient(right, count), patients
                ),
                "mean_absolute_error": jackknife.estimate(
                    float(error[inside].mean()),
                    quotient(distance, count),
                    patients,
                    LIMITS["mean_absolute_error"],
                ),
            }
        )
    return rows


def grouped(ids: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The distinct ids in natural order, and the index of each id among them."""
    names = sorted(set(ids), key=lambda name: [natural_key(part) for part in name])
    index_of = {name: index for index, name in enumerate(names)}
    return names, np.array([index_of[name] for name in ids])
