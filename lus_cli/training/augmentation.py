"""Augmentation of the frames of a video, as a function of seed, epoch and video."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lus_cli.cache.batches import AUGMENTATION, Batch, random_of
from lus_cli.recipes.recipe import Recipe


def augment(batch: Batch, recipe: Recipe, epoch: int) -> Batch:
    """Augments each video of a batch as the recipe says, all its pictures in the same way.

    Videos are mirrored left to right, changed in brightness and contrast, and shifted, which imitates
    another operator, gain or patient. They are never flipped upside down, since depth has a meaning
    in ultrasound.
    """
    if not (recipe.flip or recipe.gain or recipe.shift) or not batch.indices:
        return batch
    pieces = []
    turns = batch.turns or [0] * len(batch.indices)
    videos = batch.pictures.split(batch.lengths.tolist())
    for index, turn, frames in zip(batch.indices, turns, videos, strict=True):
        random = random_of(recipe, epoch, index, turn, AUGMENTATION)
        mirrored = bool(random.random() < 0.5)
        contrast, brightness = random.uniform(-recipe.gain, recipe.gain, 2)
        moves = random.uniform(-recipe.shift, recipe.shift, 2)
        if recipe.flip and mirrored:
            frames = frames.flip(2)
        if recipe.shift:
            frames = shifted(
                frames, *(round(m * n) for m, n in zip(moves, frames.shape[1:3], strict=True))
            )
        if recipe.gain:
            brighter = frames.float() * (1 + contrast) + 64 * brightness * (frames > 0)
            frames = brighter.clamp(0, 255).to(torch.uint8)
        pieces.append(frames)
    return replace(batch, pictures=torch.cat(pieces))


def shifted(frames: Tensor, rows: int, columns: int) -> Tensor:
    """Frames, (frame, row, column[, channel]), moved down and right and padded with black."""
    moved = torch.zeros_like(frames)
    height, width = frames.shape[1:3]
    source = frames[
        :, max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    top, left = max(rows, 0), max(columns, 0)
    moved[:, top : top + source.shape[1], left : left + source.shape[2]] = source
    return moved
