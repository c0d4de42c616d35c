"""The figures of attention: overlays side by side, and how well maps locate artefacts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from lus_cli.attention.localisation import CENTRE, FRAME, SECTOR
from lus_cli.figures import ACCENT, INK, MUTED, SECOND, WIDTH, points, styled

TITLES = {
    "pointing": "Maximum on an artefact",
    "energy": "Share on artefacts",
    "iou": "Best overlap (IoU)",
}
# Shape and fill differ as well, so that the maps can be told apart in grayscale prints.
MARKS: dict[str, dict[str, Any]] = {
    "attention": {"marker": "o", "color": ACCENT, "markersize": 6},
    "Grad-CAM": {"marker": "s", "color": SECOND, "markersize": 5},
    CENTRE: {"marker": "^", "color": INK, "markersize": 5, "markerfacecolor": "none"},
    SECTOR: {"marker": "D", "color": MUTED, "markersize": 4, "markerfacecolor": "none"},
    FRAME: {"marker": "x", "color": MUTED, "markersize": 5},
}
NAMES = {"all": "scores 1 to 3"}


@styled
def localisation(scores: dict[str, Any]) -> Figure:
    """Pointing, energy and IoU of every kind of map with 95 % intervals, a row of points per score.

    scores: as `localisation.summarise` returns them; "all" are the scores 1 to 3 together.
    """
    groups = list(scores)
    figure = Figure(figsize=(WIDTH, 0.7 + 0.72 * len(groups)), layout="constrained")
    panels = figure.subplots(1, len(TITLES), sharey=True)
    offsets = np.linspace(-0.3, 0.3, len(MARKS))
    for axes, (name, title) in zip(panels, TITLES.items(), strict=True):
        for offset, (kind, style) in zip(offsets, MARKS.items(), strict=True):
            for place, group in enumerate(groups):
                estimate = scores[group][kind][name]
                row = place + offset
                if estimate["low"] is not None:
                    axes.plot([estimate["low"], estimate["high"]], [row, row], color=style["color"])
                label = kind if place == 0 else None
                axes.plot(estimate["value"], row, linestyle="none", label=label, **style)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xticks([0, 0.5, 1])
        axes.grid(axis="x")
        axes.set_title(title)
        axes.tick_params(axis="y", length=0)
    ticks = [
        f"{NAMES.get(group, 'score ' + group)}\n{scores[group]['videos']} videos"
        for group in groups
    ]
    panels[0].set_yticks(range(len(groups)), ticks)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), columnspacing=1.2)
    return figure


@styled
def gallery(images: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Overlays side by side, four per row (Fig. 10 of the report).

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
        axes.set_title(title, fontsize=points(7.5), fontweight="normal", pad=4)
    return figure
