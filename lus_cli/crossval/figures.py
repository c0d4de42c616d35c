"""The figures of a cross-validation: methods, folds, strata and confounders.

All are drawn from the content of scores.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lus_cli.crossval.confounders import excludes_zero
from lus_cli.evaluation.comparison import conclusion
from lus_cli.evaluation.comparison_figures import short
from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.figures import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    PAPER,
    SCORE_COLOURS,
    SECOND,
    WIDTH,
    bare_left,
    points,
    styled,
)
from lus_cli.words import counted

KAPPA = "kappa_quadratic"
DASHED = (0, (4, 3))
NOTE = {"color": MUTED, "fontsize": "small"}


@styled
def forest(compared: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Kappa of each method with its interval, and its paired difference from that of the recipe.

    compared: as comparison.compare returns it. rows: its candidates, in the order of the rows.
    """
    reference = compared["reference"]
    figure = Figure(figsize=(WIDTH, 1.25 + 0.29 * len(rows)), layout="constrained")
    kappa, less = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    for place, row in enumerate(rows):
        entry = row["metrics"][KAPPA]
        draw_entry(kappa, place, entry, ACCENT if row["name"] == reference else INK)
        if difference := entry.get("difference"):
            colour = {"worse": ACCENT, "better": SECOND}.get(conclusion(entry, KAPPA), MUTED)
            draw_entry(less, place, difference, colour)
    for axes in (kappa, less):
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
        axes.grid(axis="x")
        bare_left(axes)
    kappa.set_yticks(range(len(rows)), [short(row["name"]) for row in rows])
    kappa.get_yticklabels()[0].set_fontweight("bold")
    kappa.set_ylim(len(rows) - 0.4, -0.6)
    kappa.set_title("Kappa")
    less.set_title(f"less that of {short(reference, 16)}")
    figure.supxlabel(
        f"bar: 95 % interval, {counted(compared['patients'], 'patient')}; right: paired, "
        "blue where the recipe is better",
        **NOTE,
    )
    return figure


def draw_entry(
    axes: Axes, place: float, entry: Mapping[str, Any], colour: str, *, hollow: bool = False
) -> None:
    """Draws a dot at the value and a line along the interval; nothing for an undefined value."""
    if entry["value"] is None:
        return
    if entry["low"] is not None:
        axes.plot([entry["low"], entry["high"]], [place] * 2, color=colour, alpha=0.45, zorder=2)
    fill = PAPER if hollow else colour
    axes.plot([entry["value"]], [place], "o", color=colour, mfc=fill, ms=5.5, mew=1.4, zorder=3)


