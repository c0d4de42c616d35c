"""Confident learning: how many labels are wrong, and which, from out-of-fold probabilities.

Northcutt, Jiang and Chuang 2021, J Artif Intell Res 70:1373, whose equations are cited below.
`cleanlab`, their package, is the second implementation that the tests compare with. Arrays only.

In all functions, given: (video,) int, the given labels, each in 0..classes-1. probabilities:
(video, class) float64, rows summing to 1, from models that saw neither the video nor its patient.
"""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-6  # the mean of equal probabilities may exceed each of them, as in cleanlab
NOT_CONFIDENT = -1


def thresholds(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(class,) float64: the mean probability of a class over the videos with that label, equation 2.

    inf for a class that no video has: how confident a prediction of it must be is unknown.

    Example:
        >>> thresholds(np.array([0, 0, 1]), np.array([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.3, 0.7, 0]]))
        array([0.7, 0.7, inf])

    """
    own = given[:, None] == np.arange(probabilities.shape[1])
    videos = own.sum(axis=0)
    total = (own * probabilities).sum(axis=0)
    return np.divide(total, videos, out=np.full(len(videos), np.inf), where=videos > 0)


def confident_classes(probabilities: np.ndarray, least: np.ndarray) -> np.ndarray:
    """(video,) int: the class that each video is confidently counted as, NOT_CONFIDENT for none.

    The most probable one of the classes whose probability reaches its threshold, equation 1.
    cleanlab takes the most probable class of all if several reach theirs.

    least: (class,) the thresholds.

    Example:
        >>> confident_classes(np.array([[0.45, 0.55], [0.49, 0.51]]), np.array([0.3, 0.6]))
        array([0, 0])

    """
    reached = probabilities >= least - ROUNDING
    classes = np.where(reached, probabilities, -1.0).argmax(axis=1)
    return np.where(reached.any(axis=1), classes, NOT_CONFIDENT)


def confident_joint(given: np.ndarray, confident: np.ndarray, classes: int) -> np.ndarray:
    """(given class, confident class) int: numbers of videos, equation 1.

    A diagonal of 0 becomes 1, as in cleanlab: each class is taken to have one correct label.
    Otherwise the labels of a class without any confident video could not be distributed.

    confident: (video,) as `confident_classes` returns it.
    """
    counts = np.zeros((classes, classes), int)
    counted = confident != NOT_CONFIDENT
    np.add.at(counts, (given[counted], confident[counted]), 1)
    return np.maximum(counts, np.eye(classes, dtype=int))


def joint_distribution(counts: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(given class, true class) float64 summing to 1: the estimated shares of the labels, equation 3.

    Each row of the confident joint is scaled to the number of videos with that label.

    counts: the confident joint.

    Example:
        >>> joint_distribution(np.array([[3, 1], [0, 2]]), np.array([0] * 8 + [1] * 2))
        array([[0.6, 0.2],
               [0. , 0.2]])

    """
    shares = np.bincount(given, minlength=len(counts)) / len(given)
    scaled: np.ndarray = counts / counts.sum(axis=1, keepdims=True) * shares[:, None]
    return scaled


def wrong_share(given: np.ndarray, probabilities: np.ndarray) -> float:
    """The expected share of wrong labels, in 0..1: the joint distribution off its diagonal.

    Example:
        >>> given = np.array([0, 0, 0, 1, 1])  # the third video looks like class 1
        >>> high = np.array([0.1, 0.1, 0.9, 0.9, 0.9])
        >>> round(wrong_share(given, np.stack([1 - high, high], axis=1)), 3)
        0.2

    """
    confident = confident_classes(probabilities, thresholds(given, probabilities))
    counts = confident_joint(given, confident, probabilities.shape[1])
    return float(1 - np.trace(joint_distribution(counts, given)))


def chance_share(given: np.ndarray, probabilities: np.ndarray) -> float:
    """`wrong_share`, in 0..1, as it would be if predictions and labels were independent.

    Then the mean probability of a class is the same whatever the label, and so are the shares of the
    videos that are confidently counted as each class: the expectation of equations 1 to 3. Its
    diagonal is at least 1, as in `confident_joint`, so that predictions that are all equal give
    `wrong_share` itself.

    Example:
        >>> given = np.array([0, 0, 0, 1, 1])
        >>> high = np.array([0.1, 0.1, 0.9, 0.9, 0.9])
        >>> round(chance_share(given, np.stack([1 - high, high], axis=1)), 3)  # 1 - .6 * .4 - .4 * .6
        0.52

    """
    classes = probabilities.shape[1]
    labels = np.bincount(given, minlength=classes)
    least = np.where(labels > 0, probabilities.mean(axis=0), np.inf)
    confident = confident_classes(probabilities, least)
    shares = np.bincount(confident[confident != NOT_CONFIDENT], minlength=classes) / len(given)
    counts = np.maximum(np.outer(labels, shares), np.eye(classes))
    return float(1 - np.trace(joint_distribution(counts, given)))


def self_confidence(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(video,) float64 in 0..1: the probability of the given label; low where the label is doubted.

    Section 3.2 ranks by it within a class. Over all classes it finds planted errors at least as well
    as the margin to the most probable other class does; see the tests.

    Example:
        >>> self_confidence(np.array([0, 1]), np.array([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4]]))
        array([0.7, 0.1])

    """
    chosen: np.ndarray = probabilities[np.arange(len(given)), given]
    return chosen
