"""Videos that a page plays under the model's attention: one player for every page.

A clip is an H.264 video of some frames, and of each frame its mask as a few bytes. The page's script
(`templates/player.js`) draws every frame that the browser shows, with the mask of that frame over
it, onto one canvas: so the two cannot come apart, the mask can be taken off, and a mask of 12x12
values costs no more than that. A second video of masks would have to be kept in step with the first,
and compression would change what the outline is drawn from.
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

SLOWEST = 0.5  # frames/s: of a long video of which few frames are shown
FEWEST = 5  # frames of a clip, whatever they take
STRIP = 5  # frames side by side
STRIP_HEIGHT = 72  # pixels
STILL_BYTES = 6000  # of a strip, about
MASK_SIDE = 28  # the most rows and columns of a mask
FRAME_BYTES = 300  # below, fewer frames are better than worse ones


@dataclass(frozen=True)
class Budget:
    """What a clip may take on its page.

    frames: at most. side: of a frame, pixels, at most. crf: what x264 may lose; six more halve the
    video. bytes: of the whole clip; None: what it takes. strip: whether its still is a strip of
    frames, the video at a glance, or one frame.
    """

    frames: int
    side: int
    crf: int
    bytes: int | None = None
    strip: bool = False


@dataclass(frozen=True)
class Scored:
    """What a model made of a video.

    length: frames of the video. numbers: of the frames that the model scored, ascending.
    weights: the share of each in the prediction, summing to 1; None where frames are not weighed
    one by one. pool: how the model pools frames. aspect: width by height of the original frames.
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

    mp4: some of its frames, `numbers`, at `rate` frames/s. still: a WebP picture of one frame, the
    `first` that is shown, or of some side by side.
    places: (frame,) where each stands on the timeline, which has a place for every frame that is
    shown or was scored. shares: (place,) in [0, 1], the weight of each against the largest.
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
        """What it takes on the page, before base64 makes three bytes four."""
        return len(self.mp4) + len(self.still) + (0 if self.masks is None else self.masks.nbytes)

    @property
    def is_whole(self) -> bool:
        """Whether all frames that were scored are shown, and no others."""
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
        """An SVG path in a box of places x 1: a bar a frame that was scored, as high as its share."""
        width = 1 if len(self.shares) > 60 else 0.86
        return "".join(
            f"M{place} 1v{-max(self.shares[place], 0.01):.3f}h{width}V1z"
            for place in np.flatnonzero(self.shares)
        )

    @property
    def script(self) -> Mapping[str, Any]:
        """What player.js needs besides the video."""
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
    """The clip of a video, of as many of its frames as there is room for.

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
        kept = spread(len(frames), most, heaviest)
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
    """The clip of these very frames. masks: (frame, row', column') uint8."""
    speed = max(SLOWEST, (scored.rate or ASSUMED_RATE) * len(frames) / scored.length)
    rate = Fraction(speed).limit_denominator(1001)
    first = 0 if budget.strip else telling_frame(frames, masks)
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
    """Which of the frames weighs most; None where they are not weighed."""
    if scored.weights is None:
        return None
    heaviest = scored.numbers[int(scored.weights.argmax())]
    return int(np.abs(numbers - heaviest).argmin())


def spread(length: int, most: int, included: int | None = None) -> np.ndarray:
    """Up to `most` of `length` frames, evenly from first to last, one of them `included`."""
    frames = np.linspace(0, length - 1, min(most, length)).round().astype(int)
    if included is not None:
        frames[np.abs(frames - included).argmin()] = included
    return frames


def telling_frame(frames: np.ndarray, masks: np.ndarray | None) -> int:
    """The frame whose mask stands out most; without masks, the middle one."""
    if masks is None:
        return len(frames) // 2
    return int(np.argmax(masks.max(axis=(1, 2)) - masks.mean(axis=(1, 2))))


# -------------------------------------------------------------------------------------------- bytes


def encoded_video(frames: np.ndarray, rate: Fraction, budget: Budget, room: int | None) -> bytes:
    """Frames as an MP4 file that browsers play, of about `room` bytes at most."""
    file = io.BytesIO()
    # One thread: the same bytes on every machine.
    options = {"crf": str(budget.crf), "preset": "veryfast", "threads": "1"}
    if room is not None:
        seconds = len(frames) / float(rate)
        # x264 starts with its buffer nearly full, which it may spend on top of the rate.
        bits = max(1, int(8 * 0.9 * room / (seconds + min(seconds, 1))))
        options |= {"maxrate": str(bits), "bufsize": str(max(1, int(bits * min(seconds, 1))))}
    side = budget.side
    write_mp4(file, (as_rgb(reduced(frame, side)) for frame in frames), rate, options)
    return file.getvalue()


def reduced(frame: np.ndarray, side: int) -> np.ndarray:
    """A frame of no more than `side` rows and columns."""
    rows, columns = frame.shape[:2]
    if max(rows, columns) <= side:
        return frame
    image = Image.fromarray(frame if frame.shape[2:] != (1,) else frame[:, :, 0])
    return np.asarray(image.resize((min(columns, side), min(rows, side)), Image.Resampling.BOX))


def still_of(frames: np.ndarray, aspect: float, first: int, budget: Budget) -> bytes:
    """A WebP picture: the frame `first`, or the video at a glance."""
    if budget.strip:
        shown = frames[spread(len(frames), STRIP)]
        # Beyond three to one, a strip of such frames cannot be read any more.
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
    """Masks of at most `MASK_SIDE` rows and columns."""
    rows, columns = masks.shape[1:]
    if max(rows, columns) <= MASK_SIDE:
        return masks
    shape = min(columns, MASK_SIDE), min(rows, MASK_SIDE)
    images = (Image.fromarray(np.ascontiguousarray(mask, np.float32)) for mask in masks)
    return np.stack([np.asarray(image.resize(shape, Image.Resampling.BOX)) for image in images])


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
