"""The HTML report of an evaluation: one file that needs nothing else; see pages/base.py.

The page of a cross-validation has the same sections, computed from the out-of-fold predictions, and
others of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lus_cli import files as part_files
from lus_cli.evaluation import metric_labels, metrics, totals
from lus_cli.evaluation.clip_encoding import Clip
from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.pages.base import flat, percent, reason, rendered, three
from lus_cli.pages.figures import PageFigure, page_figure
from lus_cli.words import counted, p_value

MOST_VIDEOS = 1000  # in the table of videos
LEFT_OUT = {"confusion"}  # the page has a confusion matrix that reacts to clicks
# Section -> its figures; all others come last.
SECTIONS = {
    "matrix": ("errors_per_class",),
    "totals": ("exam_totals", "patient_totals"),
    "confidence": ("calibration", "temperature", "abstention"),
    "areas": ("areas",),
    "training": ("curves",),
}

PART_NAMES = {"test": "test video", "validation": "validation video", "train": "training video"}
# Metric -> the ends of the axis of its small plot. Losses have no natural end.
AXES = {"kappa_quadratic": (-0.25, 1.0), "mean_absolute_error": (0.0, 3.0), "brier": (0.0, 2.0)}
PLOT_WIDTH = 150.0
# The style sheets and scripts of the page, and the values that the macros of its template need.
STYLES, SCRIPTS = "report.css player.css", "player.js report.js"
CONSTANTS = {"few_patients": FEW_PATIENTS, "which": "", "vs_constant": totals.VS_CONSTANT}


def write_report(
    path: Path,
    scores: Mapping[str, Any],
    predictions: metrics.Predictions,
    run: Mapping[str, Any],
    figures: Mapping[str, str],
    clips: Mapping[str, Clip] | None = None,
) -> None:
    """Writes the evaluation page to `path`.

    scores: the result of `assessment.assess` for `predictions`.
    run: `name`; `part` (train, validation, test or all); `epoch` of the weights, or None; `runs`, those
        of a cross-validation whose mean the model is, or nothing; `recipe`
        and `provenance`, mappings that are shown unchanged.
    figures: name -> SVG text, as `figures.save` writes it.
    clips: patient/exam/area -> the clip to play.
    """
    text = rendered(
        "report.html",
        STYLES,
        SCRIPTS,
        CONSTANTS,
        **sections(scores, predictions, figures, clips or {}),
        run=run,
        frameless="those whose true score has the lowest probability, as many as it can hold",
        loss=(run.get("recipe") or {}).get("loss", ""),
        part=PART_NAMES.get(run["part"], "video"),
        details={"Recipe": flat(run.get("recipe")), "Provenance": flat(run.get("provenance"))},
    )
    part_files.write_text(path, text)


def sections(
    scores: Mapping[str, Any],
    predictions: metrics.Predictions,
    figures: Mapping[str, str],
    clips: Mapping[str, Clip],
    own: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The values of the template: what the sections of the page show; see `write_report`.

    own: section -> its figures, for the additional sections of a page.
    """
    return {
        "scores": scores,
        "summary": summary(scores),
        "metric_rows": list(metric_rows(scores["metrics"])),
        "class_metrics": metric_labels.CLASS_METRICS,
        "total_rows": list(total_rows(scores["sums"])),
        "matrix": matrix_rows(scores["confusion"]),
        "drawn": figures_by_section(figures, SECTIONS | dict(own)),
        "videos": video_rows(predictions, clips),
        "has_clips": bool(clips),
    }


# ------------------------------------------------------------------------------------------- words


def headline(predicted: Sequence[int], correct: int, videos: int) -> str:
    """The result in a sentence or two.

    predicted: the number of videos with each predicted score. correct: of correct predictions.
    """
    share = f"{correct} of {counted(videos, 'video')} scored correctly."
    if videos > 1 and max(predicted) == videos:
        return f"Predicts score {list(predicted).index(videos)} for every video. {share}"
    return share


