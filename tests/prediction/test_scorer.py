"""The masks of a scored video, as the page of the prediction shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lus_cli.cache.batches import pictures_of, select_frames
from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.layout import Run
from lus_cli.model.cells import evenly_over_frames
from lus_cli.model.checkpoint import Card, new_model
from lus_cli.options import build
from lus_cli.prediction.new_videos import decode_array
from lus_cli.prediction.scorer import Scorer
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.trained_run import TrainedModel
from tests.conftest import PAPER

FRAME_FORMAT = FrameFormat(size=64, letterbox=False, color=False)
LENGTH = 9


def untrained(tmp_path: Path, **changes: object) -> Scorer:
    values = PAPER | {"weights": "none", "feature_stride": 8, "backbone": "resnet18"}
    recipe = build(Recipe, values | changes)
    torch.manual_seed(1)
    model = new_model(recipe).eval()
    card = Card(recipe, FRAME_FORMAT, 12, 1, 1.0, "")
    return Scorer(TrainedModel(Run(tmp_path), model, card, ""), None, False)


def video() -> np.ndarray:
    """Frames in which a bright patch moves: (frame, row, column) uint8."""
    frames = np.random.default_rng(0).integers(0, 60, (LENGTH, 64, 64), dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[6 * number : 6 * number + 10, 20:50] = 220
    return frames


def masks_of_frames(scorer: Scorer, frames: np.ndarray) -> np.ndarray:
    """The mask of each frame, of the model itself."""
    model, makes = scorer.model, pictures_of(scorer.card.recipe)
    with torch.inference_mode():
        pictures = makes.of(torch.from_numpy(frames))
        maps = model(pictures, torch.tensor([len(pictures)])).masks.numpy()
        return evenly_over_frames(model.backbone, makes, maps, torch.from_numpy(frames))


@pytest.mark.parametrize("changes", [{}, {"stride": 2}, {"frames_per_video": 4}])
@pytest.mark.parametrize("padding", ["packed", "zeros"])
def test_frames_that_were_not_scored_have_masks_as_large_as_the_others(
    tmp_path: Path, changes: dict[str, object], padding: str
) -> None:
    """Each has its own, with cells on their centres: not half a cell below, as even cells are."""
    scorer, frames = untrained(tmp_path, padding=padding, **changes), video()
    stored = decode_array(frames, FRAME_FORMAT)
    scorer.score_stored(stored, "")
    masks = scorer.masks(np.arange(LENGTH))
    expected = masks_of_frames(scorer, frames)
    assert expected.shape[1] == 16
    assert np.ptp(expected) > 1e-3
    assert masks is not None
    np.testing.assert_allclose(masks, expected, atol=1e-6)


def test_frames_between_those_of_a_scored_window_have_its_mask(tmp_path: Path) -> None:
    scorer, frames = untrained(tmp_path, windows=2, stride=2), video()
    stored = decode_array(frames, FRAME_FORMAT)
    scorer.score_stored(stored, "")
    scored = select_frames(LENGTH, 2, 0)  # 0, 2 in the first window; 4, 6, 8 in the second
    of_scored = masks_of_frames(scorer, frames[scored])
    assert np.abs(of_scored[0] - of_scored[-1]).max() > 1e-4
    masks = scorer.masks(np.arange(LENGTH))
    assert masks is not None
    np.testing.assert_array_equal(masks[[0, 2, 4, 6, 8]], of_scored)
    np.testing.assert_array_equal(masks[[1, 5, 7]], of_scored[[0, 2, 2]])


def test_scored_frames_have_the_masks_of_the_prediction(tmp_path: Path) -> None:
    """Though the mask of a frame depends on the other frames."""
    scorer, frames = untrained(tmp_path, stride=4, feature_norm="video"), video()
    scorer.score_stored(decode_array(frames, FRAME_FORMAT), "")
    scored = select_frames(LENGTH, 4, 0)
    masks, of_scored = scorer.masks(np.arange(LENGTH)), masks_of_frames(scorer, frames[scored])
    assert masks is not None
    np.testing.assert_allclose(masks[scored], of_scored, atol=1e-6)
    assert np.abs(masks_of_frames(scorer, frames)[scored] - of_scored).max() > 1e-4


def test_the_cnn_sees_a_scored_frame_once(tmp_path: Path) -> None:
    scorer = untrained(tmp_path, frames_per_video=4)
    scorer.score_stored(decode_array(video(), FRAME_FORMAT), "")
    seen: list[int] = []
    scorer.model.backbone.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    scored = select_frames(LENGTH, 1, 4)
    assert scorer.masks(scored[1:3]) is not None
    assert not seen
    assert scorer.masks(scored + np.array([0, 1, 0, 0])) is not None
    assert sum(seen) == 4


def test_without_attention_there_is_no_mask(tmp_path: Path) -> None:
    scorer = untrained(tmp_path, attention=False)
    scorer.score_stored(decode_array(video(), FRAME_FORMAT), "")
    assert scorer.masks(np.arange(LENGTH)) is None
