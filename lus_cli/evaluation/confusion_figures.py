"""The figures of predicted scores (Figs. 8 to 10 of the report)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lus_cli.figures import (
    COLUMN,
    INK,
    MUTED,
    PAPER,
    SHARE_COLOURS,
    bare_left,
    blank,
    column,
    draw_segment,
    label_inside,
    points,
    score_legend,
)


@column
def confusion(matrix: Sequence[Sequence[int]]) -> Figure:
    """The confusion matrix (Fig. 8 of the report): numbers of videos, and shares of each true score.

    matrix: (true score, predicted score) numbers of videos.
    """
    counts = np.asarray(matrix, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    figure = Figure(figsize=(COLUMN, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(shares, cmap=SHARE_COLOURS, vmin=0, vmax=1, edgecolors=PAPER, linewidth=2)
    for (true, predicted), share in np.ndenumerate(shares):
        centre, videos = (predicted + 0.5, true + 0.5), int(counts[true, predicted])
        ink = "#fefefe" if share > 0.5 else INK if videos else MUTED
        weight = "bold" if true == predicted else "normal"
        write_cell(
            axes,
            centre,
            (3 if videos else 0),
            str(videos),
            color=ink,
            fontsize=points(10),
            fontweight=weight,
        )
        if videos:
            write_cell(axes, centre, -7.5, f"{share:.0%}", color=ink, fontsize="small")
    ticks = np.arange(4) + 0.5
    axes.set_xticks(ticks, [str(score) for score in range(4)])
    axes.set_yticks(ticks, [f"{score}\nof {total:.0f}" for score, total in enumerate(totals[:, 0])])
    axes.set_xlabel("predicted score")
    axes.set_ylabel("true score")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("True and predicted scores")
    return figure


def write_cell(
    axes: Axes, centre: tuple[float, float], rise: float, text: str, **style: Any
) -> None:
    """Writes `text` with its middle `rise` points above `centre`."""
    style = {"ha": "center", "va": "center", "textcoords": "offset points"} | style
    axes.annotate(text, centre, (0, rise), **style)


@column
def errors_per_class(matrix: Sequence[Sequence[int]]) -> Figure:
    """The wrong predictions for each true score, by predicted score (Fig. 9 of the report).

    matrix: (true score, predicted score) numbers of videos.
    """
    counts = np.asarray(matrix, dtype=int)
    wrong = counts.sum(axis=1) - counts.diagonal()
    figure, axes = blank(2.1, width=COLUMN)
    widest = max(1, int(wrong.max()))
    for true in range(4):
        left = 0
        for predicted in range(4):
            videos = int(counts[true, predicted]) if predicted != true else 0
            if videos:
                draw_segment(axes, true, left, videos, predicted)
                if videos / widest > 0.04:
                    label_inside(axes, left + videos / 2, true, str(videos), predicted)
            left += videos
        axes.text(
            left + widest * 0.012, true, f"{wrong[true]} of {counts[true].sum()}", va="center"
        )
    axes.set_yticks(range(4), [f"score {score}" for score in range(4)])
    axes.set_ylim(3.5, -0.5)
    axes.set_xlim(0, widest * 1.24)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("wrong predictions for videos of this true score")
    bare_left(axes)
    score_legend(figure, "predicted score")
    return figure
