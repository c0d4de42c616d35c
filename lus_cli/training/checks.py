"""Checks before a run starts or resumes: its options, study, initial weights and feature map."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lus_cli.cache.batches import pictures_of
from lus_cli.cache.layout import Run
from lus_cli.cache.split import Split, load_split, patient_list
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation.model_card import read_card
from lus_cli.model.network import LusModel
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.augmentation import AUGMENTATIONS, augmentations_of

log = logging.getLogger("lus.train")


def check_recipe(recipe: Recipe) -> None:
    """Raises UsageError for options that have no effect in this recipe."""
    if recipe.jitter and not recipe.frames_per_video:
        raise UsageError(
            "--jitter has no effect without --frames-per-video, because every frame is used",
            "give --frames-per-video, or --no-jitter",
        )
    pictures = pictures_of(recipe)
    if recipe.whole_video and not pictures.are_windows:
        raise UsageError(
            "--whole-video adds a picture to those of the windows, but there are no windows",
            "give --windows 6, or --no-whole-video",
        )
    augmentations = augmentations_of(recipe)
    if recipe.freeze and augmentations and not recipe.augmented_copies:
        raise UsageError(
            f"--freeze computes features once: --{', --'.join(augmentations)} would have no effect",
            "give --augmented-copies 4, omit these options, or train the CNN with --no-freeze",
        )
    if recipe.augmented_copies and not (recipe.freeze and augmentations):
        raise UsageError(
            "--augmented-copies has no effect without --freeze and an augmentation",
            f"give --freeze and one of --{', --'.join(AUGMENTATIONS)}, or --augmented-copies 0",
        )
    if recipe.jitter and recipe.freeze and not pictures.are_frames:
        raise UsageError(
            "--jitter draws other pictures in every epoch, but --freeze computes their features once",
            "give --no-jitter, or train the CNN with --no-freeze",
        )
    if recipe.padding != "packed" and (
        pictures.are_windows or recipe.leave_out or recipe.feature_norm == "video"
    ):
        raise UsageError(
            f"--padding {recipe.padding} does not work with windows, --leave-out or --feature-norm video",
            "give --padding packed",
        )
    if recipe.leave_out and (recipe.members < 2 or not recipe.freeze):
        raise UsageError(
            "--leave-out needs several members and a frozen CNN: a single member, or a trained CNN, "
            "would see the left-out patients",
            "give --freeze and --members 5, or --no-leave-out",
        )


def check_study(began: Mapping[str, Any], videos: VideoCache, what: str) -> None:
    """Raises LusError if the videos or their scores have changed since `what` started.

    began: the fingerprint and the labels that were recorded at the start.
    what: what started then, for the message.
    """
    if began.get("fingerprint") != videos.fingerprint:
        raise LusError(
            f"{videos.path} has changed since {what} started",
            "prepare the same study again, or start a new run",
        )
    if began.get("labels") not in (None, videos.labels):
        raise LusError(
            f"the scores in {videos.path} have changed since {what} started",
            "prepare the study with the old scores, or start a new run to use the new ones",
        )


def check_weights(weights: str, split: Split, checked: frozenset[str] = frozenset()) -> None:
    """Raises LusError if the initial weights come from a run that was trained on validation or test
    patients of this one, or whose own initial weights do.

    checked: the initial weights of later runs.
    """
    file = Path(weights)
    run = Run(file.parent)
    if weights in {"imagenet", "none", *checked} or file.name != run.best.name:
        return
    if not (file.is_file() and run.split.is_file()):
        return
    recipe = read_card(file).recipe
    check_weights(recipe.weights, split, checked | {weights})
    if recipe.freeze:
        return  # that run did not change its CNN
    earlier, _ = load_split(run.split)
    trained_on, used = {*earlier.train}, {*earlier.train, *earlier.validation}
    if overlap := {*split.validation} & trained_on | {*split.test} & used:
        raise LusError(
            f"{weights} was trained on patient {patient_list(overlap)}, who would be in the validation "
            "or test part of this run",
            "use other initial weights; if the patients only share an id, copy the file to a folder "
            "without a split.json",
        )


def check_map(model: LusModel, shape: tuple[int, ...], backbone: str) -> None:
    """Raises LusError if pictures of `shape` are too small for the CNN, or leave a single cell for
    attention."""
    frame = torch.zeros((1, *shape), dtype=torch.uint8)
    try:
        with torch.no_grad():
            frame = frame.to(next(model.parameters()).device)
            rows, columns = model.eval().cnn(frame).shape[2:]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # a downsampling layer has no cell left
        rows = columns = 0
    if min(rows, columns) < (2 if model.has_masks else 1):
        raise LusError(
            f"pictures of {shape[0]} pixels give {backbone} a feature map of "
            f"{rows}x{columns} cells, which is too small",
            "prepare with a larger --size, or train with --feature-stride 16 or --no-attention",
        )
