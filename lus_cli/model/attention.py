"""Spatial attention: one mask a frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """A mask per feature map: three 3x3 convolutions (Kerdegari et al. 2021, section 3.2).

    Under "sigmoid" every cell has a mask of its own, and nothing keeps them all from being 1. Under
    "softmax" the cells of a frame share what attention there is (the softmax over a map of Xu et
    al. 2015, eq. 5), so it must be spent where it counts; the mask is this softmax over its largest
    value, so that it can be drawn.
    """

    def __init__(self, channels: int, inner: tuple[int, ...], mask: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in zip((channels, *inner), inner, strict=False):
            layers += [nn.Conv2d(wide, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.ReLU()]
        last = nn.Conv2d((channels, *inner)[-1], 1, 3, padding=1)
        self.layers = nn.Sequential(*layers, last, nn.Sigmoid() if mask == "sigmoid" else Shared())
        self.shared = mask == "softmax"

    def forward(self, features: Tensor) -> Tensor:
        """(frame, channel, row, column) -> (frame, 1, row, column) in [0, 1]."""
        mask: Tensor = self.layers(features)
        return mask

    def pooled(self, features: Tensor, mask: Tensor) -> Tensor:
        """The features of each frame under its mask: (frame, channel)."""
        if self.shared:
            return (features * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3))
        return (features * mask).mean(dim=(2, 3))


class Shared(nn.Module):
    """The softmax over the cells of each map, over its largest value."""

    def forward(self, scores: Tensor) -> Tensor:
        """(frame, 1, row, column), any value -> the same shape in [0, 1], largest 1."""
        return torch.exp(scores - scores.amax(dim=(2, 3), keepdim=True))
