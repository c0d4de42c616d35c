"""Draws the mask of a frame over the frame. Needs only Pillow and NumPy, so it imports quickly.

The colour map is inferno (Smith and van der Walt, matplotlib 1.5) unless the table [figures] of a file
given by --config names another. The lightness of each increases with the mask, so they also work in
grayscale and, except for hot, for colour-blind readers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Every 16th colour of the maps of matplotlib, and the last one.
COLOUR_MAPS = {
    "inferno": "000004 0b0724 210c4a 3b0964 550f6d 6e196d 88226a a22b62 ba3655 "
    "cf4446 e25734 f0701e f98c0a fcac11 f7cf3c f3eb6d fcffa4",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
    "magma": "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 "
    "d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf",
    "plasma": "0d0887 310597 4c02a1 6600a7 7e03a8 9511a1 aa2395 bc3587 cc4778 "
    "da5a6a e66c5c f0804e f89540 fdac33 fdc527 f8df25 f0f921",
    "cividis": "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 "
    "8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838",
    "hot": "0b0000 350000 5f0000 890000 b30000 dd0000 ff0800 ff3200 ff5c00 "
    "ff8600 ffb000 ffda00 ffff07 ffff46 ffff85 ffffc4 ffffff",
    "gray": "000000 101010 202020 303030 404040 505050 606060 707070 808080 "
    "909090 a0a0a0 b0b0b0 c0c0c0 d0d0d0 e0e0e0 f0f0f0 ffffff",
}
STRONGEST = 0.65  # opacity where the mask is 1; the tissue below must remain visible
CONTOUR = 0.5  # the mask value that is outlined

PANEL = 448  # minimum height of a frame in a card, pixels
LARGEST_PANEL = 768
INK, MUTED, PAPER, TRACK = "#f2f4f6", "#9aa5b1", "#14171b", "#2b3138"
PRINT_INK, PRINT_PAPER = "#1f2933", "#ffffff"  # of a card without a caption, which is for print
RIGHT, WRONG = (
    "#5aa9e6",
    "#f0883e",
)  # blue and orange can be told apart with every common colour vision
DISCLAIMER = "Research software, not a medical device"


@dataclass(frozen=True)
class Caption:
    """The text of a card.

    frame_id: patient/exam/area/frame. run: the name of the run. score: the true score, None if
    the video is unlabelled. probabilities: of the scores 0..3.
    """

    frame_id: str
    run: str
    score: int | None
    probabilities: tuple[float, ...]

    @property
    def predicted(self) -> int:
        """The most probable score; of equally probable scores, the lowest."""
        return self.probabilities.index(max(self.probabilities))


def colour_names() -> list[str]:
    """The colours of the map in use, from 0 to 1, as six hexadecimal digits."""
    from lus_cli.config import figure_look  # not above: it imports typer

    return COLOUR_MAPS[figure_look().colour_map].split()


def colour_table() -> np.ndarray:
    """(256, 3) float32 in 0..255: the colour map in use, from the colour of 0 to that of 1."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in colour_names()], dtype=float)
    place = np.linspace(0, 1, len(anchors))
    steps = np.linspace(0, 1, 256)
    return np.stack([np.interp(steps, place, a) for a in anchors.T], axis=1).astype(np.float32)


