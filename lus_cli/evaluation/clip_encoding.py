"""Clips: videos that a page plays with the attention masks of the model. All pages use one player.

A clip is an H.264 video of some frames, with the mask of each frame as a few bytes. The script
`pages/player.js` draws each frame that the browser shows, and the mask of that frame over it, onto
one canvas. So frame and mask cannot get out of step, the mask can be switched off, and a mask of
12x12 values takes 144 bytes. A second video with the masks would need synchronisation, and its
compression would change the values that the outline is drawn from.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from lus_cli.pages.base import ASSUMED_RATE
from lus_cli.pages.overlay import as_rgb
from lus_cli.study.video_writing import write_mp4

SLOWEST = 0.5  # frames/s, for a long video of which few frames are shown
FEWEST = 5  # frames of a clip, whatever their size
STRIP = 5  # frames side by side in a strip
STRIP_HEIGHT = 72  # pixels
STILL_BYTES = 6000  # of a strip, approximately
MASK_SIDE = 28  # rows and columns of a mask, at most
FRAME_BYTES = 300  # with less, fewer frames are better than worse ones


@dataclass(frozen=True)
class Budget:
    """The limits of a clip.

    frames: number of frames, at most.
    side: rows and columns of a frame, at most.
    crf: x264's constant rate factor; adding six halves the size of the video.
    bytes: size of the whole clip, at most; None: no limit.
    strip: whether the still is a strip of several frames, or one frame.
    """

    frames: int
    side: int
    crf: int
    bytes: int | None = None
    strip: bool = False


@dataclass(frozen=True)
class Scored:
    """A video as a model scored it.

    length: number of frames of the video.
    numbers: (frame,) the numbers of the scored frames, ascending.
    weights: (frame,) the weight of each scored frame in the prediction, summing to 1; None if the
        model does not weight frames.
    pool: how the model pools frames.
    aspect: width divided by height of the original frames.
    rate: frames/s of the video; None: unknown.
    """

    length: int
    numbers: np.ndarray
    weights: np.ndarray | None
    pool: str
    aspect: float
    rate: float | None = None


@dataclass(frozen=True)
class Clip:
    """A video as a page plays it.

    mp4: the frames `numbers` of the video, at `rate` frames/s.
    still: a WebP picture of the frame `first`, which is shown first, or of several frames.
    places: (frame,) the place of each frame on the timeline, which has one place for each frame that
        is shown or was scored.
    shares: (place,) in [0, 1], the weight of each divided by the largest weight.
    masks: (frame, row, column) uint8, 255 for a mask of 1; None without attention.
    """

    mp4: bytes
    still: bytes
    first: int
    rate: float
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    shares: np.ndarray
    masks: np.ndarray | None
    scored: Scored

    @property
    def bytes(self) -> int:
        """The size of the clip, before base64 turns three bytes into four."""
        return len(self.mp4) + len(self.still) + (0 if self.masks is None else self.masks.nbytes)

    @property
    def is_whole(self) -> bool:
        """Whether the clip shows exactly the scored frames."""
        return self.numbers == tuple(self.scored.numbers.tolist())

    @property
    def largest_weight(self) -> float | None:
        return None if self.scored.weights is None else float(self.scored.weights.max())

    @property
    def video_url(self) -> str:
        return f"data:video/mp4;base64,{encoded(self.mp4)}"

    @property
    def still_url(self) -> str:
        return f"data:image/webp;base64,{encoded(self.still)}"

    @property
    def timeline(self) -> str:
        """An SVG path in a box of places x 1: for each scored frame a bar as high as its share."""
        width = 1 if len(self.shares) > 60 else 0.86
        return "".join(
            f"M{place} 1v{-max(self.shares[place], 0.01):.3f}h{width}V1z"
            for place in np.flatnonzero(self.shares)
        )

    @property
    def script(self) -> Mapping[str, Any]:
        """The data that player.js needs in addition to the video."""
        largest = self.largest_weight
        weights = None
        if largest is not None:
            weights = [round(largest * share, 5) for share in self.shares[[*self.places]].tolist()]
        return {
            "first": self.first,
            "rate": self.rate,
            "numbers": self.numbers,
            "places": self.places,
            "weights": weights,
            "masks": None if self.masks is None else encoded(self.masks.tobytes()),
            "maskShape": None if self.masks is None else self.masks.shape[1:],
        }


def make_clip(
    frames: np.ndarray,
    masks: np.ndarray | None,
    numbers: np.ndarray,
    scored: Scored,
    budget: Budget,
) -> Clip:
    """Makes the clip of a video, with as many of its frames as the budget allows.

    frames: (frame, row, column[, channel]) uint8. masks: (frame, row', column') in [0, 1].
    numbers: (frame,), ascending.
    """
    small = None if masks is None else np.rint(255 * small_masks(masks)).astype(np.uint8)
    most = budget.frames
    if budget.bytes is not None:
        each = FRAME_BYTES + (0 if small is None else small[0].size)
        most = min(most, max(FEWEST, (budget.bytes - STILL_BYTES) // each))
    heaviest = heaviest_frame(numbers, scored)
    while True:
        kept = evenly_spaced(len(frames), most, heaviest)
        clip = clip_of(
            frames[kept], None if small is None else small[kept], numbers[kept], scored, budget
        )
        if budget.bytes is None or clip.bytes <= budget.bytes or most <= FEWEST:
            return clip
        most = max(FEWEST, min(most, len(frames)) // 2)


def clip_of(
    frames: np.ndarray,
    masks: np.ndarray | None,
    numbers: np.ndarray,
    scored: Scored,
    budget: Budget,
) -> Clip:
    """Makes the clip of exactly these frames. masks: (frame, row', column') uint8."""
    speed = max(SLOWEST, (scored.rate or ASSUMED_RATE) * len(frames) / scored.length)
    rate = Fraction(speed).limit_denominator(1001)
    first = 0 if budget.strip else most_selective_frame(frames, masks)
    still = still_of(frames, scored.aspect, first, budget)
    room = None
    if budget.bytes is not None:
        room = budget.bytes - len(still) - (0 if masks is None else masks.nbytes)
    axis = np.union1d(numbers, scored.numbers)
    shares = np.zeros(len(axis))
    weights = np.ones(len(scored.numbers)) if scored.weights is None else scored.weights
    shares[np.searchsorted(axis, scored.numbers)] = weights / max(weights.max(), 1e-12)
    return Clip(
        encoded_video(frames, rate, budget, room),
        still,
        first,
        float(rate),
        tuple(numbers.tolist()),
        tuple(np.searchsorted(axis, numbers).tolist()),
        shares,
        masks,
        scored,
    )


def heaviest_frame(numbers: np.ndarray, scored: Scored) -> int | None:
    """The index of the frame that is closest to the one of largest weight; None without weights."""
    if scored.weights is None:
        return None
    heaviest = scored.numbers[int(scored.weights.argmax())]
    return int(np.abs(numbers - heaviest).argmin())


def evenly_spaced(length: int, most: int, included: int | None = None) -> np.ndarray:
    """Indices of up to `most` of `length` frames, evenly spaced from first to last. The closest one is
    replaced by `included`, if given."""
    frames = np.linspace(0, length - 1, min(most, length)).round().astype(int)
    if included is not None:
        frames[np.abs(frames - included).argmin()] = included
    return frames


def most_selective_frame(frames: np.ndarray, masks: np.ndarray | None) -> int:
    """The frame whose mask has the largest maximum above its mean; without masks, the middle one."""
    if masks is None:
        return len(frames) // 2
    return int(np.argmax(masks.max(axis=(1, 2)) - masks.mean(axis=(1, 2))))


# -------------------------------------------------------------------------------------------- bytes


def encoded_video(frames: np.ndarray, rate: Fraction, budget: Budget, room: int | None) -> bytes:
    """Encodes frames as an MP4 file that browsers play, of at most about `room` bytes."""
    file = io.BytesIO()
    # One thread gives the same bytes on every machine.
    options = {"crf": str(budget.crf), "preset": "veryfast", "threads": "1"}
    if room is not None:
        seconds = len(frames) / float(rate)
        # x264 starts with a nearly full buffer, which it may use in addition to the rate.
        bits = max(1, int(8 * 0.9 * room / (seconds + min(seconds, 1))))
        options |= {"maxrate": str(bits), "bufsize": str(max(1, int(bits * min(seconds, 1))))}
    side = budget.side
    write_mp4(file, (as_rgb(reduced(frame, side)) for frame in frames), rate, options)
    return file.getvalue()


def reduced(frame: np.ndarray, side: int) -> np.ndarray:
    """The frame with at most `side` rows and columns."""
    rows, columns = frame.shape[:2]
    if max(rows, columns) <= side:
        return frame
    image = Image.fromarray(frame if frame.shape[2:] != (1,) else frame[:, :, 0])
    return np.asarray(image.resize((min(columns, side), min(rows, side)), Image.Resampling.BOX))


def still_of(frames: np.ndarray, aspect: float, first: int, budget: Budget) -> bytes:
    """A WebP picture: the frame `first`, or a strip of frames."""
    if budget.strip:
        shown = frames[evenly_spaced(len(frames), STRIP)]
        # Beyond an aspect of three to one, a strip cannot be read.
        width, height = round(STRIP_HEIGHT * min(max(aspect, 1 / 3), 3.0)), STRIP_HEIGHT
    else:
        shown, (height, width) = frames[[first]], reduced(frames[first], budget.side).shape[:2]
    sheet = Image.new("RGB", (len(shown) * width, height))
    for place, frame in enumerate(shown):
        image = Image.fromarray(as_rgb(frame))
        sheet.paste(image.resize((width, height), Image.Resampling.BICUBIC), (place * width, 0))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=50 if budget.strip else 80, method=2)
    return file.getvalue()


def small_masks(masks: np.ndarray) -> np.ndarray:
    """The masks with at most `MASK_SIDE` rows and columns."""
    rows, columns = masks.shape[1:]
    if max(rows, columns) <= MASK_SIDE:
        return masks
    shape = min(columns, MASK_SIDE), min(rows, MASK_SIDE)
    images = (Image.fromarray(np.ascontiguousarray(mask, np.float32)) for mask in masks)
    return np.stack([np.asarray(image.resize(shape, Image.Resampling.BOX)) for image in images])


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
