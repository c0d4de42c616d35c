"""The figures of confidence: calibration, abstention, temperature."""

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
    """The reliability diagram: accuracy by confidence; below, the distribution of confidence.

    bins: mappings with from, to, videos, confidence and accuracy (None in an empty bin), as
        `calibration.reliability` returns them.
    ece: the expected calibration error, for the title.
    """
    figure = Figure(figsize=(COLUMN, 3.7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    filled = [row for row in bins if row["videos"]]
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    upper.text(
        0.03,
        0.07,
        "confidence = accuracy",
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
    upper.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy")
    upper.set_title("Calibration" if ece is None else f"Calibration (ECE {ece:.3f})")
    upper.grid()
    lower.set(xlabel="probability of the predicted score", ylabel="videos")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


@column
def abstention(results: Mapping[str, Any]) -> Figure:
    """Accuracy and macro F1 of the most confident predictions, by their share of the videos.

    results: curve, at_coverage, aurc and aurc_random, as `calibration.abstention` returns them.
    """
    figure, axes = blank(2.5, width=COLUMN)
    curve, tenths = (
        results["curve"],
        [row for row in results["at_coverage"] if row["low"] is not None],
    )
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
    random = 1 - results["aurc_random"]
    axes.axhline(random, color=MUTED, linewidth=1, linestyle=DASHED, zorder=1)
    axes.annotate(
        f"accuracy of random abstention {random:.3f}",
        (0, random),
        (4, 3),
        textcoords="offset points",
        **NOTE,
    )
    axes.set(xlim=(0, 1.01), ylim=(-0.02, 1.03))
    band = f"\nband: 95 %, {counted(results['aurc']['patients'], 'patient')}" if tenths else ""
    axes.set(xlabel=f"share of videos kept, most confident first{band}")
    axes.set_ylabel("accuracy, macro F1")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y")
    axes.set_title(f"Most confident first (AURC {results['aurc']['value']:.3f})")
    axes.legend(loc="upper right", ncols=2, borderaxespad=0.2, handlelength=1.4)
    return figure


@column
def temperature(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    scaling: Mapping[str, Any],
) -> Figure:
    """The reliability diagram before and after temperature scaling.

    before, after: bins of the diagrams, as `calibration.reliability` returns them.
    scaling: as `calibration.temperature_scaling` returns it.
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
        ece = scaling["metrics"]["ece"][when]["value"]
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
    axes.set(xlabel="probability of the predicted score", ylabel="accuracy")
    axes.grid()
    temperatures = scaling.get("by_fold", [scaling["value"]])
    low, high = f"{min(temperatures):.2f}", f"{max(temperatures):.2f}"
    axes.set_title(f"Temperature {low}" + (f" to {high}" if high != low else ""))
    axes.legend(loc="lower right", scatterpoints=1)
    return figure