def resize_mask(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The mask at the size of the frame, with bicubic interpolation: (row, column) float32 in [0, 1]."""
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.float32))
    resized = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
    return np.clip(resized, 0, 1)  # bicubic overshoots


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """A gray or colour frame as (row, column, 3) uint8."""
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    return np.repeat(frame[:, :, None], 3, axis=2) if frame.ndim == 2 else frame


def colour_mask(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The frame with the mask over it in colour: (row, column, 3) uint8.

    Opacity increases with the mask, so pixels with a mask of 0 are unchanged. A line outlines the
    pixels with a mask of at least one half.

    frame: (row, column[, 3]) uint8. mask: (row', column') float32 in [0, 1], of any size.
    """
    rgb = as_rgb(frame).astype(np.float32)
    resized = resize_mask(mask, *rgb.shape[:2])
    colours = colour_table()[np.rint(resized * 255).astype(int)]
    opacity = STRONGEST * resized[:, :, None]
    blended = rgb + opacity * (colours - rgb)
    line = outline(resized >= CONTOUR, thickness=max(1, min(resized.shape) // 256))[:, :, None]
    return np.rint(np.where(line, 0.3 * blended + 0.7 * 255, blended)).astype(np.uint8)


def outline(inside: np.ndarray, thickness: int) -> np.ndarray:
    """(row, column) bool: the pixels of `inside` within `thickness` pixels of its border."""
    core = inside
    for _ in range(thickness):
        padded = np.pad(core, 1, mode="edge")
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core


def draw_card(
    frame: np.ndarray, mask: np.ndarray, caption: Caption, saliency: np.ndarray | None = None
) -> np.ndarray:
    """A picture of a frame, the frame with its mask, and the prediction: (row, column, 3) uint8.

    With `saliency` (see saliency.py), the frame is repeated with that map. Small frames are enlarged
    and large frames reduced, so that the text is always legible.

    frame: (row, column[, 3]) uint8. mask, saliency: (row', column') float32 in [0, 1], any size.
    """
    original = Image.fromarray(as_rgb(frame))
    covers = {"attention": mask} | ({} if saliency is None else {"Grad-CAM": saliency})
    largest = LARGEST_PANEL * 2 // (1 + len(covers))
    scale = min(max(1.0, PANEL / original.height), largest / max(original.size))
    size = (max(1, round(original.width * scale)), max(1, round(original.height * scale)))
    scaled = original.resize(size, Image.Resampling.BICUBIC)
    pictures = {"": scaled}
    for name, cover in covers.items():
        pictures[name] = Image.fromarray(colour_mask(np.asarray(scaled), cover))
    from lus_cli.config import figure_look

    return np.asarray(Card(pictures, caption if figure_look().titles else None).image)


class Card:
    """The layout of a card, from the top: ids, pictures and colour bar, prediction, disclaimer."""

    def __init__(self, pictures: dict[str, Image.Image], caption: Caption | None) -> None:
        """pictures: name -> picture, all of one size. The first has no name. The names of the others
        are written below them if there are several. caption: None for the pictures and the colour bar
        alone."""
        width, height = next(iter(pictures.values())).size
        self.unit = max(15, min(24, height // 26))  # size of the body text, pixels
        gap, bar = self.unit, round(4.2 * self.unit)
        pictures_width = len(pictures) * (width + gap) + bar
        inner = max(pictures_width, 40 * self.unit if caption else 0)  # the caption needs this much
        self.left, self.right = 2 * self.unit, 2 * self.unit + inner
        top = round((4.4 if caption else 1) * self.unit)
        below = top + height + round(1.6 * self.unit)
        full = (self.right + 2 * self.unit, below + round((9.6 if caption else 0) * self.unit))
        self.image = Image.new("RGB", full, PAPER if caption else PRINT_PAPER)
        self.ink, self.muted = (INK, MUTED) if caption else (PRINT_INK, PRINT_INK)
        self.draw = ImageDraw.Draw(self.image)

        x = self.left + (inner - pictures_width) // 2
        several = len(pictures) > 2
        for name, picture in pictures.items():
            self.image.paste(picture, (x, top))
            if several:
                self.write(
                    (x, top + height + round(0.45 * self.unit)), name, 0.85, self.muted, "lt"
                )
            x += width + gap
        self.draw_colour_bar(x, top, height, "" if several else "attention")
        if caption is None:
            return
        self.draw_ids(caption)
        self.draw_prediction(caption, below)
        self.draw_probabilities(caption, below)
        bottom = full[1] - round(1.3 * self.unit)
        self.write((self.left, bottom), DISCLAIMER, 0.8, MUTED, "ls")

    def write(
        self, place: tuple[float, float], text: str, size: float, colour: str, anchor: str = "ls"
    ) -> float:
        """Writes `text` in a size given in units, and returns its width in pixels."""
        font = self.font(size)
        self.draw.text(place, text, colour, font, anchor)
        return font.getlength(text)

    def font(self, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(round(size * self.unit))

    def shorten(self, text: str, size: float, width: float) -> str:
        """`text`, with an ellipsis in the middle if it is wider than `width` pixels."""
        font, kept = self.font(size), len(text)
        shortened = text
        while font.getlength(shortened) > width and kept > 2:
            kept -= 1
            shortened = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        return shortened

    def draw_ids(self, caption: Caption) -> None:
        line, width = round(2.9 * self.unit), self.right - self.left
        run = self.shorten(f"run {caption.run}", 1, width * 0.4)
        self.write((self.right, line), run, 1, MUTED, "rs")
        room = width - self.font(1).getlength(run) - 2 * self.unit
        self.write((self.left, line), self.shorten(caption.frame_id, 1.5, room), 1.5, INK)

    def draw_colour_bar(self, x: int, top: int, height: int, name: str) -> None:
        """The legend of the colours: `name` from 0 to 1, with the outlined value marked."""
        ramp = np.linspace(1, 0, height, dtype=np.float32)
        strip = np.repeat(ramp[:, None], max(1, round(0.8 * self.unit)), axis=1)
        colours = colour_table()[np.rint(strip * 255).astype(int)]
        self.image.paste(Image.fromarray(colours.astype(np.uint8)), (x, top))
        side = x + strip.shape[1] + self.unit // 3
        for value, anchor in ((1.0, "lt"), (CONTOUR, "lm"), (0.0, "lb")):
            place = (side, top + (1 - value) * (height - 1))
            self.write(place, f"{value:g}", 0.85, self.ink, anchor)
        line = top + round((1 - CONTOUR) * (height - 1))
        self.draw.line((x, line, x + strip.shape[1] - 1, line), "#ffffff")
        self.write((x, top + height + round(0.45 * self.unit)), name, 0.85, self.muted, "lt")

    def draw_prediction(self, caption: Caption, top: int) -> None:
        """The true and the predicted score, and whether they agree, in words and in colour."""
        labels = round(6.5 * self.unit)
        first, second, third = (top + round(row * self.unit) for row in (1.6, 3.6, 5.6))
        truth = "unlabelled" if caption.score is None else str(caption.score)
        self.write((self.left, first), "True score", 1, MUTED)
        self.write((self.left + labels, first), truth, 1.25, INK)
        self.write((self.left, second), "Predicted", 1, MUTED)
        self.write((self.left + labels, second), str(caption.predicted), 1.25, INK)
        if caption.score is not None:
            distance = abs(caption.score - caption.predicted)
            agreement = "right" if not distance else f"wrong by {distance}"
            self.write((self.left, third), agreement, 1.25, WRONG if distance else RIGHT)

    def draw_probabilities(self, caption: Caption, top: int) -> None:
        """One labelled bar per score; that of the predicted score is coloured right or wrong."""
        label, number = round(4.4 * self.unit), round(3 * self.unit)
        x = self.left + round(15 * self.unit)
        full = self.right - x - label - number
        agreement = RIGHT if caption.score == caption.predicted else WRONG
        bar = INK if caption.score is None else agreement
        for score, probability in enumerate(caption.probabilities):
            line = top + round((1.5 + 1.75 * score) * self.unit)
            predicted = score == caption.predicted
            ink = INK if predicted else MUTED
            self.write((x, line), f"score {score}", 1, ink)
            box = (x + label, line - round(0.75 * self.unit), x + label + full, line)
            radius = (box[3] - box[1]) // 2
            self.draw.rounded_rectangle(box, radius, TRACK)
            end = box[0] + round(full * min(1.0, max(0.0, probability)))
            if end - box[0] >= 2:
                self.draw.rounded_rectangle(
                    (box[0], box[1], end, box[3]), radius, bar if predicted else MUTED
                )
            self.write((self.right, line), f"{probability:.2f}", 1, ink, "rs")
