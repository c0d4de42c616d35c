"""Calibration of probabilities: reliability diagram, temperature scaling, abstention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lus_cli.evaluation.intervals import SHARE, Jackknife
from lus_cli.evaluation.metric_labels import LIMITS
from lus_cli.evaluation.metrics import SCORES, Predictions, label_metrics, quotient
from lus_cli.evaluation.resampling import CALIBRATION_BINS, LEAST_PROBABILITY, PatientSums

TEMPERATURES = (
    0.05,
    20.0,
)  # beyond: every prediction is certain, or all scores are equally probable
HALVINGS = 60  # of the range of log temperature: down to the last bit of a float
SCALED_METRICS = ("ece", "brier", "nll")
COVERAGES = tuple(tenths / 10 for tenths in range(10, 0, -1))
TOLERANCE = 1e-9  # so that 0.7 of 10 videos are 7


def reliability(sums: PatientSums) -> list[dict[str, Any]]:
    """The reliability diagram: per bin of confidence the mean confidence and the accuracy."""
    return [
        {
            "from": index / CALIBRATION_BINS,
            "to": (index + 1) / CALIBRATION_BINS,
            "videos": int(videos),
            "confidence": float(confidence / videos) if videos else None,
            "accuracy": float(right / videos) if videos else None,
        }
        for index, (videos, confidence, right) in enumerate(sums.bins.sum(axis=0))
    ]


# ------------------------------------------------------------------------------------- temperature


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature), as probabilities: (video, score) -> the same shape, float64.

    Probabilities determine the logits up to a constant, on which softmax does not depend.
    """
    logits = log_probabilities(probabilities) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalised: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return normalised


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """(video, score) float64 in nats, finite."""
    logs: np.ndarray = np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
    return logs


def fit_temperature(predictions: Predictions) -> float:
    """The temperature within TEMPERATURES that minimises the negative log-likelihood.

    Guo et al. 2017, ICML, section 4.2. The likelihood is that of the true scores, even for a network
    trained with SORD's soft labels: such a network aims at probabilities that are less confident
    than the scores, while calibration asks how often a prediction is correct. The negative
    log-likelihood is convex in 1 / temperature, so its slope, the mean over videos of E[logit] -
    logit of the true score, changes sign once, and bisection finds where.
    """
    logits = log_probabilities(predictions.probabilities)
    of_true_scores = logits[np.arange(len(logits)), predictions.scores].mean()
    low, high = np.log(TEMPERATURES)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        probabilities = scaled(predictions.probabilities, float(np.exp(middle)))
        overconfident = (probabilities * logits).sum(axis=1).mean() > of_true_scores
        low, high = (middle, high) if overconfident else (low, middle)
    return float(np.exp((low + high) / 2))


def temperature_scaling(
    predictions: Predictions, validation: Predictions, jackknife: Jackknife
) -> dict[str, Any]:
    """The calibration of `predictions` before and after scaling with a temperature that is fitted on
    the validation videos."""
    temperature = fit_temperature(validation)
    after = scaled(predictions.probabilities, temperature)
    return comparison(predictions, after, [temperature], validation, jackknife)


def cross_fitted_scaling(
    predictions: Predictions, folds: Sequence[Sequence[str]], jackknife: Jackknife
) -> dict[str, Any]:
    """The same for out-of-fold predictions, with a temperature for each fold, `by_fold`, that is fitted
    on the predictions for the patients of the other folds. `value` is their median.

    folds: the patients of each fold; every patient is in one of them.
    """
    names = np.array(predictions.patients)
    inside = [within for fold in folds if (within := np.isin(names, fold)).any()]
    if len(inside) < 2:
        return {"value": None, "why": "only one fold has labelled videos"}
    after, temperatures = predictions.probabilities.copy(), []
    for within in inside:
        temperatures.append(fit_temperature(predictions.of(np.flatnonzero(~within))))
        after[within] = scaled(after[within], temperatures[-1])
    scaling = comparison(predictions, after, temperatures, predictions, jackknife)
    return scaling | {"by_fold": temperatures}


def comparison(
    predictions: Predictions,
    probabilities: np.ndarray,
    temperatures: Sequence[float],
    fitted_on: Predictions,
    jackknife: Jackknife,
) -> dict[str, Any]:
    """The calibration of `predictions` as they are, and with the scaled `probabilities`."""
    after = replace(predictions, probabilities=probabilities)
    sums = {"before": PatientSums(predictions), "after": PatientSums(after)}
    metrics: dict[str, dict[str, Any]] = {}
    for when, one in sums.items():
        values = one.probability_metrics(one.unweighted)
        left_out = jackknife.left_out(one.probability_metrics, len(one.names))
        for name in SCALED_METRICS:
            limits = LIMITS.get(name, SHARE)
            estimate = jackknife.estimate(
                float(values[name][0]), left_out[name], len(one.names), limits
            )
            metrics.setdefault(name, {})[when] = estimate
    temperature = float(np.median(temperatures))
    at_limit = min(abs(np.log(temperature / limit)) for limit in TEMPERATURES) < 1e-6
    return {
        "value": temperature,
        "at_limit": bool(at_limit),
        "fitted_on": {
            "videos": len(fitted_on.videos),
            "patients": len(set(fitted_on.patients)),
        },
        "metrics": metrics,
        "calibration": reliability(sums["after"]),
    }


