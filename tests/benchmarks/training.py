"""The part `train`: the cost of an epoch besides the CNN, and compared with a plain implementation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision import transforms

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.video_cache import VideoCache
from lus_cli.model.checkpoint import new_model
from lus_cli.model.devices import set_threads
from lus_cli.model.losses import ordinal_loss
from lus_cli.model.network import LusModel, normalised
from lus_cli.options import build
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.study.ids import VideoId
from lus_cli.training.optimizer import new_optimizer
from lus_cli.training.sampling import epoch_order
from lus_cli.training.trainer import Trainer
from tests.benchmarks.measured import Measured, Rows, middle, spread_of
from tests.benchmarks.processes import lus
from tests.benchmarks.studies import QUALITY, files_of
from tests.conftest import PAPER

SIZE, LONGEST = 224, 80  # pixels, frames
SCANNER_SIZE = (1024, 768)  # pixels, of the JPEGs that the plain way decodes
SPEED_VIDEOS, ROUNDS = 8, 3
# A study like COVID-BLUES: as many videos and patients, about as many frames.
STUDY = {"--patients": 50, "--videos": 287, "--size": 128, "--max-frames": 160}
FROZEN_EPOCHS = 35
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def measure(folder: Path) -> Measured:
    measured = Measured({"train": {}})
    set_threads(0)
    speed(measured, folder)
    frozen(measured, folder)
    return measured


# ------------------------------------------------------------------------------------------- speed


def speed(measured: Measured, folder: Path) -> None:
    """Frames/s of an epoch of the recipe `paper`, of its bare CNN, and of the plain way, in turns.

    All three over the same videos in the same batches with the same threads; frames/s counts real
    frames only. The first epoch reads its frames from the disk, as the first of a run does.
    """
    exams, cache = folder / "exams", folder / "cache"
    lus("phantom", exams, "--videos", "16", "--patients", "4", "--max-frames", str(LONGEST))
    for path in files_of(exams):
        as_scanners_write(path)
    lus("prepare", exams, "--cache", cache, "--size", str(SIZE))
    recipe = build(Recipe, PAPER | {"weights": "none"})
    videos = VideoCache(cache / "videos.h5")
    indices = list(range(0, len(videos), len(videos) // SPEED_VIDEOS))[:SPEED_VIDEOS]
    frames = int(videos.lengths[indices].sum())
    trainer = Trainer(new_model(recipe), BatchLoader(videos, recipe), indices, print)
    bare = bare_cnn(trainer)
    plain = PlainWay(recipe, videos, exams)
    rates: dict[str, list[float]] = {"bare": [], "lus": [], "plain": []}
    for epoch in range(1, ROUNDS + 1):
        groups = epoch_order(indices, videos.scores, recipe, epoch)
        rates["bare"].append(frames / timed(lambda groups=groups: bare(groups)))
        rates["lus"].append(frames / timed(lambda epoch=epoch: trainer.epoch(epoch, silent)))
        real = int(videos.lengths[groups[0]].sum())
        rates["plain"].append(real / timed(lambda groups=groups: plain.step(groups[0])))
    to_bare = [ours / other for ours, other in zip(rates["lus"], rates["bare"], strict=True)]
    to_plain = [ours / other for ours, other in zip(rates["lus"], rates["plain"], strict=True)]
    measured.sections["train"] |= {
        "bare_ratio": middle(to_bare),
        "baseline_ratio": middle(to_plain),
        "bare_ratio_rounds": [round(ratio, 3) for ratio in to_bare],
        **{f"{name}_frames_per_s": middle(of) for name, of in rates.items()},
        "threads": torch.get_num_threads(),
    }
    rows = [(name, f"{middle(of):.1f} frames/s", spread_of(of), "") for name, of in rates.items()]
    rows.append(("lus / bare", f"{middle(to_bare):.2f}", spread_of(to_bare), "0.9"))
    rows.append(("lus / plain", f"{middle(to_plain):.1f}", spread_of(to_plain), "3"))
    title = (
        f"training: recipe paper at {SIZE} px, {torch.get_num_threads()} threads, {ROUNDS} rounds"
    )
    measured.tables.append(Rows(title, ("", "median", "rounds", "goal: at least"), rows))


def as_scanners_write(path: Path) -> None:
    """Makes a phantom's frame a colour JPEG of SCANNER_SIZE, in its place."""
    with Image.open(path) as image:
        frame = image.resize(SCANNER_SIZE, Image.Resampling.BICUBIC).convert("RGB")
    frame.save(path, quality=QUALITY, subsampling="4:2:0")


def timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare_cnn(trainer: Trainer) -> Any:
    """Forward and backward of the backbone alone, on frames already normalised and laid out."""
    backbone = trainer.model.backbone

    def run(groups: Sequence[Sequence[int]]) -> None:
        for images in prepared[tuple(map(tuple, groups))]:
            backbone.zero_grad(set_to_none=True)
            backbone(images).sum().backward()

    prepared: dict[Any, list[Tensor]] = {}
    for epoch in range(1, ROUNDS + 1):
        scores = trainer.loader.videos.scores
        groups = epoch_order(trainer.indices, scores, trainer.recipe, epoch)
        prepared[tuple(map(tuple, groups))] = [
            normalised(trainer.loader.load(group).frames).contiguous(
                memory_format=torch.channels_last
            )
            for group in groups
        ]
    trainer.loader.kept.clear()  # the first epoch is to read them again
    return run


class PlainWay:
    """What one would write first, and the report did: JPEGs decoded for every batch, float32
    tensors padded with zeros to the longest video, all of it through the CNN."""

    def __init__(self, recipe: Recipe, videos: VideoCache, exams: Path) -> None:
        self.recipe, self.videos, self.exams = recipe, videos, exams
        self.model: LusModel = new_model(recipe).train()
        self.optimizer = new_optimizer(self.model, recipe)
        self.turn = transforms.Compose(
            [
                transforms.Resize((SIZE, SIZE)),
                transforms.ToTensor(),
                transforms.Normalize(*IMAGENET),
            ]
        )

    def item(self, index: int) -> Tensor:
        """(frame, 3, row, column) float32 of one video."""
        paths = sorted(frame_files(self.exams, self.videos.ids[index]))
        return torch.stack([self.turn(Image.open(path).convert("RGB")) for _, path in paths])

    def step(self, group: Sequence[int]) -> None:
        longest = int(self.videos.lengths.max())
        items = [self.item(index) for index in group]
        batch = pad_sequence([*items, torch.zeros(longest, 3, SIZE, SIZE)], batch_first=True)[:-1]
        maps = self.model.backbone(batch.flatten(0, 1))
        every = torch.full((len(group),), longest)
        output = self.model.score(maps, every)
        scores = torch.from_numpy(self.videos.scores[list(group)])
        self.optimizer.zero_grad()
        ordinal_loss(output.logits, scores, self.recipe.loss).mean().backward()
        self.optimizer.step()


def frame_files(exams: Path, video: VideoId) -> Iterator[tuple[int, Path]]:
    for path in exams.joinpath(*video).glob("*.jpg"):
        yield int(path.stem.removeprefix("Frame_")), path


# ------------------------------------------------------------------------------------------ frozen


def frozen(measured: Measured, folder: Path) -> None:
    """Seconds of the whole command `lus train --freeze`, features and all."""
    exams, cache = folder / "study", folder / "study cache"
    lus("phantom", exams, *(str(part) for pair in STUDY.items() for part in pair))
    lus("prepare", exams, "--cache", cache, "--size", str(SIZE))
    flags = ["--cache", cache, "--weights", "none", "--freeze", "--epochs", str(FROZEN_EPOCHS)]
    seconds = lus("train", *flags)
    lengths = VideoCache(cache / "videos.h5").lengths
    figures = {
        f"frozen_{FROZEN_EPOCHS}_epochs_s": round(seconds, 1),
        "frozen_videos": len(lengths),
        "frozen_frames": int(np.sum(lengths)),
    }
    measured.sections["train"] |= figures
    study = f"{len(lengths)} videos, {int(np.sum(lengths)):,} frames at {SIZE} px"
    rows = [(f"{FROZEN_EPOCHS} epochs of {study}", f"{seconds / 60:.1f} min")]
    title = "lus train --freeze, the whole command, computing the feature maps included"
    measured.tables.append(Rows(title, ("", "time"), rows))
