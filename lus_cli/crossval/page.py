"""The page of a cross-validation: one HTML file that needs no other file.

It shares its sections, security and style with the page of an evaluation; see pages/base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli import files as part_files
from lus_cli.crossval.doubtful_labels import is_informative, label_rows
from lus_cli.crossval.summary import (
    METRICS,
    best_baseline,
    by_association,
    constant_score,
    fold_range,
    method_rows,
    methods_ahead,
)
from lus_cli.evaluation import metric_labels, metrics
from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.evaluation.page import MOST_VIDEOS, matrix_rows, summary, total_rows, video_rows
from lus_cli.evaluation.run_comparison import MAJORITY
from lus_cli.pages.base import flat, rendered, three
from lus_cli.pages.figures import page_figure
from lus_cli.words import joined

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
MOST_PATIENTS = 10  # visible in the table; the others are in a part that unfolds
MOST_DOUBTED = 50  # labels in the table; doubtful-labels.csv has all


def write_crossval_page(
    path: Path,
    about: Mapping[str, Any],
    scores: Mapping[str, Any],
    repeats: Sequence[metrics.Predictions],
    figures: Mapping[str, str],
) -> None:
    """Writes the page to `path`.

    about: `name` of the cross-validation and of its `recipe`; the number of `folds`; `methods` and
        `confounders`, name -> description; the `command` that repeats it; `details`, title -> a
        mapping that is shown as it is.
    scores: the content of scores.json.
    repeats: the out-of-fold predictions of the recipe, one per repetition.
    figures: name -> SVG text, as `figures.save` writes it.
    """
    methods = method_rows(scores["comparison"])
    text = rendered(
        "crossval.html",
        "report.css crossval.css",
        "report.js",
        {"few_patients": FEW_PATIENTS, "majority": MAJORITY}
        | {"joined": joined, "signed": signed, "two": two},
        about=about,
        scores=scores,
        repetitions=len(repeats),
        constant=constant_score(repeats),
        one_score_per_fold=all(np.count_nonzero(row["predicted"]) == 1 for row in scores["folds"]),
        methods=methods,
        recipe=methods[0],
        best=best_baseline(methods, about["methods"]),
        ahead=methods_ahead(methods),
        method_metrics=METRICS,
        class_metrics=metric_labels.CLASS_METRICS,
        fold_range=fold_range(scores["folds"], about["recipe"]),
        associations=by_association(scores.get("confounders", [])),
        first=summary(scores),
        total_rows=list(total_rows(scores["sums"], ("patient",))),
        patients=patient_rows(scores["sums"]["patient"]["rows"])[:MOST_VIDEOS],
        other_patients=scores["patients"] - MOST_PATIENTS,
        most_patients=MOST_PATIENTS,
        doubts=scores["doubtful_labels"],
        informative=is_informative(scores["doubtful_labels"]),
        doubted=[row for row in label_rows(repeats) if row["doubted"]][:MOST_DOUBTED],
        matrix=matrix_rows(scores["confusion"]),
        videos=videos_with_repetitions(repeats),
        drawn={
            section: [page_figure(name, figures[name]) for name in names if name in figures]
            for section, names in SECTIONS.items()
        },
        details={title: flat(values) for title, values in about["details"].items()},
    )
    part_files.write_text(path, text)


def two(value: float) -> str:
    """A number with two decimals and a true minus sign."""
    return f"{value:z.2f}".replace("-", "\u2212")


def signed(value: float) -> str:
    """A number with three decimals and a sign."""
    return three(value) if value < 0 else f"+{three(value)}"


# ------------------------------------------------------------------------------ patients and videos


def patient_rows(sums: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per patient, the largest error of the mean score first."""
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


def videos_with_repetitions(repeats: Sequence[metrics.Predictions]) -> list[dict[str, Any]]:
    """The worst videos with their predictions in each repetition, by the first repetition."""
    rows = video_rows(repeats[0], {})
    for row in rows:
        row["repetitions"] = [int(one.predicted[row["order"]]) for one in repeats]
    return rows