def summary(scores: Mapping[str, Any]) -> dict[str, str]:
    """The result in plain words: a headline, and a sentence or two on each aspect of it."""
    entries, videos = scores["metrics"], scores["videos"]
    accuracy, kappa = entries["accuracy"], entries["kappa_quadratic"]
    matrix = scores["confusion"]
    correct = sum(matrix[score][score] for score in metrics.SCORES)
    most = max(metrics.SCORES, key=lambda score: scores["scores"][score])
    if words := reason(accuracy):
        interval = f"no interval: {words}"
    else:
        low, high = percent(accuracy["low"]), percent(accuracy["high"])
        interval = f"95 % interval over patients: {low} to {high}"
    chance = accuracy.get("p_value")
    by_chance = "" if chance is None else f", p {p_value(chance)}"
    texts = {
        "headline": headline(scores["predicted"], correct, videos),
        "references": f"This is an accuracy of {percent(accuracy['value'])} ({interval}). Predicting "
        f"score {most} for every video would reach {percent(accuracy['majority'])}; random "
        f"permutations of the predictions would reach {percent(accuracy['chance'])}{by_chance}.",
    }
    agreement = (
        "Kappa is undefined here."
        if kappa["value"] is None
        else f"Quadratic kappa, the agreement beyond chance in which larger errors count more, is "
        f"{three(kappa['value'])} (0: chance, 1: perfect)."
    )
    distance = entries["mean_absolute_error"]["value"]
    texts["agreement"] = f"The mean absolute error is {distance:.2f} scores. {agreement}"
    errors = [(matrix[t][p], t, p) for t in metrics.SCORES for p in metrics.SCORES if t != p]
    count, true, predicted = max(errors, key=lambda error: error[0])
    if count:
        texts["errors"] = (
            f"The most frequent error: score {predicted} for {count} of the "
            f"{counted(scores['scores'][true], 'video')} of score {true}."
        )
    return texts


# ------------------------------------------------------------------------------------------ tables


def metric_rows(entries: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per metric, with a small plot of its interval and references."""
    for name, label in metric_labels.METRICS.items():
        entry = entries[name]
        plotted = [entry[key] for key in ("value", "low", "high", "majority", "chance")]
        numbers = [value for value in plotted if value is not None]
        start, end = AXES.get(name, (0.0, max(1.0, 1.05 * max(numbers, default=1.0))))
        start = min(start, *numbers) if numbers else start

        def position(value: float | None, start: float = start, end: float = end) -> float | None:
            return None if value is None else PLOT_WIDTH * (value - start) / (end - start)

        yield {
            "name": name,
            "label": label,
            "entry": entry,
            "lower_is_better": name in metric_labels.LOWER_IS_BETTER,
            "plot": {
                key: position(entry[key]) for key in ("value", "low", "high", "majority", "chance")
            },
        }


def total_rows(sums: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per unit, measure and estimate: the agreement of predicted with true sums."""
    words = {"predicted": "predicted scores", "expected": "expected scores"}
    words |= {"majority": "most frequent score for all", "prior": "training mean for all"}
    for unit in totals.UNITS:
        for measure in totals.MEASURES:
            for estimate, agreement in sums[unit][measure].items():
                yield {
                    "of": f"{unit} {measure}" if measure == "total" else f"{unit}, mean per video",
                    "first": estimate == totals.DRAWN,
                    "estimate": words[estimate],
                    "model": estimate in ("predicted", "expected"),
                    "less": [
                        (words[name], e) for name, e in agreement["mae"].get("less", {}).items()
                    ],
                    "agreement": agreement,
                }


def matrix_rows(confusion: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """The confusion matrix, one row per true score, with the share of each cell in its row."""
    return [
        {
            "total": sum(row),
            "cells": [{"videos": n, "share": n / sum(row) if sum(row) else 0.0} for n in row],
        }
        for row in confusion
    ]


def worst_videos(predictions: metrics.Predictions) -> list[int]:
    """The indices of the MOST_VIDEOS worst predictions: by error, then by the probability of the true
    score.

    A browser needs minutes for a table of a million rows; predictions.csv has every video.
    """
    error = np.abs(predictions.scores - predictions.predicted)
    p_true = predictions.probabilities[np.arange(len(error)), predictions.scores]
    worst: list[int] = np.lexsort((p_true, -error))[:MOST_VIDEOS].tolist()
    return worst


def video_rows(predictions: metrics.Predictions, clips: Mapping[str, Clip]) -> list[dict[str, Any]]:
    """The worst predictions, the worst first, as rows of the table of videos."""
    rows: list[dict[str, Any]] = []
    for index in worst_videos(predictions):
        name = "/".join(predictions.videos[index])
        rows.append(
            {
                "id": name,
                "order": index,
                "true": int(predictions.scores[index]),
                "predicted": int(predictions.predicted[index]),
                "error": abs(int(predictions.scores[index]) - int(predictions.predicted[index])),
                "probabilities": predictions.probabilities[index].tolist(),
                "p_true": float(predictions.probabilities[index, predictions.scores[index]]),
                "clip": clips.get(name),
            }
        )
    return rows


# ----------------------------------------------------------------------------------------- figures


def figures_by_section(
    figures: Mapping[str, str], sections: Mapping[str, Sequence[str]]
) -> dict[str, list[PageFigure]]:
    """Every figure except LEFT_OUT, by section; those of no section under `others`.

    sections: section -> the names of its figures, in their order.
    """
    section_of = {name: section for section, names in sections.items() for name in names}
    drawn: dict[str, list[PageFigure]] = {section: [] for section in (*sections, "others")}
    order = [name for name in section_of if name in figures]
    order += [name for name in figures if name not in section_of and name not in LEFT_OUT]
    for name in order:
        drawn[section_of.get(name, "others")].append(page_figure(name, figures[name]))
    return drawn
