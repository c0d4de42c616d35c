"""The page a person opens after a cross-validation: one HTML file that needs nothing else.

It has the parts, the safety and the look of the evaluation page; see report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lus_cli import files as part_files
from lus_cli.crossval.words import (
    FIGURES,
    best_baseline,
    method_rows,
    plain_words,
    spread_over_folds,
    what_answers_follow,
)
from lus_cli.evaluation import metrics
from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.evaluation.page import matrix_rows, summary, total_rows, video_rows
from lus_cli.pages.base import flat, rendered
from lus_cli.pages.figures import page_figure

# Section -> its figures.
SECTIONS = {
    "methods": ("forest",),
    "folds": ("folds",),
    "confounders": ("confounders", "strata"),
    "patients": ("patient_totals",),
    "confidence": ("calibration", "abstention"),
    "areas": ("areas",),
    "matrix": ("errors_per_class",),
}
MOST_PATIENTS = 10  # in the table at once; the others can be unfolded


def write_crossval_page(
    path: Path,
    about: Mapping[str, Any],
    scores: Mapping[str, Any],
    repeats: Sequence[metrics.Predictions],
    figures: Mapping[str, str],
) -> None:
    """Writes the page to `path`.

    about: `name` of the cross-validation and of its `recipe`; how many `folds`; `methods` and
        `confounders`, name -> what it is in words; `command` that does it again; `details`, title ->
        a mapping that is shown as it is.
    scores: what the step writes into scores.json.
    repeats: what the recipe answered out of fold, each time over.
    figures: name -> SVG text, as `figures.save` writes it.
    """
    rows = method_rows(scores["comparison"])
    text = rendered(
        "crossval.html",
        "report.css crossval.css",
        "report.js",
        {"few_patients": FEW_PATIENTS},
        about=about,
        scores=scores,
        times=len(repeats),
        summary=plain_words(about, scores, rows, repeats),
        first=summary(scores),
        methods=rows,
        method_figures=FIGURES,
        class_metrics=metrics.CLASS_METRICS,
        best=best_baseline(rows, about),
        spread=spread_over_folds(scores["folds"], about["recipe"]),
        follows=what_answers_follow(scores.get("confounders", [])),
        total_rows=list(total_rows(scores["sums"], ("patient",))),
        patients=patient_rows(scores["sums"]["patient"]["rows"]),
        most_patients=MOST_PATIENTS,
        matrix=matrix_rows(scores["confusion"]),
        videos=videos_with_times(repeats),
        drawn={
            section: [page_figure(name, figures[name]) for name in names if name in figures]
            for section, names in SECTIONS.items()
        },
        details={title: flat(values) for title, values in about["details"].items()},
    )
    part_files.write_text(path, text)


# ------------------------------------------------------------------------------ patients and videos


def patient_rows(sums: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a patient, the one whose mean score is furthest off first."""
    rows = [
        {
            **row,
            "true_mean": row["true"] / row["videos"],
            "mean": row["predicted"] / row["videos"],
            "off": row["predicted"] - row["true"],
        }
        for row in sums
    ]
    return sorted(rows, key=lambda row: -abs(row["mean"] - row["true_mean"]))


def videos_with_times(repeats: Sequence[metrics.Predictions]) -> list[dict[str, Any]]:
    """Every video, the worst answers of the first time over first, with the answer of each time."""
    rows = video_rows(repeats[0], {})
    for row in rows:
        row["repetitions"] = [int(one.predicted[row["order"]]) for one in repeats]
    return rows
