"""Losses for ordinal scores. Works on tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# The position of each score on the axis of SORD's distances (Roy et al. 2020, section IV-B). The wide
# variant increases the distance of the healthy score.
POSITIONS = {"sord": (0.0, 1.0, 2.0, 3.0), "sord-wide": (-0.5, 1.0, 2.0, 3.0)}
SORD_SCALE = 2.0


def soft_labels(scores: Tensor, loss: str) -> Tensor:
    """The target distribution of each video: (video, class) float32, rows summing to 1.

    SORD (Diaz and Marathe 2019; Roy et al. 2020, eq. 2): softmax over classes i of -2 (i - y)^2.
    One-hot for "cross-entropy". `scores` is (video,) int64 in 0..3.

    Example:
        >>> soft_labels(torch.tensor([0, 3]), "sord").round(decimals=3)
        tensor([[0.8810, 0.1190, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.1190, 0.8810]])

    """
    if loss == "cross-entropy":
        return F.one_hot(scores, len(POSITIONS["sord"])).float()
    positions = torch.tensor(POSITIONS[loss], device=scores.device)
    distance = positions[None, :] - positions[scores][:, None]
    return torch.softmax(-SORD_SCALE * distance**2, dim=1)


def ordinal_loss(
    logits: Tensor, scores: Tensor, loss: str, class_weights: Tensor | None = None
) -> Tensor:
    """The cross-entropy of each video with its soft label, (video,) float32, in nats.

    logits: (video, class). Log-softmax avoids the logarithm of zero.
    class_weights: (class,), the factor for the videos of each score.
    The loss is not averaged, since only the caller knows the number of videos.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
        >>> ordinal_loss(logits, torch.tensor([0, 3]), "sord").round(decimals=3)
        tensor([0.5800, 1.3860])

    """
    per_video = -(soft_labels(scores, loss) * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
    return per_video if class_weights is None else per_video * class_weights[scores]


def entropy_floor(scores: Tensor, loss: str) -> Tensor:
    """The lowest possible loss of each video, (video,): the entropy of its soft label, in nats.

    Example:
        >>> entropy_floor(torch.tensor([0, 1]), "sord").round(decimals=3)
        tensor([0.3680, 0.6680])

    """
    return torch.special.entr(soft_labels(scores, loss)).sum(dim=1)


def inverse_frequency(scores: Tensor, classes: int = 4) -> Tensor:
    """Class weights, (class,) float32, inversely proportional to the frequency of each score, with
    mean 1 over the videos; 0 for a score that does not occur.

    Example:
        >>> inverse_frequency(torch.tensor([0, 0, 0, 3])).round(decimals=3)
        tensor([0.6670, 0.0000, 0.0000, 2.0000])

    """
    counts = torch.bincount(scores, minlength=classes).float()
    present = counts > 0
    weights = torch.zeros(classes)
    weights[present] = len(scores) / (present.sum() * counts[present])
    return weights
