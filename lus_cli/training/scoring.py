"""Scoring videos with a trained model, without learning from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from lus_cli.cache.batches import Batch, BatchLoader, in_batches
from lus_cli.model.devices import SCORING_BYTES, frames_at_once
from lus_cli.model.network import CLASSES, LusModel, Output
from lus_cli.model.ranks import ALONE, Ranks
from lus_cli.progress import Progress

CHECKPOINT_FRAMES = 32  # whose activations are in memory at a time, with --checkpointing
# Takes from a batch and its answer what is wanted beside the logits.
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

    On the device the model is on, in evaluation mode, one batch at a time, of which a bounded
    number of frames goes through the CNN at once; each of several processes scores its share and
    has all predictions afterwards. `keep` is given each batch and what the model says about it.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    at_once = scored_at_once(model, loader)
    own = [np.zeros((0, CLASSES), np.float32)]
    try:
        with torch.inference_mode():
            for batch in loader.batches(in_batches(ranks.share(indices), loader.recipe.batch_size)):
                output = answer(model, batch.to(device), pad_to, parts_of(batch, at_once))
                own.append(output.logits.float().cpu().numpy())
                if keep is not None:
                    keep(batch, output)
                progress(task, min(sum(map(len, own)) * ranks.world, len(indices)), len(indices))
    finally:
        model.train(was_training)
    answers = np.empty((len(indices), CLASSES), np.float32)
    for rank, part in enumerate(ranks.gathered(np.concatenate(own))):
        answers[rank :: ranks.world] = part
    return answers


def scored_at_once(model: LusModel, loader: BatchLoader) -> int:
    """How many frames go through the CNN at once where nothing is learned: no more than training
    takes at a time where it is to save memory."""
    most = frames_at_once(model.backbone, loader.videos.frame_format.shape, SCORING_BYTES)
    return min(most, CHECKPOINT_FRAMES) if loader.recipe.checkpointing else most


def parts_of(batch: Batch, at_once: int) -> list[int]:
    """The numbers of frames, `at_once` at most, that go through the CNN one after the other."""
    frames = int(batch.lengths.sum())
    return [min(at_once, frames - start) for start in range(0, frames, at_once)]


def answer(model: LusModel, batch: Batch, pad_to: int, parts: Sequence[int] = ()) -> Output:
    """What a model says about a batch of frames, or of what its frozen CNN made of them."""
    if batch.frames.is_floating_point():
        return model.score(batch.frames.float(), batch.lengths, pad_to)
    output: Output = model(batch.frames, batch.lengths, pad_to, parts)
    return output


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the classes: (video, class) float64, rows summing to 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponent: np.ndarray = np.exp(shifted)
    return exponent / exponent.sum(axis=1, keepdims=True)
