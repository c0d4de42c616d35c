"""Patient bootstrap and permutation test: what a figure would be for other patients, or by luck.

bootstrap    Patients are drawn with replacement and bring all their videos, since the videos of one
             patient are not independent of each other; intervals are 95 % percentiles.
permutation  The model's answers are dealt out at random over the videos, patient by patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lus_cli.metrics import SCORES, Predictions, label_figures, quotient, soft_labels

CALIBRATION_BINS = 10
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)  # a float32 softmax can answer 0; log 0 cannot
ONE_PATIENT = "one patient cannot be resampled"


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of patients.

    draws: (resample, patient) int, how often each patient was drawn, patients by name.
    why_none: why there is no resample, if there is none.
    """

    draws: np.ndarray
    why_none: str = ""

    @classmethod
    def drawn(cls, patients: int, resamples: int, random: np.random.Generator) -> Bootstrap:
        draws = random.multinomial(patients, np.full(patients, 1 / patients), size=resamples)
        if patients == 1:
            return cls(draws[:0], ONE_PATIENT)
        return cls(draws, "" if resamples else "no resamples were asked for")

    def estimate(
        self, value: float, resampled: np.ndarray, patients: int, why: str
    ) -> dict[str, Any]:
        """A figure for JSON: value, interval, the patients it rests on; None and a `why`, no NaN.

        resampled: (resample,) its value in each resample, NaN where undefined.
        why: why the value is undefined, should it be.
        """
        low, high = percentile_interval(resampled)
        estimate: dict[str, Any] = {"value": number(value), "low": low, "high": high}
        estimate["patients"] = patients
        if estimate["value"] is None:
            return estimate | {"low": None, "high": None, "why": why}
        if patients == 1:
            return estimate | {"low": None, "high": None, "why": ONE_PATIENT}
        if low is None:
            estimate["why"] = self.why_none or "undefined in most resamples"
        return estimate


def number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def percentile_interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """The middle 95 % of the defined values; None if half of them or more are undefined."""
    defined = values[~np.isnan(values)]
    if len(defined) * 2 <= len(values):
        return None, None
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)


