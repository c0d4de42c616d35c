"""Check whether the maps depend on what a model learned: randomise its weights (Adebayo et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from lus_cli.attention.saliency import STAGES, predict_with_grad_cam, randomised, scale_to_one
from lus_cli.cache.batches import pictures_of, select_frames
from lus_cli.model.network import LusModel
from lus_cli.progress import Progress
from lus_cli.training.trained_run import TrainedRun

ATTENTION, GRAD_CAM = "attention", "Grad-CAM"
VIDEOS = 24  # evenly spaced over the split
SEEDS = 3
OTHER_VIDEO = "none, another video"  # how similar the maps of two different videos are
SIMILAR = 0.5  # two maps with this rank correlation or more show much the same

# Kind of map -> `spearman` (the mean over frames and seeds), the number of `frames`, and how many of
# these are `flat` in one of the two maps, so that their correlation is undefined.
Similarity = dict[str, dict[str, float | None]]


def compare_with_randomised(
    trained: TrainedRun, indices: Sequence[int], progress: Progress
) -> dict[str, Similarity]:
    """The rank correlation of maps before and after the weights are randomised, for each stage.

    The last row compares the maps of different videos under the trained weights.
    """
    chosen = np.unique(np.linspace(0, len(indices) - 1, min(len(indices), VIDEOS)).astype(int))
    videos = [scored_pictures(trained, indices[number]) for number in chosen]
    pad_to = trained.card.pad_to
    before = [both_maps(trained.model, frames, pad_to, None) for frames in videos]
    trained_maps = [maps for maps, _ in before]
    rows: dict[str, Similarity] = {}
    for number, stage in enumerate(STAGES):
        random_maps = []
        for seed in range(SEEDS):
            progress("randomise weights", number * SEEDS + seed, len(STAGES) * SEEDS)
            sample = torch.cat([frames[:2] for frames in videos])
            model = randomised(trained.model, stage, seed, sample)
            random_maps += [
                both_maps(model, frames, pad_to, score)[0]
                for frames, (_, score) in zip(videos, before, strict=True)
            ]
        rows[stage] = similarity(trained_maps * SEEDS, random_maps)
    shifted = trained_maps[1:] + trained_maps[:1]
    rows[OTHER_VIDEO] = similarity(trained_maps, shifted) if len(trained_maps) > 1 else {}
    return rows


def scored_pictures(trained: TrainedRun, index: int) -> torch.Tensor:
    """The pictures of the time steps of a video, on the device of the model."""
    recipe = trained.card.recipe
    length = int(trained.videos.lengths[index])
    positions = select_frames(length, recipe.stride, recipe.frames_per_video)
    device = next(trained.model.parameters()).device
    frames = torch.from_numpy(trained.videos.read(index, positions))
    return pictures_of(recipe).of(frames).to(device)


def both_maps(
    model: LusModel, frames: torch.Tensor, pad_to: int, score: int | None
) -> tuple[dict[str, np.ndarray], int]:
    """The masks and the Grad-CAM of a video's frames, in [0, 1], and the score they explain.

    score: None for the predicted score.
    """
    output, maps = predict_with_grad_cam(model, frames, pad_to, score)
    explained_score = int(output.logits[0].argmax()) if score is None else score
    saliency = scale_to_one(maps.float().cpu().numpy())
    return {ATTENTION: output.masks.float().cpu().numpy(), GRAD_CAM: saliency}, explained_score


def similarity(
    ones: Sequence[dict[str, np.ndarray]], others: Sequence[dict[str, np.ndarray]]
) -> Similarity:
    """The mean rank correlation of the maps of two sets of videos, frame by frame, for each kind."""
    by_kind: Similarity = {}
    for kind in (ATTENTION, GRAD_CAM):
        pairs = [
            pair
            for one, other in zip(ones, others, strict=True)
            for pair in zip(one[kind], other[kind], strict=False)
        ]
        correlations = np.array([spearman(*pair) for pair in pairs])
        defined = correlations[~np.isnan(correlations)]
        by_kind[kind] = {
            "spearman": float(defined.mean()) if len(defined) else None,
            "frames": len(pairs),
            "flat": len(pairs) - len(defined),
        }
    return by_kind


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation of two maps over their cells. NaN if one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other, axis=None).statistic)


def describe_check(rows: dict[str, Similarity]) -> list[str]:
    """The result for each kind of map, one sentence or two each."""
    sentences = []
    for kind, stage in ((ATTENTION, "attention"), (GRAD_CAM, STAGES[0])):
        part, whole = (rows[name][kind]["spearman"] for name in (stage, STAGES[-1]))
        other_video = rows[OTHER_VIDEO].get(kind, {}).get("spearman")
        if part is None or whole is None:
            sentences.append(
                f"{kind}: the maps of random weights are constant and cannot be compared."
            )
            continue
        learned = max(part, whole) < SIMILAR
        text = (
            f"{kind}: the rank correlation with the original map is {part:.2f} after the weights of "
            f"the {stage} are randomised, and {whole:.2f} after all weights are; "
        )
        text += (
            "the map depends on what the model learned"
            if learned
            else "much of the map appears without training"
        )
        if other_video is not None:
            text += f". Between two videos it is {other_video:.2f}"
            text += ": the map hardly depends on the video" if other_video >= SIMILAR else ""
        sentences.append(text + ".")
    return sentences
