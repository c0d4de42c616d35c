"""Spatial attention: one mask per frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """A mask for each feature map, from 3x3 convolutions (Kerdegari et al. 2021, section 3.2).

    With "sigmoid", the mask of each cell is independent, and all of them may be 1. With "softmax",
    the cells of a frame compete (the softmax over a map of Xu et al. 2015, eq. 5). The mask is then
    this softmax divided by its largest value, so that it can be drawn.
    """

    def __init__(self, channels: int, inner: tuple[int, ...], mask: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in zip((channels, *inner), inner, strict=False):
            layers += [nn.Conv2d(wide, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.ReLU()]
        last = nn.Conv2d((channels, *inner)[-1], 1, 3, padding=1)
        activation = nn.Sigmoid() if mask == "sigmoid" else ScaledSoftmax()
        self.layers = nn.Sequential(*layers, last, activation)
        self.softmax = mask == "softmax"

    def forward(self, features: Tensor) -> Tensor:
        """(frame, channel, row, column) -> (frame, 1, row, column) in [0, 1]."""
        mask: Tensor = self.layers(features)
        return mask

    def pooled(self, features: Tensor, mask: Tensor) -> Tensor:
        """The masked mean of the features of each frame: (frame, channel)."""
        if self.softmax:
            return (features * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3))
        return (features * mask).mean(dim=(2, 3))


class ScaledSoftmax(nn.Module):
    """The softmax over the cells of each map, divided by its largest value."""

    def forward(self, scores: Tensor) -> Tensor:
        """(frame, 1, row, column) -> the same shape, in [0, 1] with maximum 1."""
        return torch.exp(scores - scores.amax(dim=(2, 3), keepdim=True))
