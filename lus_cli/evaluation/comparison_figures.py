"""The figure of a comparison: metrics with their intervals, and paired differences below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lus_cli.evaluation.comparison import conclusion
from lus_cli.figures import ACCENT, GRID, INK, MUTED, SECOND, WIDTH, points, styled

TITLES = {
    "accuracy": "Accuracy",
    "f1_macro": "Macro F1",
    "kappa_quadratic": "Kappa",
    "mean_absolute_error": "Mean error",
}
COLOURS = {"better": ACCENT, "worse": SECOND}


@styled
def comparison(compared: Mapping[str, Any]) -> Figure:
    """One row per candidate, one column per metric: its value, and below its difference from the
    reference.

    compared: the result of `comparison.compare`.
    """
    rows = compared["candidates"]
    height = 0.28 * len(rows)
    figure = Figure(figsize=(WIDTH, 2 * height + 1.5), layout="constrained")
    axes = figure.subplots(2, len(TITLES), sharey=True, squeeze=False)
    for column, (name, title) in enumerate(TITLES.items()):
        entries = [row["metrics"][name] for row in rows]
        draw_values(axes[0][column], entries, name)
        draw_differences(axes[1][column], entries, name)
        axes[0][column].set_title(title)
    for line in axes:
        line[0].set_yticks(range(len(rows)), [short(row["name"]) for row in rows])
        line[0].set_ylim(len(rows) - 0.5, -0.5)
    axes[0][0].set_ylabel("value")
    axes[1][0].set_ylabel(f"minus {short(compared['reference'])}")
    figure.supxlabel(
        f"95 % intervals over n = {compared['patients']} patients, "
        f"{compared['videos']} videos; differences paired",
        fontsize=points(8),
        color=MUTED,
    )
    return figure


def draw_values(axes: Axes, entries: Sequence[Mapping[str, Any]], name: str) -> None:
    for row, entry in enumerate(entries):
        colour = COLOURS.get(conclusion(entry, name), INK)
        draw_interval(axes, row, entry, colour)
    tidy(axes)


def draw_differences(axes: Axes, entries: Sequence[Mapping[str, Any]], name: str) -> None:
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for row, entry in enumerate(entries):
        if difference := entry.get("difference"):
            draw_interval(axes, row, difference, COLOURS.get(conclusion(entry, name), INK))
    tidy(axes)


def draw_interval(axes: Axes, row: int, entry: Mapping[str, Any], colour: str) -> None:
    if entry["value"] is None:
        return
    if entry["low"] is not None:
        axes.plot([entry["low"], entry["high"]], [row, row], color=colour, linewidth=1.6)
    axes.plot(entry["value"], row, "o", color=colour, markersize=4)


def tidy(axes: Axes) -> None:
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x", color=GRID)
    axes.spines["left"].set_visible(False)


def short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
