"""A model for few videos: one picture of the whole video, a frozen CNN, and a kernel head.

The picture is the video's maximum, mean and spread over time as three channels (after Khan et al.
2024, who compress a video to maximum, mean and minimum), laid out along the scan lines, where a
B-line stands upright. The CNN's map of it is averaged across the scan lines, so depth is kept.

Where it looked is one map of the video: how much each cell of the CNN's map raised the answer.
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

SIDE = 224  # of the picture, pixels: what the CNN was trained at
CELLS = 7  # rows of its map
SPOTS = 28  # rows and columns of the map over the frame
BRIGHT = 0.99  # the quantile of what is lit that becomes white
LEAST = 1.0  # levels of 255: below, there is nothing to stretch


class KernelModel(LusModel):
    """Stands where a LusModel does: the same calls, one mask for all frames of a video, and frames
    that all weigh alike."""

    head: KernelHead  # type: ignore[assignment]
    masks_videos = True

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
        maps, sectors = self.maps(frames, lengths)
        logits: Tensor = self.head(averaged(maps))
        masks = [
            over_frame(rising, sector).expand(int(length), SPOTS, SPOTS)
            for rising, sector, length in zip(self.raised(maps), sectors, lengths, strict=True)
        ]
        shares = [torch.full((int(n),), 1 / max(int(n), 1)) for n in lengths]
        nothing = maps.new_zeros(0, SPOTS, SPOTS)
        return Output(
            logits,
            torch.cat([nothing, *masks]),
            torch.cat([nothing[:, 0, 0].cpu(), *shares]).to(logits),
        )

    def vectors(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """uint8 (frame, row, column[, channel]), the videos one after the other -> what the head
        compares: (video, 1, channel)."""
        return averaged(self.maps(frames, lengths)[0])

    def maps(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, list[Sector]]:
        """The CNN's map of each video's picture, (video, channel, CELLS, CELLS), and its sector."""
        if not len(lengths):
            channels = self.head.known.shape[2] // CELLS
            return torch.zeros(0, channels, CELLS, CELLS, device=frames.device), []
        pairs = [picture(video) for video in frames.split(lengths.tolist())]
        pictures = torch.stack([shown for shown, _ in pairs])
        mean, std = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        images = ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)
        maps: Tensor = F.adaptive_avg_pool2d(self.backbone(images), CELLS)
        return maps, [sector for _, sector in pairs]

    def raised(self, maps: Tensor) -> Tensor:
        """By how much each cell raised the answer, to first order: (video, channel, row, column) ->
        (video, row, column); what lowered it is 0.

        The slope of the answer times what the cell has more of than training videos have in its row.
        """
        shape = (-1, maps.shape[1], CELLS)
        slope = self.head.slope(averaged(maps)).view(shape)
        more = maps - self.head.mean.view(shape)[..., None]
        return torch.einsum("vcr,vcrl->vrl", slope, more).clamp_min(0)

    def mask(self, frames: Tensor) -> Tensor:
        """(frame, SPOTS, SPOTS) in [0, 1], the same for all frames, which are taken for a video."""
        return self(frames, torch.tensor([len(frames)])).masks


def averaged(maps: Tensor) -> Tensor:
    """(video, channel, row, column) -> (video, 1, channel and row): the mean over scan lines."""
    return maps.mean(dim=3).flatten(1)[:, None]


def over_frame(values: Tensor, sector: Sector) -> Tensor:
    """A map along the scan lines, (depth, line), as it lies over the frame: (SPOTS, SPOTS) in
    [0, 1], over its largest; 0 outside the sector, and everywhere if nothing is above 0."""
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
    found = (sums / np.maximum(counts, 1)).reshape(SPOTS, SPOTS).astype(np.float32)
    return torch.from_numpy(found / max(float(found.max()), 1e-12)).to(values.device)


def picture(frames: Tensor) -> tuple[Tensor, Sector]:
    """A video as one picture: uint8 (frame, row, column[, channel]) -> float32 (3, SIDE, SIDE) in
    [0, 1], with depth downwards and scan lines side by side; and the sector that it shows."""
    gray = frames.float() if frames.ndim == 3 else frames.float().mean(dim=3)
    brightest = gray.amax(dim=0)
    over_time = torch.stack([brightest, gray.mean(dim=0), gray.std(dim=0, correction=0)])
    sector = find_sector(brightest.round().to(torch.uint8).cpu().numpy())
    return torch.stack([stretched(plane) for plane in along_lines(over_time, sector)]), sector


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
