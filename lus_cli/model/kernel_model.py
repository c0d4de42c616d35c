"""A model for few videos: one image of the whole video, a frozen CNN, and a kernel head.

The channels of the image are the maximum, the mean and the standard deviation over time (after Khan
et al. 2024, who use maximum, mean and minimum). It is resampled along the scan lines, so that a
B-line is vertical. The feature map of the CNN is averaged over the scan lines, which keeps depth.

The mask is one map for the whole video: how much each cell of the feature map raised the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lus_cli.model.kernel_head import KernelHead
from lus_cli.model.network import MEAN, STD, LusModel, Output
from lus_cli.model.sector import Sector, find_sector

SIDE = 224  # side of the image in pixels, at which the CNN was trained
CELLS = 7  # rows of the feature map
SPOTS = 28  # rows and columns of the mask over the frame
BRIGHT = 0.99  # the quantile of the non-zero levels that becomes white
LEAST = 1.0  # levels of 255: the smallest white level


class KernelModel(LusModel):
    """Has the interface of LusModel, with the same mask and the same weight for all frames of a
    video."""

    head: KernelHead  # type: ignore[assignment]
    masks_videos = True

    def __init__(self, backbone: nn.Module, channels: int, videos: int) -> None:
        nn.Module.__init__(self)  # without the layers of LusModel after the CNN
        self.backbone = backbone
        self.head = KernelHead(videos, 1, channels * CELLS)
        self.attention, self.padding, self.pool = None, "packed", "mean"
        self.frames_at_once, self.recompute, self.precision = 0, False, None

    def forward(
        self, frames: Tensor, lengths: Tensor, pad_to: int = 0, parts: Sequence[int] = ()
    ) -> Output:
        """Scores a batch of videos; see LusModel."""
        maps, sectors = self.maps(frames, lengths)
        logits: Tensor = self.head(averaged(maps))
        masks = [
            frame_mask(raised, sector).expand(int(length), SPOTS, SPOTS)
            for raised, sector, length in zip(
                self.contributions(maps), sectors, lengths, strict=True
            )
        ]
        weights = [torch.full((int(n),), 1 / max(int(n), 1)) for n in lengths]
        empty = maps.new_zeros(0, SPOTS, SPOTS)
        return Output(
            logits,
            torch.cat([empty, *masks]),
            torch.cat([empty[:, 0, 0].cpu(), *weights]).to(logits),
        )

    def vectors(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Concatenated videos, uint8 (frame, row, column[, channel]) -> the vectors that the head
        compares, (video, 1, channel)."""
        return averaged(self.maps(frames, lengths)[0])

    def maps(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, list[Sector]]:
        """The feature map of the image of each video, (video, channel, CELLS, CELLS), and the
        sector of each video."""
        if not len(lengths):
            channels = self.head.known.shape[2] // CELLS
            return torch.zeros(0, channels, CELLS, CELLS, device=frames.device), []
        pairs = [video_image(video) for video in frames.split(lengths.tolist())]
        images = torch.stack([image for image, _ in pairs])
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        maps: Tensor = F.adaptive_avg_pool2d(self.backbone(images), CELLS)
        return maps, [sector for _, sector in pairs]

    def contributions(self, maps: Tensor) -> Tensor:
        """By how much each cell raised the prediction, to first order; 0 for cells that lowered it.

        The slope of the regression times the difference between the features of the cell and the
        mean of the training videos in its row.

        maps: (video, channel, row, column).
        Returns (video, row, column).
        """
        shape = (-1, maps.shape[1], CELLS)
        slope = self.head.slope(averaged(maps)).view(shape)
        excess = maps - self.head.mean.view(shape)[..., None]
        return torch.einsum("vcr,vcrl->vrl", slope, excess).clamp_min(0)

    def mask(self, frames: Tensor) -> Tensor:
        """The mask of the frames of one video, (frame, SPOTS, SPOTS) in [0, 1], equal for all."""
        return self(frames, torch.tensor([len(frames)])).masks


def averaged(maps: Tensor) -> Tensor:
    """The mean over the scan lines: (video, channel, row, line) -> (video, 1, channel x row)."""
    return maps.mean(dim=3).flatten(1)[:, None]


def frame_mask(values: Tensor, sector: Sector) -> Tensor:
    """Maps values along the scan lines, (depth, line), to the frame: (SPOTS, SPOTS) in [0, 1].

    The values are divided by the largest one. The mask is 0 outside the sector, and everywhere if no
    value is above 0.
    """
    shape = sector.rows.shape
    smooth = F.interpolate(values[None, None], shape, mode="bilinear")[0, 0].cpu().numpy()
    places = [
        np.floor((where + 0.5) / size * SPOTS).astype(int)
        for where, size in zip((sector.rows, sector.columns), sector.shape, strict=True)
    ]
    inside = np.logical_and.reduce([(place >= 0) & (place < SPOTS) for place in places])
    spots = places[0][inside] * SPOTS + places[1][inside]
    sums = np.bincount(spots, smooth[inside], SPOTS**2)
    counts = np.bincount(spots, minlength=SPOTS**2)
    means = (sums / np.maximum(counts, 1)).reshape(SPOTS, SPOTS).astype(np.float32)
    return torch.from_numpy(means / max(float(means.max()), 1e-12)).to(values.device)


def video_image(frames: Tensor) -> tuple[Tensor, Sector]:
    """One image of a video, and the sector that it shows.

    frames: uint8 (frame, row, column[, channel]).
    Returns float32 (3, SIDE, SIDE) in [0, 1], with depth along the rows and scan lines along the
    columns.
    """
    gray = frames.float() if frames.ndim == 3 else frames.float().mean(dim=3)
    brightest = gray.amax(dim=0)
    over_time = torch.stack([brightest, gray.mean(dim=0), gray.std(dim=0, correction=0)])
    sector = find_sector(brightest.round().to(torch.uint8).cpu().numpy())
    return torch.stack([stretched(plane) for plane in along_lines(over_time, sector)]), sector


def along_lines(planes: Tensor, sector: Sector) -> Tensor:
    """(plane, row, column) -> (plane, depth, scan line) of size SIDE, black outside the frame."""
    height, width = sector.shape
    places = np.stack([sector.columns / (width - 1), sector.rows / (height - 1)]) * 2 - 1
    coarse = torch.from_numpy(places.astype(np.float32))[None].to(planes.device)
    grid = F.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=True)
    return F.grid_sample(planes[None], grid.permute(0, 2, 3, 1), align_corners=True)[0]


def stretched(plane: Tensor) -> Tensor:
    """Levels divided by the BRIGHT quantile of the non-zero levels, in [0, 1], to remove gain."""
    lit = plane[plane > 0]
    if not len(lit):
        return plane
    top = torch.quantile(lit, BRIGHT).clamp_min(LEAST)
    return (plane / top).clamp(0, 1)


def without_head(backbone: nn.Module, channels: int) -> tuple[nn.Module, int]:
    """The backbone without the last convolution of EfficientNet-Lite, which serves the ImageNet
    classes, and its number of channels."""
    features = getattr(backbone, "features", None)
    if not isinstance(features, nn.Sequential) or "head" not in dict(features.named_children()):
        return backbone, channels
    kept = nn.Sequential(*list(features.children())[:-1])
    with torch.no_grad():
        return kept, int(kept.eval()(torch.zeros(1, 3, SIDE, SIDE)).shape[1])
