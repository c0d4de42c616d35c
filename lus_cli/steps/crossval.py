"""lus crossval: trains a recipe once a fold, and says how it does on patients it never saw."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lus_cli.assessment import assess
from lus_cli.cache import Cache, Run, read_json, write_json, write_text
from lus_cli.config import CrossvalConfig, Recipe, TrainConfig, build, read_toml, to_toml
from lus_cli.confounders import confounding, followed
from lus_cli.crossval_folder import write_crossval
from lus_cli.devices import choose_device, set_threads
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation_tables import figure_table
from lus_cli.exam_tree import VideoId
from lus_cli.fold_baselines import answer_folds
from lus_cli.fold_results import by_fold, constant_folds
from lus_cli.folders import replacing_folder
from lus_cli.folds import Fold, draw_repeats, folds_of
from lus_cli.metrics import Predictions
from lus_cli.ranks import ALONE, ranks_of_environment
from lus_cli.run_comparison import MAJORITY, compare_candidates
from lus_cli.scoring import TrainedRun, open_run
from lus_cli.signs import CONFOUNDERS
from lus_cli.split import Split, check_split, patients_in, read_split
from lus_cli.steps import Progress, Result
from lus_cli.training import Setting, resumed, train
from lus_cli.video_cache import VideoCache
from lus_cli.video_features import compute_features

SEED = 0  # of the bootstrap


def run(config: CrossvalConfig, progress: Progress) -> Result:
    """Trains what is not trained yet, pools what the folds answer, compares it with baselines."""
    if ranks_of_environment().world > 1:
        raise UsageError(
            "crossval runs in one process",
            "start it without torchrun; it can be stopped, and resumed with --resume",
        )
    set_threads(config.threads)
    device, cache = choose_device(config.device), Cache(config.cache)
    videos = VideoCache(cache.videos)
    study = reopened(config, cache, videos) if config.resume else opened(config, cache, videos)
    for done, fold in enumerate(study.folds):
        progress("folds", done, len(study.folds))
        if not study.answers(fold).is_file():
            train_fold(study, fold, device, progress)
    progress("folds", len(study.folds), len(study.folds))
    return pooled(study, config, progress)


# ------------------------------------------------------------------------------- what is planned


@dataclass(frozen=True)
class Crossval:
    """A cross-validation: its folder, the recipe, and every model there is to train."""

    root: Path
    config: CrossvalConfig
    videos: VideoCache
    folds: list[Fold]

    @property
    def name(self) -> str:
        return self.root.name

    def answers(self, fold: Fold) -> Path:
        """What a fold's model answered for its test patients; there once the fold is done."""
        return self.root / "folds" / f"{fold.name}.json"

    def run(self, fold: Fold) -> Run:
        return Cache(self.config.cache).new_run(f"{self.name}-{fold.name}")

    def training(self, fold: Fold) -> TrainConfig:
        """How a fold is trained: the recipe, with a seed of its own for each time over."""
        names = [field.name for field in dataclasses.fields(Recipe)]
        recipe = {name: getattr(self.config, name) for name in names}
        recipe["seed"] += fold.repeat - 1
        there = self.run(fold).root.is_dir()
        same = {name: getattr(self.config, name) for name in ("device", "threads", "cache")}
        return TrainConfig(**recipe, **same, run=self.run(fold).name, resume=there)


def opened(config: CrossvalConfig, cache: Cache, videos: VideoCache) -> Crossval:
    """A new cross-validation, written down before its first fold. Raises LusError if its name, or
    the recipe's, is taken."""
    from lus_cli.baselines import BASELINES

    if config.name in {MAJORITY, *(baseline.name for baseline in BASELINES)}:
        raise LusError(f"a baseline is called {config.name}, too", "give the recipe another name")
    split, _ = read_split(cache.split, videos.patients)
    root = cache.crossvals / cache.new_run(config.run or next_name(cache, config.name)).name
    if root.exists():
        raise LusError(
            f"there is a cross-validation {root.name} already",
            "choose another --run, or go on with it by --resume",
        )
    repeats = draw_repeats(split, videos.patients, videos.scores, config.repeats)
    plan = {
        "fingerprint": videos.fingerprint,
        "drawn_by": split.drawn_by,
        "repeats": [[list(fold) for fold in folds] for folds in repeats],
    }
    with replacing_folder(root, force=False) as part:
        write_text(part / "config.toml", to_toml(config, only=Recipe))
        write_json(part / "plan.json", plan)
    folds = folds_of(split, repeats, videos.patients, videos.scores)
    return Crossval(root, config, videos, folds)


def next_name(cache: Cache, recipe: str) -> str:
    number = 1
    while (cache.crossvals / f"{recipe}-cv-{number}").exists():
        number += 1
    return f"{recipe}-cv-{number}"


def reopened(config: CrossvalConfig, cache: Cache, videos: VideoCache) -> Crossval:
    """An interrupted cross-validation, with its own recipe and folds."""
    names = sorted(p.parent.name for p in cache.crossvals.glob("*/plan.json"))
    unfinished = [n for n in names if not (cache.crossvals / n / "scores.json").is_file()]
    if config.run is None and len(unfinished) != 1:
        raise LusError(
            f"{len(unfinished)} cross-validations in {cache.root} are unfinished",
            f"name one with --run: {', '.join(names)}" if names else "start one without --resume",
        )
    root = cache.crossvals / (config.run or unfinished[0])
    if root.name not in names:
        raise LusError(
            f"there is no cross-validation {root.name!r} in {cache.root}",
            f"there are {', '.join(names)}" if names else "start one without --resume",
        )
    plan = read_json(root / "plan.json", "start it anew under another --run")
    if plan["fingerprint"] != videos.fingerprint:
        raise LusError(
            f"{cache.videos} has changed since {root.name} began",
            "prepare the same study again, or start a new one",
        )
    repeats = [
        [patients_in(root / "plan.json", f"fold {k}", fold) for k, fold in enumerate(folds, 1)]
        for folds in plan["repeats"]
    ]
    everyone = tuple(dict.fromkeys(videos.patients))
    for folds in repeats:  # somebody may have edited it
        whole = Split(everyone, (), (), tuple(folds))
        check_split(root / "plan.json", whole, videos.patients)
    recipe = build(Recipe, read_toml(root / "config.toml"), str(root / "config.toml"))
    config = dataclasses.replace(config, **dataclasses.asdict(recipe))
    rule = Split((), (), (), drawn_by=plan["drawn_by"])
    return Crossval(root, config, videos, folds_of(rule, repeats, videos.patients, videos.scores))


