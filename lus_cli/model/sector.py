"""The part of a frame that a probe sees, laid out along its scan lines. Arrays only.

Convex probes show a sector, whose scan lines fan out from an apex; linear ones a rectangle. Resampled
to (depth, line) both are alike, and an artefact along a scan line, such as a B-line, stands upright.
Squeezing a frame keeps its lines straight and through one apex, so frames of any aspect will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

DEPTHS, LINES = 160, 96  # the size of the (depth, line) image
LIT = 0.05  # of nearly the brightest level: what is seen is the same at any gain
LEAST = 3.0  # levels of 255: JPEG leaves less in what is black
LEANS = np.linspace(0, 1.8, 91)  # columns a row
TOUCH = 0.016  # of the frame's height: how near an edge touches
STRAIGHT = 0.1  # columns a row that an edge leans at least to be a sector's


@dataclass(frozen=True)
class Sector:
    """Where each point of the (depth, line) image lies in a frame.

    rows, columns: (depth, line) float64, pixels; some lie outside the frame.
    shape: rows and columns of the frame.
    opening: degrees between the outermost scan lines; 0 for a linear probe.
    width, depth: the part seen, shares of the frame's columns and rows.
    """

    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]
    opening: float
    width: float
    depth: float

    @cached_property
    def inside(self) -> np.ndarray:
        """(depth, line) bool: what lies in the frame."""
        rows, columns = self.shape
        across = (self.columns >= 0) & (self.columns <= columns - 1)
        return (self.rows >= 0) & (self.rows <= rows - 1) & across

    def lines(self, frames: np.ndarray) -> np.ndarray:
        """Frames, (frame, row, column), along the scan lines: (frame, depth, line) float32.

        Bilinear; points outside the frame take the nearest in it.
        """
        height, width = self.shape
        rows = np.clip(self.rows, 0, height - 1)
        columns = np.clip(self.columns, 0, width - 1)
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
    """The sector in the brightest levels of a video, (row, column) uint8.

    Its sides are the straight edges of the lit region; what is not joined to that region, such as
    writing, does not count. With no edges that lean apart, it is the rectangle around the region, or
    the whole frame if hardly anything is lit.
    """
    from scipy import ndimage  # type: ignore[import-untyped]  # loading it takes most of a second

    height, width = brightest.shape
    threshold = max(LIT * float(np.percentile(brightest, 99)), LEAST)
    lit = largest_part(ndimage.gaussian_filter(brightest.astype(np.float32), 1.0) > threshold)
    if lit.mean() < 0.02 or min(height, width) < 8:
        return rectangle(lit.shape, 0, height - 1, 0, width - 1)
    rows, columns = np.nonzero(lit)
    box = rows.min(), rows.max(), columns.min(), columns.max()
    left, right = sides(lit)
    if left is None and right is not None:  # a side in shadow: as the other one
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
    angle = np.linspace(np.arctan(left[1]), np.arctan(right[1]), LINES)
    # The lowest and the highest tenth of a percent may be dirt at the edge of what is lit.
    near, far = np.percentile(radius, (0.1, 99.9))
    reach = np.linspace(near, far, DEPTHS)[:, None]
    return Sector(
        apex_row + reach * np.cos(angle),
        apex_column + reach * np.sin(angle),
        (height, width),
        float(np.degrees(angle[-1] - angle[0])),
        (box[3] - box[2] + 1) / width,
        (box[1] - box[0] + 1) / height,
    )


def rectangle(shape: tuple[int, ...], top: int, bottom: int, left: int, right: int) -> Sector:
    """What a linear probe sees: scan lines that go straight down."""
    rows, columns = np.meshgrid(
        np.linspace(top, bottom, DEPTHS), np.linspace(left, right, LINES), indexing="ij"
    )
    seen = (right - left + 1) / shape[1], (bottom - top + 1) / shape[0]
    return Sector(rows, columns, (shape[0], shape[1]), 0.0, *seen)


def largest_part(lit: np.ndarray) -> np.ndarray:
    """(row, column) bool: the largest connected part of what is lit."""
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
    """The straight edge at the left and at the right of a lit region; None where there is none."""
    width = lit.shape[1]
    rows = np.flatnonzero(lit.any(axis=1))
    left = side(rows, lit[rows].argmax(axis=1), lit.shape[0])
    right = side(rows, lit[rows, ::-1].argmax(axis=1), lit.shape[0])
    return left, right and (width - 1 - right[0], -right[1])


def side(rows: np.ndarray, columns: np.ndarray, height: int) -> Edge | None:
    """The line that leaves a region's first lit columns to its right and touches most of them.

    Where the region reaches the frame's border, the frame cuts it: such rows do not count. None if
    less than a seventh of the frame's rows touch it.
    """
    free = columns > 2
    if free.sum() < 2:
        return None
    # Where the line of each lean would cross row 0, if each of the rows were on it.
    crossing = columns[free] + LEANS[:, None] * rows[free]
    crossing -= (first := np.percentile(crossing, 1, axis=1, keepdims=True))
    touching = (np.abs(crossing) < TOUCH * height).sum(axis=1)
    best = int(touching.argmax())
    if touching[best] < height / 7:
        return None
    return float(first[best, 0]), -float(LEANS[best])
