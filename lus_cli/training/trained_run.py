"""A trained run: its model, its split and the videos it scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lus_cli.cache.batches import BatchLoader, pictures_of
from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.other_study import OtherStudy
from lus_cli.cache.split import Split, load_split, read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import Card, digest_of, load_best
from lus_cli.model.devices import SCORING_BYTES, frames_at_once
from lus_cli.model.network import LusModel
from lus_cli.progress import Progress
from lus_cli.training.scoring import Keep, score_videos, softmax


@dataclass(frozen=True)
class TrainedRun:
    """A trained model, videos for it to score and the split it was trained with."""

    run: Run
    model: LusModel
    card: Card
    videos: VideoCache
    split: Split  # empty if the run folder has no split.json
    weights: str  # digest_of the weights when the run was opened

    def probabilities(
        self,
        indices: Sequence[int],
        task: str,
        progress: Progress,
        keep: Keep | None = None,
    ) -> np.ndarray:
        """The predicted probabilities of videos of the cache: (video, class), rows summing to 1."""
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
                "finite number",
                "try --device cpu; if that does not help, train a new run",
            )
        return softmax(logits)


def not_finite(values: np.ndarray) -> bool:
    return not np.isfinite(values).all()


def open_run(cache: Cache, name: str | None, device: torch.device) -> TrainedRun:
    """The run called `name`, or the latest, with its model on `device` and its study.

    Raises LusError if the cache holds other videos than the run was trained on, or if videos.h5 or
    the split.json of the run is missing.
    """
    run = cache.run(name)
    model, card = load_best(run.best)
    for path, what in ((cache.videos, "study"), (run.split, "split")):
        if not path.is_file():
            raise LusError(
                f"run {run.name} has no {what}: there is no {path}",
                "copy it from where the run was trained; without it, `lus predict` scores new videos "
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
    """The run called `name`, or the latest, with the videos of another study.

    Returns also the videos it was trained on, or None if the cache no longer holds them.
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
    """Moves a model to `device` and bounds the memory of its CNN."""
    shape = pictures_of(card.recipe).shape(card.frame_format.shape)
    model.frames_at_once = frames_at_once(model.backbone, shape, SCORING_BYTES)
    return model.to(device)
