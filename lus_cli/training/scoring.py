"""Scoring videos with a trained model, without learning from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lus_cli.cache.batches import Batch, BatchLoader, grouped
from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.other_study import OtherStudy
from lus_cli.cache.split import Split, load_split, read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import Card, digest_of, load_best
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
            for batch in loader.batches(grouped(ranks.share(indices), loader.recipe.batch_size)):
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


@dataclass(frozen=True)
class TrainedRun:
    """A trained model, the videos it can score and the split it was trained with."""

    run: Run
    model: LusModel
    card: Card
    videos: VideoCache
    split: Split  # without patients where the run's folder does not say whom it was trained on
    weights: str  # digest_of those that the model had when it was opened

    def probabilities(
        self,
        indices: Sequence[int],
        task: str,
        progress: Progress,
        keep: Keep | None = None,
    ) -> np.ndarray:
        """What the model answers for videos of the cache: (video, class), rows summing to 1."""
        loader = BatchLoader(self.videos, self.card.recipe, keep=False)
        logits = score_videos(
            self.model,
            loader,
            indices,
            pad_to=self.card.longest,
            task=task,
            progress=progress,
            keep=keep,
        )
        wrong = [index for index, row in zip(indices, logits, strict=True) if not_finite(row)]
        if wrong:
            raise LusError(
                f"what run {self.run.name} predicts for video {self.videos.ids[wrong[0]]} is not a "
                "number",
                "try --device cpu; if that does not help, train a new run",
            )
        return softmax(logits)


def not_finite(values: np.ndarray) -> bool:
    return not np.isfinite(values).all()


def open_run(cache: Cache, name: str | None, device: torch.device) -> TrainedRun:
    """The run called `name`, or the latest, with its model on `device` and its own study.

    Raises LusError if the cache now holds other videos than the run was trained on, or if the run's
    folder, or the cache, came here without what says which these are.
    """
    run = cache.run(name)
    model, card = load_best(run.best)
    for path, what in ((cache.videos, "its study"), (run.split, "whom it was trained on")):
        if not path.is_file():
            raise LusError(
                f"run {run.name} came without {what}: there is no {path}",
                "copy it from where the run was trained; without it `lus predict` scores new videos, "
                "and `lus evaluate --videos` another study",
            )
    videos = VideoCache(cache.videos)
    if videos.fingerprint != card.fingerprint:
        raise LusError(
            f"{cache.videos} holds other videos than run {run.name} was trained on",
            "prepare the study of that run again, or train a new run with `lus train`",
        )
    split, _ = read_split(run.split, videos.patients)
    weights = digest_of(model.state_dict())
    return TrainedRun(run, on_device(model, device, card), card, videos, split, weights)


def open_elsewhere(
    cache: Cache, name: str | None, device: torch.device, other: Path
) -> tuple[TrainedRun, VideoCache | None]:
    """The run called `name`, or the latest, beside the videos of another study.

    With it the videos it was trained on, if the cache still holds them.
    """
    run = cache.run(name)
    model, card = load_best(run.best)
    split = load_split(run.split)[0] if run.split.is_file() else Split((), (), ())
    videos = OtherStudy(other, card.frame_format)
    home = VideoCache(cache.videos) if cache.videos.is_file() else None
    if home is not None and home.fingerprint != card.fingerprint:
        home = None
    weights = digest_of(model.state_dict())
    return TrainedRun(run, on_device(model, device, card), card, videos, split, weights), home


def on_device(model: LusModel, device: torch.device, card: Card) -> LusModel:
    model.frames_at_once = frames_at_once(model.backbone, card.frame_format.shape, SCORING_BYTES)
    return model.to(device)
