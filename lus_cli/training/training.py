"""One training run, from its setting to the metrics of the test patients. `lus train` runs it once,
`lus crossval` once per fold."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from lus_cli.cache.batches import BatchLoader, in_batches
from lus_cli.cache.layout import Cache
from lus_cli.config import TrainConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.evaluation.model_card import write_model_card
from lus_cli.files import write_text
from lus_cli.folders import locked
from lus_cli.model import kernel_head
from lus_cli.model.checkpoint import Card, load_best, new_model, save_best, save_last
from lus_cli.model.devices import (
    MAX_ACTIVATION_BYTES,
    choose_precision,
    explaining_out_of_memory,
    frames_at_once,
)
from lus_cli.model.kernel_model import KernelModel
from lus_cli.model.network import LusModel
from lus_cli.progress import Progress, Result, Table
from lus_cli.training import run_folder
from lus_cli.training.checks import check_map, check_recipe, check_weights
from lus_cli.training.early_stopping import (
    best_epoch,
    finished,
    line_of,
    read_epochs,
    required_best,
    stopped_early,
)
from lus_cli.training.feature_cache import FeatureLoader
from lus_cli.training.resuming import already_finished, restored, write_plan
from lus_cli.training.scoring import score_videos
from lus_cli.training.setting import Setting
from lus_cli.training.trainer import Trainer, summary

log = logging.getLogger("lus.train")


class Fitted(NamedTuple):
    """The result of fitting."""

    epochs: list[dict[str, float]]  # metrics of all epochs, those before a resumption included
    notes: list[str]  # on early stopping, or on a run that was already finished


def train(setting: Setting, progress: Progress, *, becomes_latest: bool = True) -> Result:
    """Runs the remaining epochs and scores the test patients. The run can be interrupted at any time
    and resumed."""
    if setting.config.head == "kernel":
        if setting.ranks.world > 1:
            raise UsageError("a kernel head is fitted in one process", "run it without torchrun")
        check_new(setting)
        with run_begun(setting, becomes_latest):
            return finish(setting, fit_kernel(setting, progress), progress)
    trainer = new_trainer(setting)
    with explaining_out_of_memory(smaller(setting.config)):
        if isinstance(trainer.loader, FeatureLoader):
            both = setting.indices("train") + setting.indices("validation")
            trainer.loader.fill(both, setting.ranks, progress)
        with run_begun(setting, becomes_latest):
            fitted = fit(setting, trainer, progress)
            del trainer  # frees the frames and the state of the optimizer
            return finish(setting, fitted, progress)


@contextlib.contextmanager
def run_begun(setting: Setting, becomes_latest: bool) -> Iterator[None]:
    """Creates and locks the folder of the run and starts its log.

    Raises LusError if another process trains the same run.
    """
    if not setting.ranks.first:
        yield
        return
    if not setting.config.resume:
        origin = run_folder.provenance(setting.videos, setting.device, setting.ranks)
        origin["parts"] = run_folder.composition(setting.videos, setting.split)
        run_folder.start_folder(setting.run, setting.recipe, setting.split, origin)
        if becomes_latest:
            write_text(Cache(setting.config.cache).latest, setting.run.name + "\n")
    root = setting.run.root
    with locked(root / ".lock", root, keep=False), run_folder.logging_to(root / "log.txt"):
        write_plan(setting)
        yield


def fit_kernel(setting: Setting, progress: Progress) -> Fitted:
    """Fits a kernel head on the training and validation patients.

    The fit needs no validation patients, since it has no early stopping. The validation metrics are
    those of the predictions for each of these patients when left out.
    """
    config, videos, device = setting.config, setting.videos, setting.device
    split = setting.split
    if config.resume and setting.run.best.is_file() and setting.run.epochs.is_file():
        done = read_epochs(setting.run.epochs)
        return Fitted(done, [already_finished(setting, done)])
    indices = [i for part in ("train", "validation") if getattr(split, part) for i in
               split.indices(part, videos.patients, videos.scores)]  # fmt: skip
    if not indices:
        raise LusError(
            "the training patients have no annotated video", "move patients in split.json"
        )
    model = new_model(config, len(indices)).eval().to(device)
    assert isinstance(model, KernelModel)
    vectors: list[np.ndarray] = []
    loader = BatchLoader(videos, config, device, keep=False)
    with torch.inference_mode():
        for batch in loader.batches(in_batches(indices, 1)):
            moved = batch.to(device)
            vectors.append(model.vectors(moved.frames, moved.lengths).cpu().numpy())
            progress("videos", len(vectors), len(indices))
    check_vectors(vectors, [str(videos.ids[index]) for index in indices])
    scores = videos.scores[indices]
    patients = [videos.patients[index] for index in indices]
    head, left_out = kernel_head.fit(np.concatenate(vectors), scores, patients, config.seed)
    model.head = head
    metrics = {f"validation_{k}": v for k, v in summary(left_out, scores, config.loss).items()}
    epochs = [{"epoch": 1.0, **metrics}]
    card = card_of(setting, int(videos.lengths[indices].max()), epochs[0])
    save_best(setting.run.best, model.state_dict(), card)
    write_text(setting.run.epochs, run_folder.to_csv(epochs))
    return Fitted(epochs, [])


def check_vectors(vectors: list[np.ndarray], videos: list[str]) -> None:
    """Raises LusError if the features of a video are not finite."""
    bad = [v for v, vector in zip(videos, vectors, strict=True) if not np.isfinite(vector).all()]
    if bad:
        raise LusError(
            f"the CNN features of video {bad[0]} are not finite",
            "the weights of the CNN may be damaged: give others with --weights",
        )


def new_trainer(setting: Setting) -> Trainer:
    """The trainer of a run. Raises LusError or UsageError for a run that cannot be trained."""
    config, device, ranks = setting.config, setting.device, setting.ranks
    if ranks.world > config.batch_size * config.accumulate:
        raise UsageError(
            f"{ranks.world} processes cannot share steps of "
            f"{config.batch_size * config.accumulate} videos",
            "start fewer processes, or raise --batch-size, which counts the videos of all processes",
        )
    choose_precision(config.precision, device)
    check_new(setting)
    torch.manual_seed(config.seed)
    model = new_model(config).to(device)
    if device.type == "mps":
        shape = setting.videos.frame_format.shape
        model.frames_at_once = frames_at_once(model.backbone, shape, MAX_ACTIVATION_BYTES)
    check_map(model, setting.videos.frame_format, config)
    loader = BatchLoader(setting.videos, config, device)
    if config.freeze:
        folder = (
            None
            if config.dry_run or config.feature_cache == "none"
            else Cache(config.cache).features
        )
        loader = FeatureLoader(setting.videos, config, device, model, folder)
    setting.indices("validation")  # raises LusError if there are none
    writes = ranks.first and not config.dry_run
    return Trainer(
        model,
        loader,
        setting.indices("train"),
        lambda event: run_folder.note_nonfinite(setting.run, event) if writes else None,
        ranks,
    )


def check_new(setting: Setting) -> None:
    """Raises LusError or UsageError if a new run must not start; a resumed one is not checked."""
    if not setting.config.resume:
        check_recipe(setting.recipe)
        check_weights(setting.config.weights, setting.split)


def smaller(config: TrainConfig) -> str:
    """Options that reduce memory, in the order of their effect on training, least first."""
    half = config.batch_size // 2
    options = [
        "" if config.checkpointing else "--checkpointing",
        f"--batch-size {half} --accumulate {config.accumulate * 2}" if half else "",
        f"--stride {config.stride * 2}",
        "" if 0 < config.frames_per_video <= 32 else "--frames-per-video 32",
    ]
    return f"try {', or '.join(option for option in options if option)}"


def fit(setting: Setting, trainer: Trainer, progress: Progress) -> Fitted:
    """Runs the remaining epochs."""
    config, run, ranks = setting.config, setting.run, setting.ranks
    validation = setting.indices("validation")
    epochs = restored(setting, trainer)
    before = len(epochs)
    scores = torch.from_numpy(setting.videos.scores[validation])
    book = run_folder.EpochBook(run, epochs, scores, config.loss) if ranks.first else None
    progress("epochs", before, config.epochs)
    while not finished(epochs, config):
        epoch = len(epochs) + 1
        metrics = trainer.epoch(epoch, progress) | trainer.validate(validation, progress)
        epochs.append({"epoch": epoch, **metrics})
        if book is not None:
            keep(setting, trainer, epochs)
            book.write(trainer.frames_per_s)
            log.info("%s", line_of(epochs, config.epochs, trainer.frames_per_s))
        progress("epochs", epoch, config.epochs)
    if book is not None:
        book.close()
    required_best(epochs, config)
    note = stopped_early(epochs, config)
    if before and before == len(epochs):
        note = already_finished(setting, epochs)
    elif note and ranks.first:
        log.debug("%s", note)  # for log.txt; the terminal shows notes
    return Fitted(epochs, [note] if note else [])


def keep(setting: Setting, trainer: Trainer, epochs: list[dict[str, float]]) -> None:
    """Saves the state after the latest epoch, and its model if it is the best so far."""
    if best_epoch(epochs) is epochs[-1]:
        card = card_of(setting, trainer.pad_to, epochs[-1])
        save_best(setting.run.best, trainer.scored_model.state_dict(), card)
        setting.run.model_card.unlink(missing_ok=True)  # of other weights; written at the end
    save_last(setting.run.last, trainer.state() | {"epochs": epochs})


def card_of(setting: Setting, longest: int, metrics: dict[str, float]) -> Card:
    """The card of a model with the metrics of its epoch."""
    return Card(
        setting.recipe,
        setting.videos.frame_format,
        longest,
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
    epochs = fitted.epochs
    best = required_best(epochs, setting.recipe)
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
        [Table(f"run {run.name}: best epoch {card.epoch} of {len(epochs)}", columns, rows)],
        {"run": run.root, **curves, "card": run.model_card},
        notes=fitted.notes,
    )


def score_part(
    setting: Setting, model: LusModel, card: Card, part: str, progress: Progress
) -> dict[str, float]:
    """The metrics of a trained model on the videos of a part."""
    indices = setting.indices(part)
    logits = score_videos(
        model.to(setting.device),
        BatchLoader(setting.videos, card.recipe, setting.device, keep=False),
        indices,
        pad_to=card.longest,
        task=f"score {part}",
        progress=progress,
        ranks=setting.ranks,
    )
    return summary(logits, setting.videos.scores[indices], card.recipe.loss)
