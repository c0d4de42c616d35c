"""The frames that a model scored of a video, with their masks, small enough for a page to hold.

A clip is one WebP picture of some frames side by side, and little integers: of each frame its mask
and where it stands, of the video the weights of its frames. `player.js` plays it.
"""

from __future__ import annotations

import base64
import heapq
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lus_cli.batches import Batch, select_frames
from lus_cli.config import Recipe
from lus_cli.model import Output
from lus_cli.video_cache import VideoCache

SIDE = 192  # of a frame, pixels, as the side of a square of its area
COLUMNS = 5  # of the sheet; its first row shows the video as a strip
MASK_SIDE = 28  # the most rows and columns of a mask
# How many frames at which WebP quality: the first that fits the room there is.
LEVELS = ((25, 60), (25, 40), (15, 40), (10, 30), (5, 30))
SHEET_BYTES = 54_000  # of one clip's sheet; of all together:
PAGE_BYTES = 20_000_000
MOST = 1000  # clips: of more videos those stay whose own score is the least probable
# What the model makes of its frames, where it does not weigh them one by one.
POOLS = {
    "mean": "All frames weigh the same in the answer.",
    "max": "The answer takes of each LSTM output the largest over all frames.",
    "last": "The answer is read off the LSTM after the last frame.",
    "attention": "",
}


@dataclass(frozen=True)
class Clip:
    """Some frames of a video, in order.

    sheet: a WebP file of `cells` frames in `COLUMNS` columns or fewer, each (height, width).
    cells: where each frame is on the sheet, counted by rows. numbers: the frames' own numbers.
    places: where they stand among the `scored` frames. length: all frames of the video.
    masks: (frame, row, column) uint8, 255 for a mask of 1; None without attention.
    weights: (scored frame,) shares that sum to 1; None where frames are not weighed one by one.
    note: a sentence about how they are weighed instead.
    """

    sheet: bytes
    width: int
    height: int
    cells: tuple[int, ...]
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    scored: int
    length: int
    masks: np.ndarray | None
    weights: np.ndarray | None
    note: str

    @property
    def columns(self) -> int:
        return min(COLUMNS, len(self.cells))

    @property
    def strip_aspect(self) -> float:
        """Width by height of the sheet's first row."""
        return self.columns * self.width / self.height

    @property
    def sheet_url(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(self.sheet).decode()}"

    @property
    def script(self) -> str:
        """What player.js needs beside the sheet, as JSON without any markup in it."""
        largest = float(self.weights.max()) if self.weights is not None else 0.0
        known = {
            "width": self.width,
            "height": self.height,
            "columns": self.columns,
            "cells": self.cells,
            "numbers": self.numbers,
            "places": self.places,
            "scored": self.scored,
            "length": self.length,
            "note": self.note,
            "masks": None if self.masks is None else encoded(self.masks),
            "mask_shape": None if self.masks is None else self.masks.shape[1:],
            "weights": None
            if self.weights is None
            else encoded(quantised(self.weights / largest, "<u2")),
            "largest_weight": round(largest, 6),
        }
        return json.dumps(known, separators=(",", ":")).replace("<", "\\u003c")


