"""Scoring videos with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from lus_cli.cache.batches import Batch, BatchLoader, in_batches
from lus_cli.model.devices import SCORING_BYTES, frames_at_once
from lus_cli.model.network import CLASSES, LusModel, Output
from lus_cli.model.ranks import ALONE, Ranks
from lus_cli.progress import Progress

CHECKPOINT_FRAMES = 32  # whose activations are in memory at the same time with --checkpointing
# Receives each batch and the model's output for it, to keep more than the logits.
Keep = Callable[[Batch, Output], None]


def score_videos(
    model: LusModel,
    loader: BatchLoader,
    indices: Sequence[int],
    *,
    pad_to: int,
    task: str,
    progress: Progress,
    ranks: Ranks = ALONE,
    keep: Keep | None = None,
) -> np.ndarray:
    """The logits of videos, (video, class) float32, in the order of `indices`.

    Runs on the device of the model, in evaluation mode, one batch at a time, with a bounded number
    of frames in the CNN at once. Each of several processes scores its share and returns all logits.
    `keep` is called with each batch and the output of the model.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    at_once = scored_at_once(model, loader)
    share = [np.zeros((0, CLASSES), np.float32)]
    try:
        with torch.inference_mode():
            for batch in loader.batches(in_batches(ranks.share(indices), loader.recipe.batch_size)):
                output = predict(model, batch.to(device), pad_to, parts_of(batch, at_once))
                share.append(output.logits.float().cpu().numpy())
                if keep is not None:
                    keep(batch, output)
                progress(task, min(sum(map(len, share)) * ranks.world, len(indices)), len(indices))
    finally:
        model.train(was_training)
    logits = np.empty((len(indices), CLASSES), np.float32)
    for rank, part in enumerate(ranks.gathered(np.concatenate(share))):
        logits[rank :: ranks.world] = part
    return logits


def scored_at_once(model: LusModel, loader: BatchLoader) -> int:
    """The number of frames in the CNN at once without gradients, with --checkpointing at most
    CHECKPOINT_FRAMES."""
    most = frames_at_once(model.backbone, loader.videos.frame_format.shape, SCORING_BYTES)
    return min(most, CHECKPOINT_FRAMES) if loader.recipe.checkpointing else most


def parts_of(batch: Batch, at_once: int) -> list[int]:
    """Splits the frames of a batch into parts of at most `at_once`; returns the size of each."""
    frames = int(batch.lengths.sum())
    return [min(at_once, frames - start) for start in range(0, frames, at_once)]


def predict(model: LusModel, batch: Batch, pad_to: int, parts: Sequence[int] = ()) -> Output:
    """The output of a model for a batch of frames, or of feature maps of its frozen CNN."""
    if batch.frames.is_floating_point():
        return model.score(batch.frames.float(), batch.lengths, pad_to)
    output: Output = model(batch.frames, batch.lengths, pad_to, parts)
    return output


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the classes: (video, class) float64, rows summing to 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponent: np.ndarray = np.exp(shifted)
    return exponent / exponent.sum(axis=1, keepdims=True)
