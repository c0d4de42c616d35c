"""Augmentation: the right values, the same for all pictures of a video, and repeatable."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lus_cli.cache.batches import Batch
from lus_cli.options import build
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.augmentation import (
    AUGMENTATIONS,
    augment,
    augmentations_of,
    cropped,
    curved,
    factor,
    speckled,
    zoomed,
)

NONE = build(Recipe, {})
ON = {"flip": True, "gain": 0.2, "shift": 0.2, "gamma": 0.5, "depth": 0.3, "crop": 0.3}


def with_only(**changes: object) -> Recipe:
    return dataclasses.replace(NONE, **changes)  # type: ignore[arg-type]


def gradient(rows: int = 9, columns: int = 9) -> Tensor:
    """One picture whose levels say where they come from: 10 per row and 1 per column."""
    return (10 * torch.arange(rows)[:, None] + torch.arange(columns)).to(torch.uint8)[None]


def batch_of(pictures: Tensor, *lengths: int, turns: tuple[int, ...] = ()) -> Batch:
    scores = torch.zeros(len(lengths), dtype=torch.int64)
    return Batch(list(range(3, 3 + len(lengths))), pictures, torch.tensor(lengths), scores, turns)


@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "three channels"])
@pytest.mark.parametrize("changes", [*({n: v} for n, v in ON.items()), {"speckle": 0.3}], ids=str)
def test_bytes_become_bytes_of_the_same_shape_and_something_changes(
    changes: dict[str, object], channels: tuple[int, ...]
) -> None:
    pictures = torch.randint(1, 255, (8, 24, 20, *channels), dtype=torch.uint8)
    batch = batch_of(pictures, *[1] * 8)
    after = augment(batch, with_only(**changes), 1).pictures
    assert (after.shape, after.dtype) == (pictures.shape, torch.uint8)
    assert not torch.equal(after, pictures)
    assert torch.equal(augment(batch, with_only(**changes), 1).pictures, after)
    assert not torch.equal(augment(batch, with_only(**changes), 2).pictures, after)


def test_by_default_nothing_is_on() -> None:
    assert augmentations_of(NONE) == []
    batch = batch_of(gradient(), 1)
    assert augment(batch, NONE, 1) is batch
    assert augmentations_of(with_only(**ON, speckle=0.1)) == [*AUGMENTATIONS]


def test_all_pictures_of_a_video_are_changed_alike_but_for_speckle() -> None:
    pictures = torch.randint(1, 255, (1, 24, 24, 3), dtype=torch.uint8).expand(6, -1, -1, -1)
    batch = batch_of(pictures, 3, 3)
    one, two = augment(batch, with_only(**ON), 1).pictures.split(3)
    assert (one == one[0]).all()
    assert (two == two[0]).all()
    assert not torch.equal(one, two)
    noisy = augment(batch, with_only(speckle=0.3), 1).pictures
    assert not any(torch.equal(noisy[0], other) for other in noisy[1:])


def test_one_option_does_not_change_what_another_one_draws() -> None:
    """So that runs with and without an option are compared on the same pictures otherwise."""
    batch = batch_of(torch.full((1, 12, 12), 90, dtype=torch.uint8), 1)
    levels = {
        int(augment(batch, with_only(gamma=0.5, **more), 1).pictures[0, 0, 6])
        for more in ({}, {"crop": 0.2}, {"depth": 0.2}, {"flip": True})
    }
    assert len(levels) == 1
    assert levels != {90}


def test_a_later_turn_of_a_video_is_drawn_otherwise() -> None:
    pictures = torch.randint(1, 255, (1, 24, 24), dtype=torch.uint8)
    turned = [
        augment(batch_of(pictures, 1, turns=(turn,)), with_only(**ON, speckle=0.1), 1).pictures
        for turn in range(3)
    ]
    assert torch.equal(turned[0], augment(batch_of(pictures, 1), with_only(**ON, speckle=0.1), 1)
                       .pictures)  # fmt: skip
    assert not torch.equal(turned[0], turned[1])
    assert not torch.equal(turned[1], turned[2])


def test_a_factor_is_above_one_as_often_as_below() -> None:
    random = np.random.default_rng(0)
    factors = np.array([factor(random, 0.5) for _ in range(2000)])
    assert 1 / 1.5 <= factors.min() < 0.68
    assert 1.48 < factors.max() <= 1.5
    assert 0.46 < (factors > 1).mean() < 0.54
    assert factor(random, 0.0) == 1


def test_gamma_keeps_black_and_white() -> None:
    levels = torch.tensor([0, 64, 128, 255], dtype=torch.uint8)[None, :, None]
    assert curved(levels, 2.0)[0, :, 0].tolist() == [0, 16, 64, 255]
    assert curved(levels, 0.5)[0, :, 0].tolist() == [0, 128, 181, 255]
    assert torch.equal(curved(levels, 1.0), levels)


def test_depth_keeps_the_top_row() -> None:
    picture = gradient()
    assert zoomed(picture, 2.0)[0, :, 0].tolist() == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    assert zoomed(picture, 0.5)[0, :, 1].tolist() == [1, 21, 41, 61, 81, 0, 0, 0, 0]
    assert torch.equal(zoomed(picture, 1.0), picture)
    for zoom in (0.8, 1.3):
        assert torch.equal(zoomed(picture, zoom)[:, 0], picture[:, 0])


def test_crop_cuts_at_the_sides_and_keeps_the_depth() -> None:
    picture = gradient()
    assert cropped(picture, 0.5, 0.0)[0, 0].tolist() == [4, 4, 5, 6, 6, 6, 7, 8, 8]
    assert cropped(picture, 0.25, 0.25)[0, 2].tolist() == [22, 22, 23, 24, 24, 24, 25, 26, 26]
    assert torch.equal(cropped(picture, 0.0, 0.0), picture)
    after = cropped(picture, 0.1, 0.3)
    assert int(after[0, 0, 0]) == round(0.1 * 8)
    assert int(after[0, 0, -1]) == round(0.7 * 8)


def test_crop_leaves_no_black_border_whatever_the_rounding() -> None:
    picture = torch.full((1, 4, 224), 255, dtype=torch.uint8)
    for left, right in np.random.default_rng(0).uniform(0, 0.45, (50, 2)):
        assert (cropped(picture, left, right) == 255).all()


def test_speckle_has_its_deviation_and_its_correlation() -> None:
    pictures = torch.full((4, 200, 200), 100, dtype=torch.uint8)
    noise = speckled(pictures, 0.2, seed=7).float() / 100 - 1
    assert noise.mean().abs() < 0.01
    assert noise.std() == pytest.approx(0.2, rel=0.03)

    def correlation(distance: int) -> float:
        one, other = noise[:, :, :-distance].flatten(), noise[:, :, distance:].flatten()
        return float(torch.corrcoef(torch.stack([one, other]))[0, 1])

    assert correlation(1) == pytest.approx(0.5, abs=0.03)
    assert correlation(2) == pytest.approx(0.0, abs=0.03)
    black = torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert torch.equal(speckled(black, 0.5, seed=7), black)


def test_the_channels_of_a_picture_have_the_same_speckle() -> None:
    pictures = torch.full((2, 16, 16, 3), 100, dtype=torch.uint8)
    noisy = speckled(pictures, 0.3, seed=1)
    assert (noisy == noisy[..., :1]).all()
    assert torch.equal(noisy[..., 0], speckled(pictures[..., 0], 0.3, seed=1))


def test_shares_and_zooms_stay_in_their_range() -> None:
    """The left edge of a picture that is cropped by at most a fifth shows its first fifth."""
    batch = batch_of(gradient(4, 201).repeat(30, 1, 1) * 0 + torch.arange(201).byte(), *[1] * 30)
    after = augment(batch, with_only(crop=0.2), 1).pictures[:, 0].float()
    left, right = after[:, 0] / 200, 1 - after[:, -1] / 200
    assert 0.12 < float((left + right).max()) <= 0.2 + 0.01
    assert float((left + right).min()) < 0.08
    assert math.isclose(float(left.mean()), float(right.mean()), abs_tol=0.04)
