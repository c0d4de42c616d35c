"""The figures of a study and of a run, made for print: plain arrays in, matplotlib figures out.

Everything is drawn in INK, MUTED, GRID, ACCENT and the four SCORE_COLOURS on PAPER, so that a page
can swap these few colours for its own. `save` writes SVG, with its text as text, and PNG, the same
bytes for the same figure every time.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from lus_cli import cache

INK, MUTED, GRID, PAPER = "#1f2933", "#66727f", "#dfe4e8", "#ffffff"
ACCENT, SECOND = "#2f5f9e", "#c8641b"  # blue and orange: apart for every common colour vision
# Scores 0 to 3, from viridis: apart in lightness too, so also in gray and for colour-blind readers.
SCORE_COLOURS = ("#5ec962", "#1f9e89", "#31688e", "#482475")
SHARE_COLOURS = LinearSegmentedColormap.from_list(
    "share", ["#f3f6f9", "#a9c4e4", ACCENT, "#17325a"]
)

WIDTH = 6.5  # inches: the text width of a page
MANY_PATIENTS = 60  # more do not get a label each
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "text.parse_math": False,  # an id may hold dollar signs
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "lus",
}

Drawing = Callable[..., Figure]


def styled(draw: Drawing) -> Drawing:
    """Runs `draw` in the house style, leaving matplotlib's own settings as they were."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def save(figure: Figure, path_stem: Path) -> list[Path]:
    """Writes `<path_stem>.svg` and `<path_stem>.png`; gives their paths."""
    paths = []
    for kind in ("svg", "png"):
        path = path_stem.with_name(f"{path_stem.name}.{kind}")
        with cache.replacing(path) as part:
            part.write_bytes(rendered(figure, kind))
        paths.append(path)
    return paths


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as the bytes of an svg or png file, without a date or a version in them."""
    stream = io.BytesIO()
    nameless = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format=kind, metadata=nameless)
    return stream.getvalue()


def svg_text(figure: Figure) -> str:
    """The figure as SVG text, for a page to hold."""
    return rendered(figure, "svg").decode()


def blank(height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """An empty figure of the text width and `height` inches, and its axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


# ------------------------------------------------------------------------------ figures of a study


