"""Figures of how far probabilities can be trusted: calibration, abstention, temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lus_cli.evaluation.totals_figures import DASHED, NOTE
from lus_cli.figures import (
    ACCENT,
    COLUMN,
    MUTED,
    PAPER,
    SCORE_COLOURS,
    SECOND,
    blank,
    column,
)
from lus_cli.words import counted


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


@column
def abstention(found: Mapping[str, Any]) -> Figure:
    """Accuracy and macro F1 of the surest videos, against the share of videos that these are.

    found: curve, at_coverage, aurc and aurc_random.
    """
    figure, axes = blank(2.5, width=COLUMN)
    curve, tenths = found["curve"], [row for row in found["at_coverage"] if row["low"] is not None]
    tenths = tenths if len(curve) > 1 else []
    if tenths:
        axes.fill_between(
            [row["coverage"] for row in tenths],
            [row["low"] for row in tenths],
            [row["high"] for row in tenths],
            color=ACCENT,
            alpha=0.15,
            linewidth=0,
        )
    coverage = [row["coverage"] for row in curve]
    dot = "o" if len(curve) <= 3 else None
    for name, label, colour in (
        ("accuracy", "accuracy", ACCENT),
        ("f1_macro", "macro F1", SCORE_COLOURS[1]),
    ):
        axes.plot(coverage, [row[name] for row in curve], color=colour, label=label, marker=dot)
    random = 1 - found["aurc_random"]
    axes.axhline(random, color=MUTED, linewidth=1, linestyle=DASHED, zorder=1)
    axes.annotate(
        f"accuracy, left out at random {random:.3f}",
        (0, random),
        (4, 3),
        textcoords="offset points",
        **NOTE,
    )
    axes.set(xlim=(0, 1.01), ylim=(-0.02, 1.03))
    band = f"\nband: 95 %, {counted(found['aurc']['patients'], 'patient')}" if tenths else ""
    axes.set(xlabel=f"share of videos answered, the surest first{band}")
    axes.set_ylabel("accuracy, macro F1")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y")
    axes.set_title(f"Surest first (AURC {found['aurc']['value']:.3f})")
    axes.legend(loc="upper right", ncols=2, borderaxespad=0.2, handlelength=1.4)
    return figure


@column
def temperature(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any],
) -> Figure:
    """How often the model is right, given how sure it is, before and after temperature scaling.

    before, after: bins of the reliability diagram. found: value, and figures with the ECE of both.
    """
    figure = Figure(figsize=(COLUMN, 3.3), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHED, zorder=1)
    for when, bins, colour, marker in (
        ("before", before, ACCENT, "o"),
        ("after", after, SECOND, "s"),
    ):
        filled = [row for row in bins if row["videos"]]
        x, y = ([row[name] for row in filled] for name in ("confidence", "accuracy"))
        most = max(row["videos"] for row in filled)
        ece = found["figures"]["ece"][when]["value"]
        axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.6)
        axes.scatter(
            x,
            y,
            s=[10 + 50 * row["videos"] / most for row in filled],
            color=colour,
            marker=marker,
            edgecolor=PAPER,
            zorder=3,
            label=f"{when}, ECE {ece:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="probability given to the answer", ylabel="share answered right")
    axes.grid()
    axes.set_title(f"Temperature {found['value']:.2f}")
    axes.legend(loc="lower right", scatterpoints=1)
    return figure
