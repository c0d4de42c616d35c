"""Metrics of predicted scores and their probabilities. Arrays only.

Point values come from scikit-learn where it has the metric. Intervals and permutations need
thousands of values, so the same metrics are also computed from many confusion matrices at once; a
test checks that both ways agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SCORES = range(4)


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for labelled videos.

    videos: (patient, exam, area) of each video.
    scores: (video,) integer in 0..3, the true scores.
    probabilities: (video, score) float64, rows summing to 1.
    drawn: whether the predicted score is drawn from the probabilities instead of being the most
        probable one; metrics of the predicted scores are then expected values.

    Raises ValueError if the shapes or values are inconsistent.

    Example:
        >>> predictions = Predictions(
        ...     videos=[("1017", "1048", "11"), ("1051", "7", "2")],
        ...     scores=np.array([2, 0]),
        ...     probabilities=np.array([[0.0, 0.2, 0.7, 0.1], [0.4, 0.5, 0.1, 0.0]]),
        ... )
        >>> predictions.predicted, predictions.confidence, predictions.expected
        (array([2, 1]), array([0.7, 0.5]), array([1.9, 0.7]))

    """

    videos: list[tuple[str, str, str]]
    scores: np.ndarray
    probabilities: np.ndarray
    drawn: bool = False

    def __post_init__(self) -> None:
        count = len(self.videos)
        if not count:
            raise ValueError("there are no videos")
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

    def of(self, indices: np.ndarray) -> Predictions:
        """The predictions for the videos with these indices."""
        videos = [self.videos[index] for index in indices]
        return Predictions(videos, self.scores[indices], self.probabilities[indices], self.drawn)

    @property
    def predicted(self) -> np.ndarray:
        """(video,) int64: the most probable score; the lower one of two with equal probability."""
        return self.probabilities.argmax(axis=1)

    @property
    def predicted_shares(self) -> np.ndarray:
        """(video, score) float64: the share of each score among the predictions for a video; 0 or 1
        unless predictions are drawn."""
        if self.drawn:
            return self.probabilities.astype(np.float64)
        one_hot: np.ndarray = np.eye(len(SCORES))[self.predicted]
        return one_hot

    @property
    def confidence(self) -> np.ndarray:
        """(video,) float64: the probability of the predicted score."""
        return self.probabilities.max(axis=1)

    @property
    def expected(self) -> np.ndarray:
        """(video,) float64 in 0..3: the expected score."""
        return self.probabilities @ np.array(SCORES, dtype=float)

    @property
    def patients(self) -> list[str]:
        """The patient of each video."""
        return [patient for patient, _, _ in self.videos]


def equal_predictions(predictions: Predictions) -> int:
    """The size of the largest group of videos with exactly the same probabilities."""
    _, counts = np.unique(predictions.probabilities, axis=0, return_counts=True)
    return int(counts.max())


def soft_labels() -> np.ndarray:
    """SORD's soft label of each score: (score, class) float64, softmax(-2 (class - score)^2).

    Roy et al. 2020, IEEE TMI 39(8), after Diaz and Marathe 2019, CVPR.

    Example:
        >>> soft_labels()[0].round(3)
        array([0.881, 0.119, 0.   , 0.   ])

    """
    weights = np.exp(-2.0 * np.subtract.outer(SCORES, SCORES) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def label_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of the predicted score, each (matrix,); NaN where undefined.

    confusion: (matrix, true, predicted) counts or shares of videos.

    Macro F1 is the mean over the scores that occur among the true or the predicted scores, as in
    scikit-learn without `labels`: a score that no video has does not count, unless it is predicted.
    Quadratic weighted kappa: Cohen 1968, Psychol Bull 70:213.

    Example:
        >>> confusion = np.diag([2.0, 1.0, 0.0, 2.0])
        >>> confusion[1, 2] = 1.0  # a video of score 1, predicted as 2
        >>> metrics = label_metrics(confusion[None])
        >>> metrics["mean_absolute_error"].round(3), metrics["kappa_quadratic"].round(3)
        (array([0.167]), array([0.947]))
        >>> metrics["recall_1"], metrics["recall_2"]  # no video has score 2
        (array([0.5]), array([nan]))

    """
    videos = confusion.sum(axis=(1, 2))
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    distance = np.abs(np.subtract.outer(SCORES, SCORES))
    accuracy = right.sum(axis=1) / videos
    f1 = quotient(2 * right, true + predicted)
    independent = true[:, :, None] * predicted[:, None, :] / videos[:, None, None]
    disagreement = (confusion * distance**2).sum(axis=(1, 2))
    metrics = {
        "accuracy": accuracy,
        "f1_micro": accuracy,  # equal, since each video has one true and one predicted score
        "f1_macro": mean_of_defined(f1),
        "f1_weighted": (np.nan_to_num(f1) * true).sum(axis=1) / videos,
        "kappa_quadratic": 1 - quotient(disagreement, (independent * distance**2).sum(axis=(1, 2))),
        "mean_absolute_error": (confusion * distance).sum(axis=(1, 2)) / videos,
    }
    by_class = {"recall": quotient(right, true), "precision": quotient(right, predicted), "f1": f1}
    for name, values in by_class.items():
        metrics |= {f"{name}_{score}": values[:, score] for score in SCORES}
    return metrics


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis without NaN values; NaN where all values are NaN.

    Example:
        >>> mean_of_defined(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]))
        array([ 2., nan])

    """
    defined = ~np.isnan(values)
    return quotient(np.nan_to_num(values).sum(axis=-1), defined.sum(axis=-1).astype(float))


def quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, NaN where `whole` is 0.

    Example:
        >>> quotient(np.array([1.0, 1.0]), np.array([2.0, 0.0]))
        array([0.5, nan])

    """
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def point_values(predictions: Predictions, computed: Mapping[str, float]) -> dict[str, float]:
    """Each metric, and each `<metric>_<score>`, from scikit-learn where it has it; NaN if undefined.

    computed: the same metrics from the formulas of this package. They decide which metrics are
        defined, and give the values that scikit-learn does not have.

    Example:
        >>> predictions = Predictions([("1017", "1048", "11")], np.array([3]), np.eye(4)[2:3])
        >>> point_values(predictions, {"accuracy": 0.0, "auroc_3": np.nan})
        {'accuracy': 0.0, 'auroc_3': nan}

    """
    from sklearn import metrics

    truth, predicted = predictions.scores, predictions.predicted
    defined = {name for name, value in computed.items() if not np.isnan(value)}
    rules: dict[str, Any] = {"labels": list(SCORES), "zero_division": 0}
    values = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "mean_absolute_error": metrics.mean_absolute_error(truth, predicted),
    }
    for average in ("micro", "macro", "weighted"):  # macro: of scores that occur or are predicted
        values[f"f1_{average}"] = metrics.f1_score(truth, predicted, average=average)
    by_score = metrics.precision_recall_fscore_support(truth, predicted, **rules)
    for score in SCORES:
        for name, column in zip(("precision", "recall", "f1"), by_score[:3], strict=True):
            values[f"{name}_{score}"] = column[score]
        if f"auroc_{score}" in defined:
            values[f"auroc_{score}"] = metrics.roc_auc_score(
                truth == score, predictions.probabilities[:, score]
            )
    if "kappa_quadratic" in defined:
        values["kappa_quadratic"] = metrics.cohen_kappa_score(
            truth, predicted, labels=rules["labels"], weights="quadratic"
        )
    return {
        name: float(values.get(name, value)) if name in defined else np.nan
        for name, value in computed.items()
    }
