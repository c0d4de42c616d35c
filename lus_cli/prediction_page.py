"""The page a person opens after a prediction: every video playing under its mask, in one HTML file.

A video is kept as H.264 and its masks as bytes, which the page's script lays over it: so the mask
can be taken off, and a mask of 7x7 values costs no more than that.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from lus_cli import cache
from lus_cli.cache import explaining_disk_errors
from lus_cli.overlay import CONTOUR, INFERNO, STRONGEST, as_rgb
from lus_cli.prediction import Prediction
from lus_cli.report import environment, template_text
from lus_cli.video_writing import write_mp4
from lus_cli.words import counted

SHOWN_FRAMES = 250  # of a video on the page; of a longer one so many, evenly spread
# x264's constant rate factor. 100 frames of COVID-BLUES at 256x256 take about 90 kB.
QUALITY = 24
MOST_PAGE_BYTES = 60_000_000  # of videos and masks; browsers get slow beyond
ASSUMED_RATE = 25.0  # frames/s, where the file does not say


@dataclass(frozen=True)
class Player:
    """A video as the page plays it."""

    mp4: bytes
    still: bytes  # JPEG of the frame `first`
    first: int  # the frame whose mask stands out most: shown until the video plays
    frames: int
    rate: float  # frames/s
    assumed: bool  # nobody said how fast the frames were taken
    shape: tuple[int, int]  # rows, columns: the proportions in which it is shown
    numbers: tuple[int, ...]  # of the frames
    masks: np.ndarray | None  # (frame, row, column) uint8: 255 is a mask of 1
    shares: np.ndarray  # (frame,) in [0, 1]: what each counts against the one that counts most

    @property
    def bytes(self) -> int:
        """What it takes on the page, before base64 makes three bytes four."""
        return len(self.mp4) + len(self.still) + (0 if self.masks is None else self.masks.nbytes)


@dataclass
class Page:
    """What the page will show, as it is found."""

    predictions: list[Prediction] = field(default_factory=list)
    players: list[Player | None] = field(default_factory=list)

    def add(self, prediction: Prediction, player: Player | None) -> None:
        self.predictions.append(prediction)
        self.players.append(player)

    @property
    def is_full(self) -> bool:
        return sum(player.bytes for player in self.players if player) > MOST_PAGE_BYTES


# ----------------------------------------------------------------------------------------- players


def make_player(
    frames: np.ndarray,
    masks: np.ndarray | None,
    numbers: np.ndarray,
    prediction: Prediction,
    rate: float | None,
    shape: tuple[int, int],
) -> Player:
    """A video made fit for the page.

    frames: (frame, row, column[, 3]) uint8. masks: (frame, row', column') in [0, 1], or None.
    numbers: of the frames. rate: frames/s, None if unknown.
    """
    first = len(frames) // 2
    if masks is not None:
        first = int(np.argmax(masks.max(axis=(1, 2)) - masks.mean(axis=(1, 2))))
    speed = rate or ASSUMED_RATE
    return Player(
        mp4=encoded(frames, speed),
        still=still(frames[first]),
        first=first,
        frames=len(frames),
        rate=speed,
        assumed=rate is None,
        shape=shape,
        numbers=tuple(map(int, numbers)),
        masks=None if masks is None else np.rint(masks * 255).astype(np.uint8),
        shares=shares_of(numbers, prediction),
    )


def shares_of(numbers: np.ndarray, prediction: Prediction) -> np.ndarray:
    """What each shown frame counts in the answer, against the one that counts most: (frame,).

    0 for a frame that the model did not look at. One that is not shown counts for the next one.
    """
    weights = prediction.frame_weights or (1.0,) * len(prediction.frame_numbers)
    place = np.searchsorted(numbers, prediction.frame_numbers).clip(max=len(numbers) - 1)
    shares = np.bincount(place, weights, minlength=len(numbers))
    if prediction.frame_weights is None:
        shares = np.minimum(shares, 1.0)
    return shares / max(shares.max(), 1e-12)


def encoded(frames: np.ndarray, rate: float) -> bytes:
    """Frames as a video file that browsers play. Raises LusError if the disk for temporary files
    does not take it."""
    with tempfile.TemporaryDirectory(prefix="lus-") as folder:
        path = Path(folder) / "video.mp4"
        fraction = Fraction(rate).limit_denominator(1001)
        with explaining_disk_errors(path):
            write_mp4(path, map(as_rgb, frames), fraction, crf=QUALITY)
        return path.read_bytes()


def still(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="JPEG", quality=80)
    return file.getvalue()


# -------------------------------------------------------------------------------------------- page


def write_page(path: Path, about: Mapping[str, Any], page: Page) -> None:
    """Writes the page to `path`.

    about: `run`, `epoch`, `temperature` (None if probabilities are as the model gives them),
        `scores` (videos per answered score), `meaning` (how the probabilities are to be taken),
        `problems` (a line for each thing that could not be scored) and `remarks`.
    """
    script = template_text("predictions.js")
    text = (
        environment()
        .get_template("predictions.html")
        .render(
            about=about,
            headline=headline(about["scores"], len(about["problems"])),
            videos=[
                {"prediction": prediction, "player": player and attributes(player)}
                for prediction, player in zip(page.predictions, page.players, strict=True)
            ],
            weighed=any(p.frame_weights is not None for p in page.predictions),
            colours=" ".join(INFERNO.split()),
            strongest=STRONGEST,
            contour=CONTOUR,
            style=Markup(template_text("report.css") + template_text("predictions.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    cache.write_text(path, text)


def headline(scores: list[int], problems: int) -> str:
    answers = [
        f"{videos} of\u00a0score\u00a0{score}" for score, videos in enumerate(scores) if videos
    ]
    said = f"{counted(sum(scores), 'video')}: {', '.join(answers)}."
    return said + (f" {problems} could not be scored." if problems else "")


def attributes(player: Player) -> dict[str, Any]:
    """A player as the template writes it down."""
    rows, columns = player.shape
    return {
        "video": base64.b64encode(player.mp4).decode(),
        "still": base64.b64encode(player.still).decode(),
        "masks": "" if player.masks is None else base64.b64encode(player.masks.tobytes()).decode(),
        "mask_size": "" if player.masks is None else "{1},{2}".format(*player.masks.shape),
        "aspect": f"{columns} / {rows}",
        "frames": player.frames,
        "rate": round(player.rate, 4),
        "assumed": player.assumed,
        "first": player.first,
        "numbers": ",".join(map(str, player.numbers)),
        "timeline": timeline(player.shares),
        "all_used": bool((player.shares > 0).all()),
    }


def timeline(shares: np.ndarray) -> str:
    """An SVG path in a box of frames x 1: a bar a frame that counts, as high as its share."""
    return "".join(
        f"M{frame + 0.08:.2f} 1v{-shares[frame]:.3f}h.84V1z" for frame in np.flatnonzero(shares)
    )
