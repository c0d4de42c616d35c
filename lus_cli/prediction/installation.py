"""The test video of an exported model, and the check of an installation with it.

The video is synthetic (see phantom), so it can be handed to anyone. export.json holds the probabilities
that the model predicted for it where it was exported.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lus_cli.errors import LusError
from lus_cli.files import read_json
from lus_cli.phantom.appearance import Scene
from lus_cli.phantom.study import Video
from lus_cli.prediction.models import BEST, model_at
from lus_cli.prediction.new_videos import NewVideo
from lus_cli.prediction.scorer import EXPORTED, scorer_of
from lus_cli.progress import Result, Table
from lus_cli.study.annotations import SCORES
from lus_cli.study.ids import VideoId

TEST_VIDEO = "test-video"  # the folder of its frames, as PNG, which is lossless
FRAMES, SIDE = 24, 160  # its number of frames, and of their rows and columns
SUBJECT = Video(VideoId("1", "1", "1"), score=2, frames=FRAMES, seed=5, size=SIDE)
# The largest difference of a probability that a check allows. Other processors and versions of
# PyTorch give differences of some 1e-6, GPUs with TF32 of some 1e-3. Wrong preprocessing gives more
# than 1e-2.
TOLERANCE = 0.005
GET_AGAIN = "copy the folder again, or export it again"


def write_test_video(folder: Path) -> np.ndarray:
    """Writes the frames of the test video and returns them: uint8 (frame, row, column)."""
    look, lesions = SUBJECT.draw()
    scene = Scene(look, lesions, SIDE, SUBJECT.rng(*SUBJECT.id, "3"))
    frames = np.stack([frame for frame, _ in scene.frames(FRAMES)])
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"Frame_{number}.png")
    return frames


def test_video(folder: Path) -> NewVideo:
    """The test video in an exported folder."""
    return NewVideo(TEST_VIDEO, folder / TEST_VIDEO, "frames")


def check_installation(folder: Path, device: torch.device) -> Result:
    """Scores the test video of an exported folder and compares its probabilities with the expected.

    The result has failed if one differs by more than the tolerance in export.json. Raises LusError if
    the folder lacks something or its weights are not those that were exported.
    """
    record = read_json(folder / EXPORTED, "give the folder that `lus export` wrote")
    expected, tolerance = read_expected(folder / EXPORTED, record)
    trained = model_at(folder)
    if record.get("weights") != trained.weights:
        raise LusError(f"{folder / BEST} is not the file that was exported", GET_AGAIN)
    scorer = scorer_of(trained, device, temperature=False, mask_text=None)
    prediction, _ = scorer.score(test_video(folder))
    differences = [abs(p - q) for p, q in zip(prediction.probabilities, expected, strict=True)]
    largest = max(differences)
    passes = largest <= tolerance
    words = f"The largest difference is {largest:.1e}; up to {tolerance:g} is allowed: "
    words += (
        "this installation gives the same predictions as the one that exported the model."
        if passes
        else "this installation gives other predictions. Try --device cpu, or other versions of torch, av "
        "and numpy."
    )
    numbers = {
        "expected": expected,
        "probabilities": list(prediction.probabilities),
        "largest_difference": largest,
        "tolerance": tolerance,
        "device": str(device),
        "passes": passes,
    }
    each = zip(SCORES, expected, prediction.probabilities, differences, strict=True)
    rows = [(*row, f"{difference:.1e}") for *row, difference in each]
    columns = ("score", "expected", f"on {device}", "difference")
    table = Table(f"{TEST_VIDEO} of {folder}", columns, rows)
    return Result(numbers, [table], notes=[words], failed=not passes)


def read_expected(path: Path, record: dict[str, Any]) -> tuple[list[float], float]:
    """The expected probabilities, and the tolerance. Raises LusError if they are damaged."""
    try:
        check = record["check"]
        expected = [float(value) for value in check["probabilities"]]
        tolerance = float(check["tolerance"])
        finite = all(map(math.isfinite, [*expected, tolerance]))
        if len(expected) == len(SCORES) and finite and 0 < tolerance < 1:
            return expected, tolerance
    except (KeyError, TypeError, ValueError):
        pass
    raise LusError(f"{path} has no expected probabilities", GET_AGAIN)
