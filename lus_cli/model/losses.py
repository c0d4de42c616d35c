"""Losses for scores that have an order. Tensors only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Where each score lies on the axis on which SORD measures distances (Roy et al. 2020, section IV-B;
# the wide variant sets the healthy score apart).
POSITIONS = {"sord": (0.0, 1.0, 2.0, 3.0), "sord-wide": (-0.5, 1.0, 2.0, 3.0)}
SORD_SCALE = 2.0


def soft_labels(scores: Tensor, loss: str) -> Tensor:
    """The target distribution of each video: (video, class) float32, rows summing to 1.

    SORD (Diaz and Marathe 2019; Roy et al. 2020, eq. 2): softmax over classes i of -2 (i - y)^2.
    For "cross-entropy" it is one-hot. `scores` is (video,) int64, 0..3.
    """
    if loss == "cross-entropy":
        return F.one_hot(scores, len(POSITIONS["sord"])).float()
    positions = torch.tensor(POSITIONS[loss], device=scores.device)
    distance = positions[None, :] - positions[scores][:, None]
    return torch.softmax(-SORD_SCALE * distance**2, dim=1)


def ordinal_loss(
    logits: Tensor, scores: Tensor, loss: str, class_weights: Tensor | None = None
) -> Tensor:
    """The loss of each video, (video,) float32, in nats: cross entropy with its soft label.

    `logits` is (video, class). Through log-softmax, so no logarithm of zero is ever taken.
    `class_weights`, (class,), scales each video by the weight of its score. Not averaged: the
    caller knows over how many videos a mean goes.
    """
    per_video = -(soft_labels(scores, loss) * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
    return per_video if class_weights is None else per_video * class_weights[scores]


def entropy_floor(scores: Tensor, loss: str) -> Tensor:
    """The least loss each video can have, (video,): the entropy of its soft label, in nats."""
    return torch.special.entr(soft_labels(scores, loss)).sum(dim=1)


def inverse_frequency(scores: Tensor, classes: int = 4) -> Tensor:
    """Class weights, (class,) float32, inverse to how often each score occurs, with mean 1 over the
    videos; 0 for a score that does not occur."""
    counts = torch.bincount(scores, minlength=classes).float()
    present = counts > 0
    weights = torch.zeros(classes)
    weights[present] = len(scores) / (present.sum() * counts[present])
    return weights