# -------------------------------------------------------------------------------------- abstention


class RiskCoverage:
    """The accuracy of the most confident predictions against their share of the videos, for any
    weights of the patients.

    A point of the curve is a threshold of confidence. Videos of equal confidence are kept or left out
    together, since no threshold separates them.
    """

    def __init__(self, predictions: Predictions) -> None:
        order = np.argsort(-predictions.confidence, kind="stable")  # the most confident first
        self.thresholds, self.begins, self.level = np.unique(
            -predictions.confidence[order], return_index=True, return_inverse=True
        )
        names, patient = np.unique(predictions.patients, return_inverse=True)
        self.patients, self.patient = len(names), patient[order]
        self.scores = predictions.scores[order]
        self.predicted = predictions.predicted[order]

    def risks(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each draw and threshold: the videos with this confidence, the share of videos kept, and
        the share of wrong predictions among those kept (NaN if none are); each (draw, threshold).
        """
        videos = draws.astype(np.float64)[:, self.patient]  # the weight of each
        at = np.add.reduceat(videos, self.begins, axis=1)
        wrong = np.add.reduceat(videos * (self.predicted != self.scores), self.begins, axis=1)
        kept = at.cumsum(axis=1)
        return at, kept / kept[:, -1:], quotient(wrong.cumsum(axis=1), kept)

    def resampled(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """The `area` under the curve of each draw, (draw,), and its `risks` at the first thresholds
        that reach each of COVERAGES, (draw, coverage).

        The area is the mean over videos of the risk at the confidence of each video (Geifman, Uziel
        and El-Yaniv 2019, ICLR, section 2). 0 is best; random abstention gives the share of wrong
        predictions.
        """
        at, coverage, risk = self.risks(draws)
        first = [(coverage >= share - TOLERANCE).argmax(axis=1) for share in COVERAGES]
        return {
            "area": (at * np.nan_to_num(risk)).sum(axis=1) / at.sum(axis=1),
            "risks": np.take_along_axis(risk, np.stack(first, axis=1), axis=1),
        }

    def curve(self) -> list[dict[str, Any]]:
        """One row per threshold, the highest confidence first, each patient weighted once."""
        at, coverage, risk = self.risks(np.ones((1, self.patients)))
        _, first = np.unique(
            self.patient, return_index=True
        )  # the most confident video of each patient
        confusion = np.zeros((len(self.begins), len(SCORES), len(SCORES)))
        np.add.at(confusion, (self.level, self.scores, self.predicted), 1)
        columns = {
            "threshold": -self.thresholds,
            "coverage": coverage[0],
            "videos": at[0].cumsum().astype(int),
            "patients": np.bincount(self.level[first], minlength=len(self.begins)).cumsum(),
            "accuracy": 1 - risk[0],
            "f1_macro": label_metrics(confusion.cumsum(axis=0))["f1_macro"],
        }
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]


def abstention(predictions: Predictions, jackknife: Jackknife) -> dict[str, Any]:
    """The effect of leaving out the least confident predictions: the area under the risk-coverage
    curve (AURC), the accuracy at tenths of coverage, and the curve.

    Two references: random abstention, which does not change the accuracy, and the best possible order
    of these predictions, which leaves out all wrong ones first.
    """
    risk_coverage = RiskCoverage(predictions)
    curve = risk_coverage.curve()
    left_out = jackknife.left_out(risk_coverage.resampled, len(predictions.scores))
    rows = []
    for share, risk in zip(COVERAGES, left_out["risks"].T, strict=True):
        row = next(row for row in curve if row["coverage"] >= share - TOLERANCE)
        accuracy = jackknife.estimate(row["accuracy"], 1 - risk, row["patients"])
        rows.append({"at_least": share, **row, "low": accuracy["low"], "high": accuracy["high"]})
    wrong = predictions.predicted != predictions.scores
    patients = risk_coverage.patients
    area = float(risk_coverage.resampled(np.ones((1, patients)))["area"][0])
    best = np.maximum(np.arange(1, len(wrong) + 1) - (~wrong).sum(), 0) / np.arange(
        1, len(wrong) + 1
    )
    return {
        "aurc": jackknife.estimate(area, left_out["area"], patients),
        "aurc_random": float(wrong.mean()),
        "aurc_best": float(best.mean()),
        "at_coverage": rows,
        "curve": curve,
    }
