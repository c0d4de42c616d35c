"""One training run, from its setting to the metrics of the test patients. `lus train` runs it once,
`lus crossval` once per fold."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import torch

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.layout import Run
from lus_cli.errors import UsageError
from lus_cli.evaluation.model_card import write_model_card
from lus_cli.files import write_json, write_text
from lus_cli.folders import locked
from lus_cli.model.checkpoint import (
    Card,
    load_best,
    new_model,
    save_best,
    save_last,
    weights_digest,
)
from lus_cli.model.devices import (
    MAX_ACTIVATION_BYTES,
    choose_precision,
    explaining_out_of_memory,
    frames_at_once,
)
from lus_cli.model.network import LusModel
from lus_cli.progress import Progress, Result, Table
from lus_cli.recipes.recipe import Recipe
from lus_cli.recipes.shipped import changes_in_words, described
from lus_cli.training import run_folder
from lus_cli.training.checks import check_map, check_recipe, check_weights
from lus_cli.training.early_stopping import (
    best_epoch,
    finished,
    line_of,
    required_best,
    stopped_early,
)
from lus_cli.training.epoch_log import EpochLog
from lus_cli.training.estimate import dry_result
from lus_cli.training.feature_cache import FeatureLoader
from lus_cli.training.forecast import Forecast
from lus_cli.training.members import deal
from lus_cli.training.resuming import already_finished, restored, write_plan
from lus_cli.training.scoring import score_videos, summary
from lus_cli.training.setting import Setting
from lus_cli.training.trainer import Trainer
from lus_cli.words import shortened

log = logging.getLogger("lus.train")


class Fitted(NamedTuple):
    """The result of fitting."""

    epochs: list[dict[str, float]]  # metrics of all epochs, those before a resumption included
    best: dict[str, float]  # the epoch whose model is kept
    notes: list[str]  # on early stopping, or on a run that was already finished


def train(setting: Setting, progress: Progress, *, becomes_latest: bool = True) -> Result:
    """Runs the remaining epochs and scores the test patients. The run can be interrupted at any time
    and resumed."""
    trainer = new_trainer(setting)
    with explaining_out_of_memory(smaller(setting.recipe)):
        if isinstance(trainer.loader, FeatureLoader):
            trained, scored = setting.training_indices(), setting.validation_indices()
            trainer.loader.fill(trained, scored, setting.ranks, progress)
        with run_begun(setting, becomes_latest):
            fitted = fit(setting, trainer, progress)
            del trainer  # frees the pictures and the state of the optimizer
            return finish(setting, fitted, progress)


def dry_run(setting: Setting) -> Result:
    """Estimates the time and memory of training from one batch; writes nothing."""
    trainer = new_trainer(setting, dry=True)
    with explaining_out_of_memory(smaller(setting.recipe)):
        return dry_result(trainer, setting.videos, setting.validation_indices())


@contextlib.contextmanager
def run_begun(setting: Setting, becomes_latest: bool) -> Iterator[None]:
    """Creates and locks the folder of the run and starts its log.

    Raises LusError if another process trains the same run.
    """
    if not setting.ranks.first:
        yield
        return
    if not setting.resume:
        origin = run_folder.provenance(setting.videos, setting.device, setting.ranks)
        origin["parts"] = run_folder.composition(setting.videos, setting.split)
        run_folder.start_folder(setting.run, setting.recipe, setting.split, origin)
        if becomes_latest:
            write_text(setting.run.cache.latest, setting.run.name + "\n")
    root = setting.run.root
    with locked(root / ".lock", root, keep=False), run_folder.logging_to(root / "log.txt"):
        write_plan(setting)
        yield


def new_trainer(setting: Setting, *, dry: bool = False) -> Trainer:
    """The trainer of a run. Raises LusError or UsageError for a run that cannot be trained.

    dry: nothing is written.
    """
    recipe, device, ranks, videos = setting.recipe, setting.device, setting.ranks, setting.videos
    if ranks.world > recipe.batch_size * recipe.accumulate:
        raise UsageError(
            f"{ranks.world} processes cannot share steps of "
            f"{recipe.batch_size * recipe.accumulate} videos",
            "start fewer processes, or raise --batch-size, which counts the videos of all processes",
        )
    choose_precision(recipe.precision, device)
    check_new(setting)
    torch.manual_seed(recipe.seed)
    model = new_model(recipe).to(device)
    loader = BatchLoader(videos, recipe, device)
    if device.type == "mps":
        model.frames_at_once = frames_at_once(model.backbone, loader.shape, MAX_ACTIVATION_BYTES)
    check_map(model, loader.shape, recipe.backbone)
    if recipe.freeze:
        folder = setting.run.cache.features if recipe.feature_cache != "none" else None
        loader = FeatureLoader(videos, recipe, device, model, folder, writes=not dry)
    setting.validation_indices()  # raises LusError if there are none
    indices, left_out = setting.training_indices(), None
    if recipe.leave_out:
        left_out = deal(indices, videos.patients, videos.scores, recipe.members, recipe.seed)
    writes = ranks.first and not dry
    return Trainer(
        model,
        loader,
        indices,
        lambda event: run_folder.note_nonfinite(setting.run, event) if writes else None,
        ranks,
        left_out,
    )


def check_new(setting: Setting) -> None:
    """Raises LusError or UsageError if a new run must not start; a resumed one is not checked."""
    if not setting.resume:
        check_recipe(setting.recipe)
        check_weights(setting.recipe.weights, setting.split)


def smaller(recipe: Recipe) -> str:
    """Options that reduce memory, in the order of their effect on training, least first."""
    half = recipe.batch_size // 2
    options = [
        "" if recipe.checkpointing else "--checkpointing",
        f"--batch-size {half} --accumulate {recipe.accumulate * 2}" if half else "",
        f"--stride {recipe.stride * 2}",
        "" if 0 < recipe.frames_per_video <= 32 else "--frames-per-video 32",
    ]
    return f"try {', or '.join(option for option in options if option)}"


def fit(setting: Setting, trainer: Trainer, progress: Progress) -> Fitted:
    """Runs the remaining epochs."""
    recipe, run, ranks = setting.recipe, setting.run, setting.ranks
    validation = setting.validation_indices()
    epochs = restored(setting, trainer)
    before = len(epochs)
    scores = torch.from_numpy(setting.videos.scores[validation])
    book = EpochLog(run, epochs, scores, recipe.loss) if ranks.first else None
    forecast = None
    if ranks.first:
        forecast = Forecast(trainer, validation, before, setting.to_train)
        forecast.rough(trainer)
    progress("epochs", before, recipe.epochs)
    while not finished(epochs, recipe.epochs, recipe.patience):
        epoch = len(epochs) + 1
        metrics = trainer.epoch(epoch, progress, forecast)
        metrics |= trainer.validate(validation, progress)
        epochs.append({"epoch": epoch, **metrics})
        if book is not None:
            keep(setting, trainer, epochs)
            book.write(trainer.frames_per_s)
            log.info("%s", line_of(epochs, recipe.epochs, trainer.frames_per_s))
        progress("epochs", epoch, recipe.epochs)
    if book is not None:
        book.close()
    best = required_best(epochs, recipe.precision)
    note = stopped_early(epochs, recipe.epochs, recipe.patience)
    if before and before == len(epochs):
        note = already_finished(run.name, epochs, recipe.epochs, recipe.patience)
    elif note and ranks.first:
        log.debug("%s", note)  # for log.txt; the terminal shows notes
    return Fitted(epochs, best, [note] if note else [])


def keep(setting: Setting, trainer: Trainer, epochs: list[dict[str, float]]) -> None:
    """Saves the state after the latest epoch, and its model if it is the best so far."""
    if best_epoch(epochs) is epochs[-1]:
        card = card_of(setting, epochs[-1])
        save_best(setting.run.best, trainer.scored_model.state_dict(), card)
        for path in (setting.run.model_card, setting.run.result):
            path.unlink(missing_ok=True)  # of other weights; written at the end
    save_last(setting.run.last, trainer.state() | {"epochs": epochs})


def card_of(setting: Setting, metrics: dict[str, float]) -> Card:
    """The card of a model with the metrics of its epoch."""
    return Card(
        setting.recipe,
        setting.videos.frame_format,
        int(setting.videos.lengths.max()),
        int(metrics["epoch"]),
        metrics["validation_loss"],
        setting.videos.fingerprint,
        setting.videos.provenance.get("mask_text"),
    )


def finish(setting: Setting, fitted: Fitted, progress: Progress) -> Result:
    """Scores the test patients once, with the weights of the best epoch."""
    run = setting.run
    setting.ranks.gathered(None)  # wait until the first process has written them
    model, card = load_best(run.best)
    test = score_part(setting, model, card, "test", progress) if setting.split.test else {}
    if setting.ranks.first:
        write_model_card(run)
    epochs, best = fitted.epochs, fitted.best
    if setting.ranks.first:
        weights = weights_digest(run.best)
        write_json(
            run.result, {"weights": weights, "best_epoch": best["epoch"], "test": test or None}
        )
    numbers = {"run": run.name, "best_epoch": best, "epochs": len(epochs), "test": test}
    rows = [
        ("validation", best["validation_loss"], best["validation_excess"],
         best["validation_accuracy"], best["validation_kappa"]),
    ]  # fmt: skip
    if test:
        rows.append(("test", test["loss"], test["excess"], test["accuracy"], test["kappa"]))
    columns = ("part", "loss", "loss above its minimum", "accuracy", "kappa")
    path = run.root / "curves.png"
    curves = {"curves": path} if path.is_file() else {}
    return Result(
        numbers,
        [Table(title_of(run, setting.recipe, card.epoch, len(epochs)), columns, rows)],
        {"run": run.root, **curves, "card": run.model_card},
        notes=[
            *fitted.notes,
            f"`tensorboard --logdir {shlex.quote(str(run.root.parent))}` shows the curves of all runs "
            "in the browser",
        ],
    )


def title_of(run: Run, recipe: Recipe, best: int, epochs: int) -> str:
    """The title of the table of a finished run, with the fields that it changes in its recipe."""
    title = f"run {run.name} ({described(recipe)}): best epoch {best} of {epochs}"
    changed = changes_in_words(recipe)
    return f"{title}\nchanged: {shortened(changed, 8)}" if changed else title


def score_part(
    setting: Setting, model: LusModel, card: Card, part: str, progress: Progress
) -> dict[str, float]:
    """The metrics of a trained model on the videos of a part."""
    indices = setting.indices(part)
    logits = score_videos(
        model.to(setting.device),
        BatchLoader(setting.videos, card.recipe, setting.device, keep=False),
        indices,
        pad_to=card.pad_to,
        task=f"score {part}",
        progress=progress,
        ranks=setting.ranks,
    )
    return summary(logits, setting.videos.scores[indices], card.recipe.loss)
