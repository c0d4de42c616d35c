"""The log of the epochs of a run: epochs.csv, TensorBoard and the curves."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from lus_cli.cache.layout import Run
from lus_cli.files import csv_text, write_text
from lus_cli.model.losses import entropy_floor, soft_labels


class EpochLog:
    """Writes the metrics of the epochs to epochs.csv, to TensorBoard and to the curves.

    The curves are drawn at the end, and after every epoch as long as drawing takes at most
    DRAWING_SHARE of the time.
    """

    DRAWING_SHARE = 0.1

    def __init__(self, run: Run, epochs: list[dict[str, float]], scores: torch.Tensor, loss: str):
        """Starts the TensorBoard log of a run.

        epochs: metrics of the epochs before a run was resumed; the trainer appends to this list.
        scores: of the validation videos, (video,) int64.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.epochs = run, epochs
        mean_label = soft_labels(scores, loss).mean(dim=0)
        self.levels = {
            "constant_loss": torch.special.entr(mean_label).sum().item(),
            "floor": entropy_floor(scores, loss).mean().item(),
            "majority": torch.bincount(scores).max().item() / len(scores),
        }
        self.board = SummaryWriter(str(run.root / "tensorboard"), purge_step=len(epochs) + 1)
        if epochs:  # the run may have stopped between its checkpoint and epochs.csv
            write_text(run.epochs, to_csv(epochs))
        self.drawn = 0  # epochs
        self.drawing_s, self.drawn_at = 0.0, -math.inf  # duration and end of the last drawing

    def write(self, frames_per_s: float) -> None:
        """Writes the latest epoch. Times stay out of epochs.csv, so that a repeated run writes an
        identical file."""
        newest = self.epochs[-1]
        write_text(self.run.epochs, to_csv(self.epochs))
        for name, value in (newest | {"train_frames_per_s": frames_per_s}).items():
            self.board.add_scalar(name.replace("_", "/", 1), value, newest["epoch"])
        if self.drawing_s <= self.DRAWING_SHARE * (time.perf_counter() - self.drawn_at):
            self.draw()

    def draw(self) -> None:
        from lus_cli import figures
        from lus_cli.training import figures as run_figures

        started = time.perf_counter()
        figures.save(run_figures.curves(self.epochs, **self.levels), self.run.root / "curves")
        self.drawn, self.drawn_at = len(self.epochs), time.perf_counter()
        self.drawing_s = self.drawn_at - started

    def close(self) -> None:
        """Draws curves that are out of date and closes TensorBoard's file."""
        if self.drawn < len(self.epochs):
            self.draw()
        self.board.close()


def to_csv(epochs: Sequence[dict[str, float]]) -> str:
    """The text of epochs.csv, with an empty cell for a metric that is not finite."""
    return csv_text(epochs, decimals=None)
