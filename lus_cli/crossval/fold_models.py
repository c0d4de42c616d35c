"""The models of the folds of a cross-validation as one model, which predicts their mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from lus_cli.cache.layout import Run
from lus_cli.cache.split import Split
from lus_cli.crossval.fold_files import (
    Plan,
    predictions_of,
    read_plan,
    read_predictions,
    run_of,
)
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import Card, digest_of, digest_of_several, load_best
from lus_cli.model.ensemble import Ensemble
from lus_cli.model.network import LusModel
from lus_cli.options import build, read_toml
from lus_cli.recipes.recipe import Recipe
from lus_cli.study.ids import VideoId
from lus_cli.training.trained_run import TrainedModel, load_run
from lus_cli.words import counted


@dataclass(frozen=True)
class FoldModels(TrainedModel):
    """The mean of all models of a cross-validation; its run is the cross-validation's folder."""

    plan: Plan = field(kw_only=True)

    @property
    def title(self) -> str:
        return f"cross-validation {self.run.name}, mean of {counted(len(self.folds), 'model')}"

    @property
    def split(self) -> Split:
        """Every patient that at least one model was trained or validated on. The model of a fold uses all
        patients but those of its fold."""
        tested = [set(fold) for fold in self.plan.folds.values()]
        everyone = [patient for fold in self.plan.repeats[0] for patient in fold]
        used = [patient for patient in everyone if not all(patient in fold for fold in tested)]
        return Split(tuple(used), (), ())

    @cached_property
    def predicted(self) -> dict[VideoId, list[np.ndarray]]:
        """The probabilities of each video out of fold, one row per repetition."""
        rows: dict[VideoId, list[np.ndarray]] = {}
        for fold in self.plan.folds:
            for video, row in read_predictions(self.home.root, fold).probabilities.items():
                rows.setdefault(video, []).append(row)
        return rows

    def use_of(self, video: VideoId) -> str:
        """How many models were trained on a video's patient, and what the others predict for it."""
        models = len(self.plan.folds)
        seen = sum(video.patient not in tested for tested in self.plan.folds.values())
        sentence = f"{seen} of the {models} models were trained or validated on its patient"
        if rows := self.predicted.get(video):
            probabilities = np.mean(rows, axis=0)
            score = int(probabilities.argmax())
            sentence += (
                f"; its out-of-fold prediction is score {score} with probability "
                f"{probabilities[score]:.2f}"
            )
            if len(rows) > 1:
                sentence += f", the mean of {len(rows)} repetitions"
        return sentence


def load_trained(run: Run, weights: Path | None = None) -> TrainedModel:
    """The trained model of a run, or the mean of those of a cross-validation, on the CPU.

    weights: a copy of best.safetensors; None for the one of the run.
    Raises LusError if a file is missing, damaged or not that of the cross-validation.
    """
    if weights is None and run.is_crossval:
        return load_folds(run)
    return load_run(run, weights)


def load_folds(crossval: Run) -> FoldModels:
    """The mean of the models of all folds and repetitions of a finished cross-validation."""
    root, plan = crossval.root, read_plan(crossval.root)
    missing = [fold for fold in plan.folds if not predictions_of(root, fold).is_file()]
    if missing or not plan.folds:
        raise LusError(
            f"cross-validation {root.name} is unfinished: {counted(len(missing), 'fold')} of "
            f"{len(plan.folds)} not trained",
            f"finish it with `lus crossval --resume --run {root.name}`",
        )
    cards: list[Card] = []
    digests: list[str] = []
    model = Ensemble(models_of(root, plan, cards, digests))
    card = dataclasses.replace(
        cards[0],
        epoch=0,  # each model has its own
        validation_loss=float(np.mean([card.validation_loss for card in cards])),
    )
    names = tuple(run_of(root, fold).name for fold in plan.folds)
    return FoldModels(crossval, model, card, digest_of_several(digests), names, plan=plan)


def models_of(root: Path, plan: Plan, cards: list[Card], digests: list[str]) -> Iterator[LusModel]:
    """The model of each fold; adds their cards and the digests of their weights to the lists.

    Raises LusError for a model that is not the one that the cross-validation trained and tested.
    """
    recipe = build(Recipe, read_toml(root / "config.toml"), str(root / "config.toml"))
    again = f"train its folds again with `lus crossval --resume --run {root.name}`"
    for fold in plan.folds:
        run = run_of(root, fold)
        if not run.best.is_file():
            raise LusError(
                f"fold {fold} of cross-validation {root.name} has no weights: there is no {run.best}",
                f"copy them from where it was trained, or delete {predictions_of(root, fold)} and "
                f"{again}",
            )
        model, card = load_best(run.best)
        repeat = int(fold[1:].partition("-")[0])
        if dataclasses.replace(card.recipe, seed=card.recipe.seed - repeat + 1) != recipe:
            raise LusError(
                f"run {run.name} does not have the recipe of cross-validation {root.name}",
                f"remove {run.root} and {predictions_of(root, fold)}, and {again}",
            )
        weights = digest_of(model.state_dict())
        if weights != read_predictions(root, fold).weights:
            raise LusError(
                f"the weights of run {run.name} have changed since cross-validation {root.name} "
                "tested them",
                f"test them again with `lus crossval --resume --run {root.name}`",
            )
        cards.append(card)
        digests.append(weights)
        same_study = card.fingerprint == plan.fingerprint
        if not same_study or card.frame_format != cards[0].frame_format:
            raise LusError(
                f"run {run.name} was not trained on the videos of cross-validation {root.name}",
                f"remove {run.root} and {predictions_of(root, fold)}, and {again}",
            )
        yield model
