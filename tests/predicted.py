"""Predictions for the tests of metrics."""

from __future__ import annotations

import math

import numpy as np
from sklearn import metrics as sklearn_metrics

from lus_cli.evaluation.metrics import Predictions

LABELS = [0, 1, 2, 3]


def predictions_for(patients, scores, probabilities) -> Predictions:
    """One exam per patient; 11 successive videos belong to the same of 14 areas."""
    videos = [(str(patient), "1", str(i // 11 % 14)) for i, patient in enumerate(patients)]
    return Predictions(videos, np.array(scores), np.array(probabilities, dtype=float))


def predicting(predicted, confidence=0.7) -> np.ndarray:
    """Probabilities that predict these scores, with equal shares for the other scores."""
    rest = (1 - confidence) / 3
    return np.full((len(predicted), 4), rest) + (confidence - rest) * np.eye(4)[list(predicted)]


def drawn(seed: int, patients: int = 9, videos: int = 80) -> Predictions:
    """Predictions with some skill, with equal probabilities and patients of unequal size."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, videos)
    logits = rng.normal(0, 1, (videos, 4)) - np.abs(np.arange(4) - scores[:, None])
    probabilities = np.exp(logits).round(1) + 0.1
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return predictions_for(rng.integers(0, patients, videos), scores, probabilities)


def from_sklearn(truth, probabilities) -> dict[str, float]:
    """Every metric from scikit-learn, and those that it lacks, computed video by video."""
    predicted = probabilities.argmax(axis=1)
    rules = {"labels": LABELS, "zero_division": 0}
    metrics = {
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "mean_absolute_error": sklearn_metrics.mean_absolute_error(truth, predicted),
        "kappa_quadratic": sklearn_metrics.cohen_kappa_score(
            truth, predicted, labels=LABELS, weights="quadratic"
        ),
        "auroc_macro": sklearn_metrics.roc_auc_score(
            truth, probabilities, multi_class="ovr", average="macro", labels=LABELS
        ),
        "brier": np.mean([((p - np.eye(4)[y]) ** 2).sum() for y, p in zip(truth, probabilities)]),  # noqa: B905
    }
    for average in ("micro", "macro", "weighted"):
        metrics[f"f1_{average}"] = sklearn_metrics.f1_score(
            truth, predicted, average=average, **rules
        )
    by_score = sklearn_metrics.precision_recall_fscore_support(truth, predicted, **rules)
    for score in LABELS:
        for name, values in zip(("precision", "recall", "f1"), by_score, strict=False):
            metrics[f"{name}_{score}"] = values[score]
        metrics[f"auroc_{score}"] = sklearn_metrics.roc_auc_score(
            truth == score, probabilities[:, score]
        )
    losses, floors = [], []
    for y, p in zip(truth, probabilities, strict=True):
        soft = [math.exp(-2 * (i - y) ** 2) for i in LABELS]
        soft = [s / sum(soft) for s in soft]
        losses.append(-sum(s * math.log(q) for s, q in zip(soft, p, strict=True)))
        floors.append(-sum(s * math.log(s) for s in soft))
    metrics["sord_loss"] = np.mean(losses)
    metrics["sord_excess"] = np.mean(losses) - np.mean(floors)
    return metrics
