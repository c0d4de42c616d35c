"""lus crossval: trains a recipe once a fold, and says how it does on patients it never saw."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

import torch

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import PARTS, Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import CrossvalConfig
from lus_cli.crossval.confounders import confounding, followed
from lus_cli.crossval.features import compute_features
from lus_cli.crossval.folder import write_crossval
from lus_cli.crossval.folds import Fold
from lus_cli.crossval.plan import ANEW, Crossval, opened, reopened
from lus_cli.crossval.predictions import (
    answer_folds,
    answered,
    answered_in_order,
    answers_hold,
    by_fold,
    constant_folds,
    labelled,
    out_of_fold,
    weights_of,
)
from lus_cli.crossval.signs import CONFOUNDERS
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.run_comparison import compare_candidates
from lus_cli.evaluation.tables import metric_table
from lus_cli.files import check_writable, read_json, write_json
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.model.ranks import ALONE, ranks_of_environment
from lus_cli.progress import Progress, Result
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.resuming import resumed
from lus_cli.training.setting import Setting
from lus_cli.training.trained_run import open_run
from lus_cli.training.training import train

SEED = 0  # of the deals behind a p-value


def run(config: CrossvalConfig, progress: Progress) -> Result:
    """Trains what is not trained yet, pools what the folds answer, compares it with baselines."""
    if ranks_of_environment().world > 1:
        raise UsageError(
            "crossval runs in one process",
            "start it without torchrun; it can be stopped, and resumed with --resume",
        )
    set_threads(config.threads)
    device, cache = choose_device(config.device), Cache(config.cache)
    check_writable(cache.crossvals, cache.runs, cache.features)
    videos = VideoCache(cache.videos)
    study = reopened(config, cache, videos) if config.resume else opened(config, cache, videos)
    left = [fold for fold in study.folds if not answers_hold(study, fold)]
    for fold in left:
        progress("folds", study.folds.index(fold), len(study.folds))
        train_fold(study, fold, device, progress)
    progress("folds", len(study.folds), len(study.folds))
    result = pooled(study, config, progress)
    if config.resume and not left:
        result.notes.insert(
            0, f"All {len(study.folds)} folds of {study.name} were finished: nothing was trained."
        )
    return result


# ------------------------------------------------------------------------------------ what is done


def train_fold(study: Crossval, fold: Fold, device: torch.device, progress: Progress) -> None:
    """Trains one fold, or goes on with it, and keeps what it answers for its test patients."""
    config, run = study.training(fold), study.run(fold)
    setting = Setting(config, run, study.videos, fold.split, device, ALONE)
    if config.resume:
        begun = resumed(config, run, device, ALONE)
        if begun.recipe != setting.recipe or not same_patients(begun.split, setting.split):
            raise LusError(
                f"run {run.name} has another recipe or other patients than {study.name} plans for it",
                f"remove {run.root}, and it is trained anew by --resume",
            )
        setting = begun
    train(setting, progress, becomes_latest=False)
    trained = open_run(Cache(config.cache), run.name, device)
    write_json(study.answers(fold), answered(trained, progress))


def same_patients(one: Split, other: Split) -> bool:
    return all(set(getattr(one, part)) == set(getattr(other, part)) for part in PARTS)


def pooled(study: Crossval, config: CrossvalConfig, progress: Progress) -> Result:
    """Everything that is said about the answers of all folds together."""
    repeats = out_of_fold(study)
    candidates: dict[str, Sequence[Predictions]] = {study.config.name: repeats}
    found: dict[str, Any] = {}
    if config.baselines:
        from lus_cli.crossval.baselines import DRAWN

        features = compute_features(study.videos, Cache(config.cache).features, progress)
        given = answer_folds(study.root, study.folds, study.videos, features, progress)
        candidates |= {
            name: [answered_in_order(study.videos, one, name in DRAWN) for one in repeats]
            for name, repeats in given.items()
        }
        columns = features["confounders"][labelled(study.videos)].T
        measured = dict(zip(CONFOUNDERS, columns, strict=True))
        found["confounders"] = confounding(repeats[0], measured)
    progress("intervals", 0, 1)
    title, times = f"{study.name}, out of fold", len(repeats)
    about = {"weights": weights_of(study)}
    compared = compare_candidates(study.root, candidates, title, about)
    scores = assess(repeats[0], config.permutations, SEED)
    progress("intervals", 1, 1)
    whole = {"run": study.name, **about, "split": "out-of-fold", "repetitions": times}
    scores = {**whole, **scores, **found}
    scores["warnings"] += [
        f"{w[0].upper()}{w[1:]}." for w in followed(found.get("confounders", []))
    ]
    scores["comparison"] = compared.numbers
    scores["folds"] = by_fold(study.folds, candidates)
    scores["warnings"] += [f"{w[0].upper()}{w[1:]}." for w in constant_folds(scores["folds"])]
    page = write_crossval(study.root, described(study, config), scores, repeats)
    return Result(
        scores,
        [metric_table(scores), *compared.tables],
        {"report": page, "numbers": study.root / "scores.json", **compared.files},
        notes=[*scores["warnings"], *compared.notes],
    )


def described(study: Crossval, config: CrossvalConfig) -> dict[str, Any]:
    """What the page says of how it was made; see crossval_page.write_crossval_page."""
    from lus_cli.crossval.baselines import BASELINES

    plan, origin = read_json(study.root / "plan.json", ANEW), study.run(study.folds[0])
    recipe = {field.name: getattr(study.config, field.name) for field in dataclasses.fields(Recipe)}
    times = len(plan["repeats"])
    again = {
        "--config": study.root / "config.toml",
        "--run": f"{study.name}-again",
        "--repeats": times,
        "--permutations": config.permutations,
        "--cache": config.cache,
    }
    words = ["lus", "crossval", *(str(word) for pair in again.items() for word in pair)]
    details = {
        "Recipe": recipe,
        "Folds and seeds": {
            "folds": study.root / "plan.json",
            "drawn by": plan["drawn_by"],
            "seed of the models, each time over": [recipe["seed"] + time for time in range(times)],
            "seed of the p-values": SEED,
            "fingerprint of the videos": plan["fingerprint"],
        },
        "Versions": read_json(origin.provenance, "") if origin.provenance.is_file() else None,
    }
    return {
        "name": study.name,
        "recipe": study.config.name,
        "folds": len(plan["repeats"][0]),
        "methods": {one.name: one.words for one in BASELINES} if config.baselines else {},
        "confounders": CONFOUNDERS,
        "command": shlex.join(words + ([] if config.baselines else ["--no-baselines"])),
        "details": details,
    }
