"""Metrics for any weights of the patients, and the permutation test."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lus_cli.evaluation.intervals import AT_ONCE, Jackknife
from lus_cli.evaluation.metrics import (
    SCORES,
    Predictions,
    label_metrics,
    mean_of_defined,
    quotient,
    soft_labels,
)

CALIBRATION_BINS = 10
LEAST_PROBABILITY = float(
    np.finfo(np.float32).tiny
)  # a float32 softmax can return 0, whose log is -inf


class PatientSums:
    """Sums over the videos of each patient, which give the metrics for any weights of the patients."""

    def __init__(self, predictions: Predictions) -> None:
        self.names, self.patient = np.unique(predictions.patients, return_inverse=True)
        self.scores, self.predicted = predictions.scores.astype(int), predictions.predicted
        self.predicted_shares = predictions.predicted_shares
        self.exam = np.unique(
            [f"{exam}" for _, exam, _ in predictions.videos], return_inverse=True
        )[1]
        self.probabilities = predictions.probabilities.astype(np.float64)
        self.log_probabilities = np.log(np.maximum(self.probabilities, LEAST_PROBABILITY))
        soft = soft_labels()
        # The loss of each video if this were its true score: (score, video).
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
    def unweighted(self) -> np.ndarray:
        """(1, patient) float64: the draw that takes every patient once."""
        return np.ones((1, len(self.names)))

    @cached_property
    def confusion(self) -> np.ndarray:
        """(patient, true score, predicted score) float64: numbers of videos."""
        one_hot = np.eye(len(SCORES))
        return self.per_patient(one_hot[self.scores][:, :, None] * self.predicted_shares[:, None])

    @cached_property
    def bins(self) -> np.ndarray:
        """(patient, bin of confidence, 3) float64: videos, summed confidence, correct predictions."""
        in_bin = np.eye(CALIBRATION_BINS)[self.bin][:, :, None]
        confidence, right = self.probabilities.max(axis=1), self.scores == self.predicted
        facts = np.stack([np.ones(len(right)), confidence, right], axis=1)
        return self.per_patient(in_bin * facts[:, None])

    def metrics(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Each metric, and each `<metric>_<score>`, per draw: (draw,); NaN where undefined.

        draws: (draw, patient) the weight of each patient.
        """
        draws = draws.astype(np.float64, copy=False)
        confusion = np.tensordot(draws, self.confusion, axes=1)
        return label_metrics(confusion) | self.probability_metrics(draws) | self.aurocs(draws)

    def aurocs(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """AUROC of each score against the rest, and their mean over the scores for which it is
        defined, per draw. It is undefined for a score that no video has, or every video."""
        having = np.tensordot(draws, self.confusion.sum(axis=2), axes=1)
        weights = draws[:, self.patient]
        columns = zip(SCORES, self.probabilities.T, strict=True)
        won = np.stack([pairs_won(p, self.scores == s, weights) for s, p in columns], axis=1)
        aurocs = quotient(won, having * (having.sum(axis=1, keepdims=True) - having))
        by_score = {f"auroc_{score}": aurocs[:, score] for score in SCORES}
        return by_score | {"auroc_macro": mean_of_defined(aurocs)}

    def steadied(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """`metrics` for intervals: with `steady_macro` as macro F1."""
        metrics = self.metrics(draws)
        f1 = np.stack([metrics[f"f1_{score}"] for score in SCORES], axis=1)
        has = (self.confusion.sum(axis=2) + self.confusion.sum(axis=1)) > 0
        macro = steady_macro(f1, draws @ has.astype(float), metrics["accuracy"])
        return metrics | {"f1_macro": macro}

    def left_out(self, jackknife: Jackknife) -> dict[str, np.ndarray]:
        """`steadied` without each group of patients; for macro F1 also without the patient that
        `steadied` adds."""
        steadied = jackknife.left_out(self.steadied, len(self.scores))
        plain = self.metrics(self.unweighted)["f1_macro"]
        return steadied | {"f1_macro": np.concatenate([steadied["f1_macro"], plain])}

    def probability_metrics(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """SORD loss and its excess, Brier score, negative log-likelihood and ECE, each (draw,)."""
        every = np.arange(len(self.scores))
        loss = self.losses[self.scores, every]
        values = {
            "sord_loss": loss,
            "sord_excess": loss - self.floors[self.scores],
            "brier": self.briers[self.scores, every],
            "nll": -self.log_probabilities[every, self.scores],
        }
        bins = np.tensordot(draws.astype(np.float64, copy=False), self.bins, axes=1)
        videos = bins[:, :, 0].sum(axis=1)
        metrics = {name: draws @ self.per_patient(v) / videos for name, v in values.items()}
        metrics["ece"] = np.abs(bins[:, :, 1] - bins[:, :, 2]).sum(axis=1) / videos
        return metrics


def pairs_won(values: np.ndarray, has: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draw,) float64: the total weight of the pairs of videos that are won, the numerator of AUROC.

    A pair is a video that has the finding and one that does not; its weight is the product of the
    weights of its videos. It is won if the first video has the larger value; a tie counts one half.
    AUROC is the share of pairs won (Mann and Whitney 1947, Ann Math Stat 18:50). The videos are
    sorted by value, so no array holds the pairs.

    values: (video,). has: (video,) bool, whether the video has the finding.
    weights: (draw, video) float64.
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    begins = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])[: len(ranked)])
    with_finding, without = (
        np.add.reduceat(weights[:, order] * which[order], begins, axis=1) for which in (has, ~has)
    )  # (draw, distinct value)
    below = without.cumsum(axis=1) - without
    won: np.ndarray = (with_finding * (below + without / 2)).sum(axis=1)
    return won


