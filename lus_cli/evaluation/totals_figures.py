"""The figures of totals and areas, from rows that `assessment.assess` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lus_cli.figures import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    SECOND,
    WIDTH,
    bare_left,
    points,
    styled,
)
from lus_cli.words import counted

DASHED = (0, (4, 3))
NOTE = {"color": MUTED, "fontsize": "small"}


@styled
def agreement(
    rows: Sequence[Mapping[str, Any]], compared: Mapping[str, Any], unit: str, estimate: str
) -> Figure:
    """True against predicted totals, and their difference against their mean (Bland, Altman 1986).

    rows: one mapping per unit, with `true` and the total of the `estimate`.
    compared: icc, bias, low_limit and high_limit, each with value, low, high and patients.
    unit: exam or patient.
    """
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    true = [row["true"] for row in rows]
    predicted = [row[estimate] for row in rows]
    end = 1.06 * max([*true, *predicted, 1])
    left.plot([0, end], [0, end], color=MUTED, linewidth=1, linestyle=DASHED, zorder=1)
    dots: Any = {"s": 34, "color": ACCENT, "alpha": 0.65, "edgecolor": PAPER, "zorder": 3}
    left.scatter(true, predicted, **dots)
    left.set(xlim=(0, end), ylim=(0, end))
    left.set(xlabel="true total", ylabel="predicted total")
    left.set_title(f"Total by {unit} ({counted(len(rows), unit)})")
    middles = [(t + p) / 2 for t, p in zip(true, predicted, strict=True)]
    differences = [p - t for t, p in zip(true, predicted, strict=True)]
    right.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    right.scatter(middles, differences, **dots)
    shown = [0, *differences, *limits(compared)]
    low, high = min(*shown, -1), max(*shown, 1)
    right.set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    draw_limits(right, compared)
    right.set_xlim(0, end)
    right.set(xlabel="mean of true and predicted total", ylabel="predicted − true")
    right.set_title("Difference")
    for axes in (left, right):
        axes.set_box_aspect(1)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    left.text(
        0.04,
        0.96,
        icc_text(compared["icc"]),
        transform=left.transAxes,
        va="top",
        fontsize=points(8),
    )
    return figure


def limits(compared: Mapping[str, Any]) -> list[float]:
    """The values and interval ends that are drawn with the differences."""
    entries = (compared[name] for name in ("low_limit", "bias", "high_limit"))
    values = (entry[key] for entry in entries for key in ("value", "low", "high"))
    return [value for value in values if value is not None]


def draw_limits(axes: Axes, compared: Mapping[str, Any]) -> None:
    """Draws bias and limits of agreement as lines with labels on the right and interval bars.

    Labels keep a minimum distance from that of the bias, even if the lines are closer.
    """
    sideways = axes.get_yaxis_transform()  # x in widths of the panel
    bottom, top = axes.get_ylim()
    apart = {"low_limit": -0.15 * (top - bottom), "bias": 0.0, "high_limit": 0.15 * (top - bottom)}
    for name, label in (("high_limit", "+1.96 SD"), ("bias", "bias"), ("low_limit", "−1.96 SD")):
        entry, colour = compared[name], INK if name == "bias" else SECOND
        if entry["value"] is None:
            continue
        style: Any = "-" if name == "bias" else DASHED
        axes.axhline(entry["value"], color=colour, linewidth=1.2, linestyle=style, zorder=2)
        if entry["low"] is not None:
            ends = [entry["low"], entry["high"]]
            edge = 0.955 if name == "bias" else 0.985
            axes.plot([edge] * 2, ends, color=colour, alpha=0.4, linewidth=3, transform=sideways)
        farthest = max if name == "high_limit" else min
        height = farthest(entry["value"], compared["bias"]["value"] + apart[name])
        axes.annotate(
            f"{label}\n{entry['value']:+.1f}".replace("-", "−"),
            (1.02, height),
            xycoords=sideways,
            va="center",
            color=colour,
            fontsize=points(8),
            annotation_clip=False,
        )


def icc_text(icc: Mapping[str, Any]) -> str:
    if icc["value"] is None:
        return "ICC undefined"
    text = f"ICC {icc['value']:.2f}"
    if icc["low"] is not None:
        text += f"\n95 %: {icc['low']:.2f} to {icc['high']:.2f}"
    return f"{text}\n{counted(icc['patients'], 'patient')}".replace("-", "−")


@styled
def areas(rows: Sequence[Mapping[str, Any]], overall: Mapping[str, float]) -> Figure:
    """Accuracy and mean absolute error of each inspection area; hollow dots have few patients.

    overall: the same metrics over all areas, drawn as lines.
    """
    figure = Figure(figsize=(WIDTH, 1.3 + 0.27 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"accuracy": "Accuracy", "mean_absolute_error": "Mean absolute error"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        axes.axvline(overall[name], color=MUTED, linewidth=1, linestyle=DASHED, zorder=1)
        for line, row in enumerate(rows):
            entry = row[name]
            if entry["low"] is not None:
                axes.plot([entry["low"], entry["high"]], [line] * 2, color=ACCENT, alpha=0.45)
            fill = PAPER if row["few"] else ACCENT
            axes.plot([entry["value"]], [line], "o", color=ACCENT, mfc=fill, ms=6, mew=1.4)
        axes.set_title(title)
        axes.grid(axis="x")
        bare_left(axes)
    labels = [f"{r['area']}  ({r['videos']}, {r['patients']})" for r in rows]
    panels[0].set_yticks(range(len(rows)), labels)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    panels[0].set_ylabel("area (videos, patients)")
    panels[0].set_xlim(-0.03, 1.03)
    panels[1].set_xlim(left=-0.06)
    few = "hollow: fewer than 5 patients; " if any(row["few"] for row in rows) else ""
    figure.supxlabel(f"{few}bar: 95 % interval; dashed: all areas", **NOTE)
    return figure
