"""A figure's SVG made part of a page: under its heading, in the page's colours, with ids of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from lus_cli.figures import (
    ACCENT,
    COLUMN,
    GRID,
    INK,
    MUTED,
    PAPER,
    SCORE_COLOURS,
    SECOND,
    WIDTH,
)

# The colours of a figure, by the name under which the page's style sheet has them, light and dark.
PAGE_COLOURS = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    PAPER: "paper",
    ACCENT: "accent",
    SECOND: "second",
    "#fefefe": "on-score",
} | {colour: f"score-{score}" for score, colour in enumerate(SCORE_COLOURS)}

# Figure -> heading and what to look for.
TEXTS = {
    "curves": (
        "Training",
        "A validation loss that stays near the best constant answer has learned nothing about the "
        "single video. The dotted line marks the epoch whose weights were kept.",
    ),
    "forest": (
        "Methods side by side",
        "Left, what each reaches; right, by how much the recipe exceeds it on the same patients. An "
        "interval that leaves out 0 tells the two apart, also where those on the left overlap.",
    ),
    "folds": (
        "Single folds",
        "How far a figure may be off that rests on the patients of one fold alone.",
    ),
    "confounders": (
        "What answers follow",
        "Left, how the true scores go with a confounder in these patients; middle, how the answers "
        "do; right, what the answers take from it beyond the true scores, orange where the interval "
        "leaves out 0.",
    ),
    "strata": (
        "Within strata",
        "Videos that are alike in a confounder, by thirds. A model that reads the confounder "
        "instead of the lung falls towards 0 within them.",
    ),
    "errors_per_class": (
        "Errors by true score",
        "Each bar holds the videos of one true score that were answered wrongly, coloured by the "
        "answer.",
    ),
    "calibration": (
        "Calibration",
        "On the dashed line the model is as sure as it is right; below it, it is too sure. Larger "
        "dots hold more videos.",
    ),
    "temperature": (
        "Temperature",
        "The same diagram before and after temperature scaling, fitted on the validation videos. "
        "Everything else on this page shows the probabilities as the model gave them.",
    ),
    "abstention": (
        "Leaving out the unsure",
        "A model that knows when it is unsure gets better from right to left. Macro F1 counts a "
        "score that is left out altogether as 0.",
    ),
    "exam_totals": (
        "Totals of exams",
        "On the dashed line the predicted total is the true one. Right: their difference, with the "
        "limits between which 95 % of exams are expected.",
    ),
    "patient_totals": (
        "Totals of patients",
        "Over all videos of a patient: predicted against true totals, and their difference.",
    ),
    "areas": (
        "Areas",
        "Hollow dots rest on fewer than 5 patients, and say little about the next one.",
    ),
}


@dataclass(frozen=True)
class PageFigure:
    """A figure as the template writes it down."""

    name: str
    title: str
    text: str
    svg: Markup
    width: int  # pixels, at most


def page_figure(name: str, svg: str) -> PageFigure:
    """A figure from its SVG text, as `figures.save` writes it, which is taken to be escaped."""
    title, text = TEXTS.get(name, (name.replace("_", " ").capitalize(), ""))
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", name)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    inches = re.search(r'width="([\d.]+)pt"', svg)
    width = float(inches[1]) / 72 if inches else WIDTH
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    # Of 96 an inch; one made for a column has smaller text, and is shown larger.
    pixels = width * 96 * (1.5 if width <= COLUMN else 1.0)
    return PageFigure(name, title, text, Markup(svg), round(pixels))
