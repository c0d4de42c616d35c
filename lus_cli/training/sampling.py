"""The order of an epoch: which videos, in which batches, how often."""

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

    With `balanced_sampling` as many draws as videos, every score equally often: a rare score's
    videos come up again, none more than once more than another of its score.
    """
    random = np.random.default_rng([recipe.seed, epoch])
    videos_a_step = recipe.batch_size * recipe.accumulate
    if not recipe.balanced_sampling:
        return in_batches([indices[i] for i in random.permutation(len(indices))], videos_a_step)
    present = sorted({int(scores[i]) for i in indices})
    chosen: list[int] = []
    for turn, score in enumerate(present):
        mine = [i for i in indices if scores[i] == score]
        # The remainder of the division goes to the first scores, so the total is exact.
        wanted = len(indices) // len(present) + (turn < len(indices) % len(present))
        rounds = -(-wanted // len(mine))
        drawn = np.concatenate([random.permutation(mine) for _ in range(rounds)])
        chosen += drawn[:wanted].tolist()
    return in_batches([chosen[i] for i in random.permutation(len(chosen))], videos_a_step)


def turns_of(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """How often each video of each step has come up in the epoch before: 0 for the first time."""
    seen: Counter[int] = Counter()
    turns: list[list[int]] = []
    for group in groups:
        turns.append([])
        for index in group:
            turns[-1].append(seen[index])
            seen[index] += 1
    return turns
