"""The machine that is measured, and the synthetic study that its parts share."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.chunks import FrameFormat, StoredVideo, store_video
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.cache.video_writer import write_video_cache
from lus_cli.model.checkpoint import new_model
from lus_cli.model.parity import speckle
from lus_cli.options import build, read_toml
from lus_cli.recipes.recipe import Recipe, recipe_path
from lus_cli.steps.devices import tf32
from lus_cli.study.annotations import UNKNOWN
from lus_cli.study.ids import VideoId
from lus_cli.training.trainer import Trainer

PATIENTS = 40
HELD_OUT = 5  # every fifth patient is for validation
Task = Callable[["Machine"], dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    side: int  # pixels of a frame
    length: int  # frames of a video
    videos: int
    different: int  # videos whose frames differ; the others repeat them
    epochs: int  # of the long run
    rounds: int  # of what is timed


# 288 videos in training, 30,000 frames; and 72 in validation.
FULL = Sizes(side=224, length=104, videos=360, different=24, epochs=35, rounds=3)
TINY = Sizes(side=64, length=3, videos=40, different=4, epochs=2, rounds=1)


@dataclass(frozen=True)
class Machine:
    """The device, and what the parts work with."""

    device: torch.device
    folder: Path  # for the synthetic study, which the first part that needs it makes
    sizes: Sizes = FULL
    cache: Path | None = None  # a prepared study of real videos
    ends: float = field(default=float("inf"))  # time.time() when the time box of the part is over

    @property
    def tiny(self) -> bool:
        return self.sizes is TINY

    def left(self) -> float:
        """Seconds until the end of the time box."""
        return self.ends - time.time()

    def sync(self) -> None:
        """Waits until the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds that `work` takes on the device."""
        self.sync()
        began = time.perf_counter()
        work()
        self.sync()
        return time.perf_counter() - began

    def median(self, work: Callable[[], object]) -> float:
        """The median seconds of some calls of `work`, after one that warms up."""
        work()
        return statistics.median(self.timed(work) for _ in range(self.sizes.rounds))

    def peak_mb(self) -> float | None:
        """Peak memory of the device since the last call of `forget_peak`."""
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def root(self) -> Path:
        return self.folder / "cache"

    def videos(self) -> VideoCache:
        """The synthetic study."""
        path = self.root / "videos.h5"
        if not path.is_file():
            make_study(path, self.sizes)
        return VideoCache(path)


def make_study(path: Path, sizes: Sizes) -> None:
    """Writes videos.h5: speckle with as many bright columns as the score says."""
    stored = [speckled(number, sizes) for number in range(sizes.different)]
    entries = [
        Entry(
            VideoId(f"p{number % PATIENTS}", "1", str(number // PATIENTS)),
            number % sizes.different % 4,
            UNKNOWN,
            UNKNOWN,
            f"key {number}",
        )
        for number in range(sizes.videos)
    ]
    by_id = {entry.id: stored[n % sizes.different] for n, entry in enumerate(entries)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video_cache(
        path, entries, lambda entry: by_id[entry.id], FrameFormat(sizes.side, False, False), {}
    )


def speckled(number: int, sizes: Sizes) -> StoredVideo:
    frames = speckle((sizes.length,), sizes.side).frames.numpy().copy()
    frames = np.roll(frames, number * 7, axis=2)
    for column in range(number % 4):
        at = (column * 2 + 1) * sizes.side // 8
        frames[:, sizes.side // 4 :, at : at + sizes.side // 16] |= 0x60
    return store_video(list(frames), range(sizes.length), (sizes.side, sizes.side))


def parts_of(videos: VideoCache) -> tuple[list[int], list[int]]:
    """The videos for training and for validation, by patient."""
    held = {f"p{number}" for number in range(0, PATIENTS, HELD_OUT)}
    validation = [i for i, video in enumerate(videos.ids) if video.patient in held]
    return [i for i in range(len(videos)) if i not in set(validation)], validation


def recipe_for(machine: Machine, **changes: Any) -> Recipe:
    """The recipe `paper`, from random weights, with changes."""
    values = read_toml(recipe_path("paper")) | {"weights": "none"} | changes
    if machine.tiny:  # whole CNNs would leave small frames a single cell
        values |= {"feature_stride": 16 if values["backbone"] == "alexnet" else 8}
    return build(Recipe, values)


def trainer_for(
    machine: Machine,
    recipe: Recipe,
    indices: list[int],
    *,
    keep: bool = True,
    events: list[dict[str, Any]] | None = None,
) -> Trainer:
    """A trainer as `lus train` sets it up.

    keep: whether pictures stay in the memory of the device.
    """
    torch.manual_seed(recipe.seed)
    loader = BatchLoader(machine.videos(), recipe, machine.device, keep=keep)
    model = new_model(recipe).to(machine.device)
    return Trainer(model, loader, indices, (events if events is not None else []).append)


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Without TF32, in which NVIDIA GPUs round to 10 bits before they multiply."""
    with tf32(False):
        yield


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two tensors, as a share of the largest value of the second."""
    one, other = one.detach().double().cpu(), other.detach().double().cpu()
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    return dataclasses.replace(recipe, **changes)
