"""The page of a cross-validation: the sections of an evaluation, computed from the out-of-fold
predictions, and sections of its own."""

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
from lus_cli.evaluation import metrics
from lus_cli.evaluation.clip_encoding import Clip
from lus_cli.evaluation.page import CONSTANTS, MOST_VIDEOS, SCRIPTS, STYLES, sections
from lus_cli.evaluation.run_comparison import MAJORITY
from lus_cli.pages.base import flat, rendered, three
from lus_cli.words import joined

# Section -> its figures; the other sections are those of an evaluation.
SECTIONS: dict[str, Sequence[str]] = {
    "methods": ("forest",),
    "folds": ("folds",),
    "confounders": ("confounders", "strata"),
}
MOST_PATIENTS = 10  # visible in the table; the others are in a part that unfolds
MOST_DOUBTED = 50  # labels in the table; doubtful-labels.csv has all


def write_crossval_page(
    path: Path,
    about: Mapping[str, Any],
    scores: Mapping[str, Any],
    repeats: Sequence[metrics.Predictions],
    figures: Mapping[str, str],
    clips: Mapping[str, Clip],
) -> None:
    """Writes the page to `path`. It shows the metrics and videos of the first repetition.

    about: `name` of the cross-validation and of its `recipe`; the number of `folds`; `methods` and
        `confounders`, name -> description; the `command` that repeats it; `details`, title -> a
        mapping that is shown as it is.
    scores: the content of scores.json.
    repeats: the out-of-fold predictions of the recipe, one per repetition.
    figures, clips: as in `evaluation.page.write_report`.
    """
    methods = method_rows(scores["comparison"])
    curves = {"training": [name for name in figures if name.startswith("training_of")]}
    shown = sections(scores, repeats[0], figures, clips, SECTIONS | curves)
    for row in shown["videos"]:
        row["repetitions"] = [int(one.predicted[row["order"]]) for one in repeats]
    which = f"repetition 1 of {len(repeats)}" if len(repeats) > 1 else ""
    text = rendered(
        "crossval.html",
        f"{STYLES} crossval.css",
        SCRIPTS,
        CONSTANTS
        | {"which": which, "majority": MAJORITY, "joined": joined, "signed": signed, "two": two},
        **shown,
        frameless="the others were predicted by models whose weights are no longer in the cache",
        mean=f"mean of {len(repeats)} repetitions" if len(repeats) > 1 else "",
        about=about,
        loss=about["details"].get("Recipe", {}).get("loss", ""),
        repetitions=len(repeats),
        constant=constant_score(repeats),
        one_score_per_fold=all(np.count_nonzero(row["predicted"]) == 1 for row in scores["folds"]),
        methods=methods,
        recipe=methods[0],
        best=best_baseline(methods, about["methods"]),
        ahead=methods_ahead(methods),
        method_metrics=METRICS,
        fold_range=fold_range(scores["folds"], about["recipe"]),
        associations=by_association(scores.get("confounders", [])),
        patients=patient_rows(scores["sums"]["patient"]["rows"])[:MOST_VIDEOS],
        other_patients=scores["patients"] - MOST_PATIENTS,
        most_patients=MOST_PATIENTS,
        doubts=scores["doubtful_labels"],
        informative=is_informative(scores["doubtful_labels"]),
        doubted=[row for row in label_rows(repeats) if row["doubted"]][:MOST_DOUBTED],
        details={title: flat(values) for title, values in about["details"].items()},
    )
    part_files.write_text(path, text)


def two(value: float) -> str:
    """A number with two decimals and a true minus sign."""
    return f"{value:z.2f}".replace("-", "\u2212")


def signed(value: float) -> str:
    """A number with three decimals and a sign."""
    return three(value) if value < 0 else f"+{three(value)}"


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
