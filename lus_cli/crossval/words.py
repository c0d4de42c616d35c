"""What a cross-validation found, in plain words: above all, whether the best baseline is beaten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lus_cli.evaluation import metrics
from lus_cli.evaluation.comparison import conclusion
from lus_cli.evaluation.intervals import FEW_PATIENTS
from lus_cli.evaluation.run_comparison import MAJORITY
from lus_cli.pages.base import page_interval, three
from lus_cli.words import counted, joined

KAPPA = "kappa_quadratic"
# The figures by which methods are told apart -> how a person calls them.
FIGURES = {
    KAPPA: "Kappa",
    "f1_macro": "Macro F1",
    "accuracy": "Accuracy",
    "mean_absolute_error": "Mean error",
}


# ----------------------------------------------------------------------------------------- methods


def method_rows(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a method: the recipe, then the others, the highest kappa first.

    `difference` is the method's kappa less the recipe's, paired; `word` what that says of
    the recipe: better, worse, alike, or nothing; `ahead` the figures by which the method is shown to
    be better than the recipe.
    """

    def place(row: Mapping[str, Any]) -> tuple[bool, float]:
        kappa = row["metrics"][KAPPA]["value"]
        return row["name"] != compared["reference"], -2.0 if kappa is None else -kappa

    said = {"better": "worse", "worse": "better"}  # of the method -> of the recipe
    rows = []
    for row in sorted(compared["candidates"], key=place):
        word = conclusion(row["metrics"][KAPPA], KAPPA)
        rows.append(
            {
                **row,
                "recipe": row["name"] == compared["reference"],
                "difference": row["metrics"][KAPPA].get("difference"),
                "ahead": [
                    name for name in FIGURES if conclusion(row["metrics"][name], name) == "better"
                ],
                "word": said.get(word, word),
            }
        )
    return rows


