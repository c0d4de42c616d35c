"""Whether probabilities mean what they say: reliability, temperature, leaving out the unsure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lus_cli.evaluation.intervals import SHARE, Jackknife
from lus_cli.evaluation.metrics import LIMITS, SCORES, Predictions, label_figures, quotient
from lus_cli.evaluation.resampling import CALIBRATION_BINS, LEAST_PROBABILITY, PatientSums

TEMPERATURES = (0.05, 20.0)  # beyond, every answer is certain, or every score equally probable
HALVINGS = 60  # of the range of log temperature: to the last bit of a float
SCALED_FIGURES = ("ece", "brier", "nll")
COVERAGES = tuple(tenths / 10 for tenths in range(10, 0, -1))
ENOUGH = 1e-9  # 0.7 of 10 videos are 7
AT_ONCE = 2_000_000  # resamples times videos in memory: tens of megabytes


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

    Probabilities fix the logits up to a constant, which softmax does not see.
    """
    logits = log_probabilities(probabilities) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalised: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return normalised


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """(video, score) float64, nats; finite."""
    logs: np.ndarray = np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
    return logs


def fit_temperature(predictions: Predictions) -> float:
    """The temperature, within TEMPERATURES, with the least negative log-likelihood.

    Guo et al. 2017, ICML, section 4.2. Of the true scores, not of SORD's soft labels, also for a
    network trained with these: its probabilities then aim at the soft labels, which are less sure
    than the score is, and the question here is how often an answer is right. The likelihood is
    convex in 1 / temperature, so its slope, mean over videos of E[logit] - logit of the true score,
    changes its sign once: bisection finds where.
    """
    logits = log_probabilities(predictions.probabilities)
    given = logits[np.arange(len(logits)), predictions.scores].mean()
    low, high = np.log(TEMPERATURES)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        probabilities = scaled(predictions.probabilities, float(np.exp(middle)))
        too_sure = (probabilities * logits).sum(axis=1).mean() > given
        low, high = (middle, high) if too_sure else (low, middle)
    return float(np.exp((low + high) / 2))


def temperature_scaling(
    predictions: Predictions, validation: Predictions, jackknife: Jackknife
) -> dict[str, Any]:
    """What a temperature fitted on validation videos does to the calibration of `predictions`."""
    temperature = fit_temperature(validation)
    after = replace(predictions, probabilities=scaled(predictions.probabilities, temperature))
    sums = {"before": PatientSums(predictions), "after": PatientSums(after)}
    figures: dict[str, dict[str, Any]] = {}
    for when, own in sums.items():
        values, left_out = (
            own.probability_figures(draws) for draws in (own.as_they_are, jackknife.draws)
        )
        for name in SCALED_FIGURES:
            limits = LIMITS.get(name, SHARE)
            estimate = jackknife.estimate(
                float(values[name][0]), left_out[name], len(own.names), limits
            )
            figures.setdefault(name, {})[when] = estimate
    at_limit = min(abs(np.log(temperature / limit)) for limit in TEMPERATURES) < 1e-6
    return {
        "value": temperature,
        "at_limit": bool(at_limit),
        "fitted_on": {
            "videos": len(validation.videos),
            "patients": len(set(validation.patients)),
        },
        "figures": figures,
        "calibration": reliability(sums["after"]),
    }


# -------------------------------------------------------------------------------------- abstention


class RiskCoverage:
    """Accuracy of the surest videos, against how many these are, for any resample of patients.

    A point of the curve is a threshold of confidence. Videos that are equally sure stay or go
    together, since no threshold can part them.
    """

    def __init__(self, predictions: Predictions) -> None:
        surest_first = np.argsort(-predictions.confidence, kind="stable")
        self.thresholds, self.begins, self.level = np.unique(
            -predictions.confidence[surest_first], return_index=True, return_inverse=True
        )
        names, patient = np.unique(predictions.patients, return_inverse=True)
        self.patients, self.patient = len(names), patient[surest_first]  # (video,), surest first
        self.scores = predictions.scores[surest_first]
        self.answers = predictions.predicted[surest_first]

    def risks(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per resample and threshold the videos at it, the share of videos kept, and of these the
        share answered wrongly, NaN where none is kept; each (resample, threshold).
        """
        videos = draws.astype(np.float64)[:, self.patient]  # how often each was drawn
        at = np.add.reduceat(videos, self.begins, axis=1)
        wrong = np.add.reduceat(videos * (self.answers != self.scores), self.begins, axis=1)
        kept = at.cumsum(axis=1)
        return at, kept / kept[:, -1:], quotient(wrong.cumsum(axis=1), kept)

    def resampled(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The area under each resample's curve, (resample,), and its risk where each of COVERAGES
        is reached, (resample, coverage).

        The area is the mean over videos of the risk at each video's own confidence (Geifman, Uziel
        and El-Yaniv 2019, ICLR, section 2). 0 is best; abstaining at random gives the share of
        wrong answers.
        """
        areas, reached = [], []
        for some in np.array_split(draws, len(draws) * len(self.level) // AT_ONCE + 1):
            at, coverage, risk = self.risks(some)
            areas.append((at * np.nan_to_num(risk)).sum(axis=1) / at.sum(axis=1))
            first = [(coverage >= wanted - ENOUGH).argmax(axis=1) for wanted in COVERAGES]
            reached.append(np.take_along_axis(risk, np.stack(first, axis=1), axis=1))
        return np.concatenate(areas), np.concatenate(reached)

    def curve(self) -> list[dict[str, Any]]:
        """A row a threshold, surest first, of the videos as they are."""
        at, coverage, risk = self.risks(np.ones((1, self.patients)))
        _, first = np.unique(self.patient, return_index=True)  # each patient's surest video
        confusion = np.zeros((len(self.begins), len(SCORES), len(SCORES)))
        np.add.at(confusion, (self.level, self.scores, self.answers), 1)
        columns = {
            "threshold": -self.thresholds,
            "coverage": coverage[0],
            "videos": at[0].cumsum().astype(int),
            "patients": np.bincount(self.level[first], minlength=len(self.begins)).cumsum(),
            "accuracy": 1 - risk[0],
            "f1_macro": label_figures(confusion.cumsum(axis=0))["f1_macro"],
        }
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]


def abstention(predictions: Predictions, jackknife: Jackknife) -> dict[str, Any]:
    """What leaving the least sure videos out does: AURC, accuracy at tenths of coverage, the curve.

    Beside it abstaining at random, which leaves the accuracy as it is, and the best there could be
    with these answers: all wrong ones left out first.
    """
    risk_coverage = RiskCoverage(predictions)
    curve = risk_coverage.curve()
    areas, risks = risk_coverage.resampled(jackknife.draws)
    rows = []
    for wanted, risk in zip(COVERAGES, risks.T, strict=True):
        row = next(row for row in curve if row["coverage"] >= wanted - ENOUGH)
        accuracy = jackknife.estimate(row["accuracy"], 1 - risk, row["patients"])
        rows.append({"at_least": wanted, **row, "low": accuracy["low"], "high": accuracy["high"]})
    wrong = predictions.predicted != predictions.scores
    patients = risk_coverage.patients
    area = float(risk_coverage.resampled(np.ones((1, patients)))[0][0])
    best = np.maximum(np.arange(1, len(wrong) + 1) - (~wrong).sum(), 0) / np.arange(
        1, len(wrong) + 1
    )
    return {
        "aurc": jackknife.estimate(area, areas, patients),
        "aurc_random": float(wrong.mean()),
        "aurc_best": float(best.mean()),
        "at_coverage": rows,
        "curve": curve,
    }