class PatientSums:
    """Sums over the videos of each patient, from which the figures of any resample follow."""

    def __init__(self, predictions: Predictions) -> None:
        self.names, self.patient = np.unique(predictions.patients, return_inverse=True)
        self.scores, self.answers = predictions.scores.astype(int), predictions.predicted
        self.probabilities = predictions.probabilities.astype(np.float64)
        self.log_probabilities = np.log(np.maximum(self.probabilities, LEAST_PROBABILITY))
        soft = soft_labels()
        # What each video would cost if its score were this: (score, video).
        self.losses = -soft @ self.log_probabilities.T
        self.floors = -(soft * np.log(soft)).sum(axis=1)  # entropy of each soft label, nats
        self.briers = (self.probabilities**2).sum(axis=1) - 2 * self.probabilities.T + 1
        self.bin = np.minimum(
            (predictions.confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1
        )

    def per_patient(self, values: np.ndarray) -> np.ndarray:
        """(video, ...) summed to (patient, ...) float64."""
        total = np.zeros((len(self.names), *values.shape[1:]))
        np.add.at(total, self.patient, values)
        return total

    @property
    def as_they_are(self) -> np.ndarray:
        """The draw, (1, patient), that takes every patient once."""
        return np.ones((1, len(self.names)))

    @cached_property
    def confusion(self) -> np.ndarray:
        """(patient, true score, answered score) float64: numbers of videos."""
        one_hot = np.eye(len(SCORES))
        return self.per_patient(one_hot[self.scores][:, :, None] * one_hot[self.answers][:, None])

    @cached_property
    def bins(self) -> np.ndarray:
        """(patient, bin of confidence, 3) float64: videos, their confidence, right answers."""
        in_bin = np.eye(CALIBRATION_BINS)[self.bin][:, :, None]
        confidence, right = self.probabilities.max(axis=1), self.scores == self.answers
        facts = np.stack([np.ones(len(right)), confidence, right], axis=1)
        return self.per_patient(in_bin * facts[:, None])

    @cached_property
    def wins(self) -> np.ndarray:
        """(score, patient, other patient) float64: the pairs behind one-against-rest AUROC.

        How often a video of the patient that has the score was given it with a higher probability
        than a video of the other patient that has it not; a tie counts one half. AUROC is the share
        of won pairs (Mann and Whitney 1947), under resampling a quadratic form in the draws.
        """
        wins = np.zeros((len(SCORES), len(self.names), len(self.names)))
        for score in SCORES:
            has, probability = self.scores == score, self.probabilities[:, score]
            for other in range(len(self.names)):
                rivals = np.sort(probability[~has & (self.patient == other)])
                below = np.searchsorted(rivals, probability[has], "left")
                not_above = np.searchsorted(rivals, probability[has], "right")
                np.add.at(wins[score, :, other], self.patient[has], (below + not_above) / 2)
        return wins

    def figures(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Each figure, and each `<figure>_<score>`, per resample; NaN where undefined.

        draws: (resample, patient) how often each patient was drawn.
        """
        draws = draws.astype(np.float64)
        confusion = np.tensordot(draws, self.confusion, axes=1)
        videos, having = confusion.sum(axis=(1, 2)), confusion.sum(axis=2)
        won = np.einsum("rp,spo,ro->rs", draws, self.wins, draws, optimize=True)
        aurocs = quotient(won, having * (videos[:, None] - having))
        figures = label_figures(confusion) | self.probability_figures(draws)
        figures |= {f"auroc_{score}": aurocs[:, score] for score in SCORES}
        # A score that no video has, or every video, has no AUROC: the mean is over the others.
        defined = ~np.isnan(aurocs)
        figures["auroc_macro"] = quotient(
            np.where(defined, aurocs, 0).sum(axis=1), defined.sum(axis=1).astype(float)
        )
        return figures

    def probability_figures(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """SORD loss and its excess, Brier score, negative log-likelihood and ECE per resample."""
        every = np.arange(len(self.scores))
        loss = self.losses[self.scores, every]
        values = {
            "sord_loss": loss,
            "sord_excess": loss - self.floors[self.scores],
            "brier": self.briers[self.scores, every],
            "nll": -self.log_probabilities[every, self.scores],
        }
        bins = np.tensordot(draws.astype(np.float64), self.bins, axes=1)
        videos = bins[:, :, 0].sum(axis=1)
        figures = {name: draws @ self.per_patient(v) / videos for name, v in values.items()}
        figures["ece"] = np.abs(bins[:, :, 1] - bins[:, :, 2]).sum(axis=1) / videos
        return figures


def permutation_test(
    sums: PatientSums, deals: int, random: np.random.Generator
) -> dict[str, float | None]:
    """How often answers dealt at random do at least as well, for accuracy and kappa.

    A deal puts the patients in a random order, keeps each patient's answers together, and turns
    this row of answers by a random number of videos against the row of true scores: dealing single
    videos would call a model significant that only tells patients apart.
    """
    names = ("accuracy", "kappa_quadratic")
    observed = label_figures(sums.confusion.sum(axis=0)[None])
    if not deals or np.isnan(observed["kappa_quadratic"][0]):
        return dict.fromkeys(names)
    cells = len(SCORES) ** 2
    truth = sums.scores[np.argsort(sums.patient, kind="stable")] * len(SCORES)
    dealt = np.empty((deals, cells))
    for deal in range(deals):
        place = random.permutation(len(sums.names))
        order = np.argsort(place[sums.patient], kind="stable")
        answers = np.roll(sums.answers[order], random.integers(len(order)))
        dealt[deal] = np.bincount(truth + answers, minlength=cells)
    by_chance = label_figures(dealt.reshape(deals, len(SCORES), len(SCORES)))
    rounding = 1e-12
    return {
        name: float((1 + (by_chance[name] >= observed[name] - rounding).sum()) / (1 + deals))
        for name in names
    }
