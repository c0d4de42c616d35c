"""How long a run will take, from its first steps, and what would take less."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from lus_cli.cache.batches import BatchLoader
from lus_cli.recipes.recipe import DEFAULT_RECIPE, Recipe
from lus_cli.recipes.shipped import values_of
from lus_cli.training.sampling import epoch_order
from lus_cli.training.scoring import seconds_per_picture
from lus_cli.training.tally import Tally
from lus_cli.training.trainer import Trainer
from lus_cli.words import counted, duration

log = logging.getLogger("lus.train")

MEASURED = 3  # steps of the first epoch; the first of them is a warm-up and does not count
FORWARD = 1 / 3  # share of a step's time; the backward pass takes twice as long as the forward pass
LONG = 3600.0  # seconds; for a longer run, a faster way is named
SOON = 8.0  # seconds; if the first steps take longer, a rough estimate comes before them


class Forecast:
    """Logs once, in the first epoch that this process trains, how long the remaining epochs take.

    It is called with the tally of the epoch after each step.
    """

    def __init__(
        self, trainer: Trainer, validation: Sequence[int], done: int, runs: int = 1
    ) -> None:
        """Counts the pictures of an epoch.

        validation: the videos that are scored after each epoch.
        done: the number of epochs that an earlier process trained.
        runs: the number of runs like this one that are still to be trained, this one included.
        """
        self.runs = runs
        self.recipe, self.loader = trainer.recipe, trainer.loader
        self.epochs = counted(self.recipe.epochs - done, "more epoch" if done else "epoch")
        self.remaining = self.recipe.epochs - done
        scores = self.loader.videos.scores
        groups = epoch_order(trainer.indices, scores, self.recipe, done + 1)
        first = [index for group in groups[:MEASURED] for index in group]
        self.measured = self.loader.total_steps(first)
        self.trained = self.loader.total_steps([index for group in groups for index in group])
        self.scored = self.loader.total_steps(validation)
        self.per_video = self.trained / max(len(trainer.indices), 1)
        self.videos = len({*trainer.indices, *validation})
        self.videos += len(trainer.indices) * self.loader.copies
        self.awaited = min(MEASURED, len(groups))  # the number of steps after which it logs
        self.steps, self.warm_up = 0, Tally()

    def rough(self, trainer: Trainer) -> None:
        """Logs an estimate before the first step, from one video, if the first steps take long."""
        if self.recipe.freeze or self.remaining < 1:  # features have their own estimate
            return
        scoring_s = seconds_per_picture(trainer.model, self.loader, trainer.indices, trainer.pad_to)
        step_s = scoring_s / FORWARD / trainer.ranks.world
        if step_s * self.measured > SOON:
            line = self.lines(step_s, 0.0)[0]
            log.info("judging by one video, roughly %s", line.removeprefix("about "))

    def __call__(self, tally: Tally) -> None:
        self.steps += 1
        if self.steps == 1 < self.awaited:
            self.warm_up = replace(tally)
        if self.steps != self.awaited:
            return
        pictures = max(tally.frames - self.warm_up.frames, 1)
        step_s = (tally.stepped_s - self.warm_up.stepped_s) / pictures
        wait_s = (tally.waited_s - self.warm_up.waited_s) / pictures
        for line in self.lines(step_s, wait_s):
            log.info("%s", line)

    def lines(self, step_s: float, wait_s: float) -> list[str]:
        """The sentences about the remaining epochs.

        step_s, wait_s: seconds of training on a picture, and of waiting until it is read. Pictures
            that stay in memory are read in one epoch only.
        """
        epoch_s = step_s * (self.trained + FORWARD * self.scored)
        first_s = wait_s * (self.trained + self.scored)
        if self.recipe.jitter or not kept_in_memory(self.loader, self.videos):
            epoch_s, first_s = epoch_s + first_s, 0.0
        run_s = first_s + epoch_s * self.remaining
        total = f"{duration(run_s)} for {self.epochs}"
        if self.recipe.patience:
            total = f"up to {total}; early stopping may end it sooner"
        line = f"about {duration(epoch_s)} per epoch: {total}"
        if self.runs > 1:
            line += f"; {self.runs} such runs: about {duration(run_s * self.runs)}, scoring not included"
            run_s *= self.runs
        return [line, faster(self.recipe, self.per_video)] if run_s > LONG else [line]


def kept_in_memory(loader: BatchLoader, videos: int) -> bool:
    """Whether this many videos are likely to stay in memory, judged by the size of those that do."""
    sizes = [pictures.nbytes for pictures in list(loader.kept.values())]
    return bool(sizes) and sum(sizes) / len(sizes) * (videos - len(sizes)) <= loader.room


def faster(recipe: Recipe, steps: float) -> str:
    """A sentence on what takes less time than a recipe.

    steps: the mean number of pictures per video.
    """
    if not recipe.freeze:
        return (
            f"--recipe {DEFAULT_RECIPE} takes minutes: its CNN is not trained and sees a few pictures "
            "of each video once"
        )
    if recipe.feature_cache == "none":
        return (
            "--feature-cache float16 takes less if the feature maps do not fit in memory: the CNN sees "
            "each video once, not in every epoch"
        )
    few = int(values_of(DEFAULT_RECIPE)["windows"])
    if steps > few + 1:  # and the whole video
        option = f"--windows {few}{' --window-frames 0' if recipe.window_frames else ''}"
        return f"{option} takes less: {few} pictures per video instead of {steps:.0f}"
    return "fewer --epochs or --members take less"
