"""The figures of a study: video lengths (Figs. 3 and 4 of the report) and scores (Table I)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lus_cli.figures import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    SCORE_COLOURS,
    WIDTH,
    bare_left,
    blank,
    draw_segment,
    label_inside,
    points,
    score_legend,
    styled,
)
from lus_cli.study.ids import natural_key
from lus_cli.words import counted

ROW, LEAST_ROW = 0.22, 0.13  # inches: height of a patient's row, and the least legible height
ROWS_HEIGHT = 7.3  # inches: height of all rows on a full page
NAMED = 3  # patients named at either end if there is no room for all
PALE, MIDDLE = "#d8e3f1", "#8fb0d9"  # tints of ACCENT, for ranges


@styled
def lengths_by_score(lengths: np.ndarray, scores: np.ndarray) -> Figure:
    """Histogram of the video lengths of each score (Fig. 3 of the report).

    lengths: (video,) frames; scores: (video,) 0..3, or -1 for unlabelled videos, which are left out.
    """
    figure, axes = blank(3.6)
    edges = np.histogram_bin_edges(lengths, bins=30, range=(0, max(lengths, default=1)))
    counts = [np.histogram(lengths[scores == score], edges)[0] for score in range(4)]
    tallest = max(1, max(count.max() for count in counts))
    for score, count in enumerate(counts):
        axes.bar(
            edges[:-1],
            count / tallest * 0.66,
            np.diff(edges),
            bottom=score,
            align="edge",
            color=SCORE_COLOURS[score],
            edgecolor=PAPER,
            linewidth=0.5,
        )
        axes.axhline(score, color=MUTED, linewidth=0.8, zorder=2)
        mark_quartiles(axes, lengths[scores == score], score - 0.13)
    totals = [int((scores == score).sum()) for score in range(4)]
    axes.set_yticks(range(4), [f"score {s}\n{counted(n, 'video')}" for s, n in enumerate(totals)])
    axes.set_ylim(-0.3, 3.25 + counts[3].max() / tallest * 0.6)
    axes.set_xlim(0, edges[-1] * 1.01)
    bare_left(axes)
    axes.set_xlabel("length, frames     (dot: median; line: middle half of the videos)")
    axes.set_title("Length of the videos by score")
    return figure


@styled
def lengths_by_patient(lengths: np.ndarray, patients: Sequence[str]) -> Figure:
    """Video lengths of each patient (Fig. 4 of the report), ordered by median length.

    Draws one row per patient if all rows fit on a page, with a dot per video; otherwise quantile
    bands over all patients. lengths: (video,) frames; patients: the patient of each video.
    """
    by_patient: dict[str, list[int]] = {}
    for patient, length in zip(patients, lengths.tolist(), strict=True):
        by_patient.setdefault(patient, []).append(length)
    order = sorted(by_patient, key=lambda name: (np.median(by_patient[name]), natural_key(name)))
    ordered = {name: np.array(by_patient[name]) for name in order}
    rows = len(order) * LEAST_ROW <= ROWS_HEIGHT
    return rows_of_patients(ordered) if rows else bands_of_patients(ordered)


def rows_of_patients(by_patient: Mapping[str, np.ndarray]) -> Figure:
    """One row per patient: a dot per video, with the median and the middle half on top."""
    count = len(by_patient)
    row = min(ROW, max(LEAST_ROW, ROWS_HEIGHT / max(count, 1)))
    figure, axes = blank(1.1 + row * max(count, 6))
    for y, lengths in enumerate(by_patient.values()):
        axes.plot(lengths, [y] * len(lengths), "o", color=ACCENT, alpha=0.3, ms=20 * row, mew=0)
        mark_quartiles(axes, lengths, y, row / ROW)
    labels = [f"{name}  ({len(lengths)})" for name, lengths in by_patient.items()]
    axes.set_yticks(range(count), labels, fontsize=min(points(9), row * 54))
    axes.set_ylabel("patient (videos)")
    axes.set_ylim(count - 0.3, -0.7)
    axes.set_xlim(0, max(map(max, by_patient.values()), default=1) * 1.03)
    axes.grid(axis="x")
    bare_left(axes)
    axes.set_xlabel("length, frames     (dark dot: median; line: middle half of the videos)")
    axes.set_title("Length of the videos by patient")
    return figure


def bands_of_patients(by_patient: Mapping[str, np.ndarray]) -> Figure:
    """Quantile bands of the video lengths over all patients, and their numbers of videos."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    quantiles = np.array(
        [np.percentile(values, (0, 25, 50, 75, 100)) for values in by_patient.values()]
    )
    # One more edge, so that the last patient is as wide as the others.
    place = np.arange(len(by_patient) + 1) + 0.5
    least, low, middle, high, most = np.vstack([quantiles, quantiles[-1]]).T
    upper.fill_between(place, least, most, step="post", color=PALE, linewidth=0, label="all videos")
    upper.fill_between(place, low, high, step="post", color=MIDDLE, lw=0, label="middle half")
    upper.step(place, middle, where="post", color=INK, linewidth=1.4, label="median")
    upper.set(ylim=(0, most.max() * 1.05), ylabel="length, frames")
    upper.set_title("Length of the videos by patient")
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
    upper.legend(**above, ncols=3, handlelength=1.2, columnspacing=1.2)
    upper.grid(axis="y")
    videos = list(map(len, by_patient.values()))
    lower.fill_between(place, [*videos, videos[-1]], step="post", color=ACCENT, alpha=0.55, lw=0)
    lower.set(ylim=(0, max(videos) * 1.05), ylabel="videos", xlim=(0.5, place[-1]))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    names = list(by_patient)
    lower.set_xlabel(
        f"{len(names)} patients by their median length\n"
        f"shortest: {', '.join(names[:NAMED])}     longest: {', '.join(names[: -NAMED - 1 : -1])}"
    )
    return figure


def mark_quartiles(axes: Axes, values: np.ndarray, y: float, scale: float = 1.0) -> None:
    """Draws a dot at the median and a line over the middle half of `values`, at height `y`."""
    if len(values):
        low, middle, high = np.percentile(values, (25, 50, 75))
        axes.plot([low, high], [y, y], color=INK, linewidth=1.8 * scale)
        axes.plot([middle], [y], "o", color=INK, markersize=4.5 * scale)


@styled
def scores_by_part(counts: Mapping[str, Sequence[int]]) -> Figure:
    """Shares of the scores in each part of the split, with numbers (Table I of the report).

    counts: part -> number of videos of each score 0..3.
    """
    figure, axes = blank(1.35 + 0.42 * len(counts))
    for row, numbers in enumerate(counts.values()):
        total, left = sum(numbers), 0.0
        for score, videos in enumerate(numbers):
            share = videos / total if total else 0.0
            draw_segment(axes, row, left, share, score)
            if share > 0.012 * (len(str(videos)) + 1):
                label_inside(axes, left + share / 2, row, str(videos), score)
            elif videos:  # too narrow for its number
                axes.text(
                    left + share / 2, row - 0.34, str(videos), ha="center", fontsize=points(7)
                )
            left += share
        axes.text(1.015, row, counted(total, "video"), va="center", color=INK)
    axes.set_yticks(range(len(counts)), list(counts))
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of the part's videos")
    bare_left(axes)
    score_legend(figure, "score")
    return figure
