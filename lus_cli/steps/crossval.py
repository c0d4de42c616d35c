"""lus crossval: trains a recipe once per fold and evaluates it on patients that it never saw.

Under torchrun each process trains its share of the folds, and the first one pools their predictions.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.split import PARTS, Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import CrossvalConfig
from lus_cli.crossval.baselines import DRAWN
from lus_cli.crossval.confounders import confounder_warnings, confounding
from lus_cli.crossval.doubtful_labels import doubted_labels
from lus_cli.crossval.features import compute_features
from lus_cli.crossval.fold_files import START_OVER
from lus_cli.crossval.folder import write_crossval
from lus_cli.crossval.groups import (
    baselines_of,
    group_confounding,
    group_features,
    group_warnings,
)
from lus_cli.crossval.joining import compare_crossvals, joined, missing_folds, numbered
from lus_cli.crossval.plan import Crossval, create, resume
from lus_cli.crossval.predictions import (
    by_fold,
    clips_of_worst,
    constant_fold_warnings,
    has_current_predictions,
    in_cache_order,
    labelled_indices,
    out_of_fold,
    predict_fold,
    predict_folds,
    weights_of,
)
from lus_cli.crossval.repetitions import Fold, groups_of_folds
from lus_cli.crossval.signs import CONFOUNDERS
from lus_cli.crossval.summary import notes_on
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.run_comparison import compare_candidates
from lus_cli.evaluation.terminal_tables import group_tables, metric_table
from lus_cli.files import check_writable, read_json, write_json
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.model.ranks import connected
from lus_cli.progress import Progress, Result
from lus_cli.recipes.recipe import recipe_of
from lus_cli.torchrun.group import Group
from lus_cli.training.feature_cache import FeatureLoader
from lus_cli.training.resuming import resumed
from lus_cli.training.setting import Setting
from lus_cli.training.trained_run import open_run
from lus_cli.training.training import new_trainer, train
from lus_cli.words import continued, counted, verb

SEED = 0  # of the permutations for p-values


def run(config: CrossvalConfig, progress: Progress) -> Result:
    """Trains the missing folds, pools the predictions of all folds, compares them with baselines."""
    group = Group.of_environment()
    set_threads(config.threads, group)
    device, cache = choose_device(config.device, group), Cache(config.cache)
    check_writable(cache.crossvals, cache.runs, cache.features)
    videos = VideoCache(cache.videos)
    if config.fold:
        if group.world > 1:
            raise UsageError(
                "--fold trains in one process", "omit it, or start it without torchrun"
            )
        return one_fold(joined(config, cache, videos), config.fold, device, progress)
    with connected(group, device):
        return cross_validate(config, group, device, videos, progress)


def cross_validate(
    config: CrossvalConfig,
    group: Group,
    device: torch.device,
    videos: VideoCache,
    progress: Progress,
) -> Result:
    """Trains the missing folds, each process its share, and evaluates all."""
    study = agreed_study(config, group, videos)
    missing = [
        fold for fold in study.folds if group.first and not has_current_predictions(study, fold)
    ]
    missing = group.agreed(missing)
    fill_features(study, missing, device, group, progress)
    done, total, of_all = len(study.folds) - len(missing), len(study.folds), group.whole(progress)
    before = done if group.first else 0
    share = group.share(missing)
    for trained, fold in enumerate(share):
        of_all("folds", before + trained, total)
        train_fold(study, fold, device, progress, to_train=len(share) - trained)
    of_all("folds", before + len(share), total)
    group.meet()
    result = evaluate(study, config, device, group, progress)
    if not group.first:
        return Result({"run": study.name})
    if config.resume and not missing:
        result.notes.insert(
            0, f"All {len(study.folds)} folds of {study.name} were finished: nothing was trained."
        )
    return result


def run_several(configs: Sequence[CrossvalConfig], progress: Progress) -> Result:
    """Cross-validates several recipes on the same folds, and compares them by paired differences."""
    if any(config.fold for config in configs):
        raise UsageError("--fold trains a fold of one cross-validation", "give one --recipe")
    cache = Cache(configs[0].cache)
    results = {}
    for config in configs:
        result = run(config, progress)
        results[result.numbers["run"]] = result
    if not Group.of_environment().first:
        return Result()
    compared = compare_crossvals(cache, [cache.crossval(name) for name in results])
    return Result(
        {**compared.numbers, "crossvals": {name: one.numbers for name, one in results.items()}},
        compared.tables,
        {f"report of {name}": one.files["report"] for name, one in results.items()}
        | compared.files,
        notes=compared.notes,
    )


# ------------------------------------------------------------------------------------------ stages


def agreed_study(config: CrossvalConfig, group: Group, videos: VideoCache) -> Crossval:
    """The cross-validation that the first process creates or resumes."""
    cache = Cache(config.cache)
    study = (resume if config.resume else create)(config, cache, videos) if group.first else None
    name = group.agreed(study.name if study else "")
    return study or resume(dataclasses.replace(config, run=name), cache, videos)


def fill_features(
    study: Crossval, folds: Sequence[Fold], device: torch.device, group: Group, progress: Progress
) -> None:
    """Computes the feature maps of a frozen CNN that the folds will need, each process its share.

    A single process computes them fold by fold. Several would all compute the same.
    """
    if group.world == 1 or not study.config.freeze or study.config.feature_cache == "none":
        return
    for repeat in sorted({fold.repeat for fold in folds}):  # random weights have a seed each
        settings = [
            Setting(
                recipe_of(study.train_config(fold)),
                study.run(fold),
                study.videos,
                fold.split,
                device,
            )
            for fold in folds
            if fold.repeat == repeat
        ]
        trained = {index for setting in settings for index in setting.training_indices()}
        scored = {index for setting in settings for index in setting.validation_indices()}
        loader = new_trainer(settings[0]).loader  # its CNN is that of every fold
        assert isinstance(loader, FeatureLoader)
        loader.fill(sorted(trained), sorted(scored), group, progress)


def one_fold(study: Crossval, number: int, device: torch.device, progress: Progress) -> Result:
    """Trains one fold unless it is finished, without pooling the predictions."""
    fold = numbered(study, number)
    if not has_current_predictions(study, fold):
        train_fold(study, fold, device, progress)
    missing = [one.name for one in missing_folds(study)]
    left = f"{counted(len(missing), 'fold')} of {len(study.folds)} {verb(len(missing))} left"
    if not missing:
        left = f"all are trained: `lus crossval --resume --run {study.name}` pools them"
    numbers = {"run": study.name, "fold": fold.name, "missing": missing}
    return Result(
        numbers,
        files={"predictions": study.predictions(fold)},
        notes=[f"Fold {number} of {len(study.folds)} ({fold.name}) is trained; {left}."],
    )


def train_fold(
    study: Crossval, fold: Fold, device: torch.device, progress: Progress, to_train: int = 1
) -> None:
    """Trains one fold, or resumes it, and stores the predictions for its test patients.

    to_train: the number of folds that are not trained, this one included, for the forecast.
    """
    config, run = study.train_config(fold), study.run(fold)
    setting = Setting(recipe_of(config), run, study.videos, fold.split, device)
    if config.resume:
        interrupted = resumed(run, device)
        same_recipe = interrupted.recipe == setting.recipe
        if not same_recipe or not same_patients(interrupted.split, setting.split):
            raise LusError(
                f"run {run.name} does not have the recipe or the patients that {study.name} plans for it",
                f"remove {run.root}; --resume then trains it again",
            )
        setting = interrupted
    setting = dataclasses.replace(setting, to_train=to_train)
    train(setting, progress, becomes_latest=False)
    trained = open_run(Cache(config.cache), run.name, device)
    write_json(study.predictions(fold), predict_fold(trained, progress))


def same_patients(one: Split, other: Split) -> bool:
    return all(set(getattr(one, part)) == set(getattr(other, part)) for part in PARTS)


def evaluate(
    study: Crossval,
    config: CrossvalConfig,
    device: torch.device,
    group: Group,
    progress: Progress,
) -> Result:
    """Compares the pooled predictions with those of the baselines, and writes all results."""
    repeats = out_of_fold(study)
    candidates: dict[str, Sequence[Predictions]] = {study.config.name: repeats}
    labelled = labelled_indices(study.videos)
    groups = [study.videos.groups[index] for index in labelled]
    confounders = group_confounding(repeats[0], groups)
    if config.baselines:
        features = compute_features(study.videos, Cache(config.cache).features, progress, group)
        features |= group_features(study.videos)
        by_baseline = predict_folds(
            study.root, study.folds, study.videos, features, progress, group
        )
        candidates |= {
            name: [in_cache_order(study.videos, one, name in DRAWN) for one in of_baseline]
            for name, of_baseline in by_baseline.items()
        }
        columns = features["confounders"][labelled].T
        confounders += confounding(repeats[0], dict(zip(CONFOUNDERS, columns, strict=True)))
    clips = clips_of_worst(study, repeats[0], device, progress, group)
    if not group.first:
        return Result()
    progress("intervals", 0, 1)
    weights = {"weights": weights_of(study)}
    title = f"{study.name}, out of fold"
    compared = compare_candidates(study.root, candidates, title, weights)
    tested = [fold.split.test for fold in study.folds if fold.repeat == 1]
    scores = assess(repeats[0], config.permutations, SEED, folds=tested, groups=groups)
    progress("intervals", 1, 1)
    of_run = {"run": study.name, **weights, "split": "out-of-fold", "repetitions": len(repeats)}
    scores = {**of_run, **scores}
    if confounders:
        scores["confounders"] = confounders
    scores["comparison"] = compared.numbers
    scores["folds"] = with_groups(study, by_fold(study.folds, candidates))
    scores["doubtful_labels"] = doubted_labels(repeats)
    scores["warnings"] += group_warnings(confounders) + confounder_warnings(confounders)
    if len(repeats) > 1:
        scores["warnings"] = [f"Repetition 1: {continued(w)}" for w in scores["warnings"]]
    scores["warnings"] += constant_fold_warnings(scores["folds"])
    page = write_crossval(
        study.root, about_page(study, config), scores, repeats, curves_of(study), clips
    )
    return Result(
        scores,
        [metric_table(scores), *compared.tables, *group_tables(scores)],
        {
            "report": page,
            "numbers": study.root / "scores.json",
            "doubtful labels": Run(study.root).doubtful_labels,
            **compared.files,
        },
        notes=notes_on(scores),
    )


def with_groups(study: Crossval, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of folds; with their `group` if the folds are by group."""
    videos, tested = study.videos, [fold.split.test for fold in study.folds]
    groups = groups_of_folds(tested, videos.patients, videos.groups)
    if not groups:
        return rows
    return [row | {"group": group} for row, group in zip(rows, groups, strict=True)]


