"""The order of the training videos in an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lus_cli.cache.batches import in_batches
from lus_cli.recipes.recipe import Recipe


def epoch_order(
    indices: Sequence[int], scores: np.ndarray, recipe: Recipe, epoch: int
) -> list[list[int]]:
    """The videos of each step of an epoch, shuffled over all patients.

    With `balanced_sampling`, there are as many draws as videos and every score is drawn equally
    often. Videos of rare scores are repeated; the counts of two videos of one score differ by at
    most one.
    """
    random = np.random.default_rng([recipe.seed, epoch])
    step_videos = recipe.batch_size * recipe.accumulate
    if not recipe.balanced_sampling:
        return in_batches([indices[i] for i in random.permutation(len(indices))], step_videos)
    videos = np.asarray(indices, int)
    present = np.unique(scores[videos]).tolist()
    drawn: list[int] = []
    for place, score in enumerate(present):
        candidates = videos[scores[videos] == score]
        # The first scores get the remainder of the division, so that the total is exact.
        draws = len(indices) // len(present) + (place < len(indices) % len(present))
        rounds = -(-draws // len(candidates))
        shuffled = np.concatenate([random.permutation(candidates) for _ in range(rounds)])
        drawn += shuffled[:draws].tolist()
    return in_batches([drawn[i] for i in random.permutation(len(drawn))], step_videos)


def turns_of(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each video of each step, how often it was already drawn in this epoch."""
    seen: Counter[int] = Counter()
    turns: list[list[int]] = []
    for group in groups:
        turns.append([])
        for index in group:
            turns[-1].append(seen[index])
            seen[index] += 1
    return turns
