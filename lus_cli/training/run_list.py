"""What is known of each run and cross-validation from the files in its folder, without PyTorch."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lus_cli.cache.layout import Cache, Run, crossval_of, folders_in
from lus_cli.errors import LusError
from lus_cli.files import read_json
from lus_cli.folders import writers
from lus_cli.recipes.recipe import DEFAULT_RECIPE
from lus_cli.recipes.shipped import base_of_values, changes, shown, values_of
from lus_cli.training.early_stopping import best_epoch, out_of_patience

DIGEST = re.compile(r"\| digest of the weights \| `(\w+)` \|")  # in a model card
METRICS = {"kappa": "kappa_quadratic", "accuracy": "accuracy", "f1_macro": "f1_macro"}
DAMAGED = (LusError, OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run or a cross-validation. What its files do not contain is None or empty.

    recipe: the recipe that ships with lus from which it started. changed: the fields that differ from
        it, with their values.
    study: the folder of its exams. fingerprint: of its videos. started: ISO 8601 with time zone.
    patients: with labelled videos, in all parts. epochs: trained, of `planned`; of a
        cross-validation, its folds.
    test_...: on the test patients; of a cross-validation, out of fold, means over the repetitions.
    size: bytes, of a cross-validation with the runs of its folds.
    state: finished, unfinished, running or damaged; a fold is finished with its predictions.
    """

    name: str
    kind: str  # run, crossval or fold
    recipe: str = ""
    changed: dict[str, Any] = dataclasses.field(default_factory=dict)
    study: str = ""
    fingerprint: str = ""
    started: str = ""
    patients: int | None = None
    videos: int | None = None
    epochs: int | None = None
    planned: int | None = None
    best_epoch: int | None = None
    validation_loss: float | None = None
    validation_kappa: float | None = None
    validation_accuracy: float | None = None
    test_kappa: float | None = None
    test_accuracy: float | None = None
    test_f1_macro: float | None = None
    size: int = 0
    state: str = "damaged"
    latest: bool = False


def listed(cache: Cache, folds: bool) -> list[Listed]:
    """All runs and cross-validations, the newest first.

    folds: whether to list the runs of the folds, too.
    """
    latest = ""
    if cache.latest.is_file():
        latest = cache.latest.read_text(encoding="utf-8", errors="replace").strip()
    crossvals = {n for n in folders_in(cache.crossvals) if Run(cache.crossvals / n).is_crossval}
    by_crossval: dict[str, list[Listed]] = {name: [] for name in crossvals}
    rows = []
    for name in folders_in(cache.runs):
        of = crossval_of(name)
        row = read_run(cache.runs / name, "fold" if of in crossvals else "run")
        if of in crossvals:
            predicted = cache.crossvals / of / "folds" / f"{name.removeprefix(of + '-')}.json"
            if row.state == "finished" and not predicted.is_file():
                row = dataclasses.replace(row, state="unfinished")
            by_crossval[of].append(row)
        if of not in crossvals or folds:
            rows.append(dataclasses.replace(row, latest=name == latest))
    rows += [read_crossval(cache.crossvals / name, of) for name, of in by_crossval.items()]
    return sorted(rows, key=lambda row: (row.started, row.name), reverse=True)


def read_run(root: Path, kind: str) -> Listed:
    """What the files of a run say about it. A missing or damaged file adds nothing."""
    run = Run(root)
    base = Listed(name=run.name, kind=kind, size=size_of(root))
    try:
        recipe = recipe_in(run.config)
        epochs = epochs_in(run.epochs)
        best = best_epoch(epochs)
        done = len(epochs) >= recipe["epochs"] or out_of_patience(epochs, recipe["patience"])
        complete = done and run.best.is_file() and run.model_card.is_file()
        row = dataclasses.replace(
            base,
            **recipe_facts(recipe),
            **origin_facts(run),
            epochs=len(epochs),
            planned=recipe["epochs"],
            state="running" if writers(root) else "finished" if complete else "unfinished",
        )
        if best is None:
            return row
        measured = {f"validation_{key}": best[f"validation_{key}"] for key in ("loss", "kappa")}
        measured["validation_accuracy"] = best["validation_accuracy"]
        known: dict[str, Any] = {
            key: value for key, value in measured.items() if math.isfinite(value)
        }
        tested = test_metrics(run) if complete else {}
        return dataclasses.replace(row, best_epoch=int(best["epoch"]), **known, **tested)
    except DAMAGED:
        return base


