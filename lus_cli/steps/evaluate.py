"""lus evaluate: evaluates a trained model, with intervals, on one part of its study or on another
study, or compares several models."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.other_study import OtherStudy, videos_to_evaluate, why_not_compared
from lus_cli.cache.same_patient import alike_trained_notes
from lus_cli.config import EvaluateConfig
from lus_cli.crossval.joining import compare_crossvals
from lus_cli.errors import LusError, UsageError
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
from lus_cli.training.scoring import Keep
from lus_cli.training.trained_run import TrainedRun, mean_notes, open_elsewhere, open_run
from lus_cli.training.training_videos import trained_on

PATIENCE_S = 60  # how long to wait for another process that writes the same evaluation
SEEN_IN_TRAINING = {
    "train": "the model was trained on these patients",
    "all": "these videos include those of the patients that the model was trained on",
    "validation": "the best epoch was chosen on these patients",
}


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
        return evaluate_one(open_subject(config, cache, names[0], device), config, group, progress)
    runs = [cache.trained(name) for name in names]
    if len({run.root for run in runs}) < len(runs):
        raise UsageError("a run is given twice", "give each run once")
    if not config.videos and all(run.is_crossval for run in runs):
        return compare_crossvals(cache, runs)
    if not config.videos and any(run.is_crossval for run in runs):
        crossval = next(run.name for run in runs if run.is_crossval)
        raise UsageError(
            f"{crossval} is a cross-validation, and not every other one is",
            "compare runs with runs, or cross-validations with cross-validations",
        )
    subjects = [open_subject(config, cache, name, device) for name in names]
    if len({subject.trained.run.name for subject in subjects}) < len(subjects):
        raise UsageError("two runs have the same name", "rename the folder of one")
    predictions = {s.trained.run.name: s.predict(progress, group) for s in subjects}
    if not group.first:
        return Result()
    warnings = [
        f"Run {s.trained.run.name}: {w[0].lower()}{w[1:]}" for s in subjects for w in s.warnings
    ]
    part = subjects[0].part
    about = {
        "warnings": warnings,
        "weights": {s.trained.run.name: s.trained.weights for s in subjects},
    }
    return compare_runs(cache, part, predictions, about)


# ------------------------------------------------------------------------------ runs and videos


@dataclass(frozen=True)
class Subject:
    """A run and the videos on which it is evaluated."""

    trained: TrainedRun
    part: str
    indices: list[int]
    home: TrainedRun | None  # with the study it was trained on, if the cache still holds it
    alike: tuple[str, ...] = ()  # sentences on patients who may be training patients
    blind: str = ""  # why training patients among the videos might not be detected
    compared: bool = False  # whether the training videos are recognised by their frames

    def predict(self, progress: Progress, group: Group, keep: Keep | None = None) -> Predictions:
        return predictions_of(self.trained, self.indices, self.part, progress, group, keep)

    @property
    def training_scores(self) -> list[int] | None:
        """The number of training videos with each score; None if the study is no longer available."""
        indices = part_indices(self.home, "train") if self.home else []
        if self.home is None or not indices:
            return None
        counts: list[int] = np.bincount(self.home.videos.scores[indices], minlength=4).tolist()
        return counts

    @property
    def warnings(self) -> list[str]:
        """Sentences on what makes the evaluation unfair or uncertain."""
        sentences = []
        other_study = isinstance(self.trained.videos, OtherStudy)
        if self.home and not other_study and relabelled(self.home):
            sentences.append(
                "The scores of the study have changed since the run started: the model was trained "
                "on the old scores and is evaluated on the new ones."
            )
        if self.blind:
            sentences.append(f"{self.blind[0].upper()}{self.blind[1:]}.")
        sentences += [f"{words[0].upper()}{words[1:]}." for words in self.alike]
        if self.part in SEEN_IN_TRAINING:
            leaves_out = self.trained.card.recipe.leave_out  # trained on both parts
            part = "train" if leaves_out and self.part == "validation" else self.part
            sentences.append(f"{SEEN_IN_TRAINING[part].capitalize()}.")
        if isinstance(self.trained.videos, OtherStudy) and (words := self.trained.videos.changed):
            sentences.append(f"{words[0].upper()}{words[1:]}.")
        return sentences


def open_subject(
    config: EvaluateConfig, cache: Cache, name: str | None, device: torch.device
) -> Subject:
    """The run called `name` and its videos. Raises LusError if there are no videos that may be used."""
    if config.videos is None:
        refuse_own_study(cache.trained(name))
        trained = open_run(cache, name, device)
        indices = part_indices(trained, config.split)
        if not indices:
            raise LusError(
                f"the {config.split} patients have no annotated video",
                "move patients in split.json",
            )
        return Subject(trained, config.split, indices, trained)
    model = chosen_model(cache, name, config.model)
    trained, home = open_elsewhere(model, device, config.videos)
    known = trained_on(model, home)
    blind = why_not_compared(trained.videos, known)
    compared = not blind
    if not known.patients:
        may_be = "they may be among these patients"
        if not blind:
            may_be = "its training videos are recognised, other videos of these patients are not"
        blind = (
            f"the patients that {model.title} was trained on are unknown, because there is "
            f"no {model.home.split}: {may_be}"
        )
    indices = videos_to_evaluate(trained.videos, known, config.trained_patients)
    path = trained.videos.path
    study = re.sub(r"\W+", "-", path.parent.resolve().name).strip("-") or "study"
    part = f"{study}-{trained.videos.fingerprint[:8]}"
    at_home = dataclasses.replace(trained, videos=home) if home else None
    patients = [trained.videos.ids[index].patient for index in indices]
    alike = tuple(alike_trained_notes(patients, known.patients))
    return Subject(trained, part, indices, at_home, alike, blind, compared)


def refuse_own_study(run: Run) -> None:
    """Raises LusError for a cross-validation, whose models were together trained on all patients."""
    if run.is_crossval:
        raise LusError(
            f"every patient of the study of {run.name} was used to train some of its models",
            f"its out-of-fold metrics are in {run.root / 'crossval.html'}; --videos evaluates the "
            "mean of its models on another study",
        )


def relabelled(home: TrainedRun) -> bool:
    """Whether the scores have changed since the run started; False if that was not recorded."""
    labels = read_json(home.run.provenance, "train a new run").get("labels")
    return labels not in (None, home.videos.labels)


def part_indices(trained: TrainedRun, part: str) -> list[int]:
    """The indices of the labelled videos of a part; empty if the split has no such part."""
    if part != "all" and not getattr(trained.split, part):
        return []
    return trained.split.indices(part, trained.videos.patients, trained.videos.scores)


def predictions_of(
    trained: TrainedRun,
    indices: list[int],
    part: str,
    progress: Progress,
    group: Group,
    keep: Keep | None = None,
) -> Predictions:
    return Predictions(
        [trained.videos.ids[index] for index in indices],
        trained.videos.scores[indices],
        trained.probabilities(indices, f"score {part}", progress, keep, group),
    )


# ------------------------------------------------------------------------------ one run


def evaluate_one(
    subject: Subject, config: EvaluateConfig, group: Group, progress: Progress
) -> Result:
    trained = subject.trained
    clips = Clips(trained.videos, trained.card.recipe, len(subject.indices))
    predictions = subject.predict(progress, group, clips)
    clips.collect(group)
    validation = None
    leaves_out = subject.trained.card.recipe.leave_out  # trained on the validation patients
    if config.temperature and not leaves_out and subject.part == "validation":
        validation = predictions
    elif config.temperature and not leaves_out and subject.home:
        others = part_indices(subject.home, "validation")
        validation = (
            predictions_of(subject.home, others, "validation", progress, group) if others else None
        )
    if not group.first:
        return Result()
    progress("intervals", 0, 1)
    scores = assess(
        predictions,
        config.permutations if config.bootstrap is None else config.bootstrap,
        config.seed,
        training=subject.training_scores,
        validation=validation,
        groups=[trained.videos.groups[index] for index in subject.indices],
    )
    progress("intervals", 1, 1)
    scores["warnings"] = subject.warnings + scores["warnings"]
    about = {"run": trained.run.name, "weights": trained.weights, "split": subject.part}
    scores = about | scores
    if config.videos:  # whether training patients may be among these patients
        recorded = bool(trained.split.train)
        scores["trained_patients"] = config.trained_patients if recorded else "unknown"
        scores["pixels_compared"] = subject.compared
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
