"""Resuming an interrupted run, or extending a finished one with other --epochs or --patience."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch

from lus_cli.cache.layout import Run
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError, UsageError
from lus_cli.files import read_json, write_json, write_text
from lus_cli.model.checkpoint import load_best, load_last, save_best
from lus_cli.model.ranks import ALONE, Ranks
from lus_cli.model.weights import UNREADABLE, reason_of
from lus_cli.options import build, read_toml, to_toml
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.checks import check_study
from lus_cli.training.early_stopping import checked_epochs, finished, out_of_patience, stopped_early
from lus_cli.training.optimizer import schedule_factor
from lus_cli.training.setting import Setting
from lus_cli.training.trainer import Trainer
from lus_cli.words import counted

log = logging.getLogger("lus.train")


def resumed(
    run: Run, device: torch.device, ranks: Ranks = ALONE, changes: Mapping[str, Any] | None = None
) -> Setting:
    """The setting of an existing run: its recipe and split, on the present device.

    changes: the fields of the recipe that replace the planned ones: epochs and patience.
    """
    planned = build(Recipe, read_toml(run.config), str(run.config))
    videos = VideoCache(run.cache.videos)
    check_study(read_json(run.provenance, "start a new run"), videos, f"run {run.name}")
    split, _ = read_split(run.split, videos.patients)
    recipe = dataclasses.replace(planned, **(changes or {}))
    if changes:
        check_plan(run, planned, recipe)
    return Setting(recipe, run, videos, split, device, ranks, planned=planned)


def check_plan(run: Run, planned: Recipe, changed: Recipe) -> None:
    """Raises UsageError or LusError if the run cannot be resumed with the changed recipe."""
    state = load_last(run.last)
    done = epochs_in(run, state) if state else []
    if changed.epochs < len(done):
        raise UsageError(
            f"run {run.name} already has {counted(len(done), 'epoch')}, more than --epochs "
            f"{changed.epochs}",
            f"give {len(done)} or more, or start a new run",
        )
    longer = changed.epochs > max(planned.epochs, len(done))
    if longer and out_of_patience(done, changed.patience):
        raise LusError(
            f"run {run.name} would not continue to epoch {changed.epochs}: "
            f"{stopped_early(done, changed.epochs, changed.patience)}",
            "also give --patience: 0 to train all epochs, or a larger number of epochs",
        )


def epochs_in(run: Run, state: dict[str, Any]) -> list[dict[str, float]]:
    """The metrics of the epochs in a checkpoint. Raises LusError if they cannot be read."""
    try:
        return checked_epochs(state["epochs"])
    except UNREADABLE as error:
        raise mismatch(run, error) from error


def mismatch(run: Run, error: Exception) -> LusError:
    return LusError(
        f"{run.last} does not fit the recipe of its run ({reason_of(error)})", "start a new run"
    )


def restored(setting: Setting, trainer: Trainer) -> list[dict[str, float]]:
    """Restores a trainer from the last checkpoint and returns the metrics of the epochs before."""
    run = setting.run
    state = load_last(run.last) if setting.resume else None
    if state is None:
        if setting.resume:
            log.info("run %s has no finished epoch; training starts over", run.name)
        return []
    epochs = epochs_in(run, state)
    try:
        trainer.restore(state)
    except UNREADABLE as error:
        raise mismatch(run, error) from error
    if not finished(epochs, setting.recipe.epochs, setting.recipe.patience):
        log.info("resuming run %s after epoch %d", run.name, len(epochs))
        if setting.replanned and (
            sentence := changed_rates(setting.planned, setting.recipe, len(epochs))
        ):
            log.warning("%s", sentence)
    return epochs


def changed_rates(before: Recipe | None, now: Recipe, done: int) -> str:
    """A sentence on how other --epochs change the learning rate; empty if they do not."""
    if before is None or before.epochs == now.epochs or now.schedule == "constant" or not done:
        return ""
    last, first, end = (
        f"{now.learning_rate * schedule_factor(recipe, epoch):.2g}"
        for recipe, epoch in ((before, done), (now, done + 1), (now, now.epochs))
    )
    at_end = f" and {end} in epoch {now.epochs}" if now.epochs > done + 1 else ""
    return (
        f"the {now.schedule} schedule now ends at epoch {now.epochs}, not {before.epochs}: the "
        f"learning rate was {last} in epoch {done}, is {first} in epoch {done + 1}{at_end}. A new run of "
        f"{now.epochs} epochs would have used other rates in the first epochs"
    )


def write_plan(setting: Setting) -> None:
    """Stores other --epochs or --patience of a resumed run, so that they hold if it is interrupted
    again."""
    run, before, now = setting.run, setting.planned, setting.recipe
    if before is None or not setting.replanned:
        return
    state = load_last(run.last)
    if run.best.is_file():  # its card holds the recipe; config.toml is written last, as it decides
        model, card = load_best(run.best)
        save_best(run.best, model.state_dict(), dataclasses.replace(card, recipe=now))
    origin = read_json(run.provenance, "start a new run")
    change = {
        "after_epoch": len(epochs_in(run, state)) if state else 0,
        "epochs": [before.epochs, now.epochs],
        "patience": [before.patience, now.patience],
    }
    write_json(run.provenance, origin | {"replanned": [*origin.get("replanned", []), change]})
    write_text(run.config, to_toml(now, only=Recipe))


def already_finished(name: str, epochs: list[dict[str, float]], total: int, patience: int) -> str:
    """A sentence on a run that was already finished when it was resumed."""
    command = f"`lus train --resume --run {name}"
    if reason := stopped_early(epochs, total, patience):
        return (
            f"Run {name} is finished: nothing was trained. {reason} {command} --patience 0` "
            f"continues to epoch {total}."
        )
    return (
        f"Run {name} is finished, with {len(epochs)} of {counted(total, 'epoch')}: "
        f"nothing was trained. {command} --epochs N` continues to epoch N."
    )
