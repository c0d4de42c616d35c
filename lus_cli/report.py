"""The page a person opens after an evaluation: one HTML file that needs nothing else.

Everything on it is escaped but the figures, which `figures.svg_text` escaped already. The page
carries a policy that lets it load nothing and run no script but its own, so an id can do no harm.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lus_cli import cache, clinical, metrics
from lus_cli.figures import ACCENT, GRID, INK, MUTED, PAPER, SCORE_COLOURS, SECOND

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

# Figure -> heading and what to look for. The page draws its own confusion matrix.
FIGURE_TEXTS = {
    "curves": (
        "Training",
        "A validation loss that stays near the best constant answer has learned nothing about the "
        "single video. The dotted line marks the epoch whose weights were kept.",
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
    "patient_totals": ("Totals of patients", "The same over all videos of a patient."),
    "areas": (
        "Areas",
        "Hollow dots rest on fewer than 5 patients, and say little about the next one.",
    ),
}
OWN_FIGURES = {"confusion"}

PART_NAMES = {"test": "test video", "validation": "validation video", "train": "training video"}
# Where the axis of a figure's little plot ends; the losses have no natural end.
AXES = {"kappa_quadratic": (-0.25, 1.0), "mean_absolute_error": (0.0, 3.0), "brier": (0.0, 2.0)}
PLOT_WIDTH = 150.0


def write_report(
    path: Path,
    scores: Mapping[str, Any],
    predictions: metrics.Predictions,
    run: Mapping[str, Any],
    figures: Mapping[str, str],
    strips: Mapping[str, Sequence[bytes]] | None = None,
) -> None:
    """Writes the evaluation page to `path`.

    scores: what `metrics.assess` gave for `predictions`.
    run: `name`; `part` (train, validation, test or all); `epoch`, whose weights were scored, or
        None; `recipe` and `provenance`, mappings that are shown as they are.
    figures: name -> SVG text, as `figures.svg_text` gives it, shown in this order.
    strips: patient/exam/area -> PNG files of a few of its frames, in order.
    """
    script = template_text("report.js")
    page = environment().get_template("report.html")
    cache.write_text(
        path,
        page.render(
            run=run,
            scores=scores,
            part=PART_NAMES.get(run["part"], "video"),
            summary=summary(scores),
            figure_rows=list(figure_rows(scores["figures"])),
            class_figures=metrics.CLASS_FIGURES,
            few_patients=clinical.FEW_PATIENTS,
            total_rows=list(total_rows(scores["sums"])),
            matrix=matrix_rows(scores["confusion"]),
            drawn=[page_figure(n, svg) for n, svg in figures.items() if n not in OWN_FIGURES],
            videos=video_rows(predictions, strips or {}),
            has_strips=bool(strips),
            details={"Recipe": flat(run.get("recipe")), "Provenance": flat(run.get("provenance"))},
            style=Markup(template_text("report.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        ),
    )


def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("lus_cli"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"three": three, "interval": interval, "percent": percent, "counted": counted}
    return made


def template_text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------- words


def three(value: float | None) -> str:
    """Three decimals with a true minus sign; a dash for what is undefined."""
    return "–" if value is None else f"{value:z.3f}".replace("-", "\u2212")


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def percent(value: float) -> str:
    return f"{100 * value:.0f}\u00a0%"


def interval(entry: Mapping[str, Any]) -> str:
    if entry["low"] is None:
        return "–"
    return f"{three(entry['low'])} to {three(entry['high'])}"


def summary(scores: Mapping[str, Any]) -> dict[str, str]:
    """The result in plain words: a headline, and a paragraph on each of the questions behind it."""
    found, videos = scores["figures"], scores["videos"]
    accuracy, kappa = found["accuracy"], found["kappa_quadratic"]
    matrix = scores["confusion"]
    right = sum(matrix[score][score] for score in metrics.SCORES)
    most = max(metrics.SCORES, key=lambda score: scores["scores"][score])
    if accuracy["low"] is None:
        spread = f"no interval: {accuracy['why']}"
    else:
        low, high = percent(accuracy["low"]), percent(accuracy["high"])
        spread = f"95 % interval over patients: {low} to {high}"
    luck = f", p = {three(accuracy['p_value'])}" if accuracy.get("p_value") is not None else ""
    texts = {
        "headline": f"Right about {right} of {counted(videos, 'video')}.",
        "references": f"That is an accuracy of {percent(accuracy['value'])} ({spread}). Answering "
        f"score {most} for every video would reach {percent(accuracy['majority'])}; the same answers "
        f"dealt out at random would reach {percent(accuracy['chance'])}{luck}.",
    }
    agreement = (
        "Kappa is undefined here."
        if kappa["value"] is None
        else f"Agreement beyond chance, where larger errors weigh more (quadratic kappa), is "
        f"{three(kappa['value'])}, with 0 for chance and 1 for perfect."
    )
    distance = found["mean_absolute_error"]["value"]
    texts["agreement"] = f"On average the answer is {distance:.2f} scores off. {agreement}"
    errors = [(matrix[t][a], t, a) for t in metrics.SCORES for a in metrics.SCORES if t != a]
    count, true, answered = max(errors, key=lambda error: error[0])
    if count:
        texts["errors"] = (
            f"The most frequent error: {count} of the {counted(scores['scores'][true], 'video')} "
            f"of score {true} answered as {answered}."
        )
    return texts


# ------------------------------------------------------------------------------------------ tables


def figure_rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row a figure of merit, with a little plot of its interval between its references."""
    for name, label in metrics.FIGURES.items():
        entry = found[name]
        known = [entry[key] for key in ("value", "low", "high", "majority", "chance")]
        numbers = [value for value in known if value is not None]
        start, end = AXES.get(name, (0.0, max(1.0, 1.05 * max(numbers, default=1.0))))
        start = min(start, *numbers) if numbers else start

        def place(value: float | None, start: float = start, end: float = end) -> float | None:
            return None if value is None else PLOT_WIDTH * (value - start) / (end - start)

        yield {
            "name": name,
            "label": label,
            "entry": entry,
            "lower_is_better": name in metrics.LOWER_IS_BETTER,
            "plot": {
                key: place(entry[key]) for key in ("value", "low", "high", "majority", "chance")
            },
        }


