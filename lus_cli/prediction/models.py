"""The model that --run names, or that the file or folder of --model holds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from lus_cli.cache.layout import Cache, Run
from lus_cli.crossval.fold_models import load_trained
from lus_cli.errors import CannotReadError, LusError, UsageError
from lus_cli.training.trained_run import TrainedModel

BEST = "best.safetensors"
REMEDY = f"give a {BEST}, or a folder that `lus export` wrote"


def chosen_model(cache: Cache, run: str | None, model: Path | None) -> TrainedModel:
    """The model that --run or --model names, on the CPU; that of the latest run if both are None.

    Results of --model are written to a folder of the cache that its name and its weights give, so
    that the folder of the model stays as it is.
    Raises LusError if the model cannot be read, UsageError if both are given.
    """
    if model is None:
        return load_trained(cache.trained(run))
    if run is not None:
        raise UsageError("--run and --model each name a model", "omit one of them")
    trained = model_at(model)
    results = cache.results(f"{name_of(trained.home, model)}-{trained.weights[:8]}")
    return replace(trained, run=results, source=trained.home)


def model_at(path: str | Path) -> TrainedModel:
    """The model in a weights file, or in the folder of a run, cross-validation or export.

    Raises LusError if there is none, or if it is damaged.
    """
    place = Path(path)
    is_folder = place.is_dir()
    # A link to the weights is not followed: what else is known of the model lies next to the link.
    run = Run((place if is_folder else place.parent).resolve())
    if is_folder and run.is_crossval:
        return load_trained(run)
    weights = run.best if is_folder else run.root / place.name
    if not weights.is_file():
        raise LusError(f"there is no {place / BEST if is_folder else place}", REMEDY)
    try:
        return load_trained(run, weights)
    except CannotReadError:
        raise
    except LusError as error:
        raise LusError(error.message, REMEDY) from error


def name_of(folder: Run, path: Path) -> str:
    """A short name for a model: of its file, or of its folder if the file is named as in a run."""
    name = folder.name if path.is_dir() or path.name == BEST else path.stem
    if name == "export":  # the folder of `lus export` in a run
        name = folder.root.parent.name
    return re.sub(r"[^\w.\-]+", "-", name).strip("-.")[:60] or "model"
