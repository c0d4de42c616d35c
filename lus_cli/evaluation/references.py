"""Reference predictions, which do not look at a video, to compare a model's metrics with.

majority  The most frequent score of the evaluated videos, predicted for each of them; for loss, Brier
          score and calibration, the best constant distribution. No constant prediction has a higher
          accuracy; another one may have a lower mean absolute error.
prior     The score frequencies of the training videos: a score drawn by them, and the frequencies
          themselves as probabilities.
chance    The model's own predictions, permuted at random over the videos. Unlike `prior`, this keeps
          how often the model predicts each score, so a model that predicts the same score for every
          video is exactly at chance.
"""

from __future__ import annotations

import numpy as np

from lus_cli.evaluation.metrics import SCORES, label_metrics, soft_labels
from lus_cli.evaluation.resampling import CALIBRATION_BINS, LEAST_PROBABILITY, PatientSums


def majority(sums: PatientSums) -> dict[str, float]:
    """Each metric of `majority`; the lowest of several most frequent scores."""
    counts = sums.confusion.sum(axis=(0, 2))
    confusion = np.zeros((len(SCORES), len(SCORES)))
    confusion[:, counts.argmax()] = counts
    return constant(counts / counts.sum(), counts / counts.sum(), confusion)


def prior(sums: PatientSums, training: np.ndarray) -> dict[str, float]:
    """Each metric of predicting with the score frequencies of the training videos, as expected value.

    training: (score,) numbers of training videos. F1 is that of the expected confusion matrix.
    """
    counts, frequencies = sums.confusion.sum(axis=(0, 2)), training / training.sum()
    return constant(counts / counts.sum(), frequencies, np.outer(counts, frequencies))


def constant(
    shares: np.ndarray, probabilities: np.ndarray, confusion: np.ndarray
) -> dict[str, float]:
    """Each metric of giving every video the same probabilities.

    shares: (score,) the share of the videos with each true score.
    probabilities: (score,) the probabilities that every video gets.
    confusion: (true, predicted) the confusion matrix of the scores predicted with them.

    The SORD loss is that of the mean soft label under `probabilities`, to which a network trained
    with that loss converges if it learns nothing from the videos.
    """
    target, mean_label = shares @ soft_labels(), probabilities @ soft_labels()
    loss = -float(target @ np.log(np.maximum(mean_label, LEAST_PROBABILITY)))
    floors = -(soft_labels() * np.log(soft_labels())).sum(axis=1)
    most_probable = int(probabilities.argmax())
    return {name: float(value[0]) for name, value in label_metrics(confusion[None]).items()} | {
        "auroc_macro": 0.5,
        "brier": float((probabilities**2).sum() - 2 * probabilities @ shares + 1),
        "ece": float(abs(probabilities[most_probable] - shares[most_probable])),
        "sord_loss": loss,
        "sord_excess": loss - float(shares @ floors),
    }


def chance(sums: PatientSums) -> dict[str, float]:
    """The expected value of each metric when the predictions are permuted over the videos.

    Exact except for ECE: a permutation keeps the margins of the confusion matrix, and for fixed
    margins every metric is linear in its cells. ECE uses the expected accuracy of each bin.
    """
    confusion = sums.confusion.sum(axis=0)
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    shares = true / true.sum()
    confidence = sums.probabilities.max(axis=1)
    gaps = np.bincount(sums.bin, confidence - shares[sums.predicted], minlength=CALIBRATION_BINS)
    loss = float(shares @ sums.losses.mean(axis=1))
    permuted = np.outer(shares, predicted)[None]
    return {name: float(value[0]) for name, value in label_metrics(permuted).items()} | {
        "auroc_macro": 0.5,
        "brier": float(shares @ sums.briers.mean(axis=1)),
        "ece": float(np.abs(gaps).sum() / len(confidence)),
        "sord_loss": loss,
        "sord_excess": loss - float(shares @ sums.floors),
    }
