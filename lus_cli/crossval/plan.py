"""What a cross-validation is going to train: its folds, written down before the first and read again
to go on."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.split import Split, check_split, patients_in, read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import CrossvalConfig, TrainConfig
from lus_cli.crossval.folds import Fold, draw_repeats, folds_of
from lus_cli.errors import AlreadyThereError, LusError
from lus_cli.evaluation.run_comparison import MAJORITY
from lus_cli.files import read_json, write_json, write_text
from lus_cli.folders import replacing_folder
from lus_cli.options import build, read_toml, to_toml
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.checks import check_recipe, check_study, check_weights

PATIENCE_S = 60  # for another process that takes a name
ANEW = "start it anew under another --run"


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
    from lus_cli.crossval.baselines import BASELINES

    if config.name in {MAJORITY, *(baseline.name for baseline in BASELINES)}:
        raise LusError(f"a baseline is called {config.name}, too", "give the recipe another name")
    split, _ = read_split(cache.split, videos.patients)
    root = cache.crossvals / cache.new_run(config.run or next_name(cache, config.name)).name
    if root.exists():
        raise LusError(
            f"there is a cross-validation {root.name} already",
            "choose another --run, or go on with it by --resume",
        )
    check_recipe(config)
    repeats = draw_repeats(split, videos.patients, videos.scores, config.repeats)
    study = Crossval(root, config, videos, folds_of(split, repeats, videos.patients, videos.scores))
    for fold in study.folds:
        check_weights(config.weights, fold.split)
    if left := runs_of(cache, root.name):
        raise LusError(
            f"there is a run {left[0]} already, of an earlier cross-validation {root.name}",
            "choose another --run, or remove the runs of that one",
        )
    plan = {
        "fingerprint": videos.fingerprint,
        "labels": videos.labels,
        "drawn_by": split.drawn_by,
        "repeats": [[list(fold) for fold in folds] for folds in repeats],
    }
    try:
        with replacing_folder(root, force=False, patience=PATIENCE_S) as part:
            write_text(part / "config.toml", to_toml(config, only=Recipe))
            write_json(part / "plan.json", plan)
    except AlreadyThereError:  # begun by another process meanwhile: the next name, or what to do
        return opened(config, cache, videos)
    return study


def next_name(cache: Cache, recipe: str) -> str:
    for number in itertools.count(1):
        name = f"{recipe}-cv-{number}"
        if not (cache.crossvals / name).exists() and not runs_of(cache, name):
            break
    return name


def runs_of(cache: Cache, name: str) -> list[str]:
    """The runs called like folds of a cross-validation, whether or not it is still there."""
    folds = re.compile(re.escape(name) + r"-r\d+-f\d+")
    return sorted(path.name for path in cache.runs.glob("*") if folds.fullmatch(path.name))


def which_one(cache: Cache, names: list[str], unfinished: list[str]) -> LusError:
    """Why --resume without --run cannot tell which of the cross-validations is to go on."""
    if not names:
        return LusError(
            f"there is no cross-validation in {cache.root}", "start one without --resume"
        )
    if not unfinished:
        return LusError(
            f"no cross-validation in {cache.root} is unfinished: {', '.join(names)} "
            f"{'is' if len(names) == 1 else 'are'} finished",
            "start one without --resume, or name one with --run to pool its folds again",
        )
    return LusError(
        f"{len(unfinished)} cross-validations in {cache.root} are unfinished",
        f"name one with --run: {', '.join(unfinished)}",
    )


def reopened(config: CrossvalConfig, cache: Cache, videos: VideoCache) -> Crossval:
    """An interrupted cross-validation, with its own recipe and folds."""
    names = sorted(p.parent.name for p in cache.crossvals.glob("*/plan.json"))
    unfinished = [n for n in names if not (cache.crossvals / n / "scores.json").is_file()]
    if config.run is None and len(unfinished) != 1:
        raise which_one(cache, names, unfinished)
    root = cache.crossvals / (config.run or unfinished[0])
    if root.name not in names:
        raise LusError(
            f"there is no cross-validation {root.name!r} in {cache.root}",
            f"there are {', '.join(names)}" if names else "start one without --resume",
        )
    plan = read_json(root / "plan.json", ANEW)
    try:
        began = {"fingerprint": plan["fingerprint"], "labels": plan.get("labels")}
        rule = Split((), (), (), drawn_by=plan["drawn_by"])
        repeats = [
            [patients_in(root / "plan.json", f"fold {k}", fold) for k, fold in enumerate(folds, 1)]
            for folds in plan["repeats"]
        ]
    except (KeyError, TypeError) as error:
        raise LusError(f"{root / 'plan.json'} is damaged ({error!r})", ANEW) from error
    check_study(began, videos, root.name)
    everyone = tuple(dict.fromkeys(videos.patients))
    for folds in repeats:  # somebody may have edited it
        whole = Split(everyone, (), (), tuple(folds))
        check_split(root / "plan.json", whole, videos.patients)
    recipe = build(Recipe, read_toml(root / "config.toml"), str(root / "config.toml"))
    config = dataclasses.replace(config, **dataclasses.asdict(recipe))
    return Crossval(root, config, videos, folds_of(rule, repeats, videos.patients, videos.scores))
