"""The order of videos and frames: each once, patients mixed, the same order after resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lus_cli.cache import batches
from lus_cli.cache.batches import Batch, BatchLoader, in_batches, select_frames
from lus_cli.cache.video_cache import VideoCache
from lus_cli.options import build
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.augmentation import augment, shifted
from lus_cli.training.sampling import epoch_order, turns_of
from tests.conftest import PAPER, tiny

RECIPE = build(Recipe, PAPER | {"weights": "none"})
SCORES = np.repeat([0, 1, 2, 3], [10, 20, 40, 17])


def test_no_video_is_lost_to_the_batch_size() -> None:
    groups = epoch_order(range(len(SCORES)), SCORES, RECIPE, 1)
    assert sorted(i for group in groups for i in group) == list(range(len(SCORES)))
    assert [len(g) for g in groups] == [4] * 21 + [3]


def test_batches_mix_patients_and_change_every_epoch(prepared: Path) -> None:
    videos = VideoCache(prepared / "videos.h5")
    orders = [epoch_order(range(len(videos)), videos.scores, RECIPE, epoch) for epoch in (1, 2)]
    assert orders[0] != orders[1]
    mixed = [len({videos.patients[i] for i in group}) > 1 for group in orders[0]]
    assert np.mean(mixed) > 0.5  # in folder order hardly any batch would be


def test_the_order_is_a_function_of_seed_and_epoch_only() -> None:
    indices = list(range(len(SCORES)))
    epoch_order(indices, SCORES, RECIPE, 1)
    assert epoch_order(indices, SCORES, RECIPE, 7) == epoch_order(indices, SCORES, RECIPE, 7)
    other = dataclasses.replace(RECIPE, seed=6)
    assert epoch_order(indices, SCORES, RECIPE, 7) != epoch_order(indices, SCORES, other, 7)


def test_balanced_sampling_brings_every_score_equally_often() -> None:
    recipe = dataclasses.replace(RECIPE, balanced_sampling=True)
    groups = epoch_order(range(len(SCORES)), SCORES, recipe, 3)
    drawn = [i for group in groups for i in group]
    assert len(drawn) == len(SCORES)
    counts = np.bincount(SCORES[drawn])
    assert counts.max() - counts.min() <= 1
    rare = np.bincount(drawn, minlength=len(SCORES))[:10]
    assert rare.max() - rare.min() <= 1  # all of a rare score's videos come up alike


def test_balanced_sampling_does_not_wait_for_a_score_that_is_not_there() -> None:
    recipe = dataclasses.replace(RECIPE, balanced_sampling=True)
    scores = np.array([0, 0, 0, 2])
    drawn = [i for group in epoch_order(range(4), scores, recipe, 1) for i in group]
    assert np.bincount(scores[drawn], minlength=4).tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize(
    ("length", "stride", "most", "expected"),
    [
        (7, 1, 0, [0, 1, 2, 3, 4, 5, 6]),
        (7, 3, 0, [0, 3, 6]),
        (9, 1, 3, [0, 4, 8]),
        (9, 2, 2, [0, 8]),
        (2, 5, 4, [0]),
        (10, 1, 1, [0]),
    ],
)
def test_frames_are_thinned_then_spread(
    length: int, stride: int, most: int, expected: list[int]
) -> None:
    assert select_frames(length, stride, most).tolist() == expected


def test_jitter_takes_one_frame_from_each_stretch_and_others_every_epoch() -> None:
    drawn = np.array([select_frames(40, 1, 4, np.random.default_rng(seed)) for seed in range(300)])
    assert (drawn // 10 == np.arange(4)).all()
    assert len(np.unique(drawn)) == 40  # every frame comes up in time


def test_jitter_is_for_training_and_a_function_of_the_epoch(prepared: Path) -> None:
    videos = VideoCache(prepared / "videos.h5")
    index = int(videos.lengths.argmax())
    loader = BatchLoader(videos, tiny(prepared, jitter=True, frames_per_video=3))
    epochs = [loader.pictures_of(index, epoch) for epoch in range(1, 7)]
    assert any(not np.array_equal(epochs[0], other) for other in epochs[1:])
    np.testing.assert_array_equal(loader.pictures_of(index, 2), epochs[1])
    even = select_frames(int(videos.lengths[index]), 1, 3)
    np.testing.assert_array_equal(loader.pictures_of(index, None), videos.read(index, even))


def test_batches_hold_the_frames_of_their_videos_in_order(prepared: Path) -> None:
    videos = VideoCache(prepared / "videos.h5")
    loader = BatchLoader(videos, tiny(prepared, frames_per_video=0, stride=2))
    groups = in_batches(range(len(videos)), 4)
    seen = list(loader.batches(groups))
    assert [batch.indices for batch in seen] == groups
    for batch in seen:
        pieces = batch.pictures.split(batch.lengths.tolist())
        for index, piece in zip(batch.indices, pieces, strict=True):
            np.testing.assert_array_equal(piece.numpy(), videos.read(index)[::2])
        assert batch.scores.tolist() == videos.scores[batch.indices].tolist()


def test_frames_beyond_the_memory_budget_are_read_again(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = VideoCache(prepared / "videos.h5")
    config = tiny(prepared)
    monkeypatch.setattr(
        batches, "KEEP_BYTES", BatchLoader(videos, config).pictures_of(0, None).nbytes
    )
    loader = BatchLoader(videos, config)
    loader.pictures_of(0, None)
    first, again = loader.pictures_of(1, None), loader.pictures_of(1, None)
    assert first is not again
    np.testing.assert_array_equal(first, again)
    assert loader.pictures_of(0, None) is loader.pictures_of(0, None)


def test_an_accumulated_step_has_the_videos_of_several_batches(prepared: Path) -> None:
    recipe = dataclasses.replace(RECIPE, batch_size=2, accumulate=3)
    large = dataclasses.replace(RECIPE, batch_size=6)
    indices = list(range(len(SCORES)))
    assert epoch_order(indices, SCORES, recipe, 1) == epoch_order(indices, SCORES, large, 1)


def test_a_process_without_a_video_has_an_empty_batch(prepared: Path) -> None:
    loader = BatchLoader(VideoCache(prepared / "videos.h5"), tiny(prepared, flip=True))
    batch = augment(loader.load([], 1), loader.recipe, 1)
    assert batch.pictures.shape == (0, 64, 64)
    assert len(batch.lengths) == len(batch.scores) == 0


def batch_of(*lengths: int) -> Batch:
    frames = torch.randint(1, 256, (sum(lengths), 12, 12), dtype=torch.uint8)
    return Batch(
        list(range(len(lengths))), frames, torch.tensor(lengths), torch.zeros(len(lengths))
    )


def test_augmentation_varies_videos_but_all_their_frames_alike() -> None:
    recipe = dataclasses.replace(RECIPE, flip=True, gain=0.3, shift=0.2)
    frame = torch.randint(1, 256, (1, 12, 12), dtype=torch.uint8)
    batch = Batch([3, 4], frame.expand(6, -1, -1), torch.tensor([3, 3]), torch.zeros(2))
    one, two = augment(batch, recipe, 1).pictures.split(3)
    assert (one == one[0]).all()
    assert (two == two[0]).all()
    assert not torch.equal(one, two)
    assert torch.equal(augment(batch, recipe, 1).pictures[:3], one)
    assert not torch.equal(augment(batch, recipe, 2).pictures[:3], one)


def test_mirroring_is_left_to_right_never_upside_down() -> None:
    recipe = dataclasses.replace(RECIPE, flip=True)
    batch = batch_of(*[1] * 40)
    mirrored = 0
    for before, after in zip(batch.pictures, augment(batch, recipe, 1).pictures, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(1))
        mirrored += int(torch.equal(after, before.flip(1)))
    assert 8 < mirrored < 32


def test_without_augmentation_nothing_is_touched() -> None:
    batch = batch_of(2, 3)
    assert augment(batch, RECIPE, 1) is batch


def test_shifting_moves_and_leaves_black() -> None:
    frames = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 3, 3)
    assert shifted(frames, 1, 0)[0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert shifted(frames, 0, -2)[0].tolist() == [[3, 0, 0], [6, 0, 0], [9, 0, 0]]


def test_later_turns_of_a_video_are_drawn_otherwise_and_the_first_as_without_turns(
    prepared: Path,
) -> None:
    """Balanced sampling draws the videos of a rare score several times an epoch."""
    assert turns_of([[3, 5], [3, 3], [5, 7]]) == [[0, 0], [1, 2], [1, 0]]
    videos = VideoCache(prepared / "videos.h5")
    index = int(videos.lengths.argmax())
    recipe = tiny(prepared, jitter=True, frames_per_video=3, flip=True, gain=0.3, shift=0.2)
    loader = BatchLoader(videos, recipe)
    positions = {tuple(loader.positions(index, 1, turn)) for turn in range(6)}
    assert len(positions) > 3
    assert loader.positions(index, 1, 0).tolist() == loader.positions(index, 1).tolist()
    frames = torch.randint(1, 256, (1, 12, 12), dtype=torch.uint8)
    one = Batch([3], frames, torch.tensor([1]), torch.zeros(1))
    varied = [
        augment(dataclasses.replace(one, turns=[turn]), recipe, 1).pictures for turn in range(4)
    ]
    assert torch.equal(varied[0], augment(one, recipe, 1).pictures)
    for other in range(1, 4):
        assert not any(torch.equal(varied[other], before) for before in varied[:other])


def test_what_an_unbalanced_epoch_draws_is_what_it_always_was(prepared: Path) -> None:
    """Runs of earlier versions continue bit for bit."""
    videos = VideoCache(prepared / "videos.h5")
    index, recipe = int(videos.lengths.argmax()), tiny(prepared, jitter=True, frames_per_video=3)
    before = np.random.default_rng([recipe.seed, 4, index, 1])
    expected = select_frames(int(videos.lengths[index]), 1, 3, before)
    assert BatchLoader(videos, recipe).positions(index, 4).tolist() == expected.tolist()
    recipe = dataclasses.replace(RECIPE, shift=0.5)
    moves = np.random.default_rng([recipe.seed, 4, 2])
    moves.random(3)
    rows, columns = (round(move * 12) for move in moves.uniform(-0.5, 0.5, 2))
    batch = Batch([2], batch_of(1).pictures, torch.tensor([1]), torch.zeros(1))
    assert torch.equal(augment(batch, recipe, 4).pictures, shifted(batch.pictures, rows, columns))


def test_frames_that_are_read_once_are_not_kept(prepared: Path) -> None:
    videos = VideoCache(prepared / "videos.h5")
    loader = BatchLoader(videos, tiny(prepared), keep=False)
    assert len(list(loader.batches(in_batches(range(len(videos)), 4)))) > 1
    assert loader.kept == {}
