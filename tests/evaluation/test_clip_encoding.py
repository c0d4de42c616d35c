"""Clips: their frames, masks, weights and size."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lus_cli.evaluation import clip_encoding
from lus_cli.evaluation.clip_encoding import Budget, Clip, Scored, make_clip
from lus_cli.pages.base import environment
from lus_cli.study.video_files import frame_rate, read_frames

FREE = Budget(frames=100, side=224, crf=20)
STRIP = dataclasses.replace(FREE, strip=True)


def gray(count: int, rows: int = 40, columns: int = 40) -> np.ndarray:
    """Uniform gray frames of increasing brightness."""
    shades = np.linspace(20, 230, count).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None], (count, rows, columns)).copy()


def clip_of(
    frames: np.ndarray, masks: np.ndarray | None = None, budget: Budget = FREE, **scored
) -> Clip:
    numbers = np.arange(len(frames))
    known = Scored(len(frames), numbers, None, "mean", 1.0)
    return make_clip(frames, masks, numbers, dataclasses.replace(known, **scored), budget)


def decoded(clip: Clip, folder: Path) -> np.ndarray:
    path = folder / "clip.mp4"
    path.write_bytes(clip.mp4)
    assert frame_rate(path) == pytest.approx(clip.rate, rel=0.01)
    return np.stack(list(read_frames(path)))


@pytest.mark.parametrize("shape", [(40, 40), (41, 33), (96, 200)])
def test_every_frame_is_in_the_video_in_order(tmp_path: Path, shape: tuple[int, int]) -> None:
    clip = clip_of(gray(12, *shape))
    assert np.allclose(decoded(clip, tmp_path).mean(axis=(1, 2)), gray(12)[:, 0, 0], atol=2)
    assert clip.numbers == clip.places == tuple(range(12))
    assert clip.is_whole


@pytest.mark.parametrize("count", [1, 2, 5, 6, 300])
def test_frames_are_shown_from_first_to_last(count: int) -> None:
    clip = clip_of(gray(count, 16, 16))
    assert len(set(clip.numbers)) == len(clip.numbers) == min(count, FREE.frames)
    assert sorted(clip.numbers) == list(clip.numbers)
    assert (clip.numbers[0], clip.numbers[-1]) == (0, count - 1)


def test_the_frame_that_weighs_most_is_among_those_shown() -> None:
    weights = np.full(300, 0.001)
    weights[101] = 1 - weights.sum() + 0.001
    clip = clip_of(gray(300, 16, 16), weights=weights, pool="attention")
    assert 101 in clip.numbers
    assert clip.largest_weight == weights[101]
    shown = clip.script["weights"]
    assert shown == pytest.approx(weights[[*clip.numbers]].tolist(), abs=1e-5)
    assert clip.timeline.count("M") == 300  # a bar for every frame that was scored


def test_the_timeline_has_a_place_for_what_is_shown_and_for_what_was_scored() -> None:
    scored = Scored(20, np.array([10, 13, 15]), np.array([0.5, 0.25, 0.25]), "attention", 1.0)
    clip = make_clip(gray(4), None, np.array([10, 11, 12, 15]), scored, FREE)
    assert clip.places == (0, 1, 2, 4)
    assert clip.shares.tolist() == [1, 0, 0, 0.5, 0.5]
    assert clip.script["weights"] == [0.5, 0, 0, 0.25]
    assert not clip.is_whole
    alike = make_clip(
        gray(4), None, np.arange(4), dataclasses.replace(scored, weights=None, pool="max"), FREE
    )
    assert alike.shares.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert alike.script["weights"] is None


def test_a_clip_stays_within_its_bytes_but_for_the_fewest_frames() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 192, 192), dtype=np.uint8)
    free = clip_of(noise, budget=dataclasses.replace(STRIP, crf=26))
    tight = clip_of(noise, budget=dataclasses.replace(STRIP, crf=26, bytes=60_000))
    hopeless = clip_of(noise, budget=dataclasses.replace(STRIP, crf=26, bytes=10))
    assert len(free.numbers) == 100
    assert tight.bytes <= 60_000 < free.bytes
    assert len(hopeless.numbers) == clip_encoding.FEWEST


def test_masks_take_their_share_of_the_room() -> None:
    masks = np.random.default_rng(0).random((100, 28, 28), np.float32)
    clip = clip_of(gray(100), masks, dataclasses.replace(STRIP, bytes=20_000))
    assert clip.bytes <= 20_000
    assert clip_encoding.FEWEST < len(clip.numbers) == len(clip.masks) < 100


def test_masks_stay_with_their_frames() -> None:
    masks = np.zeros((200, 7, 7), np.float32)
    masks[np.arange(200), np.arange(200) % 7, 0] = 1
    clip = clip_of(gray(200, 16, 16), masks)
    for mask, number in zip(clip.masks, clip.numbers, strict=True):
        assert mask[:, 0].tolist() == [255 if row == number % 7 else 0 for row in range(7)]


def test_masks_are_bytes_and_large_ones_shrink() -> None:
    masks = np.linspace(0, 1, 3 * 56 * 40, dtype=np.float32).reshape(3, 56, 40)
    clip = clip_of(gray(3), masks)
    assert clip.masks.shape == (3, clip_encoding.MASK_SIDE, clip_encoding.MASK_SIDE)
    assert np.allclose(clip.masks.mean(axis=(1, 2)) / 255, masks.mean(axis=(1, 2)), atol=0.005)


def test_frames_are_no_larger_than_the_budget_allows_and_colour_stays(tmp_path: Path) -> None:
    red = np.zeros((3, 512, 300, 3), np.uint8)
    red[..., 0] = 200
    frames = decoded(clip_of(red), tmp_path)
    assert frames.shape == (3, 224, 224, 3)
    assert np.allclose(frames[1, 100, 100], (200, 0, 0), atol=8)
    still = Image.open(io.BytesIO(clip_of(red).still)).convert("RGB")
    assert np.allclose(np.asarray(still)[100, 100], (200, 0, 0), atol=12)


def test_the_strip_is_the_whole_video_at_a_glance() -> None:
    strip = np.asarray(Image.open(io.BytesIO(clip_of(gray(25), budget=STRIP, aspect=1.5).still)))
    height, width = strip.shape[:2]
    assert (height, width) == (clip_encoding.STRIP_HEIGHT, clip_encoding.STRIP * 108)
    cells = (
        strip[:, :, 0]
        .reshape(height, clip_encoding.STRIP, 108)[20:-20, :, 20:-20]
        .mean(axis=(0, 2))
    )
    assert np.allclose(cells, gray(25)[[0, 6, 12, 18, 24], 0, 0], atol=3)


def test_the_first_picture_is_the_one_whose_mask_stands_out() -> None:
    masks = np.zeros((6, 4, 4), np.float32)
    masks[3, 0, 0] = 1
    assert clip_of(gray(6), masks).first == 3
    assert clip_of(gray(6)).first == 3  # the middle
    assert clip_of(gray(6), masks, STRIP).first == 0


@pytest.mark.parametrize(
    ("shown", "length", "rate", "expected"),
    [(10, 10, 30.0, 30), (10, 40, 30.0, 7.5), (10, 10, None, 25), (1, 100_000, None, 0.5)],
)
def test_a_clip_takes_as_long_as_its_video(
    shown: int, length: int, rate: float | None, expected: float
) -> None:
    assert clip_of(gray(shown), length=length, rate=rate).rate == expected


def test_what_the_script_reads_is_json_that_cannot_end_its_attribute() -> None:
    text = environment().from_string(
        "{% import 'player.html' as p %}{% call p.player(c, n, true) %}{% endcall %}"
    )
    masks = np.ones((2, 3, 3), np.float32)
    html = text.render(c=clip_of(gray(2), masks), n="'\"><script>")
    assert "<script" not in html
    _, found = html.split("data-clip='")
    assert json.loads(found.split("'")[0])["maskShape"] == [3, 3]


@pytest.mark.parametrize(
    ("pool", "expected_note"),
    [
        (
            "mean",
            "All frames have the same weight in the prediction. "
            "Bars: the frames that the model scored.",
        ),
        (
            "attention",
            "in the prediction, at most 50 %; the dashed line shows equal weights.",
        ),
        ("max", "the maximum of each LSTM output"),
        ("last", "the output of the LSTM after the last frame"),
    ],
)
def test_the_note_says_what_is_shown_and_how_frames_are_weighted(
    pool: str, expected_note: str
) -> None:
    text = environment().from_string("{% import 'player.html' as p %}{{ p.note(c) }}")
    weights = np.array([0.5, 0.25, 0.25]) if pool == "attention" else None
    note = text.render(c=clip_of(gray(3), length=70, pool=pool, weights=weights))
    assert "The model scored 3 of the video’s 70 frames; all of them are shown." in note
    assert expected_note in note
