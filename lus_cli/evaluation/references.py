"""What needs no look at a video: the answers beside which a model's figures are read.

majority  The best constant answer: the most frequent score of these very videos for figures of the
          answered score; for loss, Brier score and calibration the best constant distribution.
prior     What the training videos teach without looking: a score drawn with the frequency it has
          there, and these frequencies as probabilities.
chance    The model's own answers dealt out at random over these videos. Unlike drawing from the
          prior this keeps how often the model answers what, so a model that answers one score for
          everything is exactly at chance.
"""

from __future__ import annotations

import numpy as np

from lus_cli.evaluation.metrics import SCORES, label_figures, soft_labels
from lus_cli.evaluation.resampling import CALIBRATION_BINS, LEAST_PROBABILITY, PatientSums


def majority(sums: PatientSums) -> dict[str, float]:
    """Each figure of the best constant answer; of several most frequent scores, the lowest."""
    counts = sums.confusion.sum(axis=(0, 2))
    answer = np.zeros((len(SCORES), len(SCORES)))
    answer[:, counts.argmax()] = counts
    return constant(counts / counts.sum(), counts / counts.sum(), answer)


def prior(sums: PatientSums, training: np.ndarray) -> dict[str, float]:
    """Each figure of answering by the scores' shares of the training videos, expected value.

    training: (score,) numbers of training videos. F1 is that of the expected confusion matrix.
    """
    counts, answered = sums.confusion.sum(axis=(0, 2)), training / training.sum()
    return constant(counts / counts.sum(), answered, np.outer(counts, answered))


def constant(shares: np.ndarray, answered: np.ndarray, confusion: np.ndarray) -> dict[str, float]:
    """Each figure of giving every video the same probabilities.

    shares, answered: (score,) the videos' scores, and the probabilities given.
    confusion: (true, answered) of the scores answered with them.

    The SORD loss is that of the soft labels' mean under `answered`, which is where a network
    trained with that loss goes if it learns nothing else.
    """
    target, given = shares @ soft_labels(), answered @ soft_labels()
    loss = -float(target @ np.log(np.maximum(given, LEAST_PROBABILITY)))
    floors = -(soft_labels() * np.log(soft_labels())).sum(axis=1)
    likeliest = int(answered.argmax())
    return {name: float(value[0]) for name, value in label_figures(confusion[None]).items()} | {
        "auroc_macro": 0.5,
        "brier": float((answered**2).sum() - 2 * answered @ shares + 1),
        "ece": float(abs(answered[likeliest] - shares[likeliest])),
        "sord_loss": loss,
        "sord_excess": loss - float(shares @ floors),
    }


def chance(sums: PatientSums) -> dict[str, float]:
    """Expected value of each figure when the same answers are dealt at random over the videos.

    Exact but for ECE: dealing leaves the margins of the confusion matrix alone,
    and given those every figure is linear in its cells. ECE is that of each bin's expected accuracy.
    """
    confusion = sums.confusion.sum(axis=0)
    true, answered = confusion.sum(axis=1), confusion.sum(axis=0)
    shares = true / true.sum()
    confidence = sums.probabilities.max(axis=1)
    gaps = np.bincount(sums.bin, confidence - shares[sums.answers], minlength=CALIBRATION_BINS)
    loss = float(shares @ sums.losses.mean(axis=1))
    dealt = np.outer(shares, answered)[None]
    return {name: float(value[0]) for name, value in label_figures(dealt).items()} | {
        "auroc_macro": 0.5,
        "brier": float(shares @ sums.briers.mean(axis=1)),
        "ece": float(np.abs(gaps).sum() / len(confidence)),
        "sord_loss": loss,
        "sord_excess": loss - float(shares @ sums.floors),
    }
