"""What a clinician adds up: the total score of an exam and of a patient, and single areas.

The total is the sum of the scores of the areas (Soldati et al. 2020, J Ultrasound Med 39:1413, score
a standard sequence of 14). Where areas are missing, it is the sum over the videos there are, true
and predicted over the same ones. A total grows with the number of videos, whatever the model says:
so the mean per video is compared, too. Constant answers are measured in the same way as the model's,
and the error of the model less theirs is paired, patient by patient.
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
from lus_cli.evaluation.metrics import LIMITS, SCORES, Predictions, quotient
from lus_cli.study.ids import natural_key

UNITS = {"exam": 2, "patient": 1}  # -> how many parts of a video's id name the unit
MEASURES = ("total", "mean")
DRAWN = "answered"  # estimate in the plots: what anybody gets who adds up the answered scores
AGREEMENT = 1.96  # standard deviations: where 95 % of normal differences lie
RANGES: dict[str, Limits] = {
    "icc": CORRELATION,
    "mae": POSITIVE,
    "bias": ANY,
    "low_limit": ANY,
    "high_limit": ANY,
}
UNDEFINED = {
    "icc": "fewer than two to compare, or no difference between any of them",
    "low_limit": "fewer than two to compare",
    "high_limit": "fewer than two to compare",
}


def few_patients(patients: int) -> list[str]:
    """What must be said of figures over so few patients; nothing where there are enough."""
    if patients >= FEW_PATIENTS:
        return []
    people = "1 patient" if patients == 1 else f"{patients} patients"
    return [
        f"only {people}: fewer than {FEW_PATIENTS} say little about the next patient, and decide "
        "no comparison"
    ]


def agreement(true: np.ndarray, given: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """How well two measurements of the same units agree, per resample; NaN where undefined.

    true, given: (unit,). counts: (resample, unit) how often each unit counts, float64.

    icc: ICC(A,1) of McGraw and Wong 1996, Psychol Methods 1:30 (ICC(2,1) of Shrout and Fleiss
    1979, Psychol Bull 86:420), from the two-way mean squares of units R, measurements C, error E:
    (R - E) / (R + E + 2 (C - E) / n). 1 is perfect, 0 no more alike than different units are.
    bias, low_limit, high_limit: mean of given - true, and that less and plus 1.96 standard
    deviations (Bland and Altman 1986, Lancet 327:307). mae: mean absolute difference.
    """
    units = counts.sum(axis=1)
    difference, both = given - true, given + true

    def mean(values: np.ndarray) -> np.ndarray:
        return quotient(counts @ values, units)

    def mean_square(values: np.ndarray) -> np.ndarray:
        around = np.abs(values - mean(values)[:, None])
        return quotient((counts * around**2).sum(axis=1), units - 1)

    bias = mean(difference)
    rows, error = mean_square(both) / 2, mean_square(difference) / 2
    columns = units * bias**2 / 2
    spread = np.sqrt(2 * error)
    whole = rows + error + 2 * quotient(columns - error, units)
    return {
        "icc": quotient(rows - error, np.where(whole > 1e-12, whole, 0.0)),
        "mae": mean(np.abs(difference)),
        "bias": bias,
        "low_limit": bias - AGREEMENT * spread,
        "high_limit": bias + AGREEMENT * spread,
    }


def sums(
    predictions: Predictions, jackknife: Jackknife, constants: dict[str, float]
) -> dict[str, Any]:
    """Exam and patient sums: the rows, and how well predicted and true ones agree.

    constants: name -> score given to every video, for comparison.

    Per unit, measure (total, mean per video) and estimate: `answered`, the sum of the most probable
    scores; `expected`, the sum of the expected scores; each of `constants`. The `mae` of the first two
    has `less`: by how much it is larger than that of each constant.
    """
    found: dict[str, Any] = {"drawn": DRAWN}
    patients = np.unique(predictions.patients)
    estimates = {"answered": predictions.predicted, "expected": predictions.expected}
    estimates |= {
        name: np.full(len(predictions.scores), score) for name, score in constants.items()
    }
    for unit, parts in UNITS.items():
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
        for measure in MEASURES:
            size = videos if measure == "mean" else np.ones(len(names))
            means = {name: total / size for name, total in totals.items()}
            entry[measure] = {
                name: compared(true / size, mean, owner, jackknife) for name, mean in means.items()
            }
            for name in ("answered", "expected"):
                entry[measure][name]["mae"]["less"] = {
                    constant: less(true / size, means[name], means[constant], owner, jackknife)
                    for constant in constants
                }
        entry["rows"] = [
            dict(zip(("patient", "exam"), name, strict=False))
            | {"videos": int(videos[i]), "true": int(true[i])}
            | {"answered": int(totals["answered"][i]), "expected": float(totals["expected"][i])}
            for i, name in enumerate(names)
        ]
        found[unit] = entry
    return found


def compared(
    true: np.ndarray, given: np.ndarray, owner: np.ndarray, jackknife: Jackknife
) -> dict[str, Any]:
    """`agreement` with intervals. owner: (unit,) which patient a unit belongs to."""
    values = agreement(true, given, np.ones((1, len(true))))
    left_out = agreement(true, given, jackknife.draws[:, owner])
    patients = len(np.unique(owner))
    return {
        name: jackknife.estimate(
            float(v[0]), left_out[name], patients, RANGES[name], UNDEFINED.get(name, "")
        )
        for name, v in values.items()
    }


def less(
    true: np.ndarray,
    given: np.ndarray,
    constant: np.ndarray,
    owner: np.ndarray,
    jackknife: Jackknife,
) -> dict[str, Any]:
    """The mean absolute error of `given` less that of `constant`, paired. owner: as `compared`."""
    difference = np.abs(given - true) - np.abs(constant - true)
    counts = jackknife.draws[:, owner]
    left_out = quotient(counts @ difference, counts.sum(axis=1))
    patients = len(np.unique(owner))
    return jackknife.estimate(float(difference.mean()), left_out, patients, of_difference(POSITIVE))


def areas(predictions: Predictions, jackknife: Jackknife) -> list[dict[str, Any]]:
    """Accuracy and mean absolute error of each area; `few` marks those with few patients."""
    names, area = grouped([video[2:] for video in predictions.videos])
    everyone, patient = np.unique(predictions.patients, return_inverse=True)
    error = np.abs(predictions.predicted - predictions.scores)
    rows = []
    for index, (name,) in enumerate(names):
        own = area == index
        facts = np.zeros((len(everyone), 3))
        values = np.stack([np.ones(len(error)), error == 0, error], axis=1)
        np.add.at(facts, patient[own], values[own])
        count, right, distance = np.moveaxis(jackknife.draws @ facts, 1, 0)
        patients = len(set(patient[own]))
        rows.append(
            {
                "area": name,
                "videos": int(own.sum()),
                "patients": patients,
                "few": patients < FEW_PATIENTS,
                "scores": np.bincount(predictions.scores[own], minlength=len(SCORES)).tolist(),
                "accuracy": jackknife.estimate(
                    float((error[own] == 0).mean()), quotient(right, count), patients
                ),
                "mean_absolute_error": jackknife.estimate(
                    float(error[own].mean()),
                    quotient(distance, count),
                    patients,
                    LIMITS["mean_absolute_error"],
                ),
            }
        )
    return rows


def grouped(ids: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The different ids in natural order, and which of them each one is."""
    names = sorted(set(ids), key=lambda name: [natural_key(part) for part in name])
    place = {name: index for index, name in enumerate(names)}
    return names, np.array([place[name] for name in ids])
