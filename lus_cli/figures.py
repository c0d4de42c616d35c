"""The style of all figures, and how they are saved. Figures are made for print.

Figures use only INK, MUTED, GRID, ACCENT, SECOND and the four SCORE_COLOURS on PAPER, so that a page
can replace these colours with its own. A figure is as wide as one journal column (`column`) or as a
page (`styled`), with a text size to match. `save` writes SVG, in which text stays text, and PNG; the
same figure always gives the same bytes. The table [figures] of a file given by --config changes font,
text size, resolution and formats of all of them: see `config.FigureLook`.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lus_cli import files as part_files
from lus_cli.config import FigureLook, figure_look
from lus_cli.errors import UsageError

INK, MUTED, GRID, PAPER = "#1f2933", "#66727f", "#dfe4e8", "#ffffff"
ACCENT, SECOND = (
    "#2f5f9e",
    "#c8641b",
)  # blue and orange: distinct in all common types of colour vision
# Scores 0 to 3, from viridis: they differ in lightness, so also in gray and for colour-blind readers.
SCORE_COLOURS = ("#7ad151", "#1f9e89", "#31688e", "#482475")
SHARE_COLOURS = LinearSegmentedColormap.from_list(
    "share", ["#f3f6f9", "#a9c4e4", ACCENT, "#17325a"]
)

WIDTH = 6.5  # inches, the text width of a page
COLUMN = 85 / 25.4  # inches, one column of a two-column page: 85 mm
STYLE: Any = {
    "font.family": "DejaVu Sans",  # included in matplotlib
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
    "text.parse_math": False,  # an id may contain dollar signs
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
    "pdf.fonttype": 42,  # TrueType, which journals ask for
}

# The style of a figure of one column: "small" text has 6.2 points.
COLUMN_STYLE: Any = STYLE | {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titlepad": 7,
    "axes.labelsize": 7.5,
    "axes.labelpad": 3,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.fontsize": 6.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2.5,
    "ytick.major.pad": 2.5,
    "savefig.dpi": 400,
}

TEXT_SIZES = ("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize")

Drawing = Callable[..., Figure]


def points(size: float) -> float:
    """A text size, in points, as [figures] scales it."""
    return size * figure_look().text_size / FigureLook.text_size


def require_font(family: str) -> None:
    """Raises UsageError if matplotlib finds no font of that family."""
    from matplotlib import font_manager

    try:
        font_manager.findfont(family, fallback_to_default=False)
    except ValueError:
        names = sorted({entry.name for entry in font_manager.fontManager.ttflist})
        raise UsageError(
            f"there is no font {family!r}", f"fonts are {', '.join(names[:30])}"
        ) from None


def styled(draw: Drawing) -> Drawing:
    """Runs `draw` in the style of a page-wide figure; matplotlib's settings stay unchanged."""
    return in_style(draw, STYLE)


def column(draw: Drawing) -> Drawing:
    """Runs `draw` in the style of a figure that is `COLUMN` wide."""
    return in_style(draw, COLUMN_STYLE)


@contextlib.contextmanager
def house_style(style: Any) -> Iterator[None]:
    """Applies a style, as [figures] changes it, to matplotlib's defaults, independent of the user's
    matplotlibrc or settings."""
    look = figure_look()
    style = style | {"font.family": look.font}
    style |= {name: points(value) for name, value in style.items() if name in TEXT_SIZES}
    style |= {"savefig.dpi": look.dpi or style["savefig.dpi"]}
    defaults = dict(matplotlib.rcParamsDefault.copy())
    del defaults["backend"]  # no figure depends on it, and reading it would load it
    with matplotlib.rc_context(defaults | style):
        yield


def in_style(draw: Drawing, style: Any) -> Drawing:
    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Figure:
        with house_style(style):
            return draw(*args, **kwargs)

    return wrapped


def style_of(figure: Figure) -> Any:
    """The style of a figure, for what is only created when it is saved, such as ticks."""
    return COLUMN_STYLE if figure.get_figwidth() <= COLUMN else STYLE


def save(figure: Figure, path_stem: Path) -> list[Path]:
    """Writes `<path_stem>.svg` and `<path_stem>.png`, and `.pdf` if [figures] wants it; returns their
    paths."""
    paths = []
    for kind in dict.fromkeys(("svg", "png", *figure_look().formats)):
        path = path_stem.with_name(f"{path_stem.name}.{kind}")
        with part_files.replacing(path) as part:
            part.write_bytes(rendered(figure, kind))
        paths.append(path)
    return paths


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as the bytes of an svg, png or pdf file, without date and version."""
    stream = io.BytesIO()
    metadata = {
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[kind]
    with house_style(style_of(figure)):
        if not figure_look().titles:
            remove_title(figure)
        lay_out(figure)
        figure.savefig(stream, format=kind, metadata=metadata)
    return stream.getvalue()


def remove_title(figure: Figure) -> None:
    """Removes the title of a figure. Titles of several panels stay, since they name the panels."""
    if figure.get_suptitle():
        figure.suptitle("")
    if len(figure.axes) == 1:
        for place in ("left", "center", "right"):
            figure.axes[0].set_title("", loc=place)


def lay_out(figure: Figure) -> None:
    """Computes the layout once, instead of for each file: it takes twice as long as drawing."""
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def blank(
    height: float, rows: int = 1, *, width: float = WIDTH, **options: Any
) -> tuple[Figure, Any]:
    """An empty figure, `height` and `width` in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


# --------------------------------------------------------------------- parts of several figures


def draw_segment(axes: Axes, row: float, left: float, width: float, score: int) -> None:
    """Draws a segment of a horizontal bar in the colour of a score."""
    colour = SCORE_COLOURS[score]
    axes.barh(row, width, 0.66, left, color=colour, edgecolor=PAPER, linewidth=1)


def label_inside(axes: Axes, x: float, row: float, text: str, score: int) -> None:
    """Writes on a bar in the colour of a score; black on the lightest colour, white on the others."""
    ink = "#000000" if score == 0 else "#fefefe"
    axes.text(x, row, text, ha="center", va="center", color=ink, fontsize="small")


def score_legend(figure: Figure, title: str) -> None:
    """Adds the four score colours as a legend above the axes."""
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


def bare_left(axes: Axes) -> None:
    """Removes the axis line and the tick marks on the left, for rows with labels."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
