"""The comparison of several runs on the videos that they have in common: files, figure, table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli import figures
from lus_cli.cache.layout import Cache
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation import comparison_figures
from lus_cli.evaluation.assessment import warning_of_equal_predictions
from lus_cli.evaluation.comparison import ENSEMBLE, compare, conclusion, ensemble
from lus_cli.evaluation.metrics import SCORES, Predictions, equal_predictions
from lus_cli.evaluation.terminal_tables import format_interval
from lus_cli.evaluation.totals import few_patients
from lus_cli.files import csv_text, fingerprint, write_json, write_text
from lus_cli.progress import Result, Table
from lus_cli.words import counted, has_interval, sentence

MAJORITY = "majority"


def compare_runs(
    cache: Cache,
    part: str,
    predictions: Mapping[str, Predictions],
    about: Mapping[str, Any],
) -> Result:
    """Compares runs and their ensemble on the videos that all runs have scored.

    predictions: by the name of the run.
    about: `warnings` about the runs, and `weights`, the digest of the weights of each run.

    Raises UsageError if a run has the name of another row of the table.
    """
    if taken := {MAJORITY, ENSEMBLE} & set(predictions):
        raise UsageError(
            f"a run is called {min(taken)}, which is the name of a row of every comparison",
            "rename the folder of the run",
        )
    common = on_common_videos(predictions, part)
    candidates: dict[str, Sequence[Predictions]] = {name: [one] for name, one in common.items()}
    candidates[ENSEMBLE] = [ensemble(list(common.values()))]
    folder = cache.comparisons / folder_name(list(common), part)
    title = f"{len(common)} runs on {part}"
    patients = len(set(next(iter(common.values())).patients))
    sentences = [*warnings_of_runs(common), *few_patients(patients)]
    warnings = [*about["warnings"], *map(sentence, sentences)]
    compared = compare_candidates(folder, candidates, title, {**about, "warnings": warnings})
    videos = compared.numbers["videos"]
    if videos < max(len(one.videos) for one in predictions.values()):
        compared.notes.append(
            f"The comparison uses the {counted(videos, 'video')} that all runs have scored."
        )
    return compared


def compare_candidates(
    folder: Path,
    candidates: Mapping[str, Sequence[Predictions]],
    title: str,
    about: Mapping[str, Any],
) -> Result:
    """Compares candidates with the first of them, as `compare` does, and writes the result to
    `folder`. Predicting the most frequent score for every video is added as a candidate, unless
    there is one called MAJORITY, as in a cross-validation, whose baseline learns that score from the
    training patients of each fold."""
    first = next(iter(candidates.values()))[0]
    with_majority = dict(candidates)
    with_majority.setdefault(MAJORITY, [most_frequent(first)])
    compared = compare(with_majority) | {"warnings": []} | dict(about)
    write_comparison(folder, compared, with_majority)
    return Result(
        compared,
        [comparison_table(compared, title)],
        {"comparison": folder / "comparison.svg", "compared": folder / "comparison.json"},
        notes=[*compared["warnings"], *significant_differences(compared)],
    )


def warnings_of_runs(predictions: Mapping[str, Predictions]) -> Iterator[str]:
    """Runs that predict one score for every video, or give many videos the same probabilities."""
    for name, one in predictions.items():
        if len(only := set(one.predicted.tolist())) == 1:
            yield f"run {name} predicts score {only.pop()} for every video"
            continue
        for warning in warning_of_equal_predictions(equal_predictions(one), len(one.videos)):
            yield f"run {name}: {warning}"


def on_common_videos(predictions: Mapping[str, Predictions], part: str) -> dict[str, Predictions]:
    """The predictions for the videos that all runs have scored, in the order of the first run.

    Raises LusError if there are none, as for two folds of a cross-validation, or if two runs, of
    different caches, have different scores of a video.
    """
    shared = set.intersection(*(set(one.videos) for one in predictions.values()))
    if not shared:
        raise LusError(
            f"runs {', '.join(predictions)} have no {part} video in common",
            "compare runs of the same split, or score all of them on another study with --videos",
        )
    order = [video for video in next(iter(predictions.values())).videos if video in shared]
    common = {}
    for name, one in predictions.items():
        row_of = {video: index for index, video in enumerate(one.videos)}
        rows = [row_of[video] for video in order]
        common[name] = Predictions(order, one.scores[rows], one.probabilities[rows])
    first, *others = common
    for name in others:
        if (differ := np.flatnonzero(common[name].scores != common[first].scores)).size:
            raise LusError(
                f"runs {first} and {name} have different scores of {counted(len(differ), 'video')}, "
                f"such as {'/'.join(order[differ[0]])}",
                "give both studies the same scores with `lus prepare`, or score a third one with "
                "--videos",
            )
    return common


def most_frequent(predictions: Predictions) -> Predictions:
    """The prediction of the most frequent score of these videos for each of them, with the share of
    each score as its probability."""
    shares = np.bincount(predictions.scores, minlength=len(SCORES)) / len(predictions.scores)
    rows = np.tile(shares, (len(predictions.scores), 1))
    return Predictions(predictions.videos, predictions.scores, rows)


def folder_name(names: Sequence[str], part: str) -> str:
    """The folder of a comparison. If it does not have all names, a hash of them keeps comparisons
    apart."""
    runs = "-".join(names)
    if len(names) > 3 or len(runs) > 120:
        more = f"-and-{len(names) - 1}-more"
        runs = f"{names[0][:100]}{more}-{fingerprint(list(names))[:6]}"
    return f"{runs}-on-{part}"


def write_comparison(
    folder: Path, compared: dict[str, Any], candidates: Mapping[str, Sequence[Predictions]]
) -> None:
    """Writes comparison.json, .csv, .svg and .png, and all predictions to comparison_predictions.csv."""
    write_json(folder / "comparison.json", compared)
    write_text(folder / "comparison.csv", csv_text(list(comparison_rows(compared))))
    write_text(folder / "comparison_predictions.csv", csv_text(list(prediction_rows(candidates))))
    figures.save(comparison_figures.comparison(compared), folder / "comparison")


def comparison_rows(compared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per candidate and metric."""
    for row in compared["candidates"]:
        for metric, entry in row["metrics"].items():
            difference = entry.get("difference", {})
            yield {
                "name": row["name"],
                "repetitions": row["repetitions"],
                "metric": metric,
                **{key: entry[key] for key in ("value", "low", "high", "sd")},
                **{f"difference_{key}": difference.get(key) for key in ("value", "low", "high")},
            }


