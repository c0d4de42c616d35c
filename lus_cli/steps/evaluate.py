"""lus evaluate: evaluates a trained model, with intervals, on one part of its study or on another
study, or compares several models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from lus_cli.cache.layout import Cache
from lus_cli.config import EvaluateConfig
from lus_cli.crossval.joining import compare_crossvals
from lus_cli.errors import UsageError
from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.clips import Clips
from lus_cli.evaluation.folder import write_evaluation
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.model_card import write_model_card
from lus_cli.evaluation.page import write_report
from lus_cli.evaluation.run_comparison import compare_runs
from lus_cli.evaluation.terminal_tables import group_tables, metric_table, total_table
from lus_cli.files import check_writable, read_json
from lus_cli.folders import replacing_folder
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.model.ranks import connected
from lus_cli.prediction.models import chosen_model
from lus_cli.progress import Progress, Result
from lus_cli.torchrun.group import Group
from lus_cli.training.subject import Subject, at_home, elsewhere
from lus_cli.training.trained_run import TrainedRun, mean_notes
from lus_cli.words import continued

PATIENCE_S = 60  # how long to wait for another process that writes the same evaluation


def run(config: EvaluateConfig, progress: Progress) -> Result:
    """Scores the videos and writes metrics, figures and the report page."""
    if config.runs and (config.run or config.model):
        flag = "--run" if config.run else "--model"
        raise UsageError(f"runs are given as arguments and by {flag}", f"omit {flag}")
    if config.model and not config.videos:
        raise UsageError(
            "--model comes without a study", "give the videos.h5 of a study with --videos"
        )
    if config.videos and config.split != "test":
        raise UsageError(
            "--split is a part of the run's study and cannot be combined with --videos",
            "omit --split: all labelled videos of --videos are scored",
        )
    group = Group.of_environment()
    set_threads(config.threads, group)
    device = choose_device(config.device, group)
    with connected(group, device):
        return evaluate(config, group, device, progress)


def evaluate(
    config: EvaluateConfig, group: Group, device: torch.device, progress: Progress
) -> Result:
    """Evaluates one run, or compares several. Each process of the group scores its share of the
    videos, and the first one does the rest."""
    cache = Cache(config.cache)
    names = config.runs or ((config.run,) if config.run else (None,))
    if len(names) > 1:
        check_writable(cache.comparisons)
    else:
        check_writable(cache.models if config.model else cache.trained(names[0]).evaluations)
    if len(names) == 1:
        permutations = config.permutations if config.bootstrap is None else config.bootstrap
        return evaluate_one(
            subject_of(config, names[0], device),
            permutations,
            config.seed,
            config.temperature,
            group,
            progress,
        )
    runs = [cache.trained(name) for name in names]
    if len({run.root for run in runs}) < len(runs):
        raise UsageError("a run is given twice", "give each run once")
    if not config.videos and all(run.is_crossval for run in runs):
        return compare_crossvals(cache, runs)
    if not config.videos and any(run.is_crossval for run in runs):
        crossval = next(run.name for run in runs if run.is_crossval)
        raise UsageError(
            f"{crossval} is a cross-validation, but not all of the others are",
            "compare runs with runs, or cross-validations with cross-validations",
        )
    subjects = [subject_of(config, name, device) for name in names]
    if len({subject.trained.run.name for subject in subjects}) < len(subjects):
        raise UsageError("two runs have the same name", "rename the folder of one")
    predictions = {s.trained.run.name: s.predict(progress, group) for s in subjects}
    if not group.first:
        return Result()
    warnings = [f"Run {s.trained.run.name}: {continued(w)}" for s in subjects for w in s.warnings]
    part = subjects[0].part
    about = {
        "warnings": warnings,
        "weights": {s.trained.run.name: s.trained.weights for s in subjects},
    }
    return compare_runs(cache, part, predictions, about)


def subject_of(config: EvaluateConfig, name: str | None, device: torch.device) -> Subject:
    """The run called `name`, or the model of --model, with the videos that it is evaluated on."""
    cache = Cache(config.cache)
    if config.videos is None:
        return at_home(cache, name, config.split, device)
    model = chosen_model(cache, name, config.model)
    return elsewhere(model, config.videos, config.trained_patients, device)


def evaluate_one(
    subject: Subject,
    permutations: int,
    seed: int,
    temperature: bool,
    group: Group,
    progress: Progress,
) -> Result:
    """Evaluates one run and writes its page; for `permutations` and `seed` see assess.

    temperature: whether to fit a temperature on the validation videos.
    """
    trained = subject.trained
    clips = Clips(trained.videos, trained.card.recipe, len(subject.indices))
    predictions = subject.predict(progress, group, clips)
    clips.collect(group)
    validation = subject.predict_validation(predictions, progress, group) if temperature else None
    if not group.first:
        return Result()
    progress("intervals", 0, 1)
    scores = assess(
        predictions,
        permutations,
        seed,
        training=subject.training_scores,
        validation=validation,
        groups=[trained.videos.groups[index] for index in subject.indices],
    )
    progress("intervals", 1, 1)
    scores["warnings"] = subject.warnings + scores["warnings"]
    about = {"run": trained.run.name, "weights": trained.weights, "split": subject.part}
    scores = about | scores
    scores |= subject.overlap
    if trained.folds:
        scores["runs"] = list(trained.folds)
    folder = trained.run.evaluation(subject.part)
    # As a whole, so that two evaluations at the same time do not mix.
    with replacing_folder(folder, force=True, patience=PATIENCE_S) as part:
        drawn = write_evaluation(part, scores, predictions)
        write_page(part / "report.html", trained, predictions, scores, drawn, clips)
    has_card = trained.run.best.is_file()  # no cross-validation has, and no model of --model
    card = {"card": write_model_card(trained.run)} if has_card else {}
    return Result(
        scores,
        [metric_table(scores), total_table(scores), *group_tables(scores)],
        {
            "report": folder / "report.html",
            "numbers": folder / "scores.json",
            "predictions": folder / "predictions.csv",
            **card,
        },
        notes=mean_notes(trained.folds) + scores["warnings"],
    )


def write_page(
    path: Path,
    trained: TrainedRun,
    predictions: Predictions,
    scores: dict[str, Any],
    drawn: dict[str, Path],
    clips: Clips,
) -> None:
    path_of_origin = trained.run.provenance
    origin = read_json(path_of_origin, "train a new run") if path_of_origin.is_file() else {}
    curves = {"curves": trained.run.root / "curves.svg"}
    about = {
        "name": trained.run.name,
        "part": scores["split"],
        "epoch": trained.card.epoch,
        "runs": trained.folds,
        "recipe": dataclasses.asdict(trained.card.recipe),
        "provenance": {"weights": trained.weights} | origin,
    }
    svgs = {n: p.read_text(encoding="utf-8") for n, p in (drawn | curves).items() if p.is_file()}
    write_report(path, scores, predictions, about, svgs, clips.by_name)
