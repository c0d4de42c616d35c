"""A trained run: its model, its split and the videos it scores."""

from __future__ import annotations

import logging
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
from lus_cli.model.devices import scored_at_once
from lus_cli.model.network import LusModel
from lus_cli.progress import Progress
from lus_cli.study.ids import VideoId
from lus_cli.torchrun.group import ALONE, Group
from lus_cli.training.scoring import Keep, score_videos, seconds_per_picture, softmax
from lus_cli.words import counted, duration, shortened

log = logging.getLogger("lus")
MANY_PICTURES = 200  # in a batch: fewer are scored within seconds even on a CPU
SOON_S = 5.0  # within which progress says by itself how long it takes


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, and the run folder that the results computed with it are written to."""

    run: Run
    model: LusModel
    card: Card
    weights: str  # digest_of the weights when they were read
    folds: tuple[str, ...] = ()  # the runs whose mean it is; empty for the model of one run
    source: Run | None = None  # where it was read from, if not from `run`

    @property
    def home(self) -> Run:
        """The folder that the model lies in, with what is known of its training."""
        return self.source or self.run

    @property
    def title(self) -> str:
        return f"{'model' if self.source else 'run'} {self.run.name}"

    @property
    def split(self) -> Split:
        """The split it was trained with; empty if its folder has none. Raises LusError."""
        return load_split(self.home.split)[0] if self.home.split.is_file() else Split((), (), ())

    @cached_property
    def words(self) -> dict[str, str]:
        """How patients were used in training, as words; without those that it has never seen."""
        split, use = self.split, use_in_words(self.card.recipe.leave_out)
        return {patient: use[part] for part in use for patient in getattr(split, part)}

    def use_of(self, video: VideoId) -> str:
        """How a video of its study was used in training, as words; "" if it was not.

        Raises LusError if its split cannot be read.
        """
        return self.words.get(video.patient, "")


def use_in_words(leaves_out: bool) -> dict[str, str]:
    """How the videos of train and of validation were used. leaves_out: see the recipe."""
    trained = "the model was trained on it"
    selected = trained if leaves_out else "the model's best epoch was chosen on it"
    return {"train": trained, "validation": selected}


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
        group: Group = ALONE,
    ) -> np.ndarray:
        """The predicted probabilities of videos of the cache: (video, class), rows summing to 1.

        keep, group: see score_videos.
        """
        loader = BatchLoader(self.videos, self.card.recipe, keep=False)
        if group.first:
            self.forecast(loader, indices, task, group.world)
        logits = score_videos(
            self.model,
            loader,
            indices,
            pad_to=self.card.pad_to,
            task=task,
            progress=progress,
            ranks=group,
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

    def forecast(
        self, loader: BatchLoader, indices: Sequence[int], task: str, processes: int
    ) -> None:
        """Logs how long scoring takes, if the first batch, which is the first progress, takes long."""
        first = sum(map(loader.steps, indices[: self.card.recipe.batch_size]))
        if first < MANY_PICTURES:
            return
        each = seconds_per_picture(self.model, loader, indices, self.card.pad_to)
        if first * each > SOON_S:
            whole = each * sum(map(loader.steps, indices)) / processes
            log.info("%s: roughly %s, judging by one video", task, duration(whole))


def not_finite(values: np.ndarray) -> bool:
    return not np.isfinite(values).all()


def open_run(cache: Cache, name: str | None, device: torch.device) -> TrainedRun:
    """The run called `name`, or the latest, with its model on `device` and its study.

    Raises LusError if the cache does not hold the videos that the run was trained on, or if
    videos.h5 or the split.json of the run is missing.
    """
    run = cache.run(name)
    cache = run.cache  # not that of --cache if the run is given by its path
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
            f"{cache.videos} does not hold the videos that run {run.name} was trained on",
            "prepare the study of that run again, or train a new run with `lus train`",
        )
    split, _ = read_split(run.split, videos.patients)
    model = on_device(trained.model, device, card)
    return TrainedRun(run, model, card, videos, split, trained.weights)


def open_elsewhere(
    trained: TrainedModel, device: torch.device, other: Path
) -> tuple[TrainedRun, VideoCache | None]:
    """A trained model on `device`, with the videos of another study.

    Returns also the videos it was trained on, or None if its cache no longer holds them.
    """
    card, split = trained.card, trained.split
    videos = OtherStudy(other, card.frame_format)
    study = trained.home.cache.videos
    home = VideoCache(study) if study.is_file() else None
    if home is not None and home.fingerprint != card.fingerprint:
        home = None
    model = on_device(trained.model, device, card)
    return TrainedRun(trained.run, model, card, videos, split, trained.weights, trained.folds), home


def on_device(model: LusModel, device: torch.device, card: Card) -> LusModel:
    """Moves a model to `device` and bounds the memory of its CNN."""
    shape = pictures_of(card.recipe).shape(card.frame_format.shape)
    model.to(device)
    model.frames_at_once = scored_at_once(model.backbone, shape)
    return model
