"""Clips: the frames, masks and weights of a video as a page plays them."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lus_cli import clips
from lus_cli.batches import BatchLoader
from lus_cli.cache import Cache
from lus_cli.scoring import open_run
from lus_cli.steps import silent, train
from tests.conftest import tiny


def gray(count: int, rows: int = 40, columns: int = 40) -> np.ndarray:
    """Frames, each of one gray: 5 more than the one before."""
    shades = 5 * np.arange(1, count + 1, dtype=np.uint8)
    return np.broadcast_to(shades[:, None, None], (count, rows, columns)).copy()


def cells_of(clip: clips.Clip) -> list[np.ndarray]:
    """The frames as the page finds them on the sheet, in order."""
    sheet = np.asarray(Image.open(io.BytesIO(clip.sheet)).convert("L"))
    rows, columns = clip.height, clip.width
    places = [divmod(cell, clip.columns) for cell in clip.cells]
    return [sheet[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns] for r, c in places]


def test_every_frame_is_where_its_clip_says():
    clip = clips.make_clip(gray(12), np.arange(100, 112))
    shades = [cell[5:-5, 5:-5].mean() for cell in cells_of(clip)]
    assert np.allclose(shades, 5 * np.arange(1, 13), atol=2)
    assert clip.numbers == tuple(range(100, 112))
    assert (clip.scored, clip.length, clip.masks, clip.weights) == (12, 12, None, None)


def test_the_sheets_first_row_is_the_whole_video_at_a_glance():
    clip = clips.make_clip(gray(25), np.arange(25))
    strip = [clip.numbers[clip.cells.index(cell)] for cell in range(clips.COLUMNS)]
    assert strip == [0, 6, 12, 18, 24]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 300])
def test_frames_are_in_order_from_first_to_last(count):
    clip = clips.make_clip(gray(1).repeat(count, axis=0), np.arange(count))
    assert len(set(clip.places)) == len(clip.places) == min(count, clips.LEVELS[0][0])
    assert sorted(clip.places) == list(clip.places)
    assert (clip.places[0], clip.places[-1]) == (0, count - 1)
    assert sorted(clip.cells) == list(range(len(clip.cells)))


def test_the_frame_that_weighs_most_is_among_those_shown():
    weights = np.full(300, 0.001, np.float32)
    weights[101] = 1 - weights.sum() + 0.001
    clip = clips.make_clip(gray(1).repeat(300, axis=0), np.arange(300), weights=weights)
    assert 101 in clip.places
    known = json.loads(clip.script)
    stored = np.frombuffer(b64decode(known["weights"]), "<u2") / 65535 * known["largest_weight"]
    assert np.allclose(stored, weights, atol=1e-5)


def test_a_clip_keeps_its_room_and_its_last_resort():
    noise = np.random.default_rng(0).integers(0, 255, (25, 192, 192), dtype=np.uint8)
    free = clips.make_clip(noise, np.arange(25), room=10**9)
    tight = clips.make_clip(noise, np.arange(25), room=200_000)
    hopeless = clips.make_clip(noise, np.arange(25), room=10)
    assert len(free.cells) == 25
    assert len(tight.sheet) <= 200_000 < len(free.sheet)
    assert len(hopeless.cells) == clips.LEVELS[-1][0]


def test_a_frame_has_its_own_aspect_again_and_colour_stays():
    wide = clips.make_clip(gray(3), np.arange(3), aspect=1.5)
    assert wide.width / wide.height == pytest.approx(1.5, rel=0.05)
    assert wide.width * wide.height <= 41 * 41
    red = np.zeros((3, 40, 40, 3), np.uint8)
    red[..., 0] = 200
    sheet = Image.open(io.BytesIO(clips.make_clip(red, np.arange(3)).sheet))
    assert np.allclose(np.asarray(sheet.convert("RGB"))[20, 20], (200, 0, 0), atol=12)


def test_masks_are_bytes_and_large_ones_shrink():
    masks = np.linspace(0, 1, 3 * 56 * 40, dtype=np.float32).reshape(3, 56, 40)
    clip = clips.make_clip(gray(3), np.arange(3), masks)
    assert clip.masks.shape == (3, clips.MASK_SIDE, clips.MASK_SIDE)
    assert np.allclose(clip.masks.mean(axis=(1, 2)) / 255, masks.mean(axis=(1, 2)), atol=0.005)


def test_the_script_holds_no_markup():
    clip = clips.make_clip(gray(1), np.arange(1), note="</script><b>")
    assert "<" not in clip.script
    assert json.loads(clip.script)["note"] == "</script><b>"


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_what_is_kept_while_scoring_is_what_the_model_said(prepared: Path, tmp_path, pool):
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("videos.h5", "split.json"):
        (cache / name).symlink_to(prepared / name)
    train.run(tiny(cache, epochs=1, pool=pool, frames_per_video=4), silent)
    trained = open_run(Cache(cache), None, torch.device("cpu"))
    indices = [3, 0, 5]
    kept = clips.Clips(trained.videos, trained.card.recipe, True, len(indices))
    answers = trained.probabilities(indices, "score", silent, kept)
    assert np.array_equal(answers, trained.probabilities(indices, "score", silent))
    assert set(kept.of) == set(indices)
    for index in indices:
        batch = BatchLoader(trained.videos, trained.card.recipe).load([index])
        with torch.inference_mode():
            output = trained.model.eval()(batch.frames, batch.lengths)
        clip = kept.of[index]
        assert np.allclose(clip.masks / 255, output.masks.numpy(), atol=0.003)
        assert clip.length == trained.videos.lengths[index]
        numbers = trained.videos.frame_numbers(index)
        assert (clip.numbers[0], clip.numbers[-1]) == (numbers[0], numbers[-1])
        if pool == "attention":
            assert np.allclose(clip.weights, output.weights.numpy(), atol=1e-5)
            assert not clip.note
        else:
            assert clip.weights is None
            assert clip.note == "All frames weigh the same in the answer."


def test_of_too_many_videos_the_worst_errors_are_kept(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("videos.h5", "split.json"):
        (cache / name).symlink_to(prepared / name)
    train.run(tiny(cache, epochs=1), silent)
    trained = open_run(Cache(cache), None, torch.device("cpu"))
    indices = list(range(9))
    monkeypatch.setattr(clips, "MOST", 4)
    kept = clips.Clips(trained.videos, trained.card.recipe, True, len(indices))
    answers = trained.probabilities(indices, "score", silent, kept)
    of_true = answers[np.arange(9), trained.videos.scores[indices]]
    assert set(kept.of) == set(np.argsort(of_true)[:4].tolist())
