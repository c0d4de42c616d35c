"""Several runs on the videos that all of them may be judged by: files, figure and table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli import figures
from lus_cli.cache.layout import Cache
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation import comparison_figures
from lus_cli.evaluation.assessment import of_equal_answers
from lus_cli.evaluation.comparison import ENSEMBLE, compare, ensemble, verdict
from lus_cli.evaluation.metrics import SCORES, Predictions, equal_answers
from lus_cli.evaluation.tables import interval
from lus_cli.evaluation.totals import few_patients
from lus_cli.files import csv_text, write_json, write_text
from lus_cli.progress import Result, Table
from lus_cli.words import counted

MAJORITY = "majority"


def compare_runs(
    cache: Cache,
    part: str,
    answers: Mapping[str, Predictions],
    about: Mapping[str, Any],
) -> Result:
    """Compares runs by name, and their mean answer, on the videos that all of them were given.

    about: `warnings`, what must be known of the runs, and `weights`, the digest of each one's.

    Raises UsageError for a run that is called as another row of the table is.
    """
    if taken := {MAJORITY, ENSEMBLE} & set(answers):
        raise UsageError(
            f"a row of every comparison is called {min(taken)}, and so is a run",
            "rename the run's folder",
        )
    common = on_common_videos(answers, part)
    candidates: dict[str, Sequence[Predictions]] = {name: [own] for name, own in common.items()}
    candidates[ENSEMBLE] = [ensemble(list(common.values()))]
    folder = cache.comparisons / folder_name(list(common), part)
    title = f"{len(common)} runs on {part}"
    patients = len(set(next(iter(common.values())).patients))
    doubts = [*of_the_runs(common), *few_patients(patients)]
    warnings = [*about["warnings"], *(f"{w[0].upper()}{w[1:]}." for w in doubts)]
    compared = compare_candidates(folder, candidates, title, {**about, "warnings": warnings})
    videos = compared.numbers["videos"]
    if videos < max(len(predictions.videos) for predictions in answers.values()):
        compared.notes.append(f"Compared on the {counted(videos, 'video')} that all runs share.")
    return compared


def compare_candidates(
    folder: Path,
    candidates: Mapping[str, Sequence[Predictions]],
    title: str,
    about: Mapping[str, Any],
) -> Result:
    """Compares whoever answered for the same videos, once or several times over, with the first of
    them, and writes it down in `folder`. The majority class for every video is compared, too."""
    first = next(iter(candidates.values()))[0]
    everybody = {**candidates, MAJORITY: [most_frequent(first)]}
    compared = compare(everybody) | {"warnings": []} | dict(about)
    write_comparison(folder, compared, everybody)
    return Result(
        compared,
        [comparison_table(compared, title)],
        {"comparison": folder / "comparison.svg", "compared": folder / "comparison.json"},
        notes=[*compared["warnings"], *unlinked(compared)],
    )


def of_the_runs(answers: Mapping[str, Predictions]) -> Iterator[str]:
    """Runs that answer one score for every video, or give many videos the same probabilities."""
    for name, predictions in answers.items():
        if len(only := set(predictions.predicted.tolist())) == 1:
            yield f"run {name} answers score {only.pop()} for every video"
            continue
        for words in of_equal_answers(equal_answers(predictions), len(predictions.videos)):
            yield f"run {name}: {words}"


def on_common_videos(answers: Mapping[str, Predictions], part: str) -> dict[str, Predictions]:
    """The answers for the videos that all have, in the order of the first.

    Raises LusError if there are none, as between the folds of a cross-validation.
    """
    shared = set.intersection(*(set(predictions.videos) for predictions in answers.values()))
    if not shared:
        raise LusError(
            f"runs {', '.join(answers)} share no {part} video",
            "compare runs of one split, or score them all on another study with --videos",
        )
    order = [video for video in next(iter(answers.values())).videos if video in shared]
    common = {}
    for name, predictions in answers.items():
        place = {video: index for index, video in enumerate(predictions.videos)}
        rows = [place[video] for video in order]
        common[name] = Predictions(order, predictions.scores[rows], predictions.probabilities[rows])
    return common


def most_frequent(predictions: Predictions) -> Predictions:
    """Who answers the most frequent score of these very videos for all of them, and is as sure of
    each score as it is frequent."""
    shares = np.bincount(predictions.scores, minlength=len(SCORES)) / len(predictions.scores)
    rows = np.tile(shares, (len(predictions.scores), 1))
    return Predictions(predictions.videos, predictions.scores, rows)


def folder_name(names: Sequence[str], part: str) -> str:
    shown = "-".join(names) if len(names) < 4 else f"{names[0]}-and-{len(names) - 1}-more"
    return f"{shown[:120]}-on-{part}"


def write_comparison(
    folder: Path, compared: dict[str, Any], candidates: Mapping[str, Sequence[Predictions]]
) -> None:
    """comparison.json, .csv, .svg and .png, and every answer in answers.csv."""
    write_json(folder / "comparison.json", compared)
    write_text(folder / "comparison.csv", csv_text(list(figure_rows(compared))))
    write_text(folder / "answers.csv", csv_text(list(answer_rows(candidates))))
    figures.save(comparison_figures.comparison(compared), folder / "comparison")


def figure_rows(compared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row a candidate and figure."""
    for row in compared["candidates"]:
        for figure, entry in row["figures"].items():
            difference = entry.get("difference", {})
            yield {
                "name": row["name"],
                "times": row["times"],
                "figure": figure,
                **{key: entry[key] for key in ("value", "low", "high", "sd")},
                **{f"difference_{key}": difference.get(key) for key in ("value", "low", "high")},
            }


