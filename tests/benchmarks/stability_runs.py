"""Training runs that look for steps whose gradient is not finite.

Training is the real one (`Trainer`), without validation and checkpoints, which change no step.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.chunks import FrameFormat
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import new_model
from lus_cli.options import build, read_toml
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe, recipe_path
from lus_cli.training.trainer import Trainer

PAPER = read_toml(recipe_path("paper"))  # what that recipe changes
LONGEST = 252  # frames, to which the report's paddings fill every video up
SIZE, VIDEOS, FRAMES = 64, 12, 4  # pixels; videos of a study; frames of a video, evenly spread


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run: the recipe `paper`, not clipped, and what is changed in it."""

    backbone: str = "alexnet"
    padding: str = "zeros"
    batch_size: int = 4
    rates: float = 1.0  # times both learning rates of the recipe
    clip_norm: float = 0.0
    epochs: int = 100
    size: int = SIZE
    videos: int = VIDEOS
    frames: int = FRAMES

    @property
    def recipe(self) -> Recipe:
        paper = build(Recipe, PAPER)
        changes = {
            "weights": "none",
            # AlexNet's last pooling would leave small frames a single cell to attend to.
            "feature_stride": 16 if self.backbone == "alexnet" and self.size == SIZE else 0,
            "learning_rate": paper.learning_rate * self.rates,
            "learning_rate_cnn": paper.learning_rate_cnn * self.rates,
            "frames_per_video": self.frames,
            # In pieces: whole, these activations would not fit the memory.
            "checkpointing": self.size > SIZE,
        }
        shared = ("backbone", "padding", "batch_size", "clip_norm", "epochs")
        return dataclasses.replace(
            paper, **changes, **{name: getattr(self, name) for name in shared}
        )


class NoiseVideos:
    """Videos of random pixels, as far as training looks at a `VideoCache`."""

    def __init__(self, run: Run) -> None:
        random = np.random.default_rng(0)
        self.frame_format = FrameFormat(run.size, False, False)
        self.pixels = random.integers(
            0, 256, (run.videos, run.frames, run.size, run.size), dtype=np.uint8
        )
        self.lengths = np.full(run.videos, run.frames)
        self.scores = np.arange(run.videos) % 4
        self.ids = [f"noise/1/{number}" for number in range(run.videos)]

    def read(self, index: int, positions: np.ndarray) -> np.ndarray:
        return self.pixels[index, positions]


def new_trainer(run: Run, videos: Any, device: torch.device, events: list[Any]) -> Trainer:
    recipe = run.recipe
    torch.manual_seed(recipe.seed)
    loader = BatchLoader(videos, recipe, device)
    trainer = Trainer(
        new_model(recipe).to(device), loader, range(len(videos.lengths)), events.append
    )
    trainer.pad_to = LONGEST
    return trainer


def trained(run: Run, videos: Any, device: torch.device) -> dict[str, Any]:
    """What a run came to: steps, those that were not finite and where, gradients, losses."""
    events: list[dict[str, Any]] = []
    trainer = new_trainer(run, videos, device, events)
    first = next(p for p in trainer.model.backbone.parameters() if p.ndim == 4)
    reached: list[float] = []
    trainer.optimizer.register_step_pre_hook(lambda *_: reached.append(norm_of(first.grad)))
    began, stopped = time.perf_counter(), ""
    epochs: list[dict[str, float]] = []
    for epoch in range(1, run.epochs + 1):
        try:
            epochs.append(trainer.epoch(epoch, silent))
        except LusError as error:
            stopped = str(error)
            break
    return {
        **dataclasses.asdict(run),
        "steps": trainer.steps,
        "not_finite": len(events),
        "where": sorted({f"{e['module']} ({e['direction']})" for e in events}),
        "stopped": stopped,
        "weights_finite": finite_weights(trainer.model),
        "largest_gradient_norm": max((e["gradient_norm"] for e in epochs), default=None),
        # Of the first convolution, which is the last to be reached, after clipping.
        "first_layer_gradient": statistics.median(reached) if reached else None,
        "loss_first": epochs[0]["train_loss"] if epochs else None,
        "loss_last": epochs[-1]["train_loss"] if epochs else None,
        "device": str(device),
        "seconds": round(time.perf_counter() - began, 1),
    }


def norm_of(gradient: torch.Tensor | None) -> float:
    return math.nan if gradient is None else float(gradient.norm())


def finite_weights(model: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(values).all()) for values in model.state_dict().values())
