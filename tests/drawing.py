"""Reads from figures what the tests check."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lus_cli import figures


def svg_text(figure: Figure) -> str:
    """The figure as `figures.save` writes it."""
    return figures.rendered(figure, "svg").decode()


def words_on(figure: Figure) -> list[str]:
    """Every word on a figure, as it is written out."""
    svg = svg_text(figure)
    return [piece.rsplit(">", 1)[-1].strip() for piece in svg.split("</text>")[:-1]]


def bars(axes: Axes, colour: str) -> list[float]:
    """The widths of the bars in a colour."""
    return [p.get_width() for p in axes.patches if to_hex(p.get_facecolor()) == colour]
