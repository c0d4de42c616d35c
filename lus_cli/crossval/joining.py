"""Cross-validations as wholes: one that several jobs share, and several that are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import CrossvalConfig
from lus_cli.crossval.plan import Crossval, create, resume
from lus_cli.crossval.predictions import out_of_fold, weights_of
from lus_cli.crossval.repetitions import Fold
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.run_comparison import compare_candidates, folder_name
from lus_cli.options import build
from lus_cli.progress import Result
from lus_cli.recipes.recipe import recipe_of
from lus_cli.words import counted


def joined(config: CrossvalConfig, cache: Cache, videos: VideoCache) -> Crossval:
    """The cross-validation named by --run: a new one, or that of an earlier job with the same recipe.

    Raises UsageError without --run, LusError if the existing one has a different recipe or repetitions.
    """
    if config.run is None:
        raise UsageError(
            "--fold trains a part of a cross-validation",
            "name it with --run, the same in every job",
        )
    root = cache.crossval(config.run).root
    if config.resume:
        return resume(config, cache, videos)
    if not root.exists():
        try:
            return create(config, cache, videos)
        except LusError:
            if not root.exists():  # otherwise another job was faster
                raise
    study = resume(config, cache, videos)
    repeats = len({fold.repeat for fold in study.folds})
    if recipe_of(study.config) != recipe_of(config) or repeats != config.repeats:
        raise LusError(
            f"cross-validation {root.name} has a different recipe or number of repetitions",
            "choose another --run, or give every job the same options",
        )
    return study


def numbered(study: Crossval, number: int) -> Fold:
    """A fold by its number, counted from 1 over all repetitions. Raises UsageError."""
    if number > len(study.folds):
        raise UsageError(
            f"there is no fold {number}",
            f"{study.name} has folds 1 to {len(study.folds)}, counted over all repetitions",
        )
    return study.folds[number - 1]


def missing_folds(study: Crossval) -> list[Fold]:
    """The folds without predictions."""
    return [fold for fold in study.folds if not study.predictions(fold).is_file()]


# -------------------------------------------------------------------------------------- comparing


def compare_crossvals(cache: Cache, runs: Sequence[Run]) -> Result:
    """Compares cross-validations of one study by their out-of-fold predictions.

    Differences from the first are paired, patient by patient. Raises LusError if one is unfinished, or
    if the cache holds different videos or scores.
    """
    videos = VideoCache(cache.videos)
    wanted = [build(CrossvalConfig, {"run": run.name, "cache": cache.root}) for run in runs]
    studies = [resume(config, cache, videos) for config in wanted]
    for study in studies:
        if missing := missing_folds(study):
            raise LusError(
                f"cross-validation {study.name} is unfinished: {counted(len(missing), 'fold')} of "
                f"{len(study.folds)} not trained",
                f"finish it with `lus crossval --resume --run {study.name}`",
            )
    candidates: dict[str, Sequence[Predictions]] = {
        study.name: out_of_fold(study) for study in studies
    }
    names = list(candidates)
    about = {"weights": {study.name: weights_of(study) for study in studies}}
    title = f"{len(names)} cross-validations, out of fold"
    folder = cache.comparisons / folder_name(names, "out-of-fold")
    compared = compare_candidates(folder, candidates, title, about)
    first = {frozenset(fold.split.test) for fold in studies[0].folds if fold.repeat == 1}
    differ = [
        study.name
        for study in studies[1:]
        if {frozenset(fold.split.test) for fold in study.folds if fold.repeat == 1} != first
    ]
    if differ:
        compared.notes.append(
            f"The folds of {', '.join(differ)} are not those of {names[0]}: each patient is tested once "
            "in both, but by models that were trained on other patients."
        )
    compared.notes.append(
        f"The best of {len(names)}, chosen on these patients, looks better than it is: confirm it on "
        "patients that took no part in the choice."
    )
    return dataclasses.replace(compared, numbers={**compared.numbers, "same_folds": not differ})
