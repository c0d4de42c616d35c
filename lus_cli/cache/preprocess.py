"""The pictures that a model of lus sees, from the frames of a video, without lus and without PyTorch.

`lus export` copies this file and sector.py next to the weights. It needs NumPy, SciPy, Pillow and PyAV.
lus itself does not use it; a test compares its pictures with those of lus. They are the same, except
that single pixels along the scan lines may differ by a gray level, where a value lies between two.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from lus_cli.cache.sector import Sector, find_sector

SCALING = 0x2 | 0x40000 | 0x80000  # libswscale: bilinear, exact rounding, the same on all machines
SIDE = 224  # rows and columns of a picture along the scan lines
BRIGHT = 0.99  # the quantile of the non-zero levels that becomes white
LEAST = 1.0  # levels of 255: the smallest white level


def pictures(frames: np.ndarray, settings: Mapping[str, Any], exactly: int = 0) -> np.ndarray:
    """The input of the ONNX files: uint8 (step, row, column[, channel]).

    frames: uint8 (frame, row, column) or (frame, row, column, RGB), as recorded, in temporal order.
    settings: the entry `preprocessing` of export.json.
    exactly: the number of frames to take, some of them repeatedly if there are fewer; 0 takes as many
        as lus does. model.onnx needs its number where export.json has one in `exactly`.
    """
    chosen = selected(len(frames), settings["stride"], settings["frames_per_video"], exactly)
    stored = np.stack([fitted(frame, settings) for frame in frames[chosen]])
    if not (settings["windows"] or settings["window_frames"] or settings["scan_lines"]):
        return stored
    gray = stored.astype(np.float32)
    gray = gray if gray.ndim == 3 else gray.mean(axis=3)
    sector = None
    if settings["scan_lines"]:
        sector = find_sector(np.rint(gray.max(axis=0)).astype(np.uint8))
    if sector is not None and not (settings["windows"] or settings["window_frames"]):
        return np.rint(along_lines(gray, sector)).astype(np.uint8)
    windows = []
    for start, end in spans(len(gray), settings):
        part = gray[start:end]
        planes = np.stack([part.max(axis=0), part.mean(axis=0), (part - part[0]).std(axis=0)])
        if sector is not None:
            planes = along_lines(planes, sector)
        windows.append(np.stack([stretched(plane) for plane in planes], axis=2))
    return np.rint(np.stack(windows) * np.float32(255)).astype(np.uint8)


def selected(length: int, stride: int, most: int, exactly: int = 0) -> np.ndarray:
    """Which frames are used: every `stride`-th; of more than `most` (0: no limit), `most` of them,
    evenly spaced from first to last."""
    positions = np.arange(0, length, stride)
    count = exactly or min(most or len(positions), len(positions))
    return positions[np.rint(np.linspace(0, len(positions) - 1, count)).astype(int)]


def fitted(frame: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """A frame in gray (ITU-R 601) or colour, stretched to the square, or scaled to fit and centred on
    black."""
    frame = np.asarray(Image.fromarray(frame).convert("RGB" if settings["color"] else "L"))
    size, (rows, columns) = settings["size"], frame.shape[:2]
    if not settings["letterbox"]:
        return resized(frame, size, size)
    scale = size / max(rows, columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    top, left = (size - height) // 2, (size - width) // 2
    square = np.zeros((size, size, *frame.shape[2:]), np.uint8)
    square[top : top + height, left : left + width] = resized(frame, height, width)
    return square


def resized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame resized with a bilinear filter that, when it shrinks, averages all pixels it replaces."""
    rows, columns = frame.shape[:2]
    if (rows, columns) == (height, width):
        return frame
    ratios = rows / height, columns / width
    if max(ratios) > 16 or min(ratios) < 1 / 16 or min(rows, columns) < 8:  # too few bits in FFmpeg
        image = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)
    if frame.ndim == 3:
        return np.stack([resized(frame[..., c], height, width) for c in range(3)], axis=2)
    source = av.VideoFrame(columns, rows, "gray")
    pixels_of(source)[...] = frame
    scaled = VideoReformatter().reformat(
        source, width, height, "gray", interpolation=SCALING, threads=1
    )
    return pixels_of(scaled).copy()


def pixels_of(frame: av.VideoFrame) -> np.ndarray:
    """The (row, column) uint8 pixels of a gray frame of PyAV, not copied."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : frame.width]


def spans(length: int, settings: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The first frame of each window and the one after its last. The whole video may come first."""
    whole = [(0, length)] if settings["whole_video"] else []
    if every := settings["window_frames"]:
        starts = [every * step for step in range(max(round(length / every), 1))]
        return whole + list(zip(starts, [*starts[1:], length], strict=True))
    count = settings["windows"]
    edges = [length * step // count for step in range(count + 1)]
    ends = [max(end, start + 1) for start, end in itertools.pairwise(edges)]
    return whole + list(zip(edges[:-1], ends, strict=True))


def stretched(plane: np.ndarray) -> np.ndarray:
    """Levels divided by a high quantile of the non-zero ones, in [0, 1], which removes gain."""
    lit = plane[plane > 0]
    if not len(lit):
        return plane
    top = max(np.quantile(lit, BRIGHT), LEAST)
    return np.clip(plane / np.float32(top), 0, 1)


def along_lines(planes: np.ndarray, sector: Sector) -> np.ndarray:
    """(plane, row, column) -> (plane, depth, scan line) of size SIDE: bilinear, black outside."""
    places = [enlarged(place.astype(np.float32)) for place in sector.grid]
    result = np.zeros((len(planes), SIDE, SIDE), np.float32)
    first = [np.floor(place).astype(int) for place in places]
    for down in (0, 1):
        for right in (0, 1):
            row, column = first[0] + down, first[1] + right
            weight = (1 - np.abs(places[0] - row)) * (1 - np.abs(places[1] - column))
            rows, columns = planes.shape[1:]
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            values = planes[:, row.clip(0, rows - 1), column.clip(0, columns - 1)]
            result += np.where(inside, weight, 0).astype(np.float32) * values
    return result


def enlarged(grid: np.ndarray) -> np.ndarray:
    """A coarse grid of coordinates at SIDE x SIDE points, from corner to corner, bilinear."""
    for axis in (0, 1):
        place = np.linspace(0, grid.shape[axis] - 1, SIDE)
        first = np.minimum(place.astype(int), grid.shape[axis] - 2)
        share = np.expand_dims(place - first, 1 - axis)
        grid = np.take(grid, first, axis) * (1 - share) + np.take(grid, first + 1, axis) * share
    return grid
