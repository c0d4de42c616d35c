"""What the model sees at each time step: a frame of the video, or one picture of a window of frames.

The windows of a video are equal in number or in frames. The whole video may be one more window.

A window's picture holds, as its three channels, the maximum, the mean and the standard deviation of
its frames over time (after Khan et al. 2024, who use maximum, mean and minimum of a whole video).
Frames and windows keep their geometry, or are resampled along the scan lines of the probe, so that a
B-line is vertical and depth runs along the rows for every probe.

All later steps see pictures and do not need to know how they were made. `frame_maps` and
`frame_weights` map their results back to the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lus_cli.cache.sector import Sector, find_sector

PICTURES_VERSION = 2  # of the pictures that stored feature maps are computed from
SIDE = 224  # rows and columns of a picture along the scan lines: ImageNet's CNNs were trained at this size
GRID = 56  # rows and columns of a map that is resampled from the scan lines to the frame
BRIGHT = 0.99  # the quantile of the non-zero levels that becomes white
LEAST = 1.0  # levels of 255: the smallest white level


@dataclass(frozen=True)
class Pictures:
    """How the frames of a video become the pictures of its time steps.

    windows: the number of pictures per video, each of a window of frames; 0 for one per frame.
    scan_lines: whether pictures are resampled along the scan lines.
    window_frames: the number of frames per window; 0 if `windows` sets the number of windows instead.
        The last window is up to half a window longer or shorter than the others.
    whole_video: whether the first picture is one of all frames, before those of the windows.

    Example:
        >>> frames = torch.randint(0, 256, (20, 64, 64), dtype=torch.uint8)
        >>> Pictures(windows=6, scan_lines=True).of(frames).shape
        torch.Size([6, 224, 224, 3])

    """

    windows: int
    scan_lines: bool
    window_frames: int = 0
    whole_video: bool = False

    @property
    def are_windows(self) -> bool:
        """Whether each picture is made of a window of frames."""
        return bool(self.windows or self.window_frames)

    @property
    def are_frames(self) -> bool:
        """Whether the pictures are the unchanged frames."""
        return not (self.are_windows or self.scan_lines)

    def shape(self, frame: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a picture, (row, column[, channel]), made of frames of shape `frame`."""
        side = (SIDE, SIDE) if self.scan_lines else frame[:2]
        if self.are_windows:
            return (*side, 3)
        return side if self.scan_lines else frame

    def steps(self, length: int) -> int:
        """The number of pictures of a video of `length` frames."""
        return len(self.spans(length)) if self.are_windows else length

    def spans(self, length: int) -> list[tuple[int, int]]:
        """The first frame of each picture and the one after its last.

        The windows of a video share its frames evenly, or with `window_frames`, all but the last have
        that many. Those of a video with fewer frames than windows repeat them.
        """
        whole = [(0, length)] if self.whole_video else []
        if self.window_frames:
            count = max(round(length / self.window_frames), 1)
            starts = [self.window_frames * step for step in range(count)]
            return whole + list(zip(starts, [*starts[1:], length], strict=True))
        count = self.windows or length
        starts = [length * step // count for step in range(count)]
        ends = [length * (step + 1) // count for step in range(count)]
        return whole + [
            (start, max(end, start + 1)) for start, end in zip(starts, ends, strict=True)
        ]

    def of(self, frames: Tensor) -> Tensor:
        """The pictures of a video: uint8 (frame, row, column[, channel]) -> uint8 (step, ...).

        The sector is found once, in the maximum of all frames.
        """
        if self.are_frames:
            return frames
        gray = as_gray(frames)
        sector = sector_of(gray) if self.scan_lines else None
        if not self.are_windows:
            assert sector is not None
            return along_lines(gray, sector).round().to(torch.uint8)
        pictures = []
        for start, end in self.spans(len(gray)):
            part = gray[start:end]
            planes = torch.stack([part.amax(0), part.mean(0), spread_of(part)])
            if sector is not None:
                planes = along_lines(planes, sector)
            pictures.append(torch.stack([stretched(plane) for plane in planes], dim=2))
        return (torch.stack(pictures) * 255).round().to(torch.uint8)

    def frame_maps(
        self, maps: np.ndarray, frames: Tensor, centres: Sequence[float] = ()
    ) -> np.ndarray:
        """Maps of the pictures as maps of the frames: (step, row, column) -> (frame, row, column).

        centres: the rows, and columns, of a picture along the scan lines on which the cells of a map
            are centred; () if they divide it evenly.
        frames: the frames that the pictures were made of. Each frame of a window has the map of the
        window. Maps along the scan lines become maps of GRID x GRID cells over the frame, which are 0
        outside the sector.
        """
        if self.scan_lines:
            maps = over_the_frame(maps, sector_of(as_gray(frames)), centres)
        return maps[self.step_of_frame(len(frames))]

    def frame_weights(self, weights: np.ndarray, length: int) -> np.ndarray:
        """The weight of each frame, (frame,), from those of the steps, (step,), with the same sum:
        the weight of a window is shared by its frames."""
        shared = np.zeros(length)
        for weight, (start, end) in zip(weights, self.spans(length), strict=True):
            shared[start:end] += weight / (end - start)
        return shared.astype(weights.dtype)

    def step_of_frame(self, length: int) -> np.ndarray:
        """The picture that shows each frame of a video: (frame,) int. If several show it, the
        last one, which is a window rather than the whole video."""
        starts = [start for start, _ in self.spans(length)]
        return np.searchsorted(starts, np.arange(length), side="right") - 1


def as_gray(frames: Tensor) -> Tensor:
    """uint8 (frame, row, column[, channel]) -> float32 (frame, row, column) in 0..255."""
    return frames.float() if frames.ndim == 3 else frames.float().mean(dim=3)


def spread_of(gray: Tensor) -> Tensor:
    """The standard deviation of each pixel over time: (frame, row, column) -> (row, column).

    Exactly 0 where nothing changes. Tensor.std takes 20 times as long.
    """
    changes = gray - gray[0]
    changes -= changes.mean(0)
    return changes.square_().mean(0).sqrt_()


def sector_of(gray: Tensor) -> Sector:
    """The sector in the maximum of frames, (frame, row, column), over time."""
    return find_sector(gray.amax(dim=0).round().to(torch.uint8).cpu().numpy())


def along_lines(planes: Tensor, sector: Sector) -> Tensor:
    """(plane, row, column) -> (plane, depth, scan line) of size SIDE, black outside the frame."""
    sizes = zip(sector.grid, sector.shape, strict=True)
    rows, columns = (place / (size - 1) * 2 - 1 for place, size in sizes)
    coarse = torch.from_numpy(np.stack([columns, rows]).astype(np.float32))[None].to(planes.device)
    grid = F.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=True)
    return F.grid_sample(planes[None], grid.permute(0, 2, 3, 1), align_corners=True)[0]


def stretched(plane: Tensor) -> Tensor:
    """Levels divided by the BRIGHT quantile of the non-zero levels, in [0, 1], to remove gain."""
    lit = plane[plane > 0]
    if not len(lit):
        return plane
    top = torch.quantile(lit, BRIGHT).clamp_min(LEAST)
    return (plane / top).clamp(0, 1)


def over_the_frame(maps: np.ndarray, sector: Sector, centres: Sequence[float] = ()) -> np.ndarray:
    """Maps along the scan lines, (map, depth, line), as maps over the frame, (map, GRID, GRID).

    Bilinear between the centres of the cells; 0 where the frame shows no scan line. For `centres` see
    Pictures.frame_maps.
    """
    count = maps.shape[1]
    step = centres[1] - centres[0] if count > 1 and centres else (SIDE - 1) / count
    first = centres[0] if centres else step / 2
    rows, columns = (
        ((np.arange(GRID) + 0.5) / GRID * size - 0.5).reshape(shape)
        for size, shape in zip(sector.shape, ((-1, 1), (1, -1)), strict=True)
    )
    depth, line = sector.positions(*np.broadcast_arrays(rows, columns))
    inside = (depth >= 0) & (depth <= 1) & (line >= 0) & (line <= 1)
    cells = (np.stack([line, depth], axis=2) * (SIDE - 1) - first) / step
    # Coordinates of grid_sample: -1 and 1 are the edges of the first and the last cell.
    places = torch.from_numpy(((cells + 0.5) / count * 2 - 1).astype(np.float32))
    sampled = F.grid_sample(
        torch.from_numpy(np.ascontiguousarray(maps, np.float32))[None],
        places[None],
        padding_mode="border",
        align_corners=False,
    )[0]
    return np.where(inside, sampled.numpy(), np.float32(0))
