"""The figures of an evaluation (the report's Figs. 8 to 10), from the numbers of metrics.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from lus_cli.figures import (
    ACCENT,
    COLUMN,
    INK,
    MUTED,
    PAPER,
    SECOND,
    SHARE_COLOURS,
    bare_left,
    blank,
    column,
    draw_segment,
    label_inside,
    score_legend,
    styled,
)


@column
def confusion(matrix: Sequence[Sequence[int]]) -> Figure:
    """True against answered scores (the report's Fig. 8): numbers, and shares of each true score.

    matrix: (true score, answered score) numbers of videos.
    """
    counts = np.asarray(matrix, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    figure = Figure(figsize=(COLUMN, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(shares, cmap=SHARE_COLOURS, vmin=0, vmax=1, edgecolors=PAPER, linewidth=2)
    for (true, answered), share in np.ndenumerate(shares):
        place, videos = (answered + 0.5, true + 0.5), int(counts[true, answered])
        ink = "#fefefe" if share > 0.5 else INK if videos else MUTED
        weight = "bold" if true == answered else "normal"
        write_cell(
            axes,
            place,
            (3 if videos else 0),
            str(videos),
            color=ink,
            fontsize=10,
            fontweight=weight,
        )
        if videos:
            write_cell(axes, place, -7.5, f"{share:.0%}", color=ink, fontsize="small")
    ticks = np.arange(4) + 0.5
    axes.set_xticks(ticks, [str(score) for score in range(4)])
    axes.set_yticks(ticks, [f"{score}\nof {total:.0f}" for score, total in enumerate(totals[:, 0])])
    axes.set_xlabel("answered score")
    axes.set_ylabel("true score")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("True and answered scores")
    return figure


def write_cell(
    axes: Axes, place: tuple[float, float], rise: float, text: str, **style: Any
) -> None:
    """Writes `text` centred, `rise` points above `place`."""
    style = {"ha": "center", "va": "center", "textcoords": "offset points"} | style
    axes.annotate(text, place, (0, rise), **style)


@column
def errors_per_class(matrix: Sequence[Sequence[int]]) -> Figure:
    """The videos of each true score answered wrongly, and as which score (the report's Fig. 9).

    matrix: (true score, answered score) numbers of videos.
    """
    counts = np.asarray(matrix, dtype=int)
    wrong = counts.sum(axis=1) - counts.diagonal()
    figure, axes = blank(2.1, width=COLUMN)
    widest = max(1, int(wrong.max()))
    for true in range(4):
        left = 0
        for answered in range(4):
            videos = int(counts[true, answered]) if answered != true else 0
            if videos:
                draw_segment(axes, true, left, videos, answered)
                if videos / widest > 0.04:
                    label_inside(axes, left + videos / 2, true, str(videos), answered)
            left += videos
        axes.text(
            left + widest * 0.012, true, f"{wrong[true]} of {counts[true].sum()}", va="center"
        )
    axes.set_yticks(range(4), [f"score {score}" for score in range(4)])
    axes.set_ylim(3.5, -0.5)
    axes.set_xlim(0, widest * 1.24)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("videos of this true score answered wrongly")
    bare_left(axes)
    score_legend(figure, "answered as score")
    return figure


@column
def calibration(bins: Sequence[Mapping[str, Any]], ece: float | None = None) -> Figure:
    """How often the model is right, given how sure it is; below, how sure it is how often.

    bins: mappings with from, to, videos, confidence and accuracy (None in an empty bin), as
        `metrics.assess` gives them; ece: the expected calibration error, written into the title.
    """
    figure = Figure(figsize=(COLUMN, 3.7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    filled = [row for row in bins if row["videos"]]
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    upper.text(
        0.03,
        0.07,
        "as sure as right",
        color=MUTED,
        fontsize="small",
        rotation=45,
        rotation_mode="anchor",
        transform_rotates_text=True,
    )
    for row in filled:
        ends = [row["confidence"], row["accuracy"]]
        upper.plot([row["confidence"]] * 2, ends, color=SECOND, linewidth=1.5, alpha=0.7, zorder=2)
    most = max((row["videos"] for row in filled), default=1)
    upper.scatter(
        [row["confidence"] for row in filled],
        [row["accuracy"] for row in filled],
        s=[12 + 70 * row["videos"] / most for row in filled],
        color=ACCENT,
        edgecolor=PAPER,
        zorder=3,
    )
    lower.bar(
        [row["from"] for row in bins],
        [row["videos"] for row in bins],
        [row["to"] - row["from"] for row in bins],
        align="edge",
        color=ACCENT,
        alpha=0.55,
        edgecolor=PAPER,
    )
    upper.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share answered right")
    upper.set_title("Calibration" if ece is None else f"Calibration (ECE {ece:.3f})")
    upper.grid()
    lower.set(xlabel="probability given to the answer", ylabel="videos")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


@styled
def attention_gallery(images: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Overlays side by side, four a row (the report's Fig. 10).

    images: (title, (row, column, 3) uint8) pairs.
    """
    columns = min(4, max(1, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    side = 2.2
    tallest = max((image.shape[0] / image.shape[1] for _, image in images), default=1.0)
    lines = max((title.count("\n") + 1 for title, _ in images), default=1)
    figure = Figure(
        figsize=(columns * side, rows * (side * min(tallest, 1.6) + 0.14 + 0.14 * lines)),
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03),
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (title, image) in zip(grid, images, strict=False):
        axes.imshow(image, interpolation="lanczos", interpolation_stage="rgba")
        axes.set_title(title, fontsize=7.5, fontweight="normal", pad=4)
    return figure
