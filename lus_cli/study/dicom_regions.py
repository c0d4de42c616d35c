"""Masks everything outside the ultrasound regions of a DICOM frame, where names may appear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.errors import LusError

PICTURE = 1  # RegionSpatialFormat of a two-dimensional picture (PS3.3, C.8.5.5.1.1)
CORNERS = ("MinX0", "MinY0", "MaxX1", "MaxY1")
LEAST_OUTSIDE = 0.01  # share of a frame; a smaller part outside has no room for text
Box = tuple[slice, slice]  # rows, columns
UNMASKED_FRAME = (
    "its ultrasound region is the whole frame, so --mask-text masks nothing: names and other text "
    "in the picture remain"
)
UNMASKED = "mask it with another program, or prepare it without --mask-text"


def ultrasound_regions(path: Path, header: Any) -> list[Box]:
    """The regions of two-dimensional pictures that the file states (PS3.3, C.8.5.5).

    Raises LusError if it states none, or an impossible one: then names may be anywhere.
    """
    boxes = []
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        if region.get("RegionSpatialFormat") != PICTURE:
            continue  # an ECG, a Doppler spectrum, a legend
        corners = [region.get(f"RegionLocation{corner}") for corner in CORNERS]
        if not all(isinstance(corner, int) for corner in corners):
            raise LusError(
                f"{path} does not state the position of its ultrasound region, so text cannot be masked",
                UNMASKED,
            )
        left, top, right, bottom = corners
        # The last pixel belongs to the region; some scanners state the one after it.
        if not (0 <= left < right <= header.Columns and 0 <= top < bottom <= header.Rows):
            raise LusError(
                f"{path}: its ultrasound region ({left}, {top}) to ({right}, {bottom}) is not "
                f"inside its {header.Columns}x{header.Rows} frames, so text cannot be masked",
                UNMASKED,
            )
        boxes.append((slice(top, bottom + 1), slice(left, right + 1)))
    if not boxes:
        raise LusError(f"{path} states no ultrasound region, so text cannot be masked", UNMASKED)
    return boxes


def blackened(path: Path, frame: np.ndarray, keep: list[Box], header: Any) -> np.ndarray:
    """The frame, black outside the boxes. Raises LusError if the frame has not the stated size."""
    if frame.shape[:2] != (header.Rows, header.Columns):
        rows, columns = frame.shape[:2]
        raise LusError(
            f"{path} has frames of {columns}x{rows}, but regions for {header.Columns}x{header.Rows}, "
            "so text cannot be masked",
            UNMASKED,
        )
    masked = np.zeros_like(frame)
    for box in keep:
        masked[box] = frame[box]
    return masked


def is_unmasked(header: Any, keep: list[Box]) -> bool:
    """Whether so little of a frame is outside the boxes that no text is masked."""
    outside = np.ones((header.Rows, header.Columns), bool)
    for box in keep:
        outside[box] = False
    return bool(outside.mean() < LEAST_OUTSIDE)