class Clips:
    """Keeps a clip of each video while it is scored: the `keep` of `scoring.score_videos`.

    A video's frames are let go with its batch; what stays is `PAGE_BYTES` for all of `count`
    videos, or as little as the last of `LEVELS` takes. Of more than `MOST` videos the worst errors
    stay, so that neither memory nor the page grow with the study.
    """

    def __init__(self, videos: VideoCache, recipe: Recipe, looks: bool, count: int) -> None:
        """`looks`: whether the model's masks say where it looks."""
        self.videos, self.recipe, self.looks = videos, recipe, looks
        self.room = min(SHEET_BYTES, PAGE_BYTES // min(max(count, 1), MOST))
        self.of: dict[int, Clip] = {}  # by the video's place in the cache
        self.chances: list[tuple[float, int]] = []  # a heap: the surest of its own score first

    def __call__(self, batch: Batch, output: Output) -> None:
        videos, recipe = self.videos, self.recipe
        sizes = batch.lengths.tolist()
        chances = output.logits.float().softmax(dim=1).cpu()
        pieces = (batch.frames, output.masks, output.weights)
        of_videos = zip(batch.indices, *(piece.split(sizes) for piece in pieces), strict=True)
        for place, (index, frames, masks, weights) in enumerate(of_videos):
            if not self.is_among_worst(index, float(chances[place, int(videos.scores[index])])):
                continue
            rows, columns = videos.source_shapes[index].tolist()
            length = int(videos.lengths[index])
            scored = select_frames(length, recipe.stride, recipe.frames_per_video)
            self.of[index] = make_clip(
                frames.cpu().numpy(),
                videos.frame_numbers(index)[scored],
                masks.float().cpu().numpy() if self.looks else None,
                weights.float().cpu().numpy() if recipe.pool == "attention" else None,
                length=length,
                note=POOLS[recipe.pool],
                # Borders are shown: they are part of what the model saw.
                aspect=1.0 if videos.frame_format.letterbox else columns / rows,
                room=self.room,
            )

    def is_among_worst(self, index: int, chance: float) -> bool:
        """Whether a video is to be kept whose own score has this probability; if so, the surest of
        those kept before makes room for it where there is none."""
        entry = -chance, index
        if len(self.chances) < MOST:
            heapq.heappush(self.chances, entry)
            return True
        surest = heapq.heappushpop(self.chances, entry)
        self.of.pop(surest[1], None)
        return surest != entry


def make_clip(
    frames: np.ndarray,
    numbers: np.ndarray,
    masks: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    *,
    length: int = 0,
    note: str = "",
    aspect: float = 1.0,
    room: int = SHEET_BYTES,
) -> Clip:
    """The clip of a video from all its scored frames.

    frames: (frame, row, column[, channel]) uint8. numbers: (frame,). masks: (frame, row', column')
    in [0, 1]. weights: (frame,) summing to 1. length: frames of the video; 0: the model scored all.
    aspect: width by height of the frames before they were made square.
    room: bytes for the sheet.
    """
    for most, quality in LEVELS:
        places = spread(len(frames), most, weights)
        cells = strip_first(len(places))
        width, height = shape_of(frames.shape[1:3], aspect)
        sheet = drawn_sheet(frames[places], cells, (width, height), quality)
        if len(sheet) <= room:
            break
    return Clip(
        sheet,
        width,
        height,
        tuple(cells),
        tuple(numbers[places].tolist()),
        tuple(places.tolist()),
        len(frames),
        length or len(frames),
        None if masks is None else quantised(small_masks(masks[places])),
        weights,
        note,
    )


def spread(length: int, most: int, weights: np.ndarray | None) -> np.ndarray:
    """Places of up to `most` frames from first to last, the one of most weight among them."""
    places = np.linspace(0, length - 1, min(most, length)).round().astype(int)
    if weights is not None:
        heaviest = int(weights.argmax())
        places[np.abs(places - heaviest).argmin()] = heaviest
    return places


def strip_first(count: int) -> list[int]:
    """The cell of each of `count` frames: evenly spread ones fill the sheet's first row, the others
    follow; both in order."""
    strip = np.linspace(0, count - 1, min(COLUMNS, count)).round().astype(int).tolist()
    order = strip + [frame for frame in range(count) if frame not in strip]
    return [order.index(frame) for frame in range(count)]


def shape_of(stored: Sequence[int], aspect: float) -> tuple[int, int]:
    """Width and height of a frame on the sheet: its own aspect, and no more pixels than stored."""
    side = min(SIDE, *stored)
    # Beyond three to one, a strip of such frames cannot be read any more.
    root = min(max(aspect, 1 / 3), 3.0) ** 0.5
    return max(1, round(side * root)), max(1, round(side / root))


def drawn_sheet(
    frames: np.ndarray, cells: Sequence[int], shape: tuple[int, int], quality: int
) -> bytes:
    columns, (width, height) = min(COLUMNS, len(cells)), shape
    mode = "RGB" if frames.ndim == 4 and frames.shape[3] == 3 else "L"
    sheet = Image.new(mode, (columns * width, -(-len(cells) // columns) * height))
    for frame, cell in zip(frames, cells, strict=True):
        picture = Image.fromarray(frame if mode == "RGB" else frame.reshape(frame.shape[:2]))
        place = (cell % columns * width, cell // columns * height)
        sheet.paste(picture.resize(shape, Image.Resampling.BICUBIC), place)
    stream = io.BytesIO()
    # Method 4, the default, makes files smaller by a tenth in twice the time.
    sheet.save(stream, "WEBP", quality=quality, method=2)
    return stream.getvalue()


def small_masks(masks: np.ndarray) -> np.ndarray:
    """Masks of at most `MASK_SIDE` rows and columns."""
    rows, columns = masks.shape[1:]
    if max(rows, columns) <= MASK_SIDE:
        return masks
    shape = min(columns, MASK_SIDE), min(rows, MASK_SIDE)
    images = (Image.fromarray(np.ascontiguousarray(mask, np.float32)) for mask in masks)
    return np.stack([np.asarray(image.resize(shape, Image.Resampling.BOX)) for image in images])


def quantised(values: np.ndarray, kind: str = "u1") -> np.ndarray:
    """Values in [0, 1] as unsigned integers of a kind, 1 as its largest."""
    return np.rint(np.iinfo(kind).max * values.astype(np.float64).clip(0, 1)).astype(kind)


def encoded(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
