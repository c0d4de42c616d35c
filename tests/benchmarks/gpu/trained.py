"""Parts `e` and `g`: the search for NaN on the device, and recipes compared on real videos."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import write_split
from lus_cli.cache.split_drawing import draw_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.evaluation.metrics import Predictions, label_metrics
from lus_cli.options import build, read_toml
from lus_cli.progress import silent
from lus_cli.recipes.recipe import recipe_path
from tests.benchmarks.gpu.machine import Machine, Task
from tests.benchmarks.lstm_defects import Case, outcome
from tests.benchmarks.stability_runs import LONGEST, NoiseVideos, Run, trained

FOLDS = 2
RECIPES = ("standard", "finetune")
SPLIT = {"test_share": 0.0, "validation_share": 0.2, "stratify": True, "folds": FOLDS, "seed": 5}


# ------------------------------------------------------------------------------- part e: NaN search

# What the report varied, on random input, with which its code met NaN: batch, rate, network, depth.
NOISE = Run(padding="packed", epochs=3, videos=8, frames=LONGEST, size=224)
RUNS = [
    dataclasses.replace(NOISE, batch_size=4),
    dataclasses.replace(NOISE, batch_size=1),
    dataclasses.replace(NOISE, batch_size=4, padding="zeros"),
    dataclasses.replace(NOISE, batch_size=4, rates=10.0),
    dataclasses.replace(NOISE, batch_size=1, backbone="resnet18", epochs=2),
    dataclasses.replace(NOISE, batch_size=4, backbone="resnet50", epochs=1),
    dataclasses.replace(NOISE, batch_size=4, backbone="vgg16", epochs=1),
]
TINY_RUN = Run(padding="packed", epochs=1, videos=2, frames=3, size=64)
DEFECTS = [Case("none", 4), Case("not a number", 4), Case("transposed", 4)]


def noise(run: Run, machine: Machine) -> dict[str, Any]:
    if machine.tiny:
        run = dataclasses.replace(TINY_RUN, batch_size=min(run.batch_size, 2))
    row = trained(run, NoiseVideos(run), machine.device)
    assert row["not_finite"] == 0, f"{row['not_finite']} steps, first in {row['where']}"
    assert row["weights_finite"], "weights are not finite"
    shown = ("steps", "not_finite", "largest_gradient_norm", "loss_first", "loss_last", "seconds")
    return {name: row[name] for name in shown}


def defect(case: Case, machine: Machine) -> dict[str, Any]:
    """A fault of the LSTM's gradient, put in on purpose: found where steps are checked."""
    if machine.tiny:
        case = dataclasses.replace(case, steps=4)
    row = outcome(case, machine.device)
    assert row["weights_finite_checked"]
    assert (row["not_taken"] > 0) == (case.fault == "not a number"), row["not_taken"]
    return {"not_taken": row["not_taken"], "named": ", ".join(row["named"]) or "none"}


def title(run: Run) -> str:
    rates = f", rates x {run.rates:g}" if run.rates != 1 else ""
    return f"{run.backbone}, batches of {run.batch_size}, {run.padding}{rates}"


# ----------------------------------------------------------------------------- part g: real videos


def fold(recipe: str, number: int, machine: Machine) -> dict[str, Any]:
    """One fold of a recipe: `lus crossval` trains it and predicts its patients."""
    from lus_cli.config import CrossvalConfig
    from lus_cli.crossval.fold_files import read_predictions
    from lus_cli.crossval.plan import create, resume
    from lus_cli.steps.crossval import train_fold

    if machine.cache is None:
        return {"videos": "none given: see --cache"}
    root = folds_of_study(machine, machine.cache)
    values = read_toml(recipe_path(recipe)) | {"device": machine.device.type, "run": recipe}
    if machine.tiny:
        values |= {"epochs": 1, "patience": 0, "weights": "none", "precision": "float32"}
    config = dataclasses.replace(build(CrossvalConfig, values), cache=root)
    videos = VideoCache(root / "videos.h5")
    begun = (root / "crossvals" / recipe).is_dir()
    study = (resume if begun else create)(config, Cache(root), videos)
    began = time.perf_counter()
    train_fold(study, study.folds[number], machine.device, silent)
    seconds = time.perf_counter() - began
    rows = read_predictions(study.root, study.folds[number].name).probabilities
    scores = dict(zip(videos.ids, videos.scores.tolist(), strict=True))
    truth = np.array([scores[video] for video in rows])
    predictions = Predictions(list(rows), truth, np.array(list(rows.values())))
    confusion = np.zeros((1, 4, 4))
    np.add.at(confusion[0], (predictions.scores, predictions.predicted), 1)
    figures = {name: float(value.item()) for name, value in label_metrics(confusion).items()}
    shown = ("accuracy", "f1_macro", "kappa_quadratic", "mean_absolute_error")
    return {"videos": len(rows), "seconds": round(seconds, 1)} | {
        name: round(figures[name], 3) for name in shown
    }


def folds_of_study(machine: Machine, cache: Path) -> Path:
    """A folder of its own with the videos of a prepared study, and two folds of its patients."""
    root = machine.folder / "study"
    if not (root / "split.json").is_file():
        root.mkdir(exist_ok=True)
        try:
            os.link(cache / "videos.h5", root / "videos.h5")
        except OSError:  # another disk
            shutil.copyfile(cache / "videos.h5", root / "videos.h5")
        videos = VideoCache(root / "videos.h5")
        split = draw_split(videos.patients, videos.scores, SPLIT, (), videos.groups)
        write_split(root / "split.json", split)
    return root


SEARCH: dict[str, Task] = {title(run): functools.partial(noise, run) for run in RUNS} | {
    f"LSTM with a fault: {case.fault}": functools.partial(defect, case) for case in DEFECTS
}
FOLDS_OF_RECIPES: dict[str, Task] = {
    f"{recipe}, fold {number + 1}": functools.partial(fold, recipe, number)
    for number in range(FOLDS)
    for recipe in RECIPES
}
