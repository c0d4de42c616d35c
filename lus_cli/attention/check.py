"""Whether the maps depend on what a model learned: weights are drawn anew (Adebayo et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from lus_cli.attention.saliency import STAGES, explained, randomised, to_largest
from lus_cli.cache.batches import select_frames
from lus_cli.model.network import LusModel
from lus_cli.progress import Progress
from lus_cli.training.trained_run import TrainedRun

ATTENTION, GRAD_CAM = "attention", "Grad-CAM"
VIDEOS = 24  # evenly over the split
SEEDS = 3
OTHER = "nothing, but another video"  # how alike the maps of two videos are anyway
ALIKE = 0.5  # a rank correlation from which two maps show much the same


def checked(
    trained: TrainedRun, indices: Sequence[int], progress: Progress
) -> dict[str, dict[str, dict[str, float | None]]]:
    """How alike maps are before and after weights were drawn anew (Adebayo et al. 2018), by stage
    and kind of map: mean `spearman` over the cells, over frames and seeds.

    The last row compares the maps of different videos under the weights as they are.
    """
    places = np.unique(np.linspace(0, len(indices) - 1, min(len(indices), VIDEOS)).astype(int))
    videos = [scored_frames(trained, indices[place]) for place in places]
    now = [both_maps(trained.model, frames, trained.card.longest, None) for frames in videos]
    answers = [answer for _, answer in now]
    rows: dict[str, Any] = {}
    for number, stage in enumerate(STAGES):
        then = []
        for seed in range(SEEDS):
            progress("draw weights anew", number * SEEDS + seed, len(STAGES) * SEEDS)
            some = torch.cat([frames[:2] for frames in videos])
            fresh = randomised(trained.model, stage, seed, some)
            then += [
                both_maps(fresh, frames, trained.card.longest, answer)[0]
                for frames, answer in zip(videos, answers, strict=True)
            ]
        rows[stage] = alike([maps for maps, _ in now] * SEEDS, then)
    own = [maps for maps, _ in now]
    rows[OTHER] = alike(own, own[1:] + own[:1]) if len(own) > 1 else {}
    return rows


def scored_frames(trained: TrainedRun, index: int) -> torch.Tensor:
    recipe = trained.card.recipe
    length = int(trained.videos.lengths[index])
    positions = select_frames(length, recipe.stride, recipe.frames_per_video)
    device = next(trained.model.parameters()).device
    return torch.from_numpy(trained.videos.read(index, positions)).to(device)


def both_maps(
    model: LusModel, frames: torch.Tensor, pad_to: int, score: int | None
) -> tuple[dict[str, np.ndarray], int]:
    """The masks and the Grad-CAM of a video's frames, in [0, 1], and the score these speak for."""
    output, maps = explained(model, frames, pad_to, score)
    answered = int(output.logits[0].argmax()) if score is None else score
    grad_cam = to_largest(maps.float().cpu().numpy())
    return {ATTENTION: output.masks.float().cpu().numpy(), GRAD_CAM: grad_cam}, answered


def alike(
    ones: Sequence[dict[str, np.ndarray]], others: Sequence[dict[str, np.ndarray]]
) -> dict[str, dict[str, float | None]]:
    """Mean likeness of maps, frame by frame, for each kind."""
    figures: dict[str, dict[str, float | None]] = {}
    for kind in (ATTENTION, GRAD_CAM):
        pairs = [
            pair
            for one, other in zip(ones, others, strict=True)
            for pair in zip(one[kind], other[kind], strict=False)
        ]
        ranks = np.array([spearman(*pair) for pair in pairs])
        defined = ranks[~np.isnan(ranks)]
        figures[kind] = {
            "spearman": float(defined.mean()) if len(defined) else None,
            "frames": len(pairs),
            "flat": len(pairs) - len(defined),
        }
    return figures


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation of two maps, cell by cell; NaN if either is the same everywhere."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other, axis=None).statistic)


def in_words(found: dict[str, Any]) -> list[str]:
    """What the check says of each kind of map: a row is kept for every stage."""
    words = []
    for kind, stage in ((ATTENTION, "attention"), (GRAD_CAM, STAGES[0])):
        some, whole = (found[name][kind]["spearman"] for name in (stage, STAGES[-1]))
        other = found[OTHER].get(kind, {}).get("spearman")
        if some is None or whole is None:
            words.append(f"{kind}: flat under random weights, so nothing can be compared.")
            continue
        depends = max(some, whole) < ALIKE
        text = (
            f"{kind}: rank correlation with what it was {some:.2f} once the {stage} is drawn anew, "
            f"{whole:.2f} once everything is; "
        )
        text += "it depends on what was learned" if depends else "much of it is there untrained"
        if other is not None:
            text += f". Between two videos it is {other:.2f}"
            text += ": it hardly depends on the video" if other >= ALIKE else ""
        words.append(text + ".")
    return words
