"""Scoring videos with a trained model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from lus_cli.cache.batches import Batch, BatchLoader, in_batches
from lus_cli.cache.pictures import Pictures
from lus_cli.evaluation.metrics import label_metrics
from lus_cli.model.cells import over_frames
from lus_cli.model.decision import expected_scores
from lus_cli.model.devices import scored_at_once
from lus_cli.model.head import CLASSES, Output, elected
from lus_cli.model.losses import entropy_floor, ordinal_loss
from lus_cli.model.network import LusModel
from lus_cli.progress import Progress
from lus_cli.torchrun.group import ALONE, Group, in_order

CHECKPOINT_FRAMES = 32  # whose activations are in memory at the same time with --checkpointing
# Receives the model, each batch and the output for it, to keep more than the logits.
Keep = Callable[[LusModel, Batch, Output], None]
WARM_S = 4.0  # if the first call takes longer, it is not repeated: its own time counts
VARIANCE_VIDEOS = 64  # enough for a mean variance
Votes = Mapping[int, Sequence[int]]


def score_videos(
    model: LusModel,
    loader: BatchLoader,
    indices: Sequence[int],
    *,
    pad_to: int,
    task: str,
    progress: Progress,
    ranks: Group = ALONE,
    keep: Keep | None = None,
    votes: Votes | None = None,
    decide: bool = True,
) -> np.ndarray:
    """The logits of videos, (video, class) float32, in the order of `indices`.

    Runs on the device of the model, in evaluation mode, one batch at a time, with a bounded number
    of frames in the CNN at once. Each of several processes scores its share and returns all logits.
    It scores whole batches, as a single process makes them, because sums of floating-point numbers may
    depend on the size of a batch. `keep` is called with the model, each batch of this process and the
    output for it.

    votes: the members whose predictions count for each video, by its index; None for all.
    decide: whether the logits are those of the model's decision.
    """
    device = device_of(model)
    groups = in_batches(indices, loader.recipe.batch_size)
    share: list[np.ndarray] = []
    progress = ranks.whole(progress)
    with evaluating(model, loader):
        for batch in loader.batches(ranks.share(groups)):
            output = predict(model, batch.to(device), pad_to, votes, decide)
            share.append(output.logits.float().cpu().numpy())
            if keep is not None:
                keep(model, batch, output)
            progress(task, sum(map(len, share)), len(indices))
    none = np.zeros((0, CLASSES), np.float32)
    return np.concatenate([none, *in_order(ranks.gathered(share))])


def seconds_per_picture(
    model: LusModel, loader: BatchLoader, indices: Sequence[int], pad_to: int
) -> float:
    """How long scoring takes per picture, measured on the shortest of some videos."""
    index = indices[int(loader.videos.lengths[list(indices)].argmin())]
    batch, seconds = loader.load([index]).to(device_of(model)), 0.0
    with evaluating(model, loader):
        for _ in range(2):  # the first call warms up; if it takes long, it counts
            if seconds > WARM_S:
                break
            begun = time.perf_counter()
            predict(model, batch, pad_to).logits.cpu()  # waits for an accelerator
            seconds = time.perf_counter() - begun
    return seconds / loader.steps(index)


@contextlib.contextmanager
def evaluating(model: LusModel, loader: BatchLoader) -> Iterator[None]:
    """Sets evaluation mode, without gradients, and lets the CNN compute as many pictures at once as
    memory holds. When the block ends, restores the mode and the number of pictures."""
    was_training, at_once = model.training, model.frames_at_once
    model.eval()
    try:
        with torch.inference_mode():
            model.frames_at_once = at_once_of(model, loader)
            yield
    finally:
        model.train(was_training)
        model.frames_at_once = at_once


def device_of(model: LusModel) -> torch.device:
    return next(model.parameters()).device


def at_once_of(model: LusModel, loader: BatchLoader) -> int:
    """The number of frames in the CNN at once without gradients, with --checkpointing at most
    CHECKPOINT_FRAMES."""
    most = scored_at_once(model.backbone, loader.shape)
    return min(most, CHECKPOINT_FRAMES) if loader.recipe.checkpointing else most


def predict(
    model: LusModel,
    batch: Batch,
    pad_to: int,
    votes: Votes | None = None,
    decide: bool = True,
) -> Output:
    """The output of a model for a batch of pictures, or of feature maps of its frozen CNN.

    For `votes` and `decide` see score_videos.
    """
    features = features_of(model, batch)
    if votes is None:
        output = model.undecided(features, batch.lengths, pad_to)
    else:
        voters = membership(votes, batch.indices, len(model.heads))
        output = elected(model.outputs(features, batch.lengths, pad_to, voters), voters)
    return model.decided(output) if decide else output


def averaged_out(
    model: LusModel, loader: BatchLoader, indices: Sequence[int], pad_to: int, votes: Votes
) -> float:
    """The variance of the expected scores that averaging over all members removes, compared with the
    predictions of those that vote.

    If the members' predictions for a video have variance v, the mean of n of them is taken to have
    v / n, as for independent values. v is measured on up to VARIANCE_VIDEOS of the videos, among the
    members that are trained on them: it is about the same for new patients.
    """
    count = len(model.heads)
    step = max(-(-len(indices) // VARIANCE_VIDEOS), 1)
    some = list(indices[::step])
    device = device_of(model)
    removed: list[float] = []
    with evaluating(model, loader):
        for batch in loader.batches(in_batches(some, loader.recipe.batch_size)):
            features = features_of(model, batch.to(device))
            outputs = model.outputs(features, batch.lengths, pad_to)
            expected = torch.stack(
                [expected_scores(output.logits.float()) for output in outputs]
            ).cpu()
            for place, index in enumerate(batch.indices):
                trained = [m for m in range(count) if m not in votes[index]]
                if len(trained) > 1:
                    variance = expected[trained, place].var().item()
                    removed.append(variance * (1 / len(votes[index]) - 1 / count))
    return float(np.mean(removed)) if removed else 0.0


def membership(members: Votes, indices: Sequence[int], count: int) -> torch.Tensor:
    """(member, video) bool: whether each of `count` members is listed for each video."""
    rows = [[member in members[index] for index in indices] for member in range(count)]
    return torch.tensor(rows, dtype=torch.bool).reshape(count, len(indices))


def masks_of(model: LusModel, makes: Pictures, frames: torch.Tensor) -> np.ndarray:
    """The attention mask of each frame of a video: (frame, row, column) float32 in [0, 1].

    makes: how the pictures of the time steps are made of the frames, uint8 (frame, row, column[,
    channel]).
    """
    device = device_of(model)
    with torch.inference_mode():
        pictures = makes.of(frames).to(device)
        masks = model(pictures, torch.tensor([len(pictures)])).masks
        return over_frames(model.backbone, makes, masks.float().cpu().numpy(), frames)


def features_of(model: LusModel, batch: Batch, parts: Sequence[int] = ()) -> torch.Tensor:
    """The feature maps of a batch: (step, channel, row, column)."""
    if batch.pictures.is_floating_point():
        return batch.pictures.float()
    return model.features(batch.pictures, parts)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the classes: (video, class) float64, rows summing to 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponent: np.ndarray = np.exp(shifted)
    return exponent / exponent.sum(axis=1, keepdims=True)


def summary(logits: np.ndarray, scores: np.ndarray, loss: str) -> dict[str, float]:
    """Metrics of logits, (video, class), against scores, (video,), as means per video.

    `loss`, without class weights; `excess`, the loss minus the entropy of the soft labels, which is
    0 for a perfect prediction; `accuracy`; `kappa`, quadratic weighted, NaN if undefined.
    """
    truth = torch.from_numpy(scores)
    mean_loss = ordinal_loss(torch.from_numpy(logits), truth, loss).mean().item()
    confusion = np.zeros((1, CLASSES, CLASSES))
    np.add.at(confusion[0], (scores, logits.argmax(axis=1)), 1)
    figures = label_metrics(confusion)
    return {
        "loss": mean_loss,
        "excess": mean_loss - entropy_floor(truth, loss).mean().item(),
        "accuracy": figures["accuracy"].item(),
        "kappa": figures["kappa_quadratic"].item(),
    }
