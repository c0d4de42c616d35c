"""Figures for any weights of the patients, and the permutation test: what would come by luck."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lus_cli.evaluation.metrics import (
    SCORES,
    Predictions,
    label_figures,
    mean_of_defined,
    quotient,
    soft_labels,
)

CALIBRATION_BINS = 10
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)  # a float32 softmax can answer 0; log 0 cannot
AT_ONCE = 2_000_000  # deals times videos in memory: tens of megabytes


class PatientSums:
    """Sums over the videos of each patient, from which the figures of any resample follow."""

    def __init__(self, predictions: Predictions) -> None:
        self.names, self.patient = np.unique(predictions.patients, return_inverse=True)
        self.scores, self.answers = predictions.scores.astype(int), predictions.predicted
        self.answered = predictions.answered
        self.exam = np.unique(
            [f"{exam}" for _, exam, _ in predictions.videos], return_inverse=True
        )[1]
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
        return self.per_patient(one_hot[self.scores][:, :, None] * self.answered[:, None])

    @cached_property
    def bins(self) -> np.ndarray:
        """(patient, bin of confidence, 3) float64: videos, their confidence, right answers."""
        in_bin = np.eye(CALIBRATION_BINS)[self.bin][:, :, None]
        confidence, right = self.probabilities.max(axis=1), self.scores == self.answers
        facts = np.stack([np.ones(len(right)), confidence, right], axis=1)
        return self.per_patient(in_bin * facts[:, None])

    @cached_property
    def wins(self) -> np.ndarray:
        """(score, patient, other patient) float64: `pairs_won` of each score against the rest."""
        columns = zip(SCORES, self.probabilities.T, strict=True)
        return np.stack([pairs_won(p, self.scores == s, self.patient) for s, p in columns])

    def figures(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Each figure, and each `<figure>_<score>`, per resample; NaN where undefined.

        draws: (resample, patient) how often each patient was drawn.
        """
        draws = draws.astype(np.float64)
        confusion = np.tensordot(draws, self.confusion, axes=1)
        return label_figures(confusion) | self.probability_figures(draws) | self.aurocs(draws)

    def aurocs(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """AUROC of each score and their mean over the scores that have one, per draw: not a score
        that no video has, or every video."""
        having = np.tensordot(draws, self.confusion.sum(axis=2), axes=1)
        won = np.einsum("rp,spo,ro->rs", draws, self.wins, draws, optimize=True)
        aurocs = quotient(won, having * (having.sum(axis=1, keepdims=True) - having))
        figures = {f"auroc_{score}": aurocs[:, score] for score in SCORES}
        return figures | {"auroc_macro": mean_of_defined(aurocs)}

    def steadied(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """`figures`, for intervals: with `steady_macro` as macro F1."""
        figures = self.figures(draws)
        f1 = np.stack([figures[f"f1_{score}"] for score in SCORES], axis=1)
        has = (self.confusion.sum(axis=2) + self.confusion.sum(axis=1)) > 0
        macro = steady_macro(f1, draws @ has.astype(float), figures["accuracy"])
        return figures | {"f1_macro": macro}

    def left_out(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """`steadied` without each patient; of macro F1, also without the patient that it adds."""
        steadied = self.steadied(draws)
        plain = self.figures(self.as_they_are)["f1_macro"]
        return steadied | {"f1_macro": np.concatenate([steadied["f1_macro"], plain])}

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


def pairs_won(values: np.ndarray, has: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """(patient, other patient) float64: the pairs of videos behind an AUROC.

    A pair is a video of the patient that has the finding and a video of the other patient that does
    not. It is won if the first video has the larger value; a tie counts one half. AUROC is the share
    of pairs won (Mann and Whitney 1947, Ann Math Stat 18:50); with weights of the patients it is a
    quadratic form in these weights.

    values: (video,). has: (video,) bool, whether the video has the finding.
    patient: (video,) index of its patient, every index from 0 to the largest present.
    """
    patients = int(patient.max(initial=-1)) + 1
    won = np.zeros((patients, patients))
    for other in range(patients):
        rivals = np.sort(values[~has & (patient == other)])
        below = np.searchsorted(rivals, values[has], "left")
        not_above = np.searchsorted(rivals, values[has], "right")
        np.add.at(won[:, other], patient[has], (below + not_above) / 2)
    return won


def steady_macro(f1: np.ndarray, patients: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Macro F1 that does not jump where a score comes and goes with a patient, for intervals.

    To the patients with videos of a score, or answers of it, comes one more whose F1 of it is the
    accuracy (as Agresti and Coull 1998, Am Stat 52:119, add observations to a share): a score of few
    patients tells little of its own F1, and its interval would say the opposite where all of them
    are wrong. Of a perfect model it is 1, whoever is left out.

    f1: (..., score), NaN where a score is neither there nor answered. patients: (..., score) how
    many have it. accuracy: (...).
    """
    steady: np.ndarray = (patients * np.nan_to_num(f1) + accuracy[..., None]) / (patients + 1)
    return steady.mean(axis=-1)


def permutation_test(
    sums: PatientSums, deals: int, random: np.random.Generator
) -> dict[str, float | None]:
    """How often answers dealt at random do better, for accuracy and kappa; equally good ones count
    one half (the mid-p-value, Lancaster 1961, J Am Stat Assoc 56:223).

    If answers and scores have nothing to do with each other, then a patient may as well have the
    answers of another: a deal gives every patient those of one patient, exams and videos in random
    order, which leaves alone how much the answers of one patient are alike (permuting blocks and
    within them: Winkler et al. 2015, NeuroImage 123:253). Dealing single videos would call a model
    significant that only tells patients apart. Where the other has more videos, a random part of
    them is dealt; where it has fewer, they come again.
    """
    names = ("accuracy", "kappa_quadratic")
    observed = label_figures(sums.confusion.sum(axis=0)[None])
    if not deals or np.isnan(observed["kappa_quadratic"][0]):
        return dict.fromkeys(names)
    parts = np.array_split(np.arange(deals), deals * len(sums.scores) // AT_ONCE + 1)
    dealt = np.concatenate([confusions_dealt(sums, len(part), random) for part in parts])
    by_chance = label_figures(dealt)
    return {name: mid_p(observed[name][0], by_chance[name]) for name in names}


def confusions_dealt(sums: PatientSums, deals: int, random: np.random.Generator) -> np.ndarray:
    """(deal, true, answered) numbers of videos."""
    count = np.bincount(sums.patient)
    patients, videos, first = len(count), len(sums.patient), np.cumsum(count) - count
    by_patient = np.lexsort((sums.exam, sums.patient))  # where the videos of each patient are
    row = np.arange(videos)
    owner = sums.patient[by_patient]
    nth = row - first[owner]  # of the patient's videos, exam by exam
    exam = np.unique(owner * (sums.exam.max() + 1) + sums.exam[by_patient], return_inverse=True)[1]
    # Every patient's videos shuffled: exam by exam, and within each exam.
    of_exam = random.random((deals, int(exam.max()) + 1))[:, exam]
    shuffled = np.argsort(owner + 0.999 * of_exam + 1e-6 * random.random(of_exam.shape), axis=1)
    giver = np.argsort(random.random((deals, patients)), axis=1)[:, owner]
    place: np.ndarray = first[giver] + nth % count[giver]
    answers = sums.answers[by_patient][np.take_along_axis(shuffled, place, axis=1)]
    cells = len(SCORES) ** 2
    cell = sums.scores[by_patient] * len(SCORES) + answers
    cell += np.arange(deals)[:, None] * cells
    counts = np.bincount(cell.ravel(), minlength=deals * cells).astype(float)
    return counts.reshape(deals, len(SCORES), len(SCORES))


def mid_p(observed: float, dealt: np.ndarray) -> float:
    """The share of deals that are better, and half of those that are as good, the observed one among
    them; 1 where no deal differs, since there is nothing to test."""
    rounding = 1e-12
    dealt = dealt[~np.isnan(dealt)]
    equal = int((np.abs(dealt - observed) <= rounding).sum())
    if equal == len(dealt):
        return 1.0
    better = int((dealt > observed + rounding).sum())
    return float((better + (equal + 1) / 2) / (1 + len(dealt)))
