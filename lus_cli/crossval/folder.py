"""What a cross-validation leaves behind: an evaluation out of fold, folds, confounders, the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lus_cli import figures
from lus_cli.crossval import figures as crossval_figures
from lus_cli.crossval.page import write_crossval_page
from lus_cli.crossval.words import KAPPA, method_rows
from lus_cli.evaluation.folder import write_evaluation
from lus_cli.evaluation.metrics import Predictions
from lus_cli.files import csv_text, write_text

PAGE = "crossval.html"


def write_crossval(
    folder: Path,
    about: Mapping[str, Any],
    scores: dict[str, Any],
    repeats: Sequence[Predictions],
) -> Path:
    """Writes everything into `folder`; gives the page.

    about: as crossval_page.write_crossval_page takes it. scores: with `comparison`, `folds` and, if
    they were measured, `confounders`. repeats: what the recipe answered, each time over.
    """
    drawn = write_evaluation(folder, scores, repeats[0])
    rows = {"folds": list(fold_rows(scores["folds"]))}
    measured = scores.get("confounders", [])
    if measured:
        rows |= {"strata": list(stratum_rows(measured))}
        rows |= {"confounders": list(confounder_rows(measured))}
    for name, table in rows.items():
        write_text(folder / f"{name}.csv", csv_text(table))
    for name, figure in draw(scores).items():
        figures.save(figure, folder / name)
        drawn[name] = folder / f"{name}.svg"
    for stale in [*folder.glob("strata.*"), *folder.glob("confounders.*")]:
        if not measured:
            stale.unlink()
    svgs = {name: path.read_text(encoding="utf-8") for name, path in drawn.items()}
    write_crossval_page(folder / PAGE, about, scores, repeats, svgs)
    return folder / PAGE


def draw(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that an evaluation has not, by name."""
    compared = scores["comparison"]
    methods = method_rows(compared)
    kappas = {row["name"]: row["metrics"][KAPPA]["value"] for row in methods}
    known = [name for name in kappas if name in scores["folds"][0]["figures"]]
    drawn = {
        "forest": crossval_figures.forest(compared, methods),
        "folds": crossval_figures.folds(scores["folds"], known, kappas),
    }
    if measured := scores.get("confounders"):
        overall = {name: entry["value"] for name, entry in scores["metrics"].items()}
        drawn["confounders"] = crossval_figures.confounders(measured, scores["patients"])
        drawn["strata"] = crossval_figures.strata(measured, overall)
    return drawn


def fold_rows(folds: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row a fold and method."""
    for row in folds:
        for method, found in row["figures"].items():
            own = {key: row[key] for key in ("name", "repeat", "fold", "patients", "videos")}
            yield {"method": method} | own | found


def stratum_rows(confounders: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row a confounder and third of the videos."""
    for row in confounders:
        for third in row["strata"]:
            own = {key: third[key] for key in ("low", "high", "videos", "patients")}
            yield {"confounder": row["name"]} | own | flat_figures(third)


def confounder_rows(confounders: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row a confounder."""
    for row in confounders:
        yield {"confounder": row["name"]} | flat_figures(row)


def flat_figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Each figure of a row and the ends of its interval, as columns."""
    found = {name: entry for name, entry in row.items() if isinstance(entry, Mapping)}
    return {
        name if key == "value" else f"{name}_{key}": entry[key]
        for name, entry in found.items()
        for key in ("value", "low", "high")
    }
