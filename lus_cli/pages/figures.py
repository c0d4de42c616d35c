"""Figures on a page: their headings and explanations, and their SVG with colours and ids adapted."""

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

# Colour of a figure -> its variable in the style sheet, which has a light and a dark value.
PAGE_COLOURS = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    PAPER: "paper",
    ACCENT: "accent",
    SECOND: "second",
    "#fefefe": "on-score",
} | {colour: f"score-{score}" for score, colour in enumerate(SCORE_COLOURS)}

# Figure -> its heading and explanation.
TEXTS = {
    "curves": (
        "Training",
        "If the validation loss stays near that of the best constant prediction, the model has learned "
        "nothing about single videos. The dotted line marks the epoch whose weights were kept.",
    ),
    "forest": (
        "Methods side by side",
        "Left: the kappa of each method. Right: the same minus that of the recipe, paired by patient. "
        "An interval that excludes 0 shows a difference, even if the intervals on the left overlap.",
    ),
    "folds": (
        "Single folds",
        "How much a metric varies if it is measured on the patients of a single fold.",
    ),
    "confounders": (
        "What the predictions follow",
        "Left: the correlation of the true scores with a confounder in these patients. Middle: that of "
        "the predictions. Right: that of the predictions given the true scores, in orange where the "
        "interval excludes 0.",
    ),
    "strata": (
        "Within strata",
        "Thirds of the videos with similar values of a confounder. The kappa of a model that reads the "
        "confounder instead of the lung falls towards 0 within them.",
    ),
    "errors_per_class": (
        "Errors by true score",
        "Each bar shows the wrong predictions for the videos of one true score, coloured by the "
        "predicted score.",
    ),
    "calibration": (
        "Calibration",
        "On the dashed line, confidence equals accuracy; below it, the model is overconfident. Larger "
        "dots stand for more videos.",
    ),
    "temperature": (
        "Temperature",
        "The calibration diagram before and after temperature scaling. "
        "The rest of this page shows unscaled probabilities.",
    ),
    "abstention": (
        "Abstention",
        "Leaving out the least confident predictions. If confidence is informative, accuracy rises from "
        "right to left. Macro F1 leaves out a score that no video left has, unless it is predicted.",
    ),
    "exam_totals": (
        "Totals of exams",
        "On the dashed line the predicted total equals the true one. Right: their difference, with the "
        "limits within which 95 % of exams are expected.",
    ),
    "patient_totals": (
        "Totals of patients",
        "Sums over all videos of a patient: predicted against true totals, and their difference.",
    ),
    "areas": (
        "Areas",
        "Hollow dots come from fewer than 5 patients and say little about other patients.",
    ),
}


@dataclass(frozen=True)
class PageFigure:
    """A figure as the templates show it."""

    name: str
    title: str
    text: str
    svg: Markup
    width: int  # pixels, at most


def page_figure(name: str, svg: str) -> PageFigure:
    """Makes a figure from SVG text that `figures.save` wrote; the text must already be escaped."""
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
    # 96 pixels per inch; a figure of column width has smaller text and is shown larger.
    pixels = width * 96 * (1.5 if width <= COLUMN else 1.0)
    return PageFigure(name, title, text, Markup(svg), round(pixels))
