"""The field of view of a probe in a frame, resampled along its scan lines. Works on arrays.

Convex probes show a sector, whose scan lines start at an apex; linear probes show a rectangle.
Resampled to (depth, line), both look alike, and an artefact along a scan line, such as a B-line, is
vertical. Stretching a frame keeps its lines straight and concurrent, so any aspect ratio works.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

DEPTHS, LINES = 160, 96  # the size of the (depth, line) image
LIT = 0.05  # threshold, as a fraction of the 99th percentile, which makes it independent of gain
LEAST = 3.0  # lowest threshold, levels of 255: above JPEG noise in black regions
LEANS = np.linspace(0, 1.8, 91)  # slopes of an edge, columns per row
TOUCH = 0.016  # distance at which a row touches an edge, as a fraction of the height of the frame
STRAIGHT = 0.1  # smallest slope of the side of a sector, columns per row


@dataclass(frozen=True)
class Sector:
    """The field of view of a probe in a frame.

    shape: rows and columns of the frame.
    apex: row and column, in pixels, where the scan lines of a convex probe meet; None for a linear
        probe.
    reach: the nearest and the farthest point of a scan line: distance from the apex, or row.
    across: the first and the last scan line: angle to the vertical in radians, or column.
    width, depth: size of the field of view, as fractions of the columns and rows of the frame.
    """

    shape: tuple[int, int]
    apex: tuple[float, float] | None
    reach: tuple[float, float]
    across: tuple[float, float]
    width: float
    depth: float

    @property
    def opening(self) -> float:
        """The angle between the outermost scan lines in degrees; 0 for a linear probe."""
        return 0.0 if self.apex is None else float(np.degrees(self.across[1] - self.across[0]))

    @cached_property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """The row and the column, in pixels of the frame, of each point of the (depth, line) image:
        (depth, line) float64. Some points are outside the frame."""
        reach = np.linspace(*self.reach, DEPTHS)[:, None]
        across = np.linspace(*self.across, LINES)[None, :]
        if self.apex is None:
            rows, columns = np.broadcast_arrays(reach, across)
            return rows, columns
        return self.apex[0] + reach * np.cos(across), self.apex[1] + reach * np.sin(across)

    def positions(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `grid`: the depth and the scan line of points of the frame, each from 0 at
        the first to 1 at the last. Points outside the field of view are beyond these limits."""
        if self.apex is None:
            reach, across = np.broadcast_arrays(rows, columns)
        else:
            down, aside = rows - self.apex[0], columns - self.apex[1]
            reach, across = np.hypot(down, aside), np.arctan2(aside, down)
        return tuple(  # type: ignore[return-value]
            (value - first) / max(last - first, 1e-9)
            for value, (first, last) in ((reach, self.reach), (across, self.across))
        )

    @cached_property
    def inside(self) -> np.ndarray:
        """Whether each point is inside the frame: (depth, line) bool."""
        limits = zip(self.grid, self.shape, strict=True)
        down, across = ((place >= 0) & (place <= size - 1) for place, size in limits)
        both: np.ndarray = down & across
        return both

    def lines(self, frames: np.ndarray) -> np.ndarray:
        """Resamples frames, (frame, row, column), along the scan lines: (frame, depth, line) float32.

        Bilinear. Points outside the frame take the value of the nearest point inside.
        """
        height, width = self.shape
        rows, columns = (
            np.clip(place, 0, size - 1) for place, size in zip(self.grid, self.shape, strict=True)
        )
        top = np.minimum(rows.astype(int), max(height - 2, 0))
        left = np.minimum(columns.astype(int), max(width - 2, 0))
        below, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
        down = (rows - top).astype(np.float32)
        across = (columns - left).astype(np.float32)
        upper = frames[:, top, left] * (1 - across) + frames[:, top, right] * across
        lower = frames[:, below, left] * (1 - across) + frames[:, below, right] * across
        between: np.ndarray = upper * (1 - down) + lower * down
        return between


