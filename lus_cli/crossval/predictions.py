"""What the model of each fold reached by itself, on the patients it was tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lus_cli.crossval.folds import Fold
from lus_cli.evaluation.intervals import number
from lus_cli.evaluation.metrics import SCORES, Predictions, label_figures

FIGURES = ("accuracy", "f1_macro", "kappa_quadratic", "mean_absolute_error")


def by_fold(
    folds: Sequence[Fold], candidates: Mapping[str, Sequence[Predictions]]
) -> list[dict[str, Any]]:
    """A row a fold, ready for JSON; None for a figure that its few videos leave undefined.

    candidates: by name, the recipe first, what each answered for all videos, each time over; the
        last answers of who answered fewer times count for the others.

    `scores` are the numbers of videos of each true score, `answers` of each score that the recipe
    answered.
    """
    recipe = next(iter(candidates))
    rows = []
    for fold in folds:
        tested = set(fold.split.test)
        confusions = {
            name: confusion_of(repeats[min(fold.repeat, len(repeats)) - 1], tested)
            for name, repeats in candidates.items()
        }
        own = confusions[recipe]
        patients = {p for p in candidates[recipe][fold.repeat - 1].patients if p in tested}
        rows.append(
            {
                "name": fold.name,
                "repeat": fold.repeat,
                "fold": fold.number,
                "patients": len(patients),
                "videos": int(own.sum()),
                "scores": own.sum(axis=1).astype(int).tolist(),
                "answers": own.sum(axis=0).astype(int).tolist(),
                "figures": {name: figures_of(matrix) for name, matrix in confusions.items()},
            }
        )
    return rows


def confusion_of(predictions: Predictions, patients: set[str]) -> np.ndarray:
    """(true, answered) numbers of the videos of these patients; expected ones of drawn answers."""
    inside = np.array([patient in patients for patient in predictions.patients])
    counts = np.zeros((len(SCORES), len(SCORES)))
    np.add.at(counts, predictions.scores[inside], predictions.answered[inside])
    return counts


def figures_of(confusion: np.ndarray) -> dict[str, float | None]:
    if not confusion.sum():
        return dict.fromkeys(FIGURES)
    found = label_figures(confusion[None])
    return {name: number(found[name][0]) for name in FIGURES}


def constant_folds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether models answered one score for everything though there were others, a sentence."""
    constant = [
        r for r in rows if np.count_nonzero(r["answers"]) == 1 < np.count_nonzero(r["scores"])
    ]
    if not constant:
        return []
    names = ", ".join(row["name"] for row in constant)
    return [
        f"in {len(constant)} of {len(rows)} folds ({names}) the model answers one score for every "
        "video"
    ]
