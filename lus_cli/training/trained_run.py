"""A trained run: its model, its split and the videos it scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
from lus_cli.study.ids import VideoId
from lus_cli.training.scoring import Keep, score_videos, softmax
from lus_cli.words import counted, shortened


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, and the folder in which the results computed with it lie."""

    run: Run
    model: LusModel
    card: Card
    weights: str  # digest_of the weights when they were read
    folds: tuple[str, ...] = ()  # the runs whose mean it is; empty for the model of one run

    @property
    def title(self) -> str:
        return f"run {self.run.name}"

    @property
    def split(self) -> Split:
        """The split it was trained with; empty if its folder has none. Raises LusError."""
        return load_split(self.run.split)[0] if self.run.split.is_file() else Split((), (), ())

    @cached_property
    def words(self) -> dict[str, str]:
        """How patients were used in training, as words; without those that it has never seen."""
        split, leaves_out = self.split, self.card.recipe.leave_out
        trained = "the model was trained on it"
        selected = trained if leaves_out else "the model's best epoch was chosen on it"
        return dict.fromkeys(split.train, trained) | dict.fromkeys(split.validation, selected)

    def use_of(self, video: VideoId) -> str:
        """How a video of its study was used in training, as words; "" if it was not.

        Raises LusError if the split of the run cannot be read.
        """
        return self.words.get(video.patient, "")


def mean_notes(folds: Sequence[str]) -> list[str]:
    """A sentence that names the runs whose mean a model is; none for the model of one run."""
    if not folds:
        return []
    return [
        f"predictions are the mean of {counted(len(folds), 'model')}, one per fold and repetition: "
        f"{shortened(folds)}"
    ]


def load_run(run: Run, weights: Path | None = None) -> TrainedModel:
    """The model of a run, on the CPU.

    weights: a copy of best.safetensors; None for the one of the run.
    Raises LusError if the weights cannot be read.
    """
    model, card = load_best(weights or run.best)
    return TrainedModel(run, model, card, digest_of(model.state_dict()))


@dataclass(frozen=True)
class TrainedRun:
    """A trained model, videos for it to score and the split it was trained with."""

    run: Run
    model: LusModel
    card: Card
    videos: VideoCache
    split: Split  # empty if the run folder has no split.json
    weights: str  # digest_of the weights when the run was opened
    folds: tuple[str, ...] = ()  # the runs of which the model is the mean, see TrainedModel

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
    trained = load_run(run)
    card = trained.card
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
    model = on_device(trained.model, device, card)
    return TrainedRun(run, model, card, videos, split, trained.weights)


def open_elsewhere(
    cache: Cache, trained: TrainedModel, device: torch.device, other: Path
) -> tuple[TrainedRun, VideoCache | None]:
    """A trained model on `device`, with the videos of another study.

    Returns also the videos it was trained on, or None if the cache no longer holds them.
    """
    card, split = trained.card, trained.split
    videos = OtherStudy(other, card.frame_format)
    home = VideoCache(cache.videos) if cache.videos.is_file() else None
    if home is not None and home.fingerprint != card.fingerprint:
        home = None
    model = on_device(trained.model, device, card)
    return TrainedRun(trained.run, model, card, videos, split, trained.weights, trained.folds), home


def on_device(model: LusModel, device: torch.device, card: Card) -> LusModel:
    """Moves a model to `device` and bounds the memory of its CNN."""
    shape = pictures_of(card.recipe).shape(card.frame_format.shape)
    model.frames_at_once = frames_at_once(model.backbone, shape, SCORING_BYTES)
    return model.to(device)