def steady_macro(f1: np.ndarray, patients: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Macro F1 for intervals, which does not jump when a score disappears with a patient.

    Each score gets one additional patient, whose F1 is the accuracy, next to the patients with
    videos or predictions of that score (Agresti and Coull 1998, Am Stat 52:119, add observations to
    a share in the same way). A score of few patients says little about its own F1; without the
    addition, its interval would be narrow where all of them are wrong. For a perfect model the
    result is 1 whichever patient is left out.

    f1: (..., score), NaN where a score neither occurs nor is predicted.
    patients: (..., score) the number of patients with the score. accuracy: (...).
    """
    steady: np.ndarray = (patients * np.nan_to_num(f1) + accuracy[..., None]) / (patients + 1)
    return steady.mean(axis=-1)


def permutation_test(
    sums: PatientSums, permutations: int, random: np.random.Generator
) -> dict[str, float | None]:
    """The p-values of accuracy and kappa: the share of random permutations of the predictions that
    do better, where equal results count one half (mid-p-value: Lancaster 1961, J Am Stat Assoc
    56:223). None without permutations, or where kappa is undefined.

    If predictions and true scores are independent, the predictions for one patient are as likely for
    another. A permutation therefore gives every patient the predictions of one patient, with exams
    and videos in random order, which keeps the similarity of predictions within a patient (blocks
    are permuted, and within blocks: Winkler et al. 2015, NeuroImage 123:253). Permuting single
    videos would make a model that only recognises patients look significant. If the other patient has
    more videos, a random part of its predictions is used; if it has fewer, they are repeated.
    """
    names = ("accuracy", "kappa_quadratic")
    observed = label_metrics(sums.confusion.sum(axis=0)[None])
    if not permutations or np.isnan(observed["kappa_quadratic"][0]):
        return dict.fromkeys(names)
    parts = np.array_split(np.arange(permutations), permutations * len(sums.scores) // AT_ONCE + 1)
    confusions = [permuted_confusions(sums, len(part), random) for part in parts]
    by_chance = label_metrics(np.concatenate(confusions))
    return {name: mid_p(observed[name][0], by_chance[name]) for name in names}


def permuted_confusions(
    sums: PatientSums, permutations: int, random: np.random.Generator
) -> np.ndarray:
    """(permutation, true, predicted) float64: numbers of videos."""
    count = np.bincount(sums.patient)
    patients, videos, first = len(count), len(sums.patient), np.cumsum(count) - count
    by_patient = np.lexsort((sums.exam, sums.patient))  # the videos of each patient, side by side
    row = np.arange(videos)
    owner = sums.patient[by_patient]
    nth = row - first[owner]  # of the patient's videos, exam by exam
    exam = np.unique(owner * (sums.exam.max() + 1) + sums.exam[by_patient], return_inverse=True)[1]
    # The videos of every patient shuffled: exams, and videos within each exam.
    of_exam = random.random((permutations, int(exam.max()) + 1))[:, exam]
    shuffled = np.argsort(owner + 0.999 * of_exam + 1e-6 * random.random(of_exam.shape), axis=1)
    giver = np.argsort(random.random((permutations, patients)), axis=1)[:, owner]
    place: np.ndarray = first[giver] + nth % count[giver]
    predicted = sums.predicted[by_patient][np.take_along_axis(shuffled, place, axis=1)]
    cells = len(SCORES) ** 2
    cell = sums.scores[by_patient] * len(SCORES) + predicted
    cell += np.arange(permutations)[:, None] * cells
    counts = np.bincount(cell.ravel(), minlength=permutations * cells).astype(float)
    return counts.reshape(permutations, len(SCORES), len(SCORES))


def mid_p(observed: float, permuted: np.ndarray) -> float:
    """The share of permutations that are better, plus half the share of those that are equal, where
    the observed result counts as one of them. 1 if no permutation differs: there is nothing to test.
    """
    rounding = 1e-12
    permuted = permuted[~np.isnan(permuted)]
    equal = int((np.abs(permuted - observed) <= rounding).sum())
    if equal == len(permuted):
        return 1.0
    better = int((permuted > observed + rounding).sum())
    return float((better + (equal + 1) / 2) / (1 + len(permuted)))
