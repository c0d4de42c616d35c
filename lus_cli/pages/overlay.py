"""Where a model looked, drawn over the frame it looked at (Pillow and NumPy only: quick to import).

The colours are inferno's (Smith and van der Walt, matplotlib 1.5): lightness grows with the mask, so
they read the same in gray and for colour-blind readers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Every 16th colour of inferno, and its last.
INFERNO = (
    "000004 0b0724 210c4a 3b0964 550f6d 6e196d 88226a a22b62 ba3655 "
    "cf4446 e25734 f0701e f98c0a fcac11 f7cf3c f3eb6d fcffa4"
)
STRONGEST = 0.65  # opacity where the mask is 1: what is most attended must stay readable too
CONTOUR = 0.5  # the outlined mask value

PANEL = 448  # smallest height in pixels of a frame in a card
LARGEST_PANEL = 768
INK, MUTED, PAPER, TRACK = "#f2f4f6", "#9aa5b1", "#14171b", "#2b3138"
RIGHT, WRONG = "#5aa9e6", "#f0883e"  # blue and orange: apart for every common colour vision
DISCLAIMER = "Research software, not a medical device"


@dataclass(frozen=True)
class Caption:
    """What stands under a card.

    frame_id: patient/exam/area/frame. run: the name of the run. score: the true score, None where
    the video is unlabelled. probabilities: of the scores 0..3.
    """

    frame_id: str
    run: str
    score: int | None
    probabilities: tuple[float, ...]

    @property
    def predicted(self) -> int:
        """The most probable score; the lower one of two equally probable."""
        return self.probabilities.index(max(self.probabilities))


def colour_table() -> np.ndarray:
    """(256, 3) float32 in 0..255: inferno, from black to pale yellow."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in INFERNO.split()], dtype=float)
    place = np.linspace(0, 1, len(anchors))
    steps = np.linspace(0, 1, 256)
    return np.stack([np.interp(steps, place, a) for a in anchors.T], axis=1).astype(np.float32)


def enlarged(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The mask at the frame's size, smoothly: (row, column) float32 in [0, 1]."""
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.float32))
    large = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
    return np.clip(large, 0, 1)  # bicubic overshoots


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """A gray or colour frame as (row, column, 3) uint8."""
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    return np.repeat(frame[:, :, None], 3, axis=2) if frame.ndim == 2 else frame


