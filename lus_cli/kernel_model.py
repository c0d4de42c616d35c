"""A model for few videos: one picture of the whole video, a frozen CNN, and a kernel head.

The picture is the video's maximum, mean and spread over time as three channels (after Khan et al.
2024, who compress a video to maximum, mean and minimum), laid out along the scan lines, where a
B-line stands upright. The CNN's map of it is averaged across the scan lines, so depth is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.kernel_head import KernelHead
from lus_cli.model import MEAN, STD, LusModel, Output
from lus_cli.sector import Sector, find_sector

SIDE = 224  # of the picture, pixels: what the CNN was trained at
CELLS = 7  # rows of its map
BRIGHT = 0.99  # the quantile of what is lit that becomes white
LEAST = 1.0  # levels of 255: below, there is nothing to stretch


class KernelModel(LusModel):
    """Stands where a LusModel does: the same calls, no mask, and frames that all weigh alike."""

    head: KernelHead  # type: ignore[assignment]

    def __init__(self, backbone: nn.Module, channels: int, videos: int) -> None:
        nn.Module.__init__(self)  # nothing of the network behind the CNN
        self.backbone = backbone
        self.head = KernelHead(videos, 1, channels * CELLS)
        self.attention, self.padding, self.pool = None, "packed", "mean"
        self.frames_at_once, self.recompute, self.precision = 0, False, None

    def forward(
        self, frames: Tensor, lengths: Tensor, pad_to: int = 0, parts: Sequence[int] = ()
    ) -> Output:
        """Scores a batch of videos: see LusModel."""
        logits: Tensor = self.head(self.vectors(frames, lengths))
        shares = torch.cat([torch.full((int(n),), 1 / max(int(n), 1)) for n in lengths])
        return Output(logits, self.mask(frames), shares.to(logits))

    def vectors(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """uint8 (frame, row, column[, channel]), the videos one after the other -> what the head
        compares: (video, 1, channel)."""
        if not len(lengths):
            return torch.zeros(0, *self.head.known.shape[1:], device=frames.device)
        pictures = torch.stack([picture(video) for video in frames.split(lengths.tolist())])
        mean, std = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        images = ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)
        rows = F.adaptive_avg_pool2d(self.backbone(images), (CELLS, 1))
        return rows.flatten(1)[:, None]

    def mask(self, frames: Tensor) -> Tensor:
        """All ones: it looks at a video, not at frames."""
        return torch.ones(len(frames), CELLS, CELLS, device=frames.device)


def picture(frames: Tensor) -> Tensor:
    """A video as one picture: uint8 (frame, row, column[, channel]) -> float32 (3, SIDE, SIDE) in
    [0, 1], with depth downwards and scan lines side by side."""
    gray = frames.float() if frames.ndim == 3 else frames.float().mean(dim=3)
    brightest = gray.amax(dim=0)
    over_time = torch.stack([brightest, gray.mean(dim=0), gray.std(dim=0, correction=0)])
    sector = find_sector(brightest.round().to(torch.uint8).cpu().numpy())
    return torch.stack([stretched(plane) for plane in along_lines(over_time, sector)])


def along_lines(planes: Tensor, sector: Sector) -> Tensor:
    """(plane, row, column) -> (plane, depth, scan line), SIDE each; black outside the frame."""
    height, width = sector.shape
    places = np.stack([sector.columns / (width - 1), sector.rows / (height - 1)]) * 2 - 1
    coarse = torch.from_numpy(places.astype(np.float32))[None].to(planes.device)
    grid = F.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=True)
    return F.grid_sample(planes[None], grid.permute(0, 2, 3, 1), align_corners=True)[0]


def stretched(plane: Tensor) -> Tensor:
    """Levels over those of its brightest hundredth, in [0, 1]: gain tells nothing."""
    lit = plane[plane > 0]
    if not len(lit):
        return plane
    top = torch.quantile(lit, BRIGHT).clamp_min(LEAST)
    return (plane / top).clamp(0, 1)


def without_head(backbone: nn.Module, channels: int) -> tuple[nn.Module, int]:
    """EfficientNet-Lite's last convolution spreads its map for ImageNet's classes: left out."""
    features = getattr(backbone, "features", None)
    if not isinstance(features, nn.Sequential) or "head" not in dict(features.named_children()):
        return backbone, channels
    kept = nn.Sequential(*list(features.children())[:-1])
    with torch.no_grad():
        return kept, int(kept.eval()(torch.zeros(1, 3, SIDE, SIDE)).shape[1])