def best_baseline(
    rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The baseline with the highest kappa; None if none has one."""
    defined = [row for row in rows if row["metrics"][KAPPA]["value"] is not None]
    return next((row for row in defined if is_baseline(row, about)), None)


def is_baseline(row: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    return not row["recipe"] and (row["name"] in about["methods"] or row["name"] == MAJORITY)


# ------------------------------------------------------------------------------------------- words


def plain_words(
    about: Mapping[str, Any],
    scores: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    repeats: Sequence[metrics.Predictions],
) -> dict[str, str]:
    """The result in plain words: a headline, and a paragraph on each of the questions behind it."""
    best = best_baseline(rows, about)
    answered = np.unique(np.concatenate([one.predicted for one in repeats]))
    if len(answered) == 1:
        headline = f"{about['recipe']} answers score {answered[0]} for every video."
    elif all(np.count_nonzero(row["answers"]) == 1 for row in scores["folds"]):
        headline = f"In every fold {about['recipe']} answers one score for every video."
    else:
        headline = against_the_best(rows[0], best)
    over = f", {counted(len(repeats), 'time')} over with other folds and seeds"
    return {
        "headline": headline,
        "design": f"The recipe {about['recipe']} was trained {counted(len(scores['folds']), 'time')}: "
        f"{counted(about['folds'], 'fold')}{over if len(repeats) > 1 else ''}. The patients of a "
        "fold are answered by a model that was neither trained nor chosen on them, so all "
        f"{counted(scores['patients'], 'patient')}, with {counted(scores['videos'], 'video')}, have "
        f"answers from models that do not know them.",
        "kappa": kappa_in_words(rows[0], len(repeats)),
        "best": best_in_words(about, rows[0], best),
        "others": ahead_elsewhere(rows),
    }


def against_the_best(recipe: Mapping[str, Any], best: Mapping[str, Any] | None) -> str:
    kappa = recipe["metrics"][KAPPA]["value"]
    if kappa is None:
        return "Kappa is undefined here."
    if best is None:
        return f"Kappa {kappa:z.2f}, with nothing to compare it with."
    always = "always answering the most frequent score"
    whom = always if best["name"] == MAJORITY else "the best baseline"
    numbers = f"kappa\u00a0{kappa:z.2f} against\u00a0{best['metrics'][KAPPA]['value']:z.2f}"
    opening = {
        "better": f"Better than {whom}",
        "alike": f"Not shown to be better than {whom}",
        "worse": f"Worse than {whom}",
        "": f"Beside {whom}",
    }[best["word"]]
    return f"{opening}: {numbers}.".replace("-", "\u2212")


def kappa_in_words(recipe: Mapping[str, Any], times: int) -> str:
    kappa = recipe["metrics"][KAPPA]
    if kappa["value"] is None:
        return f"Kappa is undefined: {kappa['why']}."
    spread = (
        f"no interval: {kappa['why']}"
        if kappa["low"] is None
        else f"95 % interval over {counted(kappa['patients'], 'patient')}: {page_interval(kappa)}"
    )
    over = (
        f" It is the mean of {times} times over, which spread by {three(kappa['sd'])} (sd)."
        if times > 1 and kappa["sd"] is not None
        else ""
    )
    return (
        "Agreement beyond chance, where larger errors weigh more (quadratic kappa), is "
        f"{three(kappa['value'])} ({spread}), with 0 for chance and 1 for perfect.{over}"
    )


def best_in_words(
    about: Mapping[str, Any], recipe: Mapping[str, Any], best: Mapping[str, Any] | None
) -> str:
    """The paired difference to the best baseline, and what it means."""
    if best is None:
        return ""
    meaning = about["methods"].get(best["name"])
    called = f"The best baseline, {best['name']}{f' ({meaning})' if meaning else ''},"
    if len(about["methods"]) == 0:
        called = "Always answering the most frequent score"
    reaches = f"{called} reaches {three(best['metrics'][KAPPA]['value'])} "
    difference = best["difference"]
    if not difference or difference["low"] is None:
        return f"{reaches}on the same folds; their difference has no interval."
    says = {
        "better": "so these patients show that the recipe is better.",
        "alike": "which holds 0: these patients do not show that the recipe is better.",
        "worse": "so these patients show that the recipe is worse.",
        "": f"over fewer than {FEW_PATIENTS} patients, too few to say which is better.",
    }[best["word"]]
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    return (
        f"{reaches}on the same folds. It is {three(abs(value))} {'above' if value > 0 else 'below'} "
        "the recipe, patient for patient (95 % interval of the difference, it less the recipe: "
        f"{signed(low)} to {signed(high)}), {says}"
    )


def ahead_elsewhere(rows: Sequence[Mapping[str, Any]]) -> str:
    """By which other figures which method is furthest ahead of the recipe, a sentence each."""
    said: dict[str, list[str]] = {}
    for name, title in FIGURES.items():
        better = -1 if name in metrics.LOWER_IS_BETTER else 1
        known = [row for row in rows if row["metrics"][name]["value"] is not None]
        if name == KAPPA or not known:
            continue
        ahead = max(known, key=lambda row: better * row["metrics"][name]["value"])
        own, theirs = rows[0]["metrics"][name], ahead["metrics"][name]
        if own["value"] is not None and theirs["value"] != own["value"]:
            shown = ", beyond chance" if conclusion(theirs, name) == "better" else ""
            said.setdefault(ahead["name"], []).append(
                f"{title[0].lower()}{title[1:]} ({three(theirs['value'])} against "
                f"{three(own['value'])}{shown})"
            )
    behind = "; ".join(f"behind {who} by {joined(what)}" for who, what in said.items())
    return f"By other figures it is {behind}." if behind else ""


def signed(value: float) -> str:
    """Three decimals with a sign."""
    return three(value) if value < 0 else f"+{three(value)}"


def spread_over_folds(rows: Sequence[Mapping[str, Any]], recipe: str) -> str:
    """How far apart single folds are, a sentence."""
    kappas = [row["figures"][recipe][KAPPA] for row in rows]
    defined = [kappa for kappa in kappas if kappa is not None]
    if not defined:
        return "Kappa is undefined in every fold."
    sizes = sorted({row["patients"] for row in rows})
    size = f"{sizes[0]} to " if len(sizes) > 1 else ""
    undefined = len(kappas) - len(defined)
    return (
        f"The recipe’s kappa goes from {three(min(defined))} to {three(max(defined))} over "
        f"{counted(len(defined), 'fold')} of {size}{counted(sizes[-1], 'patient')} each."
        + (f" In {undefined} it is undefined." if undefined else "")
    )


def what_answers_follow(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which confounders answers follow beyond the true scores, and which they do not."""

    def leaves_out_zero(entry: Mapping[str, Any]) -> bool:
        return entry["low"] is not None and not entry["low"] <= 0 <= entry["high"]

    known = [row for row in rows if row["beyond_score"]["low"] is not None]
    followed = [row for row in known if leaves_out_zero(row["beyond_score"])]
    others = [named(row) for row in known if row not in followed]
    unknown = [named(row) for row in rows if row not in known]
    text = (
        "Beyond what the true scores explain, answers follow "
        + joined([f"{named(row)} ({signed(row['beyond_score']['value'])})" for row in followed])
        + "."
        if followed
        else "Answers are not shown to follow any of these beyond what the true scores explain."
        if known
        else ""
    )
    if followed and others:
        text += f" They are not shown to follow {joined(others)}."
    if unknown:
        text += f" There is no interval for {joined(unknown)}."
    return text.strip()


def named(row: Mapping[str, Any]) -> str:
    return str(row["name"]).replace("_", " ")