def prediction_rows(candidates: Mapping[str, Sequence[Predictions]]) -> Iterator[dict[str, Any]]:
    """One row per candidate, repetition and video."""
    for name, repetitions in candidates.items():
        for repetition, predictions in enumerate(repetitions, start=1):
            for index, video in enumerate(predictions.videos):
                shares = predictions.probabilities[index].tolist()
                yield (
                    {"name": name, "repetition": repetition}
                    | dict(zip(("patient", "exam", "area"), video, strict=True))
                    | {"score": predictions.scores[index]}
                    | {"predicted": predictions.predicted[index]}
                    | {f"p{score}": share for score, share in zip(SCORES, shares, strict=True)}
                )


def comparison_table(compared: Mapping[str, Any], title: str) -> Table:
    """One row per candidate: metrics, and the difference of its kappa from the reference's."""
    n, rows = compared["patients"], []
    for row in compared["candidates"]:
        metrics = row["metrics"]
        kappa = metrics["kappa_quadratic"]
        values = (metrics[name]["value"] for name in ("accuracy", "f1_macro", "kappa_quadratic"))
        difference = format_interval(kappa["difference"], 2) if "difference" in kappa else "–"
        rows.append((row["name"], *values, format_interval(kappa, 2), difference))
    videos = counted(compared["videos"], "video")
    columns = ("", "accuracy", "macro F1", "kappa", f"95 %, n = {n}")
    return Table(
        f"{title}: {videos} of n = {counted(n, 'patient')}",
        (*columns, f"minus {compared['reference']}"),
        rows,
    )


def significant_differences(compared: Mapping[str, Any]) -> list[str]:
    """The candidates whose kappa differs significantly from the reference's, one sentence each."""
    sentences = []
    for row in compared["candidates"]:
        kappa = row["metrics"]["kappa_quadratic"]
        word = conclusion(kappa, "kappa_quadratic")
        if word in ("better", "worse"):
            difference = kappa["difference"]
            interval = f" ({format_interval(difference)})" if has_interval(difference) else ""
            sentences.append(
                f"{row['name']} is {word} than {compared['reference']}: kappa "
                f"{difference['value']:+z.3f}{interval}."
            )
    return sentences
