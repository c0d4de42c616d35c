"""Figures of merit of answered scores and their probabilities. Arrays only.

Values are scikit-learn's where it has the figure. Intervals and deals need thousands of values, so
there the same figures are computed at once from many confusion matrices; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SCORES = range(4)

# Name of each figure -> how a person calls it, in the order in which they are shown.
FIGURES = {
    "accuracy": "Accuracy",
    "f1_micro": "F1, micro",
    "f1_macro": "F1, macro",
    "f1_weighted": "F1, weighted",
    "kappa_quadratic": "Kappa, quadratic",
    "mean_absolute_error": "Mean absolute error",
    "auroc_macro": "AUROC, one vs rest",
    "brier": "Brier score",
    "ece": "Calibration error",
    "sord_loss": "SORD loss",
    "sord_excess": "SORD above its floor",
}
# The range of each figure that is not a share.
LIMITS: dict[str, tuple[float, float]] = {
    "kappa_quadratic": (-1.0, 1.0),
    "mean_absolute_error": (0.0, 3.0),
    "brier": (0.0, 2.0),
    "sord_loss": (0.0, np.inf),
    "sord_excess": (0.0, np.inf),
    "nll": (0.0, np.inf),
}
LOWER_IS_BETTER = {"mean_absolute_error", "brier", "ece", "sord_loss", "sord_excess"}
CLASS_FIGURES = ("recall", "precision", "f1", "auroc")


@dataclass(frozen=True)
class Predictions:
    """What a model answered for some videos whose score is known.

    videos: (patient, exam, area) of each video.
    scores: (video,) integer in 0..3, the truth.
    probabilities: (video, score) float64, rows summing to 1.
    drawn: the answer is not the most probable score but one drawn by the probabilities, and the
        figures of the answers are expected values.

    Raises ValueError if these do not fit together.
    """

    videos: list[tuple[str, str, str]]
    scores: np.ndarray
    probabilities: np.ndarray
    drawn: bool = False

    def __post_init__(self) -> None:
        count = len(self.videos)
        if not count:
            raise ValueError("predictions for no video")
        if self.scores.shape != (count,) or self.probabilities.shape != (count, len(SCORES)):
            raise ValueError(
                f"{count} videos, scores {self.scores.shape}, probabilities {self.probabilities.shape}"
            )
        if not np.isin(self.scores, SCORES).all():
            raise ValueError("a score outside 0..3")
        if (self.probabilities < 0).any() or not np.allclose(
            self.probabilities.sum(1), 1, atol=1e-4
        ):
            raise ValueError("probabilities that are negative, NaN or do not sum to 1")

    @property
    def predicted(self) -> np.ndarray:
        """(video,) int64: the most probable score; the lower one of two equally probable."""
        return self.probabilities.argmax(axis=1)

    @property
    def answered(self) -> np.ndarray:
        """(video, score) float64: the share with which each score is the answer; 0 or 1 but where
        answers are drawn."""
        if self.drawn:
            return self.probabilities.astype(np.float64)
        one_hot: np.ndarray = np.eye(len(SCORES))[self.predicted]
        return one_hot

    @property
    def confidence(self) -> np.ndarray:
        """(video,) float64: the probability given to the answer."""
        return self.probabilities.max(axis=1)

    @property
    def expected(self) -> np.ndarray:
        """(video,) float64 in 0..3: the expected score."""
        return self.probabilities @ np.array(SCORES, dtype=float)

    @property
    def patients(self) -> list[str]:
        """The patient of each video."""
        return [patient for patient, _, _ in self.videos]


def equal_answers(predictions: Predictions) -> int:
    """How many videos have the most frequent probabilities, equal to the last digit."""
    _, counts = np.unique(predictions.probabilities, axis=0, return_counts=True)
    return int(counts.max())


def soft_labels() -> np.ndarray:
    """SORD's soft label of each score: (score, class) float64, softmax(-2 (class - score)^2).

    Roy et al. 2020, IEEE TMI 39(8), after Diaz and Marathe 2019, CVPR.
    """
    likeness = np.exp(-2.0 * np.subtract.outer(SCORES, SCORES) ** 2)
    return likeness / likeness.sum(axis=1, keepdims=True)


def label_figures(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of the answered score, from (resample, true, answered) counts or shares.

    Macro F1 is the mean over the scores that are there or answered, as scikit-learn's is unless it is
    given labels: a score that no video has costs a model nothing, unless it answers it. Quadratic
    weighted kappa after Cohen 1968.
    """
    videos = confusion.sum(axis=(1, 2))
    true, answered = confusion.sum(axis=2), confusion.sum(axis=1)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    distance = np.abs(np.subtract.outer(SCORES, SCORES))
    accuracy = right.sum(axis=1) / videos
    f1 = quotient(2 * right, true + answered)
    independent = true[:, :, None] * answered[:, None, :] / videos[:, None, None]
    disagreement = (confusion * distance**2).sum(axis=(1, 2))
    figures = {
        "accuracy": accuracy,
        "f1_micro": accuracy,  # the same where each video has one score and gets one answer
        "f1_macro": mean_of_defined(f1),
        "f1_weighted": (np.nan_to_num(f1) * true).sum(axis=1) / videos,
        "kappa_quadratic": 1 - quotient(disagreement, (independent * distance**2).sum(axis=(1, 2))),
        "mean_absolute_error": (confusion * distance).sum(axis=(1, 2)) / videos,
    }
    by_class = {"recall": quotient(right, true), "precision": quotient(right, answered), "f1": f1}
    for name, values in by_class.items():
        figures |= {f"{name}_{score}": values[:, score] for score in SCORES}
    return figures


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN; NaN where everything is."""
    defined = ~np.isnan(values)
    return quotient(np.nan_to_num(values).sum(axis=-1), defined.sum(axis=-1).astype(float))


def quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def point_values(predictions: Predictions, own: Mapping[str, float]) -> dict[str, float]:
    """Each figure, and each `<figure>_<score>`, of the videos as they are; NaN where undefined.

    own: the same from this package's formulas: they say what is defined, and stand for what
        scikit-learn has not.
    """
    from sklearn import metrics

    truth, answer = predictions.scores, predictions.predicted
    defined = {name for name, value in own.items() if not np.isnan(value)}
    rules: dict[str, Any] = {"labels": list(SCORES), "zero_division": 0}
    values = {
        "accuracy": metrics.accuracy_score(truth, answer),
        "mean_absolute_error": metrics.mean_absolute_error(truth, answer),
    }
    for average in ("micro", "macro", "weighted"):  # macro: over the scores there or answered
        values[f"f1_{average}"] = metrics.f1_score(truth, answer, average=average, zero_division=0)
    by_score = metrics.precision_recall_fscore_support(truth, answer, **rules)
    for score in SCORES:
        for name, figures in zip(("precision", "recall", "f1"), by_score[:3], strict=True):
            values[f"{name}_{score}"] = figures[score]
        if f"auroc_{score}" in defined:
            values[f"auroc_{score}"] = metrics.roc_auc_score(
                truth == score, predictions.probabilities[:, score]
            )
    if "kappa_quadratic" in defined:
        values["kappa_quadratic"] = metrics.cohen_kappa_score(
            truth, answer, labels=rules["labels"], weights="quadratic"
        )
    return {name: float(values.get(name, own[name])) if name in defined else np.nan for name in own}
