"""How probabilities become a score: the most probable score, or the expected score between cuts.

After training on few videos, the expected score ranks videos well, but rounding it, or taking the most
probable score, hardly ever predicts the rare scores. Cuts are calibrated on left-out patients: there,
each score is predicted as often as it occurs, or kappa is highest.

The decision is a layer: its logits are largest for the score between whose cuts the video lies, so
code that reads the logits does not need to know how the score was decided.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.model.head import CLASSES

BETWEEN = (0.5, 1.5, 2.5)  # where the cuts lie on the scale of the scores after `positions`
SHARPNESSES = 2.0 ** np.arange(-5, 3, 0.5)
GRID = 40  # candidates for a cut, as quantiles of the expected scores
# "auto" uses cuts if the most probable score is some score less often than this share of its frequency.
# On COVID-BLUES, score 3 is the most probable for 0 to 15 of 30 videos; on phantoms, every score is about
# as often as it occurs.
SCARCE = 2 / 3
# The least share of the variance that the mean of an ensemble keeps, here that of ten members whose
# predictions are nothing but noise; on COVID-BLUES it keeps 0.77 to 0.89. The variance that averaging removes
# is an estimate, which can exceed all there is; cuts without any variance would lie on each other.
KEPT = 0.1
ROUNDS = 5  # of the search for the highest kappa, which moves one cut at a time


class Decision(nn.Module):
    """Logits -> logits, unchanged without cuts. The cuts are saved with the weights.

    Example:
        >>> decision = Decision()
        >>> even = torch.zeros(1, 4)  # expected score 1.5
        >>> decision.set(cuts=(0.2, 0.9, 1.4), sharpness=1.0)
        >>> int(decision(even).argmax())
        3

    """

    cuts: Tensor
    sharpness: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cuts", torch.tensor(BETWEEN))
        self.register_buffer("sharpness", torch.zeros(()))  # 0: no cuts

    def set(self, cuts: tuple[float, ...], sharpness: float) -> None:
        """Decides by these cuts from now on; a sharpness of 0 disables them."""
        self.cuts = torch.tensor(cuts, device=self.cuts.device)
        self.sharpness = torch.tensor(float(sharpness), device=self.cuts.device)

    def forward(self, logits: Tensor) -> Tensor:
        """(video, class) -> (video, class), see `cut_logits`."""
        decided = cut_logits(expected_scores(logits), self.cuts, self.sharpness)
        return torch.where(self.sharpness > 0, decided, logits)


def expected_scores(logits: Tensor) -> Tensor:
    """The mean of the scores, weighted by their probabilities: (video, class) -> (video,)."""
    classes = torch.arange(CLASSES, device=logits.device, dtype=logits.dtype)
    return logits.softmax(dim=1) @ classes


def positions(expected: Tensor, cuts: Tensor) -> Tensor:
    """Expected scores on a scale from 0 to 3 where the cuts lie at 0.5, 1.5 and 2.5: (video,).

    Linear between 0, the cuts and 3, so that videos keep their order.

    Example:
        >>> positions(torch.tensor([0.3, 1.0, 1.2, 3.0]), torch.tensor([0.6, 1.0, 1.4]))
        tensor([0.2500, 1.5001, 2.0000, 2.9999])

    """
    ends = torch.stack([cuts[0].clamp(max=0.0), cuts[2].clamp(min=CLASSES - 1.0)])
    nodes = torch.cat([ends[:1], cuts, ends[1:]])
    heights = expected.new_tensor((0.0, *BETWEEN, CLASSES - 1.0))
    piece = (expected[:, None] >= cuts).sum(dim=1)
    share = (expected - nodes[piece]) / (nodes[piece + 1] - nodes[piece]).clamp_min(1e-6)
    # No position is exactly at a cut, where rounding would decide the score.
    share = share.clamp(1e-4, 1 - 1e-4)
    return heights[piece] + share * (heights[piece + 1] - heights[piece])


def cut_logits(expected: Tensor, cuts: Tensor, sharpness: float | Tensor) -> Tensor:
    """Logits whose largest is that of the score between the cuts: -sharpness (class - position)^2.

    expected: (video,). Returns (video, class). For the position see `positions`.
    """
    classes = torch.arange(CLASSES, device=expected.device)
    return -sharpness * (classes - positions(expected, cuts)[:, None]) ** 2


def calibrated(
    kind: str, logits: np.ndarray, scores: np.ndarray, averaged_out: float = 0.0
) -> tuple[tuple[float, ...], float]:
    """The cuts and the sharpness of a decision.

    kind: "frequencies" or "kappa"; "most-probable" gives a sharpness of 0, which means no cuts; "auto"
        gives no cuts either, unless some score is hardly ever the most probable, see SCARCE.
    logits: (video, class) of videos whose patients the model was not trained on.
    scores: (video,) int, their scores.
    averaged_out: the variance of these expected scores that the predictions of the whole ensemble do
        not have, see training/members.py. The cuts are made for that smaller variance.
    """
    if not has_cuts(kind, logits, scores):
        return BETWEEN, 0.0
    expected = expected_scores(torch.from_numpy(logits).double()).numpy()
    if averaged_out > 0 and (variance := expected.var()) > 0:
        centre = expected.mean()
        expected = centre + (expected - centre) * np.sqrt(max(1 - averaged_out / variance, KEPT))
    cuts = by_frequencies(expected, scores)
    if kind == "kappa":
        cuts = by_kappa(expected, scores, cuts)
    levels, fixed = torch.from_numpy(expected).float(), torch.from_numpy(cuts).float()
    return tuple(fixed.tolist()), best_sharpness(levels, scores, fixed)


def has_cuts(kind: str, logits: np.ndarray, scores: np.ndarray) -> bool:
    """Whether a decision of this kind gets cuts; see `calibrated`."""
    return kind != "most-probable" and (kind != "auto" or scarce(logits, scores))


def scarce(logits: np.ndarray, scores: np.ndarray) -> bool:
    """Whether some score is the most probable less often than SCARCE of its frequency."""
    often, occurs = (
        np.bincount(those, minlength=CLASSES) for those in (logits.argmax(axis=1), scores)
    )
    return bool((often < SCARCE * occurs).any())


def by_frequencies(expected: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The cuts between which each score is predicted as often as it occurs: (3,) float64."""
    shares = np.cumsum(np.bincount(scores, minlength=CLASSES)[:-1]) / len(scores)
    cuts = np.quantile(expected, shares)
    # No video is below the cut of a score that does not occur, or above that of the highest one.
    cuts = np.where(shares <= 0, min(expected.min(), 0.0) - 1, cuts)
    return np.asarray(np.where(shares >= 1, max(expected.max(), 3.0) + 1, cuts))