def colour_mask(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The frame with the mask over it in colour: (row, column, 3) uint8.

    Opacity grows with the mask, so tissue the model did not attend to stays as it is. A line runs
    where the mask is one half.

    frame: (row, column[, 3]) uint8. mask: (row', column') float32 in [0, 1], of any size.
    """
    rgb = as_rgb(frame).astype(np.float32)
    large = enlarged(mask, *rgb.shape[:2])
    colours = colour_table()[np.rint(large * 255).astype(int)]
    opacity = STRONGEST * large[:, :, None]
    blended = rgb + opacity * (colours - rgb)
    line = outline(large >= CONTOUR, thickness=max(1, min(large.shape) // 256))[:, :, None]
    return np.rint(np.where(line, 0.3 * blended + 0.7 * 255, blended)).astype(np.uint8)


def outline(inside: np.ndarray, thickness: int) -> np.ndarray:
    """(row, column) bool: the pixels of `inside` within `thickness` of a pixel that is not."""
    core = inside
    for _ in range(thickness):
        padded = np.pad(core, 1, mode="edge")
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core


def draw_card(
    frame: np.ndarray, mask: np.ndarray, caption: Caption, saliency: np.ndarray | None = None
) -> np.ndarray:
    """One frame, the same under its mask, and what was answered: (row, column, 3) uint8.

    With `saliency` (see saliency.py) the frame stands there a third time, under that. Small frames
    are enlarged and very large ones reduced, so that a card always reads well.

    frame: (row, column[, 3]) uint8. mask, saliency: (row', column') float32 in [0, 1], any size.
    """
    original = Image.fromarray(as_rgb(frame))
    covers = {"attention": mask} | ({} if saliency is None else {"Grad-CAM": saliency})
    largest = LARGEST_PANEL * 2 // (1 + len(covers))
    scale = min(max(1.0, PANEL / original.height), largest / max(original.size))
    size = (max(1, round(original.width * scale)), max(1, round(original.height * scale)))
    shown = original.resize(size, Image.Resampling.BICUBIC)
    pictures = {"": shown}
    for name, cover in covers.items():
        pictures[name] = Image.fromarray(colour_mask(np.asarray(shown), cover))
    return np.asarray(Card(pictures, caption).image)


class Card:
    """Lays a card out, top to bottom: ids, the pictures and a colour bar, answer, disclaimer."""

    def __init__(self, pictures: dict[str, Image.Image], caption: Caption) -> None:
        """`pictures` are of one size; each but the first has a name, which stands below where there
        are several."""
        width, height = next(iter(pictures.values())).size
        self.unit = max(15, min(24, height // 26))  # size of the body text, pixels
        gap, bar = self.unit, round(4.2 * self.unit)
        pictures_width = len(pictures) * (width + gap) + bar
        inner = max(pictures_width, 40 * self.unit)  # the caption needs this much
        self.left, self.right = 2 * self.unit, 2 * self.unit + inner
        top = round(4.4 * self.unit)
        below = top + height + round(1.6 * self.unit)
        full = (self.right + 2 * self.unit, below + round(9.6 * self.unit))
        self.image = Image.new("RGB", full, PAPER)
        self.draw = ImageDraw.Draw(self.image)

        x = self.left + (inner - pictures_width) // 2
        self.draw_ids(caption)
        several = len(pictures) > 2
        for name, picture in pictures.items():
            self.image.paste(picture, (x, top))
            if several:
                self.write((x, top + height + round(0.45 * self.unit)), name, 0.85, MUTED, "lt")
            x += width + gap
        self.draw_colour_bar(x, top, height, "" if several else "attention")
        self.draw_answer(caption, below)
        self.draw_probabilities(caption, below)
        bottom = full[1] - round(1.3 * self.unit)
        self.write((self.left, bottom), DISCLAIMER, 0.8, MUTED, "ls")

    def write(
        self, place: tuple[float, float], text: str, size: float, colour: str, anchor: str = "ls"
    ) -> float:
        """Writes `text`, `size` in units, and gives its width in pixels."""
        font = self.font(size)
        self.draw.text(place, text, colour, font, anchor)
        return font.getlength(text)

    def font(self, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(round(size * self.unit))

    def fitted(self, text: str, size: float, width: float) -> str:
        """`text`, its middle left out where it is wider than `width` pixels."""
        font, kept = self.font(size), len(text)
        shown = text
        while font.getlength(shown) > width and kept > 2:
            kept -= 1
            shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        return shown

    def draw_ids(self, caption: Caption) -> None:
        line, width = round(2.9 * self.unit), self.right - self.left
        run = self.fitted(f"run {caption.run}", 1, width * 0.4)
        self.write((self.right, line), run, 1, MUTED, "rs")
        room = width - self.font(1).getlength(run) - 2 * self.unit
        self.write((self.left, line), self.fitted(caption.frame_id, 1.5, room), 1.5, INK)

    def draw_colour_bar(self, x: int, top: int, height: int, name: str) -> None:
        """What the colours mean: `name` from 0 to 1, with the outlined value marked."""
        ramp = np.linspace(1, 0, height, dtype=np.float32)
        strip = np.repeat(ramp[:, None], max(1, round(0.8 * self.unit)), axis=1)
        colours = colour_table()[np.rint(strip * 255).astype(int)]
        self.image.paste(Image.fromarray(colours.astype(np.uint8)), (x, top))
        side = x + strip.shape[1] + self.unit // 3
        for value, anchor in ((1.0, "lt"), (CONTOUR, "lm"), (0.0, "lb")):
            place = (side, top + (1 - value) * (height - 1))
            self.write(place, f"{value:g}", 0.85, INK, anchor)
        line = top + round((1 - CONTOUR) * (height - 1))
        self.draw.line((x, line, x + strip.shape[1] - 1, line), "#ffffff")
        self.write((x, top + height + round(0.45 * self.unit)), name, 0.85, MUTED, "lt")

    def draw_answer(self, caption: Caption, top: int) -> None:
        """True and answered score, and whether they agree, in a word and in a colour."""
        labels = round(6.5 * self.unit)
        first, second, third = (top + round(row * self.unit) for row in (1.6, 3.6, 5.6))
        truth = "unlabelled" if caption.score is None else str(caption.score)
        self.write((self.left, first), "True score", 1, MUTED)
        self.write((self.left + labels, first), truth, 1.25, INK)
        self.write((self.left, second), "Answered", 1, MUTED)
        self.write((self.left + labels, second), str(caption.predicted), 1.25, INK)
        if caption.score is not None:
            distance = abs(caption.score - caption.predicted)
            verdict = "right" if not distance else f"wrong by {distance}"
            self.write((self.left, third), verdict, 1.25, WRONG if distance else RIGHT)

    def draw_probabilities(self, caption: Caption, top: int) -> None:
        """A labelled bar a score; the answered one in the colour of the verdict."""
        label, number = round(4.4 * self.unit), round(3 * self.unit)
        x = self.left + round(15 * self.unit)
        full = self.right - x - label - number
        verdict = RIGHT if caption.score == caption.predicted else WRONG
        bar = INK if caption.score is None else verdict
        for score, probability in enumerate(caption.probabilities):
            line = top + round((1.5 + 1.75 * score) * self.unit)
            answered = score == caption.predicted
            ink = INK if answered else MUTED
            self.write((x, line), f"score {score}", 1, ink)
            box = (x + label, line - round(0.75 * self.unit), x + label + full, line)
            radius = (box[3] - box[1]) // 2
            self.draw.rounded_rectangle(box, radius, TRACK)
            end = box[0] + round(full * min(1.0, max(0.0, probability)))
            if end - box[0] >= 2:
                self.draw.rounded_rectangle(
                    (box[0], box[1], end, box[3]), radius, bar if answered else MUTED
                )
            self.write((self.right, line), f"{probability:.2f}", 1, ink, "rs")
