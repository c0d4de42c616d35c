"""preprocess.py, which is handed over with a model, makes the pictures that lus makes."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from lus_cli.cache import preprocess
from lus_cli.cache.batches import select_frames
from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.pictures import BRIGHT, LEAST, SIDE, Pictures
from lus_cli.phantom.appearance import Scene
from lus_cli.phantom.study import Video
from lus_cli.prediction.new_videos import decode_array, frames_at
from lus_cli.study import frames as frames_of_lus
from lus_cli.study.ids import VideoId


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    """A phantom, 100 pixels high and 160 wide: uint8 (frame, row, column)."""
    subject = Video(VideoId("1", "1", "1"), score=2, frames=18, seed=0, size=160)
    look, lesions = subject.draw()
    scene = Scene(look, lesions, 160, subject.rng(*subject.id, "3"))
    return np.stack([frame[:100] for frame, _ in scene.frames(18)])


def both(
    video: np.ndarray, stored: FrameFormat, makes: Pictures, stride: int = 1, most: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of lus, and those of preprocess.py."""
    decoded = decode_array(video, stored)
    frames = frames_at(decoded, select_frames(decoded.length, stride, most), stored)
    settings = asdict(stored) | asdict(makes) | {"stride": stride, "frames_per_video": most}
    return makes.of(torch.from_numpy(frames)).numpy(), preprocess.pictures(video, settings)


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("size", [64, 160, 4], ids=["smaller", "larger", "by Pillow"])
def test_frames_are_the_same(video: np.ndarray, size: int, color: bool, letterbox: bool) -> None:
    coloured = np.stack([video, video // 2, 255 - video], axis=3)
    for frames in (video, coloured):
        stored = FrameFormat(size, letterbox, color)
        for stride, most in ((1, 0), (3, 0), (2, 5), (1, 50)):
            lus, own = both(frames, stored, Pictures(0, scan_lines=False), stride, most)
            assert np.array_equal(lus, own)


@pytest.mark.parametrize("scan_lines", [False, True])
@pytest.mark.parametrize(
    ("windows", "window_frames", "whole_video"),
    [(6, 0, False), (3, 0, True), (40, 0, False), (0, 7, False), (0, 7, True), (0, 0, False)],
)
def test_pictures_are_the_same_but_for_single_levels(
    video: np.ndarray, windows: int, window_frames: int, whole_video: bool, scan_lines: bool
) -> None:
    makes = Pictures(windows, scan_lines, window_frames, whole_video)
    lus, own = both(video, FrameFormat(96, letterbox=False, color=False), makes)
    assert (lus.shape, lus.dtype) == (own.shape, own.dtype)
    difference = np.abs(lus.astype(int) - own)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


def test_a_number_of_frames_is_taken_from_first_to_last() -> None:
    assert preprocess.selected(10, 1, 0, 4).tolist() == [0, 3, 6, 9]
    assert preprocess.selected(3, 1, 0, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert preprocess.selected(10, 4, 2, 2).tolist() == [0, 8]


def test_its_constants_are_those_of_lus() -> None:
    assert (preprocess.SIDE, preprocess.BRIGHT, preprocess.LEAST) == (SIDE, BRIGHT, LEAST)
    assert preprocess.SCALING == frames_of_lus.SCALING