@styled
def lengths_by_score(lengths: np.ndarray, scores: np.ndarray) -> Figure:
    """How long the videos of each score are (the report's Fig. 3), one histogram a score.

    lengths: (video,) frames; scores: (video,) 0..3, or -1 for an unlabelled video, left out.
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
    axes.set_yticks(range(4), [f"score {s}\n{plural(n, 'video')}" for s, n in enumerate(totals)])
    axes.set_ylim(-0.3, 3.85)
    axes.set_xlim(0, edges[-1] * 1.01)
    bare_left(axes)
    axes.set_xlabel("length, frames     (dot: median; line: middle half of the videos)")
    axes.set_title("Length of the videos by score")
    return figure


@styled
def lengths_by_patient(lengths: np.ndarray, patients: Sequence[str]) -> Figure:
    """How long the videos of each patient are (the report's Fig. 4), shortest patients on top.

    lengths: (video,) frames; patients: the patient of each video.
    """
    names, group = np.unique(patients, return_inverse=True)
    by_patient = [lengths[group == index] for index in range(len(names))]
    order = sorted(range(len(names)), key=lambda i: (np.median(by_patient[i]), names[i]))
    many = len(names) > MANY_PATIENTS
    pitch = 0.22 if not many else max(0.03, 9.0 / len(names))
    figure, axes = blank(min(60.0, 1.3 + pitch * len(names)))
    for row, index in enumerate(order):
        own = by_patient[index]
        if not many:
            axes.plot(own, [row] * len(own), "o", color=ACCENT, alpha=0.3, ms=4.5, mew=0)
        else:
            axes.plot([own.min(), own.max()], [row, row], color=ACCENT, alpha=0.35, linewidth=0.8)
        mark_quartiles(axes, own, row, small=many)
    if many:
        shown = (
            [*range(5), *range(len(order) - 5, len(order))] if pitch >= 0.1 else [0, len(order) - 1]
        )
        axes.set_yticks(shown, [names[order[row]] for row in shown])
        axes.set_ylabel(f"{len(names)} patients, by median length")
    else:
        labels = [f"{names[i]}  ({len(by_patient[i])})" for i in order]
        axes.set_yticks(range(len(order)), labels)
        axes.set_ylabel("patient (videos)")
    axes.set_ylim(len(order) - 0.3, -0.7)
    axes.set_xlim(0, max(lengths, default=1) * 1.03)
    axes.grid(axis="x")
    bare_left(axes)
    axes.set_xlabel("length, frames     (dark dot: median; line: middle half of the videos)")
    axes.set_title("Length of the videos by patient")
    return figure


def mark_quartiles(axes: Axes, values: np.ndarray, y: float, small: bool = False) -> None:
    """A dot at the median and a line over the middle half of `values`, at height `y`."""
    if len(values):
        low, middle, high = np.percentile(values, (25, 50, 75))
        axes.plot([low, high], [y, y], color=INK, linewidth=1.0 if small else 1.8)
        axes.plot([middle], [y], "o", color=INK, markersize=2 if small else 4.5)


@styled
def scores_by_part(counts: Mapping[str, Sequence[int]]) -> Figure:
    """Shares of the scores in each part of the split (the report's Table I), with the numbers.

    counts: part -> number of videos of each score 0..3.
    """
    figure, axes = blank(1.35 + 0.42 * len(counts))
    for row, numbers in enumerate(counts.values()):
        total, left = sum(numbers), 0.0
        for score, videos in enumerate(numbers):
            share = videos / total if total else 0.0
            draw_segment(axes, row, left, share, score)
            if share > 0.035:
                label_inside(axes, left + share / 2, row, str(videos), score)
            left += share
        axes.text(1.015, row, plural(total, "video"), va="center", color=INK)
    axes.set_yticks(range(len(counts)), list(counts))
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of the part's videos")
    bare_left(axes)
    score_legend(figure, "score")
    return figure


def draw_segment(axes: Axes, row: float, left: float, width: float, score: int) -> None:
    colour = SCORE_COLOURS[score]
    axes.barh(row, width, 0.66, left, color=colour, edgecolor=PAPER, linewidth=1)


def label_inside(axes: Axes, x: float, row: float, text: str, score: int) -> None:
    """Writes on a bar in a score's colour; black on the lightest one, white on the others."""
    ink = "#000000" if score == 0 else "#fefefe"
    axes.text(x, row, text, ha="center", va="center", color=ink, fontsize=8.5)


def score_legend(figure: Figure, title: str) -> None:
    """The four score colours, in a row above everything."""
    squares = [
        matplotlib.patches.Patch(facecolor=colour, label=str(score))
        for score, colour in enumerate(SCORE_COLOURS)
    ]
    figure.legend(
        handles=squares,
        title=title,
        ncols=4,
        loc="outside upper left",
        alignment="left",
        handlelength=1,
        handleheight=1,
        columnspacing=1.4,
    )


# -------------------------------------------------------------------------------- figures of a run


@styled
def curves(
    epochs: Sequence[Mapping[str, Any]],
    constant_loss: float | None = None,
    floor: float | None = None,
    majority: float | None = None,
) -> Figure:
    """Loss, accuracy and learning rate over the epochs (the report's Figs. 6 and 7).

    epochs: a mapping an epoch, with `epoch` and any of train_loss, validation_loss,
        validation_accuracy, validation_kappa and learning_rate*; None or NaN leaves a gap.
    constant_loss, floor: validation loss of the best constant answer, and of a perfect one.
    majority: validation accuracy of always answering the most frequent score.
    """
    figure, (loss, quality, rate) = blank(6.2, 3, sharex=True, height_ratios=(3, 2, 1))
    loss.set_title("Loss, nats per video")
    lines = {"train_loss": ("training", SECOND), "validation_loss": ("validation", ACCENT)}
    draw_lines(loss, epochs, lines)
    draw_level(loss, constant_loss, "best constant answer")
    draw_level(loss, floor, "perfect answer")
    quality.set_title("Validation accuracy and kappa")
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
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def series(epochs: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """(epoch,) float64: one quantity over the epochs, NaN where it was not written down."""
    return np.array([np.nan if e.get(name) in (None, "") else float(e[name]) for e in epochs])


def draw_learning_rates(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Every learning_rate* over the epochs, on a logarithmic axis where none is zero."""
    axes.set_title("Learning rate")
    names = [name for name in (epochs[0] if epochs else ()) if name.startswith("learning_rate")]
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
    """Each quantity (name -> label, colour) over the epochs; single epochs show as dots."""
    x = series(epochs, "epoch")
    for name, (label, colour) in lines.items():
        y = series(epochs, name)
        if not np.isnan(y).all():
            marker = "o" if np.count_nonzero(~np.isnan(y)) <= 15 else None
            axes.plot(x, y, color=colour, label=label or None, marker=marker, markersize=3.5)


def draw_level(axes: Axes, level: float | None, label: str) -> None:
    """A dashed reference line with its name and value on it."""
    if level is not None and math.isfinite(level):
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"{label} {level:.3f}",
            (1, level),
            (-2, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            fontsize=8,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
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
    panels[0].plot([epoch], [losses[best]], "o", color=ACCENT, mec=PAPER, mew=1.2, ms=7, zorder=4)
    right_half = best > len(epochs) / 2
    panels[0].annotate(
        f"best: epoch {epoch:g}, {losses[best]:.3f}",
        (epoch, 1),
        (-5 if right_half else 5, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if right_half else "left",
        va="top",
        fontsize=8.5,
    )


# ------------------------------------------------------------------------- figures of an evaluation


@styled
def confusion(matrix: Sequence[Sequence[int]]) -> Figure:
    """True against answered scores (the report's Fig. 8): numbers, and shares of each true score.

    matrix: (true score, answered score) numbers of videos.
    """
    counts = np.asarray(matrix, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(shares, cmap=SHARE_COLOURS, vmin=0, vmax=1, edgecolors=PAPER, linewidth=2)
    for (true, answered), share in np.ndenumerate(shares):
        place, videos = (answered + 0.5, true + 0.5), int(counts[true, answered])
        ink = "#fefefe" if share > 0.5 else INK if videos else MUTED
        weight = "bold" if true == answered else "normal"
        write_cell(
            axes,
            place,
            (4 if videos else 0),
            str(videos),
            color=ink,
            fontsize=13,
            fontweight=weight,
        )
        if videos:
            write_cell(axes, place, -10, f"{share:.0%}", color=ink, fontsize=8)
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


@styled
def errors_per_class(matrix: Sequence[Sequence[int]]) -> Figure:
    """The videos of each true score answered wrongly, and as which score (the report's Fig. 9).

    matrix: (true score, answered score) numbers of videos.
    """
    counts = np.asarray(matrix, dtype=int)
    wrong = counts.sum(axis=1) - counts.diagonal()
    figure, axes = blank(2.9)
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
    axes.set_xlim(0, widest * 1.14)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("videos of this true score answered wrongly")
    bare_left(axes)
    score_legend(figure, "answered as score")
    return figure


@styled
def calibration(bins: Sequence[Mapping[str, Any]], ece: float | None = None) -> Figure:
    """How often the model is right, given how sure it is; below, how sure it is how often.

    bins: mappings with from, to, videos, confidence and accuracy (None in an empty bin), as
        `metrics.assess` gives them; ece: the expected calibration error, written into the title.
    """
    figure = Figure(figsize=(4.6, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    filled = [row for row in bins if row["videos"]]
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    upper.text(
        0.03,
        0.07,
        "as sure as right",
        color=MUTED,
        fontsize=8,
        rotation=45,
        rotation_mode="anchor",
        transform_rotates_text=True,
    )
    for row in filled:
        ends = [row["confidence"], row["accuracy"]]
        upper.plot([row["confidence"]] * 2, ends, color=SECOND, linewidth=2, alpha=0.7, zorder=2)
    most = max((row["videos"] for row in filled), default=1)
    upper.scatter(
        [row["confidence"] for row in filled],
        [row["accuracy"] for row in filled],
        s=[25 + 130 * row["videos"] / most for row in filled],
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


def bare_left(axes: Axes) -> None:
    """Rows name themselves: no axis line and no tick marks on the left."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