def read_crossval(root: Path, folds: list[Listed]) -> Listed:
    """What the files of a cross-validation say about it, and the runs of its folds."""
    size = size_of(root) + sum(fold.size for fold in folds)
    base = Listed(name=root.name, kind="crossval", size=size)
    try:
        plan = read_json(root / "plan.json", "")
        planned = sum(map(len, plan["repeats"]))
        done = sorted((root / "folds").glob("*.json"))
        first = min(folds, key=lambda fold: fold.started or "~", default=base)
        scores = root / "scores.json"
        complete = len(done) == planned and scores.is_file()
        running = any(fold.state == "running" for fold in folds) or writers(root)
        row = dataclasses.replace(
            base,
            **recipe_facts(recipe_in(root / "config.toml")),
            study=first.study,
            fingerprint=plan["fingerprint"],
            started=first.started,
            patients=sum(map(len, plan["repeats"][0])),
            videos=first.videos,
            epochs=len(done),
            planned=planned,
            state="running" if running else "finished" if complete else "unfinished",
        )
        newest = max((path.stat().st_mtime_ns for path in done), default=0)
        if not complete or scores.stat().st_mtime_ns < newest:  # of the folds' earlier models
            return row
        recipe = read_json(scores, "")["comparison"]["candidates"][0]  # means over repetitions
        return dataclasses.replace(row, **metrics_in(recipe))
    except DAMAGED:
        return base


# ------------------------------------------------------------------------------------------ files


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += size_of(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except OSError:  # removed meanwhile
        return total
    return total


def recipe_in(path: Path) -> dict[str, Any]:
    """The values of all fields; those that an older file lacks are those of the default recipe."""
    return values_of(DEFAULT_RECIPE) | tomllib.loads(path.read_text(encoding="utf-8"))


def recipe_facts(recipe: Mapping[str, Any]) -> dict[str, Any]:
    base = base_of_values(recipe)
    changed = {name: value for name, (value, _) in changes(recipe, base).items()}
    return {"recipe": base, "changed": changed}


def epochs_in(path: Path) -> list[dict[str, float]]:
    """The metrics of each epoch; NaN where a cell is empty. Nothing if no epoch has ended."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{key: float(cell) if cell else math.nan for key, cell in row.items()} for row in rows]


def origin_facts(run: Run) -> dict[str, Any]:
    if not run.provenance.is_file():
        return {}
    origin = read_json(run.provenance, "")
    parts = (origin.get("parts") or {}).values()
    return {
        "study": str(origin.get("exams") or ""),
        "fingerprint": str(origin.get("fingerprint") or ""),
        "started": str(origin.get("started") or ""),
        "patients": sum(part["patients"] for part in parts) if parts else None,
        "videos": origin.get("videos"),
    }


def test_metrics(run: Run) -> dict[str, Any]:
    """The metrics on the test patients: of `lus evaluate` if it evaluated these weights, else those at
    the end of training. Nothing if they are of other weights."""
    result = read_json(run.result, "") if run.result.is_file() else {}
    weights = result.get("weights")
    if weights is None and (match := DIGEST.search(run.model_card.read_text(encoding="utf-8"))):
        weights = match[1]
    path = run.evaluation("test") / "scores.json"
    if path.is_file() and (scores := read_json(path, "")).get("weights") == weights is not None:
        return metrics_in(scores)
    test = result.get("test") or {}
    return {f"test_{name}": test[name] for name in ("kappa", "accuracy") if name in test}


def metrics_in(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {f"test_{name}": scores["metrics"][key]["value"] for name, key in METRICS.items()}


def changed_in_words(row: Listed, most: int = 3) -> str:
    """The recipe of a run and what differs from it: 'paper, epochs 2, flip yes and 1 more'."""
    named = [f"{name} {shown(value)}" for name, value in row.changed.items()]
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return ", ".join([row.recipe, *named[:most]]) + more
