"""Videos as the page plays them: every frame, at its original size, decoded ahead.

The page gets the frames of a video as JPEGs, so that it can step to any frame exactly; browsers do
not seek exactly in video files.
"""

from __future__ import annotations

import json
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import simplejpeg

from lus_cli.errors import LusError
from lus_cli.pages.base import ASSUMED_RATE
from lus_cli.prediction.new_videos import MOST_FRAMES
from lus_cli.study.sources import Source, recorded_rate

QUALITY = 95  # of JPEG without chroma subsampling: differences of a gray level or two
THREADS = 2
KEPT_BYTES = 1 << 30  # of decoded videos, at most
KEPT_VIDEOS = 12


@dataclass(frozen=True)
class Clip:
    """All frames of a video. rate: frames/s, None if the file does not state it."""

    jpegs: list[bytes]
    rows: int
    columns: int
    rate: float | None

    @property
    def size(self) -> int:
        return sum(map(len, self.jpegs))

    def packed(self) -> bytes:
        """The length of a JSON header as 4 bytes (big-endian), the header, and the JPEGs."""
        header = json.dumps(
            {
                "rows": self.rows,
                "columns": self.columns,
                "rate": self.rate or ASSUMED_RATE,
                "assumed": self.rate is None,
                "sizes": [len(jpeg) for jpeg in self.jpegs],
            }
        ).encode()
        return b"".join([struct.pack(">I", len(header)), header, *self.jpegs])


def make_clip(source: Source) -> Clip:
    """Decodes a video. Raises LusError if it cannot be decoded, or has more than MOST_FRAMES."""
    jpegs: list[bytes] = []
    shape = (0, 0)
    for _, image in source.frames("RGB"):
        if len(jpegs) == MOST_FRAMES:
            raise LusError(
                f"{source.location} has more than {MOST_FRAMES} frames",
                "shorten it to the seconds to be scored",
            )
        pixels = np.asarray(image)
        shape = shape if jpegs else (pixels.shape[0], pixels.shape[1])
        jpegs.append(encoded(pixels))
    if not jpegs:
        raise LusError(f"{source.location} contains no frame", "check the file")
    return Clip(jpegs, *shape, recorded_rate(source.kind, source.location))


def encoded(pixels: np.ndarray) -> bytes:
    """(row, column, RGB) uint8 as a JPEG without metadata; a gray JPEG if all pixels are gray."""
    gray = pixels[..., 0]
    if (gray == pixels[..., 1]).all() and (gray == pixels[..., 2]).all():
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(gray[..., None]), QUALITY, "GRAY"))
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "444"))


class Ahead:
    """Decodes videos in background threads, the latest request first, and keeps the latest clips.

    read: makes the clip of the video at a position.
    """

    def __init__(self, read: Callable[[int], Clip], kept_bytes: int = KEPT_BYTES) -> None:
        self.read, self.kept_bytes = read, kept_bytes
        self.clips: OrderedDict[int, Future[Clip]] = OrderedDict()  # used longest ago first
        self.waiting: list[int] = []  # a stack: a rater who skips videos does not wait for them
        self.changed = threading.Condition()
        self.closed = False
        for _ in range(THREADS):
            threading.Thread(target=self.work, daemon=True).start()

    def get(self, position: int) -> Future[Clip]:
        """The clip at a position, which may still have to be decoded."""
        with self.changed:
            clip = self.clips.setdefault(position, Future())
            self.clips.move_to_end(position)
            if not (clip.done() or clip.running()):
                self.waiting.append(position)
                self.changed.notify()
            self.forget()
            return clip

    def expect(self, positions: Sequence[int]) -> None:
        """Has the clips decoded that will be asked for next, the first position first."""
        for position in reversed(positions):
            self.get(position)

    def work(self) -> None:
        """Decodes what is waiting, until `close`."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.closed)
                if self.closed:
                    return
                position = self.waiting.pop()
                clip = self.clips.get(position)
                if clip is None or clip.done() or clip.running():
                    continue
                clip.set_running_or_notify_cancel()
            try:
                clip.set_result(self.read(position))
            except Exception as error:  # the request for it reports the error
                clip.set_exception(error)

    def forget(self) -> None:
        """Drops the clips used longest ago, beyond the limits; never the one used last."""
        while len(self.clips) > 1 and (
            len(self.clips) > KEPT_VIDEOS or self.decoded_bytes() > self.kept_bytes
        ):
            _, oldest = self.clips.popitem(last=False)
            oldest.cancel()  # has no effect once it is being decoded

    def decoded_bytes(self) -> int:
        done = (clip for clip in self.clips.values() if clip.done() and not clip.cancelled())
        return sum(clip.result().size for clip in done if clip.exception() is None)

    def close(self) -> None:
        """Ends the threads, after what they are decoding."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
