"""The page a person opens after an evaluation: one HTML file that needs nothing else.

Everything on it is escaped but the figures, which Matplotlib escaped already. The page
carries a policy that lets it load nothing and run no script but its own, so an id can do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lus_cli import files as part_files
from lus_cli.evaluation import metrics
from lus_cli.evaluation import totals as clinical
from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.evaluation.player import Clip
from lus_cli.pages.base import flat, percent, rendered, three
from lus_cli.pages.figures import PageFigure, page_figure
from lus_cli.words import counted

OWN_FIGURES = {"confusion"}  # the page draws its own confusion matrix
# Which figures stand in which section; what is in none comes last.
SECTIONS = {
    "matrix": ("errors_per_class",),
    "totals": ("exam_totals", "patient_totals"),
    "sureness": ("calibration", "temperature", "abstention"),
    "areas": ("areas",),
    "training": ("curves",),
}

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
    clips: Mapping[str, Clip] | None = None,
) -> None:
    """Writes the evaluation page to `path`.

    scores: what `metrics.assess` gave for `predictions`.
    run: `name`; `part` (train, validation, test or all); `epoch`, whose weights were scored, or
        None; `recipe` and `provenance`, mappings that are shown as they are.
    figures: name -> SVG text, as `figures.save` writes it.
    clips: patient/exam/area -> its frames, masks and weights, to be played.
    """
    text = rendered(
        "report.html",
        "report.css player.css",
        "player.js report.js",
        {"few_patients": FEW_PATIENTS},
        run=run,
        scores=scores,
        part=PART_NAMES.get(run["part"], "video"),
        summary=summary(scores),
        figure_rows=list(figure_rows(scores["figures"])),
        class_figures=metrics.CLASS_FIGURES,
        total_rows=list(total_rows(scores["sums"])),
        matrix=matrix_rows(scores["confusion"]),
        drawn=figures_by_section(figures),
        videos=video_rows(predictions, clips or {}),
        has_clips=bool(clips),
        details={"Recipe": flat(run.get("recipe")), "Provenance": flat(run.get("provenance"))},
    )
    part_files.write_text(path, text)


# ------------------------------------------------------------------------------------------- words


def headline(answers: Sequence[int], right: int, videos: int) -> str:
    """answers: how many videos were answered as each score."""
    said = f"ight about {right} of {counted(videos, 'video')}."
    if videos > 1 and max(answers) == videos:
        return f"Answers score {list(answers).index(videos)} for every video. R{said}"
    return f"R{said}"


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
        "headline": headline(scores["answers"], right, videos),
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


def total_rows(
    sums: Mapping[str, Any], units: Iterable[str] = clinical.UNITS
) -> Iterator[dict[str, Any]]:
    """A row a unit, measure and way of adding up: how predicted sums agree with the true ones."""
    words = {"answered": "answered scores", "expected": "expected scores"}
    words |= {"majority": "most frequent score for all", "prior": "training mean for all"}
    for unit in units:
        for measure in clinical.MEASURES:
            for estimate, found in sums[unit][measure].items():
                yield {
                    "of": f"{unit} {measure}" if measure == "total" else f"{unit}, mean per video",
                    "first": estimate == clinical.DRAWN,
                    "estimate": words[estimate],
                    "model": estimate in ("answered", "expected"),
                    "less": [(words[name], e) for name, e in found["mae"].get("less", {}).items()],
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


def video_rows(predictions: metrics.Predictions, clips: Mapping[str, Clip]) -> list[dict[str, Any]]:
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
                "clip": clips.get(name),
            }
        )
    return sorted(rows, key=lambda row: (-row["error"], row["given"], row["order"]))


# ----------------------------------------------------------------------------------------- figures


def figures_by_section(figures: Mapping[str, str]) -> dict[str, list[PageFigure]]:
    """Every figure but the page's own, in the section it belongs to; others under `others`."""
    placed = {name: section for section, names in SECTIONS.items() for name in names}
    sections: dict[str, list[PageFigure]] = {section: [] for section in (*SECTIONS, "others")}
    order = [name for name in placed if name in figures]
    order += [name for name in figures if name not in placed and name not in OWN_FIGURES]
    for name in order:
        sections[placed.get(name, "others")].append(page_figure(name, figures[name]))
    return sections
