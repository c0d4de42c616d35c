"""What is looked at before a run begins or goes on, so that no figure is about something else."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.layout import Run
from lus_cli.cache.split import Split, load_split, patient_list
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError, UsageError
from lus_cli.model.network import LusModel
from lus_cli.options import build, flag_of, read_toml
from lus_cli.recipes.recipe import Recipe, recipe_path
from lus_cli.words import shortened

log = logging.getLogger("lus.train")

# What a kernel head takes from its recipe; see kernel_model.py.
OF_KERNEL = {
    *("name", "backbone", "weights", "feature_stride", "head", "loss", "seed"),
    *("stride", "frames_per_video", "batch_size"),
}


def check_recipe(recipe: Recipe) -> None:
    """Raises UsageError for options that would change nothing."""
    if recipe.head == "kernel":
        plain, usual = build(Recipe, read_toml(recipe_path("tuned"))), build(Recipe, {})
        idle = [
            field.name
            for field in dataclasses.fields(Recipe)
            if field.name not in OF_KERNEL
            and getattr(recipe, field.name)
            not in (getattr(plain, field.name), getattr(usual, field.name))
        ]
        if idle:
            raise UsageError(
                "a kernel head is fitted at once: "
                f"{shortened(sorted(map(flag_of, idle)))} would change nothing",
                "leave that out, and start from --recipe tuned",
            )
    if recipe.jitter and not recipe.frames_per_video:
        raise UsageError(
            "--jitter draws from the frames that --frames-per-video leaves out: it would change "
            "nothing where every frame is used",
            "give --frames-per-video, or --no-jitter",
        )


def check_study(began: Mapping[str, Any], videos: VideoCache, what: str) -> None:
    """Raises LusError if the videos or their scores are not those that `what` began with."""
    if began.get("fingerprint") != videos.fingerprint:
        raise LusError(
            f"{videos.path} has changed since {what} began",
            "prepare the same study again, or start a new one",
        )
    if began.get("labels") not in (None, videos.labels):
        raise LusError(
            f"the scores in {videos.path} have changed since {what} began",
            "prepare with the scores of then, or start a new one, which learns from those of now",
        )


def check_weights(weights: str, split: Split) -> None:
    """Raises LusError if the CNN would begin with what an earlier run learned from the patients by
    whom this one is validated and tested."""
    file = Path(weights)
    run = Run(file.parent)
    if weights in ("imagenet", "none") or file.name != run.best.name or not run.split.is_file():
        return
    recipe = build(Recipe, read_toml(run.config), str(run.config))
    if recipe.freeze or recipe.head == "kernel":
        return  # its CNN is the one that it began with
    earlier, _ = load_split(run.split)
    learned, known = {*earlier.train}, {*earlier.train, *earlier.validation}
    if met := {*split.validation} & learned | {*split.test} & known:
        raise LusError(
            f"{weights} has learned from patient {patient_list(met)}, by whom this run would be "
            "validated or tested",
            "begin with weights that do not know them, or, if only the ids are the same, copy the "
            "file away from the split.json beside it",
        )


def check_map(model: LusModel, frame_format: FrameFormat, recipe: Recipe) -> None:
    """Raises LusError if frames are so small that attention has a single cell to look at."""
    frame = torch.zeros((1, *frame_format.shape), dtype=torch.uint8)
    try:
        with torch.no_grad():
            frame = frame.to(next(model.parameters()).device)
            rows, columns = model.eval().cnn(frame).shape[2:]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # a layer that makes the map smaller has nothing left
        rows = columns = 0
    if min(rows, columns) < (2 if recipe.attention else 1):
        raise LusError(
            f"frames of {frame_format.size} pixels leave {recipe.backbone} a map "
            f"of {rows}x{columns}: nothing to attend to",
            "prepare with a larger --size, or train with --feature-stride 16 or --no-attention",
        )
