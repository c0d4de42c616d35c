"""Which videos each member of an ensemble leaves out of its training.

With `leave_out`, the training and validation patients are dealt to as many folds as there are
members, and each member is trained without one fold and validated on it (an ensemble of the models of
a cross-validation: Krogh and Vedelsby 1995). Every patient is trained on. Every video also has
predictions by members that never saw its patient; the epoch and the decision are chosen on these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lus_cli.cache.split_drawing import People
from lus_cli.errors import LusError

LeftOut = dict[int, tuple[int, ...]]


def deal(
    indices: Sequence[int], patients: Sequence[str], scores: np.ndarray, members: int, seed: int
) -> LeftOut:
    """The members that are trained without each video.

    indices: the videos to learn from. patients, scores: of all videos of the cache.
    Folds have similar mean scores: patients are sorted by the mean score of their videos, and each
    block of as many patients as there are folds is dealt in random order. With fewer patients than
    members, several members leave out the same patient. Ids of patients that may be one person are
    left out together, see People.
    Raises LusError if there is only one patient, who cannot be left out.
    """
    chosen = np.asarray(indices)
    ids = [patients[index] for index in indices]
    names = np.asarray(People(ids).first(ids))
    random = np.random.default_rng([seed, members])
    sorted_names, owner = np.unique(names, return_inverse=True)
    mean_of = np.bincount(owner, scores[chosen]) / np.bincount(owner)
    order = random.permutation(len(sorted_names))
    unique = sorted_names[order]
    folds = min(members, len(unique))
    if folds < 2:
        raise LusError(
            f"the videos of {len(unique)} training and validation patients cannot be left out in turn",
            "train on two patients or more, or with --no-leave-out",
        )
    ordered = unique[np.argsort(mean_of[order], kind="stable")]
    fold_of: dict[str, int] = {}
    for start in range(0, len(ordered), folds):
        block = ordered[start : start + folds]
        fold_of |= dict(
            zip(block.tolist(), random.permutation(folds)[: len(block)].tolist(), strict=True)
        )
    return {
        int(index): tuple(m for m in range(members) if m % folds == fold_of[str(name)])
        for index, name in zip(chosen, names, strict=True)
    }
