"""The plan of a cross-validation: its recipe and folds, saved before training, read to resume."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.split import Split, check_split, read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import CrossvalConfig, TrainConfig
from lus_cli.crossval.fold_files import predictions_of, read_plan, run_of
from lus_cli.crossval.repetitions import Fold, check_repeats, draw_repeats, folds_of
from lus_cli.errors import AlreadyThereError, LusError
from lus_cli.evaluation.run_comparison import MAJORITY
from lus_cli.files import write_json, write_text
from lus_cli.folders import replacing_folder
from lus_cli.options import build, read_toml, to_toml
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.checks import check_recipe, check_study, check_weights
from lus_cli.words import verb

WAIT_S = 60  # for another process that creates the same folder


@dataclass(frozen=True)
class Crossval:
    """A cross-validation: its folder, its recipe, and the models to train."""

    root: Path
    config: CrossvalConfig
    videos: VideoCache
    folds: list[Fold]

    @property
    def name(self) -> str:
        return self.root.name

    def predictions(self, fold: Fold) -> Path:
        """The file with a fold's predictions for its test patients. It exists when the fold is done."""
        return predictions_of(self.root, fold.name)

    def run(self, fold: Fold) -> Run:
        return run_of(self.root, fold.name)

    def train_config(self, fold: Fold) -> TrainConfig:
        """The config of a fold's training: the recipe, with another seed for each repetition."""
        names = [field.name for field in dataclasses.fields(Recipe)]
        recipe = {name: getattr(self.config, name) for name in names}
        recipe["seed"] += fold.repeat - 1
        begun = self.run(fold).root.is_dir()
        options = {name: getattr(self.config, name) for name in ("device", "threads", "cache")}
        return TrainConfig(**recipe, **options, run=self.run(fold).name, resume=begun)


def create(config: CrossvalConfig, cache: Cache, videos: VideoCache) -> Crossval:
    """A new cross-validation, saved before its first fold is trained.

    Raises LusError if its name is taken, or if a baseline has the name of the recipe.
    """
    from lus_cli.crossval.baselines import BASELINES
    from lus_cli.crossval.groups import GROUP

    if config.name in {MAJORITY, *(baseline.name for baseline in (*BASELINES, GROUP))}:
        raise LusError(f"a baseline is also called {config.name}", "give the recipe another name")
    split, _ = read_split(cache.split, videos.patients)
    root = cache.crossval(config.run or next_name(cache, config.name)).root
    if root.exists():
        raise LusError(
            f"there is already a cross-validation {root.name}",
            "choose another --run, or continue it with --resume",
        )
    check_recipe(config)
    check_repeats(split, config.repeats, videos.patients, videos.groups)
    repeats = draw_repeats(split, videos.patients, videos.scores, config.repeats)
    study = Crossval(root, config, videos, folds_of(split, repeats, videos.patients, videos.scores))
    for fold in study.folds:
        check_weights(config.weights, fold.split)
    if old_runs := runs_of(cache, root.name):
        raise LusError(
            f"there is already a run {old_runs[0]}, from an earlier cross-validation {root.name}",
            "choose another --run, or remove the earlier runs",
        )
    plan = {
        "fingerprint": videos.fingerprint,
        "labels": videos.labels,
        "drawn_by": split.drawn_by,
        "repeats": [[list(fold) for fold in folds] for folds in repeats],
    }
    try:
        with replacing_folder(root, force=False, patience=WAIT_S) as part:
            write_text(part / "config.toml", to_toml(config, only=Recipe))
            write_json(part / "plan.json", plan)
    except AlreadyThereError:  # another process was faster: take the next name, or raise the error
        return create(config, cache, videos)
    return study


def next_name(cache: Cache, recipe: str) -> str:
    for number in itertools.count(1):
        name = f"{recipe}-cv-{number}"
        if not (cache.crossvals / name).exists() and not runs_of(cache, name):
            break
    return name


def runs_of(cache: Cache, name: str) -> list[str]:
    """The runs with the names of a cross-validation's folds, even if it no longer exists."""
    folds = re.compile(re.escape(name) + r"-r\d+-f\d+")
    return sorted(path.name for path in cache.runs.glob("*") if folds.fullmatch(path.name))


def ambiguous_resume(cache: Cache, names: list[str], unfinished: list[str]) -> LusError:
    """The error if --resume without --run does not determine one cross-validation."""
    if not names:
        return LusError(
            f"there is no cross-validation in {cache.root}", "start one without --resume"
        )
    if not unfinished:
        return LusError(
            f"no cross-validation in {cache.root} is unfinished: {', '.join(names)} "
            f"{verb(len(names))} finished",
            "start one without --resume, or name one with --run to pool its folds again",
        )
    return LusError(
        f"{len(unfinished)} cross-validations in {cache.root} are unfinished",
        f"name one with --run: {', '.join(unfinished)}",
    )


def resume(config: CrossvalConfig, cache: Cache, videos: VideoCache) -> Crossval:
    """An interrupted cross-validation, with its saved recipe and folds."""
    names = sorted(p.parent.name for p in cache.crossvals.glob("*/plan.json"))
    unfinished = [n for n in names if not (cache.crossvals / n / "scores.json").is_file()]
    if config.run is None and len(unfinished) != 1:
        raise ambiguous_resume(cache, names, unfinished)
    root = cache.crossval(config.run or unfinished[0]).root
    if root.name not in names:
        raise LusError(
            f"there is no cross-validation {root.name!r} in {cache.root}",
            f"choose one of {', '.join(names)}" if names else "start one without --resume",
        )
    plan = read_plan(root)
    check_study({"fingerprint": plan.fingerprint, "labels": plan.labels}, videos, root.name)
    rule, everyone = (
        Split((), (), (), drawn_by=plan.drawn_by),
        tuple(dict.fromkeys(videos.patients)),
    )
    for folds in plan.repeats:  # the file may have been edited
        all_folds = Split(everyone, (), (), tuple(folds))
        check_split(root / "plan.json", all_folds, videos.patients)
    recipe = build(Recipe, read_toml(root / "config.toml"), str(root / "config.toml"))
    config = dataclasses.replace(config, **dataclasses.asdict(recipe))
    planned = folds_of(rule, plan.repeats, videos.patients, videos.scores)
    return Crossval(root, config, videos, planned)