@styled
def folds(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[str], pooled: Mapping[str, float | None]
) -> Figure:
    """Kappa of every single fold, one row per method; hollow dots for folds of few patients.

    rows: as predictions.by_fold returns them. methods: names in the order of the rows, the recipe
    first. pooled: the kappa of each method over all folds together, drawn as a stroke.
    """
    figure = Figure(figsize=(WIDTH, 1.25 + 0.3 * len(methods)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    few = False
    for place, method in enumerate(methods):
        colour = INK if place else ACCENT
        for index, row in enumerate(rows):
            kappa = row["metrics"][method][KAPPA]
            if kappa is None:
                continue
            hollow = row["patients"] < FEW_PATIENTS
            few |= hollow
            apart = 0.4 * ((index + 0.5) / len(rows) - 0.5)
            fill = PAPER if hollow else colour
            axes.plot(kappa, place + apart, "o", color=colour, mfc=fill, ms=4, mew=1, alpha=0.7)
        if (whole := pooled[method]) is not None:
            axes.vlines(whole, place - 0.36, place + 0.36, color=colour, linewidth=2.2)
    axes.set_yticks(range(len(methods)), [short(name) for name in methods])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.grid(axis="x")
    bare_left(axes)
    axes.set_title("Kappa of each fold")
    note = f"; hollow: fewer than {FEW_PATIENTS} patients" if few else ""
    figure.supxlabel(f"dot: one fold; stroke: all folds together{note}", **NOTE)
    return figure


@styled
def strata(rows: Sequence[Mapping[str, Any]], overall: Mapping[str, float | None]) -> Figure:
    """Kappa and accuracy in thirds of the videos, one panel per confounder; hollow: few patients.

    rows: as confounders.confounding returns them. overall: the metrics of all videos, dashed.
    """
    columns = min(3, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure = Figure(figsize=(WIDTH, 0.75 + 1.7 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    series = {KAPPA: ("kappa", ACCENT, -0.12), "accuracy": ("accuracy", SCORE_COLOURS[1], 0.12)}
    few = False
    for axes, row in zip(panels.flat, rows, strict=False):
        for name, (_, colour, apart) in series.items():
            if overall[name] is not None:
                axes.axhline(overall[name], color=colour, linewidth=0.9, linestyle=DASHED, zorder=1)
            for place, third in enumerate(row["strata"]):
                hollow = third["patients"] < FEW_PATIENTS
                few |= hollow
                draw_upright(axes, place + apart, third[name], colour, hollow)
        labels = [f"{third['low']:.2f} to\n{third['high']:.2f}" for third in row["strata"]]
        axes.set_xticks(range(len(labels)), labels, fontsize="small")
        axes.set_xlim(-0.5, max(len(labels), 3) - 0.5)
        axes.tick_params(axis="x", length=0)
        axes.set_title(row["title"], fontsize=points(9))
        axes.grid(axis="y")
    for axes in list(panels.flat)[len(rows) :]:
        axes.set_visible(False)
    for _, (label, colour, _) in series.items():
        panels[0][0].plot([], [], "o-", color=colour, ms=5, label=label)
    figure.legend(loc="outside upper left", ncols=2)
    note = f"; hollow: fewer than {FEW_PATIENTS} patients" if few else ""
    figure.supxlabel(
        f"thirds of the videos, from the lowest values to the highest; dashed: all videos{note}",
        **NOTE,
    )
    return figure


def draw_upright(
    axes: Axes, place: float, entry: Mapping[str, Any], colour: str, hollow: bool
) -> None:
    if entry["value"] is None:
        return
    if entry["low"] is not None:
        axes.plot([place] * 2, [entry["low"], entry["high"]], color=colour, alpha=0.45, zorder=2)
    fill = PAPER if hollow else colour
    axes.plot([place], [entry["value"]], "o", color=colour, mfc=fill, ms=5, mew=1.3, zorder=3)


@styled
def confounders(rows: Sequence[Mapping[str, Any]], patients: int) -> Figure:
    """Correlations with each confounder, of true scores and predictions, and beyond the true scores.

    rows: as confounders.confounding returns them.
    """
    figure = Figure(figsize=(WIDTH, 1.35 + 0.29 * len(rows)), layout="constrained")
    titles = {
        "with_score": "True score",
        "with_prediction": "Prediction",
        "beyond_score": "Prediction beyond score",
    }
    panels = figure.subplots(1, 3, sharey=True, sharex=True)
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
        for place, row in enumerate(rows):
            follows = key == "beyond_score" and excludes_zero(row[key])
            colour = SECOND if follows else INK if key == "beyond_score" else MUTED
            draw_entry(axes, place, row[key], colour)
        axes.set_title(title, fontsize=points(9))
        axes.grid(axis="x", color=GRID)
        bare_left(axes)
    panels[0].set_yticks(range(len(rows)), [row["title"] for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    reach = max(abs(end) for end in panels[0].get_xlim())
    panels[0].set_xlim(-reach, reach)
    figure.supxlabel(
        f"rank correlation with the confounder; bar: 95 % interval, {counted(patients, 'patient')}",
        **NOTE,
    )
    return figure