def curves_of(study: Crossval) -> dict[str, Path]:
    """The training curves of each fold of the first repetition, by the name of the figure."""
    paths = {
        f"training_of_fold_{fold.name}": study.run(fold).root / "curves.svg"
        for fold in study.folds
        if fold.repeat == 1
    }
    return {name: path for name, path in paths.items() if path.is_file()}


def about_page(study: Crossval, config: CrossvalConfig) -> dict[str, Any]:
    """The facts on the page about how it was made; see `write_crossval_page`."""
    plan, first_run = read_json(study.root / "plan.json", START_OVER), study.run(study.folds[0])
    recipe = dataclasses.asdict(recipe_of(study.config))
    repetitions = len(plan["repeats"])
    options = {
        "--config": study.root / "config.toml",
        "--run": f"{study.name}-again",
        "--repeats": repetitions,
        "--permutations": config.permutations,
        "--cache": config.cache,
    }
    words = ["lus", "crossval", *(str(word) for pair in options.items() for word in pair)]
    details = {
        "Recipe": recipe,
        "Folds and seeds": {
            "folds": study.root / "plan.json",
            "drawn by": plan["drawn_by"],
            "seeds of the repetitions": [recipe["seed"] + number for number in range(repetitions)],
            "seed of the p-values": SEED,
            "fingerprint of the videos": plan["fingerprint"],
        },
        "Versions": read_json(first_run.provenance, "") if first_run.provenance.is_file() else None,
    }
    return {
        "name": study.name,
        "recipe": study.config.name,
        "folds": len(plan["repeats"][0]),
        "methods": {one.name: one.description for one in baselines_of(study.videos)}
        if config.baselines
        else {},
        "confounders": CONFOUNDERS,
        "command": shlex.join(words + ([] if config.baselines else ["--no-baselines"])),
        "details": details,
    }
