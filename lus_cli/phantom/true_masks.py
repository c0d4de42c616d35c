"""True masks of the frames of a phantom study, which `lus phantom` writes next to its exams.

They are `<exams>-masks/patient/exam/area/Frame_<number>.png`, palette PNGs of phantom.scene.Label.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lus_cli.errors import LusError
from lus_cli.phantom.scene import Label
from lus_cli.study.exam_tree import MAX_PIXELS
from lus_cli.study.ids import VideoId

STUDY = "study.json"  # in the masks folder: the drawn parameters of every video
# The artefacts that define each score; a healthy lung shows A-lines.
ARTEFACTS = {0: (Label.A_LINE,)} | dict.fromkeys(
    (1, 2, 3), (Label.B_LINE, Label.CONSOLIDATION, Label.WHITE_LUNG)
)
PALETTE = {
    Label.BACKGROUND: (0, 0, 0),
    Label.PLEURA: (255, 230, 80),
    Label.A_LINE: (80, 200, 255),
    Label.B_LINE: (255, 120, 60),
    Label.CONSOLIDATION: (170, 90, 220),
    Label.WHITE_LUNG: (240, 240, 240),
}


def masks_folder(root: Path) -> Path:
    """The folder of the true masks of the exam tree `root`."""
    return root.with_name(root.name + "-masks")


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Writes labels (row, column) uint8 as a palette PNG that any viewer shows in colours."""
    image = Image.fromarray(mask)
    image.putpalette(bytes(level for label in Label for level in PALETTE[label]))
    # The fastest settings of Pillow; packing two labels into a byte would take longer.
    image.save(path, compress_level=1, bits=8)


def read_mask(path: Path) -> np.ndarray:
    """The labels (row, column) uint8 of a frame, see Label. Raises LusError if it is not a mask."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise LusError(
                    f"{path} is not a mask", f"it has {image.width}x{image.height} pixels"
                )
            if image.mode != "P":
                raise LusError(
                    f"{path} is not a mask", "masks are palette PNGs that `lus phantom` wrote"
                )
            return np.asarray(image).copy()
    except LusError:
        raise
    except Exception as error:  # Pillow has no single exception for a damaged file
        raise LusError(f"{path} cannot be read", str(error)) from error


def artefacts(root: Path, video: VideoId, frame: int, score: int) -> np.ndarray:
    """(row, column) bool: where a frame of the exam tree `root` shows the artefacts of its score.

    Raises LusError if its mask cannot be read.
    """
    labels = read_mask(masks_folder(root).joinpath(*video, f"Frame_{frame}.png"))
    return np.isin(labels, ARTEFACTS[score])
