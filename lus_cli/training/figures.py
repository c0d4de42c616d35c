"""The training curves of a run (Figs. 6 and 7 of the report)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from lus_cli.figures import ACCENT, COLUMN, INK, MUTED, PAPER, SCORE_COLOURS, SECOND, blank, column


@column
def curves(
    epochs: Sequence[Mapping[str, Any]],
    constant_loss: float | None = None,
    floor: float | None = None,
    majority: float | None = None,
) -> Figure:
    """Loss, accuracy and learning rate over the epochs (Figs. 6 and 7 of the report).

    epochs: one mapping per epoch, with `epoch` and any of train_loss, validation_loss,
        validation_accuracy, validation_kappa and learning_rate*; None or NaN leaves a gap.
    constant_loss, floor: validation loss of the best constant and of a perfect prediction.
    majority: validation accuracy of always predicting the most frequent score.
    """
    figure, (loss, quality, rate) = blank(
        4.9, 3, width=COLUMN, sharex=True, height_ratios=(3, 2, 1)
    )
    loss.set_title("Loss, nats per video")
    lines = {"train_loss": ("training", SECOND), "validation_loss": ("validation", ACCENT)}
    draw_lines(loss, epochs, lines)
    draw_level(loss, constant_loss, "best constant prediction")
    draw_level(loss, floor, "perfect prediction", below=True)
    quality.set_title("Validation")
    lines = {
        "validation_accuracy": ("accuracy", ACCENT),
        "validation_kappa": ("kappa", SCORE_COLOURS[1]),
    }
    draw_lines(quality, epochs, lines)
    draw_level(quality, majority, "accuracy of the most frequent score")
    kappa = series(epochs, "validation_kappa")
    quality.set_ylim(min([0.0, *kappa[~np.isnan(kappa)]]) - 0.03, 1.03)
    draw_learning_rates(rate, epochs)
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if epochs:
        rate.set_xlim(series(epochs, "epoch").min() - 0.5, series(epochs, "epoch").max() + 0.5)
    mark_best_epoch((loss, quality, rate), epochs)
    for axes in (loss, quality, rate):
        axes.grid(axis="y")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1, 1.0),
                ncols=3,
                borderaxespad=0.2,
                handlelength=1.4,
                columnspacing=1,
            )
    return figure


def series(epochs: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One quantity over the epochs, (epoch,) float64, with NaN where it is missing or not finite."""
    values = np.array([np.nan if e.get(name) in (None, "") else float(e[name]) for e in epochs])
    return np.where(np.isfinite(values), values, np.nan)


def draw_learning_rates(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Every learning_rate* over the epochs, equal curves only once. The axis is logarithmic if all
    rates are positive."""
    axes.set_title("Learning rate")
    rates = [name for name in (epochs[0] if epochs else ()) if name.startswith("learning_rate")]
    names = list({series(epochs, name).tobytes(): name for name in rates}.values())
    labels = {"learning_rate": "all but the CNN", "learning_rate_cnn": "CNN"}
    colours = zip(names, (INK, SECOND, MUTED), strict=False)
    several = len(names) > 1
    draw_lines(axes, epochs, {n: (labels.get(n, n) if several else "", c) for n, c in colours})
    if names and all((series(epochs, name) > 0).all() for name in names):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.margins(y=0.2)


def draw_lines(
    axes: Axes, epochs: Sequence[Mapping[str, Any]], lines: Mapping[str, tuple[str, str]]
) -> None:
    """Each quantity (name -> label, colour) over the epochs, with dots if there are 15 or fewer."""
    x = series(epochs, "epoch")
    for name, (label, colour) in lines.items():
        y = series(epochs, name)
        if not np.isnan(y).all():
            marker = "o" if np.count_nonzero(~np.isnan(y)) <= 15 else None
            axes.plot(x, y, color=colour, label=label or None, marker=marker, markersize=2.5)


def draw_level(axes: Axes, level: float | None, label: str, *, below: bool = False) -> None:
    """A dashed reference line behind the curves, with its name and value above or below it."""
    if level is not None and math.isfinite(level):
        bottom, top = axes.get_ylim()
        bottom, top = min(bottom, level), max(top, level)
        room = (top - bottom) * 0.13  # for the name
        axes.set_ylim(min(bottom, level - room * below), max(top, level + room * (not below)))
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"{label} {level:.3f}",
            (1, level),
            (-2, -3 if below else 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="top" if below else "baseline",
            color=MUTED,
            fontsize="small",
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            zorder=1.5,  # behind the curves
        )


def mark_best_epoch(panels: Sequence[Axes], epochs: Sequence[Mapping[str, Any]]) -> None:
    """A line through all panels at the epoch with the lowest validation loss."""
    losses = series(epochs, "validation_loss")
    if np.isnan(losses).all():
        return
    best = int(np.nanargmin(losses))
    epoch = series(epochs, "epoch")[best]
    for axes in panels:
        axes.axvline(epoch, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    panels[0].plot([epoch], [losses[best]], "o", color=ACCENT, mec=PAPER, mew=1, ms=5, zorder=4)
    note = f"dotted: the best epoch, {epoch:g}, of validation loss {losses[best]:.3f}"
    panels[-1].set_xlabel(f"epoch\n{note}")
