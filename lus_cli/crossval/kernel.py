"""A baseline that scores a video by its similarity to the training videos: kernel ridge regression.

The regression's output ranks the videos; cuts at the frequencies of the training scores turn it into a
score, as in model/decision.py. Fitting takes seconds. Works on arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lus_cli.model.decision import best_sharpness, by_frequencies, cut_logits

PENALTIES = 10.0 ** np.arange(-2, 2.5, 0.5)
INNER_FOLDS = 5


@dataclass(frozen=True)
class KernelRidge:
    """A fitted regression and its cuts.

    mean, deviation: (kind, channel), by which vectors are standardised.
    training: the standardised vectors of the training videos, (video, kind, channel).
    dual: (video,). offset, cuts and sharpness: see `ridge` and model/decision.py.
    """

    mean: Tensor
    deviation: Tensor
    training: Tensor
    dual: Tensor
    offset: float
    cuts: Tensor
    sharpness: float

    def logits(self, vectors: Tensor) -> Tensor:
        """(video, kind, channel) -> (video, class), see `cut_logits`."""
        standard = (vectors - self.mean) / self.deviation
        levels = kernel(standard, self.training) @ self.dual + self.offset
        return cut_logits(levels, self.cuts, self.sharpness)


def fit(vectors: np.ndarray, scores: np.ndarray, patients: Sequence[str], seed: int) -> KernelRidge:
    """Fits the regression to the training videos.

    vectors: (video, kind, channel) float32.
    scores: (video,) int in 0..3.

    All choices are made on left-out patients. The penalty has the lowest squared error. The cuts
    give the predicted scores the frequencies of the training scores; rounding the output of the
    regression, which shrinks towards the mean, would predict the outer scores too rarely. The
    sharpness has the lowest log loss.
    """
    mean = torch.from_numpy(vectors.mean(axis=0))
    deviation = torch.from_numpy(np.maximum(vectors.std(axis=0), 1e-6))
    training = (torch.from_numpy(vectors) - mean) / deviation
    gram = kernel(training, training).double().numpy()
    truth = scores.astype(np.float64)
    left_out = np.zeros((len(PENALTIES), len(scores)))
    for fitted, rest in inner_folds(scores, patients, seed):
        dual, offset = ridge(gram[np.ix_(fitted, fitted)], truth[fitted])
        left_out[:, rest] = dual @ gram[np.ix_(fitted, rest)] + offset[:, None]
    best = int(((left_out - truth) ** 2).mean(axis=1).argmin())
    levels = left_out[best]
    dual, offset = ridge(gram, truth)
    cuts = torch.from_numpy(by_frequencies(levels, scores)).float()
    return KernelRidge(
        mean,
        deviation,
        training,
        torch.from_numpy(dual[best]).float(),
        float(offset[best]),
        cuts,
        best_sharpness(torch.from_numpy(levels).float(), scores, cuts),
    )


def kernel(some: Tensor, others: Tensor) -> Tensor:
    """The similarity of videos, in (0, 1]: the mean over the kinds of exp(-d^2 / 2 channels).

    some, others: (video, kind, channel), standardised.
    Returns (video, other video).
    """
    kinds = [
        torch.cdist(some[:, kind], others[:, kind]).square() / some.shape[2]
        for kind in range(some.shape[1])
    ]
    return torch.exp(-torch.stack(kinds) / 2).mean(dim=0)


def ridge(gram: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred kernel ridge regression (Saunders et al. 1998): (K_c + penalty) dual = truth - mean.

    Returns the dual weights, (penalty, video), and the offsets, (penalty,).
    """
    rows = gram.mean(axis=1)
    centred = gram - rows[:, None] - rows[None, :] + rows.mean()
    values, axes = np.linalg.eigh(centred)
    along = axes.T @ (truth - truth.mean())
    shrunk = along / (np.maximum(values, 0)[None, :] + PENALTIES[:, None])
    dual = shrunk @ axes.T
    dual -= dual.mean(axis=1, keepdims=True)  # equivalent to centring the kernel of new videos
    return dual, truth.mean() - dual @ rows


def inner_folds(
    scores: np.ndarray, patients: Sequence[str], seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Folds by patient: the videos to fit on and the left-out videos. A single patient is in both."""
    names = np.asarray(patients)
    unique = np.random.default_rng([seed, len(names)]).permutation(np.unique(names))
    count = min(INNER_FOLDS, len(unique))
    for number in range(count):
        out = np.isin(names, unique[number::count])
        yield (np.flatnonzero(~out) if count > 1 else np.arange(len(names))), np.flatnonzero(out)