# ------------------------------------------------------------------------------------ what is done


def train_fold(study: Crossval, fold: Fold, device: torch.device, progress: Progress) -> None:
    """Trains one fold, or goes on with it, and keeps what it answers for its test patients."""
    config, run = study.training(fold), study.run(fold)
    if config.resume:
        setting = resumed(config, run, device, ALONE)
    else:
        setting = Setting(config, run, study.videos, fold.split, device, ALONE)
    train(setting, progress, becomes_latest=False)
    trained = open_run(Cache(config.cache), run.name, device)
    write_json(study.answers(fold), answered(trained, progress))


def answered(trained: TrainedRun, progress: Progress) -> dict[str, Any]:
    """A run's answers for its own test patients, as JSON."""
    videos = trained.videos
    indices = trained.split.indices("test", videos.patients, videos.scores)
    return {
        "run": trained.run.name,
        "epoch": trained.card.epoch,
        "videos": [list(videos.ids[index]) for index in indices],
        "probabilities": trained.probabilities(indices, "score test", progress).tolist(),
    }


def labelled(videos: VideoCache) -> list[int]:
    return [index for index in range(len(videos)) if videos.scores[index] >= 0]


def out_of_fold(study: Crossval) -> list[Predictions]:
    """One set of answers for all labelled videos, in the cache's order, each time over."""
    given: dict[int, dict[VideoId, list[float]]] = {}
    for fold in study.folds:
        content = json.loads(study.answers(fold).read_text())
        ids = [VideoId(*names) for names in content["videos"]]
        answers = dict(zip(ids, content["probabilities"], strict=True))
        given.setdefault(fold.repeat, {}).update(answers)
    return [answered_in_order(study.videos, answers) for answers in given.values()]


def answered_in_order(videos: VideoCache, given: Mapping[VideoId, Sequence[float]]) -> Predictions:
    indices = labelled(videos)
    ids = [videos.ids[index] for index in indices]
    return Predictions(list(ids), videos.scores[indices], np.array([given[i] for i in ids]))


def pooled(study: Crossval, config: CrossvalConfig, progress: Progress) -> Result:
    """Everything that is said about the answers of all folds together."""
    repeats = out_of_fold(study)
    candidates: dict[str, Sequence[Predictions]] = {study.config.name: repeats}
    found: dict[str, Any] = {}
    if config.baselines:
        features = compute_features(study.videos, Cache(config.cache).features, progress)
        given = answer_folds(study.root, study.folds, study.videos, features, progress)
        candidates |= {
            name: [answered_in_order(study.videos, one) for one in repeats]
            for name, repeats in given.items()
        }
        columns = features["confounders"][labelled(study.videos)].T
        measured = dict(zip(CONFOUNDERS, columns, strict=True))
        found["confounders"] = confounding(repeats[0], measured, config.bootstrap, SEED)
    progress("intervals", 0, 1)
    title = f"{study.name}, out of fold"
    compared = compare_candidates(study.root, candidates, config.bootstrap, SEED, title)
    scores = assess(repeats[0], config.bootstrap, SEED)
    progress("intervals", 1, 1)
    scores = {"run": study.name, "split": "out-of-fold", **scores, **found}
    scores["warnings"] += [
        f"{w[0].upper()}{w[1:]}." for w in followed(found.get("confounders", []))
    ]
    scores["comparison"] = compared.numbers
    scores["folds"] = by_fold(study.folds, candidates)
    scores["warnings"] += [f"{w[0].upper()}{w[1:]}." for w in constant_folds(scores["folds"])]
    page = write_crossval(study.root, described(study, config), scores, repeats)
    return Result(
        scores,
        [figure_table(scores), *compared.tables],
        {"report": page, "numbers": study.root / "scores.json", **compared.files},
        notes=[*scores["warnings"], *compared.notes],
    )


def described(study: Crossval, config: CrossvalConfig) -> dict[str, Any]:
    """What the page says of how it was made; see crossval_page.write_crossval_page."""
    from lus_cli.baselines import BASELINES

    plan, origin = read_json(study.root / "plan.json", "start it anew"), study.run(study.folds[0])
    recipe = {field.name: getattr(study.config, field.name) for field in dataclasses.fields(Recipe)}
    times = len(plan["repeats"])
    again = {
        "--config": study.root / "config.toml",
        "--run": f"{study.name}-again",
        "--repeats": times,
        "--bootstrap": config.bootstrap,
        "--cache": config.cache,
    }
    words = ["lus", "crossval", *(str(word) for pair in again.items() for word in pair)]
    details = {
        "Recipe": recipe,
        "Folds and seeds": {
            "folds": study.root / "plan.json",
            "drawn by": plan["drawn_by"],
            "seed of the models, each time over": [recipe["seed"] + time for time in range(times)],
            "seed of the intervals": SEED,
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