def cut(expected: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The scores between whose cuts the expected scores lie: (video,) int."""
    return np.searchsorted(cuts, expected, side="right")


def kappa_of(scores: np.ndarray, predicted: np.ndarray) -> float:
    """Quadratic weighted kappa; 0 if it is undefined."""
    from sklearn.metrics import cohen_kappa_score

    if len({*scores.tolist(), *predicted.tolist()}) < 2:
        return 0.0
    return float(cohen_kappa_score(scores, predicted, weights="quadratic", labels=range(CLASSES)))


def by_kappa(expected: np.ndarray, scores: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The cuts with the highest quadratic weighted kappa, searched along one cut at a time."""
    candidates = np.quantile(expected, np.linspace(0, 1, GRID + 1))
    best, highest = cuts, kappa_of(scores, cut(expected, cuts))
    for _ in range(ROUNDS):
        before = best
        for place, value in itertools.product(range(len(cuts)), candidates):
            moved = best.copy()
            moved[place] = value
            if (np.diff(moved) >= 0).all():
                kappa = kappa_of(scores, cut(expected, moved))
                if kappa > highest + 1e-9:
                    best, highest = moved, kappa
        if best is before:
            break
    return best


def best_sharpness(expected: Tensor, scores: np.ndarray, cuts: Tensor) -> float:
    """The sharpness with the lowest log loss."""
    truth = torch.from_numpy(scores.astype(np.int64))
    losses = [
        float(F.cross_entropy(cut_logits(expected, cuts, sharpness), truth))
        for sharpness in SHARPNESSES.tolist()
    ]
    return float(SHARPNESSES[int(np.argmin(losses))])