def total_rows(sums: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row a unit, measure and way of adding up: how predicted sums agree with the true ones."""
    words = {"answered": "answered scores", "expected": "expected scores"}
    words |= {"majority": "most frequent score for all", "prior": "training mean for all"}
    for unit in clinical.UNITS:
        for measure in clinical.MEASURES:
            for estimate, found in sums[unit][measure].items():
                yield {
                    "of": f"{unit} {measure}" if measure == "total" else f"{unit}, mean per video",
                    "first": estimate == clinical.DRAWN,
                    "estimate": words[estimate],
                    "model": estimate in ("answered", "expected"),
                    "found": found,
                }


def matrix_rows(confusion: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """The confusion matrix, a row a true score, with each cell's share of its row."""
    return [
        {
            "total": sum(row),
            "cells": [{"videos": n, "share": n / sum(row) if sum(row) else 0.0} for n in row],
        }
        for row in confusion
    ]


def video_rows(
    predictions: metrics.Predictions, strips: Mapping[str, Sequence[bytes]]
) -> list[dict[str, Any]]:
    """Every video, the worst answers first: by distance, then by how little the truth was given."""
    rows: list[dict[str, Any]] = []
    for index, video in enumerate(predictions.videos):
        true, answered = int(predictions.scores[index]), int(predictions.predicted[index])
        name = "/".join(video)
        rows.append(
            {
                "id": name,
                "order": index,
                "true": true,
                "answered": answered,
                "error": abs(true - answered),
                "probabilities": predictions.probabilities[index].tolist(),
                "given": float(predictions.probabilities[index, true]),
                "frames": [base64.b64encode(png).decode() for png in strips.get(name, ())],
            }
        )
    return sorted(rows, key=lambda row: (-row["error"], row["given"], row["order"]))


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows of dotted name and text."""
    if isinstance(value, Mapping):
        return [row for k, v in value.items() for row in flat(v, f"{name}.{k}" if name else str(k))]
    if value is None:
        return [(name, "–")] if name else []
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return [(name, str(value))]


# ----------------------------------------------------------------------------------------- figures


def page_figure(name: str, svg: str) -> dict[str, Any]:
    """A figure made fit for the page: its colours follow the page's, its ids are its own."""
    title, text = FIGURE_TEXTS.get(name, (name.replace("_", " ").capitalize(), ""))
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", name)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    # The size in points becomes the largest size; the page may show it smaller.
    width = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    return {
        "name": name,
        "title": title,
        "text": text,
        "svg": Markup(svg),
        "width": round(float(width[1]) * 4 / 3) if width else 640,
    }
