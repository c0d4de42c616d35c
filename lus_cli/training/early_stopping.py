"""The metrics of the epochs of a run: the best epoch, early stopping, and lines of the log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lus_cli.errors import LusError

Epochs = Sequence[dict[str, float]]


def checked_epochs(epochs: Any) -> list[dict[str, float]]:
    """The metrics of the epochs in a checkpoint. Raises ValueError if an epoch is damaged."""
    for number, metrics in enumerate(epochs, start=1):
        if metrics["epoch"] != number or not all(
            isinstance(value, (int, float)) for value in metrics.values()
        ):
            raise ValueError(f"epoch {number} is damaged")
    return list(epochs)


def best_epoch(epochs: Epochs) -> dict[str, float] | None:
    """The epoch with the lowest finite validation loss, the earliest of several; None without one."""
    finite = [row for row in epochs if math.isfinite(row["validation_loss"])]
    return min(finite, key=lambda row: (row["validation_loss"], row["epoch"]), default=None)


def epochs_since_best(epochs: Epochs) -> int:
    """The number of epochs after the best one; all of them if no validation loss is finite."""
    best = best_epoch(epochs)
    return len(epochs) - (int(best["epoch"]) if best else 0)


def out_of_patience(epochs: Epochs, patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one; never with a patience of 0."""
    return bool(patience and epochs_since_best(epochs) >= patience)


def finished(epochs: Epochs, total: int, patience: int) -> bool:
    """Whether all `total` epochs are done or early stopping has ended the training."""
    return len(epochs) >= total or out_of_patience(epochs, patience)


def stopped_early(epochs: Epochs, total: int, patience: int) -> str:
    """A sentence about early stopping; empty if training did not stop early."""
    if len(epochs) >= total or not out_of_patience(epochs, patience):
        return ""
    return (
        f"Training stopped after epoch {len(epochs)} of {total}: the validation loss did not decrease "
        f"for {epochs_since_best(epochs)} epochs (--patience {patience})."
    )


def required_best(epochs: Epochs, precision: str) -> dict[str, float]:
    """The best epoch. Raises LusError if no epoch has a finite validation loss."""
    best = best_epoch(epochs)
    if best is not None:
        return best
    half = "--precision float32, or " if precision != "float32" else ""
    raise LusError(
        f"none of {len(epochs)} epochs has a finite validation loss, so no model was saved",
        f"train a new run with {half}lower --learning-rate and --learning-rate-cnn",
    )


def line_of(epochs: Epochs, total: int, frames_per_s: float) -> str:
    """The latest epoch as a line of the log."""
    newest = epochs[-1]
    return (
        f"epoch {len(epochs)}/{total}  train loss {newest['train_loss']:.4f}  "
        f"validation loss {newest['validation_loss']:.4f}  "
        f"accuracy {newest['validation_accuracy']:.3f}  kappa {newest['validation_kappa']:.3f}  "
        f"{frames_per_s:.0f} frames/s{'  best' if best_epoch(epochs) is newest else ''}"
    )
