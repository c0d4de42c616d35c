"""How well raters agree: kappa and ICC for any number of raters. Arrays only.

ratings: (video, rater) float64, NaN where a rater gave none. Kappa is the mean of the kappas of all
pairs of raters (Light 1971, Psychol Bull 76:365), each over the videos that both rated; ICC is over
the videos that all rated.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np


def pairs(raters: int) -> list[tuple[int, int]]:
    """Every pair of raters."""
    return list(combinations(range(raters), 2))


def quadratic_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights of two raters; NaN if it is undefined.

    Cohen 1968, Psychol Bull 70:213. For ratings of 0 and 1 it is the kappa without weights.

    one, other: (video,), NaN where not rated.

    Example:
        >>> round(quadratic_kappa(np.array([0.0, 1, 2, 3]), np.array([0.0, 2, 2, 3])), 3)
        0.9

    """
    both = ~(np.isnan(one) | np.isnan(other))
    one, other = one[both], other[both]
    if not len(one):
        return np.nan
    expected = np.mean(np.subtract.outer(one, other) ** 2)
    return float(1 - np.mean((one - other) ** 2) / expected) if expected > 0 else np.nan


def light_kappa(ratings: np.ndarray) -> float:
    """The mean of the quadratic kappas of all pairs of raters; NaN if one is undefined.

    Example:
        >>> round(light_kappa(np.array([[0.0, 0, 0], [1, 2, 1], [2, 2, 2], [3, 3, 3]])), 3)
        0.933

    """
    values = [quadratic_kappa(ratings[:, a], ratings[:, b]) for a, b in pairs(ratings.shape[1])]
    return float(np.mean(values)) if values else np.nan


def icc(ratings: np.ndarray) -> float:
    """ICC(A,1): two-way random effects, absolute agreement, a single rater; NaN if undefined.

    McGraw and Wong 1996, Psychol Methods 1:30; ICC(2,1) of Shrout and Fleiss 1979, Psychol Bull
    86:420: (R - E) / (R + (k - 1) E + k (C - E) / n), with the mean squares of the n videos R, the k
    raters C and the error E.

    Example:
        >>> of_shrout_and_fleiss = np.array(
        ...     [[9.0, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
        ... )
        >>> round(icc(of_shrout_and_fleiss), 2)
        0.29

    """
    complete = ratings[~np.isnan(ratings).any(axis=1)]
    videos, raters = complete.shape
    if videos < 2 or raters < 2:
        return np.nan
    mean = complete.mean()
    by_video, by_rater = complete.mean(axis=1), complete.mean(axis=0)
    rows = raters * ((by_video - mean) ** 2).sum() / (videos - 1)
    columns = videos * ((by_rater - mean) ** 2).sum() / (raters - 1)
    residual = complete - by_video[:, None] - by_rater[None] + mean
    error = (residual**2).sum() / ((videos - 1) * (raters - 1))
    whole = rows + (raters - 1) * error + raters * (columns - error) / videos
    return float((rows - error) / whole) if whole > 1e-12 else np.nan


def exact_agreement(ratings: np.ndarray) -> float:
    """The share of equal ratings, the mean over all pairs of raters; NaN if a pair shares no video.

    Example:
        >>> exact_agreement(np.array([[0.0, 0.0], [1.0, 2.0]]))
        0.5

    """
    shares = []
    for a, b in pairs(ratings.shape[1]):
        both = ~np.isnan(ratings[:, [a, b]]).any(axis=1)
        shares.append(np.mean(ratings[both, a] == ratings[both, b]) if both.any() else np.nan)
    return float(np.mean(shares)) if shares else np.nan


def confusion(one: np.ndarray, other: np.ndarray, classes: int) -> np.ndarray:
    """(rating by one, rating by the other) int: numbers of videos that both rated.

    one, other: (video,) in 0..classes-1, NaN where not rated.

    Example:
        >>> confusion(np.array([0.0, 1, np.nan]), np.array([0.0, 0, 1]), 2)
        array([[1, 0],
               [1, 0]])

    """
    counts = np.zeros((classes, classes), int)
    both = ~(np.isnan(one) | np.isnan(other))
    np.add.at(counts, (one[both].astype(int), other[both].astype(int)), 1)
    return counts
