"""The facts behind the sentences on the page, above all whether the recipe beats the best baseline.

The sentences themselves are in pages/crossval.html.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lus_cli.crossval.confounders import excludes_zero
from lus_cli.crossval.doubtful_labels import doubt_note
from lus_cli.evaluation import metric_labels, metrics
from lus_cli.evaluation.comparison import conclusion
from lus_cli.evaluation.run_comparison import MAJORITY
from lus_cli.words import counted, verb

KAPPA = "kappa_quadratic"
# The metrics by which methods are compared -> how the page calls them.
METRICS = {
    KAPPA: "Kappa",
    "f1_macro": "Macro F1",
    "accuracy": "Accuracy",
    "mean_absolute_error": "Mean error",
}

# ----------------------------------------------------------------------------------------- methods


def method_rows(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per method: the recipe first, then the others from the highest kappa to the lowest.

    `difference` is the paired difference in kappa, method minus recipe. `conclusion` is what it
    shows about the recipe: 'better', 'worse', 'alike', or '' if it shows nothing. `ahead` lists the
    metrics by which the method is shown to be better than the recipe.
    """

    def order(row: Mapping[str, Any]) -> tuple[bool, float]:
        kappa = row["metrics"][KAPPA]["value"]
        return row["name"] != compared["reference"], -2.0 if kappa is None else -kappa

    opposite = {"better": "worse", "worse": "better"}  # about the method -> about the recipe
    rows = []
    for row in sorted(compared["candidates"], key=order):
        about_method = {name: conclusion(row["metrics"][name], name) for name in METRICS}
        rows.append(
            {
                **row,
                "recipe": row["name"] == compared["reference"],
                "difference": row["metrics"][KAPPA].get("difference"),
                "ahead": [name for name in METRICS if about_method[name] == "better"],
                "conclusion": opposite.get(about_method[KAPPA], about_method[KAPPA]),
            }
        )
    return rows


def best_baseline(
    rows: Sequence[Mapping[str, Any]], baselines: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """The baseline with the highest kappa. None if kappa is undefined for every baseline.

    rows: as `method_rows` returns them. baselines: name -> description.
    """
    for row in rows:
        is_baseline = not row["recipe"] and (row["name"] in baselines or row["name"] == MAJORITY)
        if is_baseline and row["metrics"][KAPPA]["value"] is not None:
            return row
    return None


def notes_on(scores: Mapping[str, Any]) -> list[str]:
    """What the terminal says besides the tables. scores: as in scores.json."""
    return [
        *left_out_groups(scores["folds"]),
        *scores["warnings"],
        *best_baseline_note(scores["comparison"]),
        doubt_note(scores["doubtful_labels"]),
    ]


def best_baseline_note(compared: Mapping[str, Any]) -> list[str]:
    """A sentence on the best baseline, and how many are shown to be better or worse than the recipe by
    paired differences in kappa. Nothing if kappa is undefined for every baseline."""
    _, *others = method_rows(compared)
    baselines = [row for row in others if row["metrics"][KAPPA]["value"] is not None]
    if not baselines:
        return []
    best, concluded = baselines[0], Counter(row["conclusion"] for row in baselines)
    better, worse = concluded["worse"], concluded["better"]  # the conclusion is about the recipe
    return [
        f"Best of {counted(len(baselines), 'baseline')}: {best['name']}, kappa "
        f"{best['metrics'][KAPPA]['value']:z.3f}. {better or 'None'} {verb(better or 1)} shown to be "
        f"better than {compared['reference']}, {worse or 'none'} worse."
    ]


def constant_score(repeats: Sequence[metrics.Predictions]) -> int | None:
    """The score that is predicted for every video in every repetition, if there is only one."""
    predicted = np.unique(np.concatenate([one.predicted for one in repeats]))
    return int(predicted[0]) if len(predicted) == 1 else None


def methods_ahead(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The metrics, other than kappa, on which a method is best and better than the recipe, by method.

    Each has the `name` and `title` of the metric, its `value` for the method and for the `recipe`,
    and whether the interval of the difference excludes 0 (`shown`).
    """
    by_method: dict[str, list[dict[str, Any]]] = {}
    for name, title in METRICS.items():
        sign = -1 if name in metric_labels.LOWER_IS_BETTER else 1
        defined = [row for row in rows if row["metrics"][name]["value"] is not None]
        if name == KAPPA or not defined:
            continue
        best = max(defined, key=lambda row: sign * row["metrics"][name]["value"])
        value, recipe = (row["metrics"][name]["value"] for row in (best, rows[0]))
        if recipe is not None and value != recipe:
            shown = conclusion(best["metrics"][name], name) == "better"
            entry = {"name": name, "title": title, "value": value, "recipe": recipe, "shown": shown}
            by_method.setdefault(best["name"], []).append(entry)
    return by_method


# ------------------------------------------------------------------------------ folds, confounders


def left_out_groups(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line on the groups that the folds leave out; none if the folds are not by group."""
    groups = [row["group"] for row in rows if row["repeat"] == 1 and row.get("group")]
    return [f"folds: {', '.join(groups)}, each left out once"] if groups else []


def fold_range(rows: Sequence[Mapping[str, Any]], recipe: str) -> dict[str, Any]:
    """The range of the recipe's kappa over single folds.

    `folds` with a defined kappa, those where it is `undefined`, its `low` and `high` (None if it is
    undefined everywhere), and the sorted numbers of `patients` per fold.
    """
    kappas = [row["metrics"][recipe][KAPPA] for row in rows]
    defined = [kappa for kappa in kappas if kappa is not None]
    return {
        "folds": len(defined),
        "undefined": len(kappas) - len(defined),
        "low": min(defined, default=None),
        "high": max(defined, default=None),
        "patients": sorted({row["patients"] for row in rows}),
    }


def by_association(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Confounders by whether predictions are associated with them beyond the true scores.

    The lists `followed`, `not_followed` and `no_interval`, of rows as `confounding` returns them.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {
        "followed": [],
        "not_followed": [],
        "no_interval": [],
    }
    for row in rows:
        beyond = row["beyond_score"]
        if beyond["low"] is None:
            groups["no_interval"].append(row)
        else:
            groups["followed" if excludes_zero(beyond) else "not_followed"].append(row)
    return groups
