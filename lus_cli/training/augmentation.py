"""Augmentation of the pictures of a video, as a function of seed, epoch, video and turn.

Pictures are uint8 (picture, row, column[, channel]), frames or windows, resampled along the scan lines
or not. Depth increases with the row. Each function returns pictures of the same shape and type.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lus_cli.cache.batches import AUGMENTATION, Batch, random_of
from lus_cli.recipes.recipe import Recipe

# The fields of a recipe that augment, in the order in which they are applied: first the geometry, which
# depends on the probe and its settings, then the noise of the tissue, then the levels of the display.
AUGMENTATIONS = ("flip", "crop", "depth", "shift", "speckle", "gamma", "gain")


def augmentations_of(recipe: Recipe) -> list[str]:
    """The fields of AUGMENTATIONS that are on in a recipe."""
    return [name for name in AUGMENTATIONS if getattr(recipe, name)]


def augment(batch: Batch, recipe: Recipe, epoch: int) -> Batch:
    """Augments each video of a batch as the recipe says, all its pictures in the same way; only the
    noise of `speckle` is new for each picture. Feature maps of a frozen CNN are returned unchanged:
    those of augmented copies were computed from augmented pictures, see FeatureLoader.

    This imitates another operator, scanner, setting or patient. Pictures are never flipped upside
    down, since depth has a meaning in ultrasound.
    """
    if not augmentations_of(recipe) or not batch.indices or batch.pictures.is_floating_point():
        return batch
    turns = batch.turns or [0] * len(batch.indices)
    videos = batch.pictures.split(batch.lengths.tolist())
    pieces = [
        augmented(pictures, recipe, random_of(recipe.seed, epoch, index, turn, AUGMENTATION))
        for index, turn, pictures in zip(batch.indices, turns, videos, strict=True)
    ]
    return replace(batch, pictures=torch.cat(pieces))


def augmented(pictures: Tensor, recipe: Recipe, random: np.random.Generator) -> Tensor:
    """The pictures of one video, augmented."""
    # All values are always drawn, in this order, so that no option changes the values of another one.
    mirrored = bool(random.random() < 0.5)
    contrast, brightness = random.uniform(-recipe.gain, recipe.gain, 2)
    moves = random.uniform(-recipe.shift, recipe.shift, 2)
    exponent, zoom = factor(random, recipe.gamma), factor(random, recipe.depth)
    share, on_the_left = random.uniform(0, recipe.crop), random.random()
    seed = int(random.integers(2**63))
    if recipe.flip and mirrored:
        pictures = pictures.flip(2)
    if recipe.crop:
        pictures = cropped(pictures, share * on_the_left, share * (1 - on_the_left))
    if recipe.depth:
        pictures = zoomed(pictures, zoom)
    if recipe.shift:
        rows, columns = (round(m * n) for m, n in zip(moves, pictures.shape[1:3], strict=True))
        pictures = shifted(pictures, rows, columns)
    if recipe.speckle:
        pictures = speckled(pictures, recipe.speckle, seed)
    if recipe.gamma:
        pictures = curved(pictures, exponent)
    if recipe.gain:
        brighter = pictures.float() * (1 + contrast) + 64 * brightness * (pictures > 0)
        pictures = brighter.clamp(0, 255).to(torch.uint8)
    return pictures


def factor(random: np.random.Generator, most: float) -> float:
    """A factor from 1 / (1 + most) to 1 + most, above 1 as often as below."""
    return math.exp(random.uniform(-1, 1) * math.log1p(most))


def cropped(pictures: Tensor, left: float, right: float) -> Tensor:
    """Cuts away these shares of the width, and stretches the rest to the full width: the sector of a
    probe with a narrower field of view."""
    last = pictures.shape[2] - 1
    places = torch.linspace(left * last, (1 - right) * last, last + 1).clamp(0, last)
    return resampled(pictures, 2, places)


def zoomed(pictures: Tensor, zoom: float) -> Tensor:
    """Stretches the depth axis by a factor, about the top row: another depth setting of the scanner.

    With a factor below 1 the bottom becomes black.
    """
    return resampled(pictures, 1, torch.arange(pictures.shape[1]) / zoom)


def resampled(pictures: Tensor, axis: int, places: Tensor) -> Tensor:
    """Pictures whose rows (axis 1) or columns (axis 2) are those at `places`, float (place,) with 0
    for the first one. Linear between two of them, black after the last one."""
    last = pictures.shape[axis] - 1
    places = places.to(pictures.device)
    before = places.floor().clamp(0, last).long()
    weight = places - before
    weight, inside = (
        values.reshape([-1 if i == axis else 1 for i in range(pictures.ndim)])
        for values in (weight, places <= last)
    )
    one, other = (
        pictures.index_select(axis, at).float() for at in (before, (before + 1).clamp(max=last))
    )
    return (one.lerp(other, weight) * inside).round().to(torch.uint8)


def shifted(pictures: Tensor, rows: int, columns: int) -> Tensor:
    """Moves pictures down and right and pads them with black."""
    moved = torch.zeros_like(pictures)
    height, width = pictures.shape[1:3]
    source = pictures[
        :, max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    top, left = max(rows, 0), max(columns, 0)
    moved[:, top : top + source.shape[1], left : left + source.shape[2]] = source
    return moved


def speckled(pictures: Tensor, deviation: float, seed: int) -> Tensor:
    """Multiplies each picture by noise of its own, with mean 1 and this standard deviation.

    The noise is the mean of 2 x 2 normal values, so that neighbouring pixels correlate by 0.5 and
    those two pixels apart do not. The same seed gives the same noise on the same
    kind of device.
    """
    count, rows, columns = pictures.shape[:3]
    generator = torch.Generator(pictures.device).manual_seed(seed)
    white = torch.randn(
        count, 1, rows + 1, columns + 1, generator=generator, device=pictures.device
    )
    noise = 2 * F.avg_pool2d(white, 2, stride=1)[:, 0]  # the mean of four has half the deviation
    noise = noise if pictures.ndim == 3 else noise[..., None]
    return (pictures * (1 + deviation * noise)).clamp(0, 255).round().to(torch.uint8)


def curved(pictures: Tensor, exponent: float) -> Tensor:
    """Raises levels, from black 0 to white 1, to a power: another gray curve of the display."""
    return ((pictures.float() / 255) ** exponent * 255).round().to(torch.uint8)