def answer_rows(candidates: Mapping[str, Sequence[Predictions]]) -> Iterator[dict[str, Any]]:
    """A row a candidate, time and video."""
    for name, repeats in candidates.items():
        for time, predictions in enumerate(repeats, start=1):
            for index, video in enumerate(predictions.videos):
                shares = predictions.probabilities[index].tolist()
                yield (
                    {"name": name, "time": time}
                    | dict(zip(("patient", "exam", "area"), video, strict=True))
                    | {"score": predictions.scores[index]}
                    | {"predicted": predictions.predicted[index]}
                    | {f"p{score}": share for score, share in zip(SCORES, shares, strict=True)}
                )


def comparison_table(compared: Mapping[str, Any], title: str) -> Table:
    """A row a candidate: figures, and by how much its kappa differs from the reference's."""
    n, rows = compared["patients"], []
    for row in compared["candidates"]:
        found = row["figures"]
        kappa = found["kappa_quadratic"]
        values = (found[name]["value"] for name in ("accuracy", "f1_macro", "kappa_quadratic"))
        difference = interval(kappa["difference"], 2) if "difference" in kappa else "–"
        rows.append((row["name"], *values, interval(kappa, 2), difference))
    videos = counted(compared["videos"], "video")
    columns = ("", "accuracy", "macro F1", "kappa", f"95 %, n = {n}")
    return Table(
        f"{title}: {videos} of n = {counted(n, 'patient')}",
        (*columns, f"less {compared['reference']}"),
        rows,
    )


def unlinked(compared: Mapping[str, Any]) -> list[str]:
    """Whose kappa differs from the reference's by more than chance explains, a sentence each."""
    sentences = []
    for row in compared["candidates"]:
        kappa = row["figures"]["kappa_quadratic"]
        word = verdict(kappa, "kappa_quadratic")
        if word in ("better", "worse"):
            difference = kappa["difference"]
            sentences.append(
                f"{row['name']} is {word} than {compared['reference']}: kappa "
                f"{difference['value']:+z.3f} ({interval(difference)})."
            )
    return sentences