def find_sector(brightest: np.ndarray) -> Sector:
    """The sector in the maximum of a video over time, (row, column) uint8.

    Its sides are the straight edges of the largest bright region; separate regions, such as text, are
    ignored. Without edges that diverge, the result is the bounding rectangle of the region, or the
    whole frame if less than 2 % of it is bright.
    """
    from scipy import ndimage  # type: ignore[import-untyped]  # the import takes most of a second

    height, width = brightest.shape
    threshold = max(LIT * float(np.percentile(brightest, 99)), LEAST)
    lit = largest_part(ndimage.gaussian_filter(brightest.astype(np.float32), 1.0) > threshold)
    if lit.mean() < 0.02 or min(height, width) < 8:
        return rectangle(lit.shape, 0, height - 1, 0, width - 1)
    rows, columns = np.nonzero(lit)
    box = rows.min(), rows.max(), columns.min(), columns.max()
    left, right = sides(lit)
    if left is None and right is not None:  # a side hidden by a shadow is taken to mirror the other
        left = (width - 1 - right[0], -right[1])
    elif right is None and left is not None:
        right = (width - 1 - left[0], -left[1])
    if left is None or right is None or -left[1] < STRAIGHT or right[1] < STRAIGHT:
        return rectangle(lit.shape, *box)
    apex_row = (left[0] - right[0]) / (right[1] - left[1])
    apex_column = left[0] + left[1] * apex_row
    if apex_row > box[0] + 0.1 * height:
        return rectangle(lit.shape, *box)
    radius = np.hypot(rows - apex_row, columns - apex_column)
    # The lowest and the highest 0.1 % may be noise at the edge of the region.
    near, far = np.percentile(radius, (0.1, 99.9))
    return Sector(
        (height, width),
        (apex_row, apex_column),
        (float(near), float(far)),
        (float(np.arctan(left[1])), float(np.arctan(right[1]))),
        (box[3] - box[2] + 1) / width,
        (box[1] - box[0] + 1) / height,
    )


def rectangle(shape: tuple[int, ...], top: int, bottom: int, left: int, right: int) -> Sector:
    """The field of view of a linear probe, with vertical scan lines."""
    size = (right - left + 1) / shape[1], (bottom - top + 1) / shape[0]
    return Sector((shape[0], shape[1]), None, (top, bottom), (left, right), *size)


def largest_part(lit: np.ndarray) -> np.ndarray:
    """The largest connected region: (row, column) bool."""
    from scipy import ndimage

    parts, count = ndimage.label(lit)
    if not count:
        return lit
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: np.ndarray = parts == sizes.argmax()
    return largest


Edge = tuple[float, float]  # column at row 0, columns per row


def sides(lit: np.ndarray) -> tuple[Edge | None, Edge | None]:
    """The straight left and right edges of a bright region; None for a missing edge."""
    width = lit.shape[1]
    rows = np.flatnonzero(lit.any(axis=1))
    left = side(rows, lit[rows].argmax(axis=1), lit.shape[0])
    right = side(rows, lit[rows, ::-1].argmax(axis=1), lit.shape[0])
    return left, right and (width - 1 - right[0], -right[1])


def side(rows: np.ndarray, columns: np.ndarray, height: int) -> Edge | None:
    """The line to the left of the first bright column of each row that touches most of them.

    Rows in which the region reaches the border of the frame are ignored. None if fewer than a
    seventh of the rows of the frame touch the line.
    """
    free = columns > 2
    if free.sum() < 2:
        return None
    # For each slope, where a line through each of the points crosses row 0.
    crossing = columns[free] + LEANS[:, None] * rows[free]
    crossing -= (first := np.percentile(crossing, 1, axis=1, keepdims=True))
    touching = (np.abs(crossing) < TOUCH * height).sum(axis=1)
    best = int(touching.argmax())
    if touching[best] < height / 7:
        return None
    return float(first[best, 0]), -float(LEANS[best])
