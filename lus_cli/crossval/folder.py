"""Writes the files of a cross-validation: an out-of-fold evaluation, folds, confounders, the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lus_cli import figures
from lus_cli.cache.layout import Run
from lus_cli.crossval import figures as crossval_figures
from lus_cli.crossval.doubtful_labels import label_rows
from lus_cli.crossval.page import write_crossval_page
from lus_cli.crossval.summary import KAPPA, method_rows
from lus_cli.evaluation.clip_encoding import Clip
from lus_cli.evaluation.folder import write_evaluation
from lus_cli.evaluation.metrics import Predictions
from lus_cli.files import csv_text, write_text

PAGE = "crossval.html"


def write_crossval(
    folder: Path,
    about: Mapping[str, Any],
    scores: dict[str, Any],
    repeats: Sequence[Predictions],
    curves: dict[str, Path],
    clips: Mapping[str, Clip],
) -> Path:
    """Writes all files into `folder` and returns the path of the page.

    about, repeats, clips: see `write_crossval_page`. scores: with `comparison`, `folds`,
    `doubtful_labels` and, if they were measured, `confounders`. curves: the training curves of each
    run that the page shows.
    """
    svg_files = write_evaluation(folder, scores, repeats[0]) | curves
    tables = {"folds": list(fold_rows(scores["folds"]))}
    confounders = scores.get("confounders", [])
    if confounders:
        tables |= {"confounders": list(confounder_rows(confounders))}
    if strata := list(stratum_rows(confounders)):
        tables |= {"strata": strata}
    for name, rows in tables.items():
        write_text(folder / f"{name}.csv", csv_text(rows))
    write_text(Run(folder).doubtful_labels, csv_text(label_rows(repeats)))
    for name, figure in draw(scores).items():
        figures.save(figure, folder / name)
        svg_files[name] = folder / f"{name}.svg"
    for name in {"strata", "confounders"} - tables.keys():
        for outdated in folder.glob(f"{name}.*"):
            outdated.unlink()
    svgs = {name: path.read_text(encoding="utf-8") for name, path in svg_files.items()}
    write_crossval_page(folder / PAGE, about, scores, repeats, svgs, clips)
    return folder / PAGE


def draw(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that only a cross-validation has, by name."""
    compared = scores["comparison"]
    methods = method_rows(compared)
    kappas = {row["name"]: row["metrics"][KAPPA]["value"] for row in methods}
    with_folds = [name for name in kappas if name in scores["folds"][0]["metrics"]]
    drawn = {
        "forest": crossval_figures.forest(compared, methods),
        "folds": crossval_figures.folds(scores["folds"], with_folds, kappas),
    }
    if confounders := scores.get("confounders"):
        overall = {name: entry["value"] for name, entry in scores["metrics"].items()}
        drawn["confounders"] = crossval_figures.confounders(confounders, scores["patients"])
        if stratified := [row for row in confounders if row["strata"]]:
            drawn["strata"] = crossval_figures.strata(stratified, overall)
    return drawn


def fold_rows(folds: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per fold and method."""
    for row in folds:
        for method, values in row["metrics"].items():
            columns = ("name", "repeat", "fold", "group", "patients", "videos")
            facts = {key: row[key] for key in columns if key in row}
            yield {"method": method} | facts | values


def stratum_rows(confounders: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per confounder and third of the videos."""
    for row in confounders:
        for third in row["strata"]:
            facts = {key: third[key] for key in ("low", "high", "videos", "patients")}
            yield {"confounder": row["name"]} | facts | flat_estimates(third)


def confounder_rows(confounders: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per confounder."""
    for row in confounders:
        yield {"confounder": row["name"]} | flat_estimates(row)


def flat_estimates(row: Mapping[str, Any]) -> dict[str, Any]:
    """The value and the interval of each estimate in a row, as columns."""
    estimates = {name: entry for name, entry in row.items() if isinstance(entry, Mapping)}
    return {
        name if key == "value" else f"{name}_{key}": entry[key]
        for name, entry in estimates.items()
        for key in ("value", "low", "high")
    }
