"""One training run, from its setting to the test patients' figures; what `lus train` does once and
`lus crossval` once a fold."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lus_cli import kernel_head, run_folder
from lus_cli.backbones import UNREADABLE, reason_of
from lus_cli.batches import BatchLoader, grouped
from lus_cli.cache import Cache, Run, locked, read_json, write_text
from lus_cli.checkpoint import Card, load_best, load_last, new_model, save_best, save_last
from lus_cli.config import Recipe, TrainConfig, build, read_toml
from lus_cli.devices import choose_precision, explaining_out_of_memory, frames_at_once
from lus_cli.errors import LusError, UsageError
from lus_cli.feature_cache import FeatureLoader
from lus_cli.kernel_model import KernelModel
from lus_cli.model import LusModel
from lus_cli.model_card import write_model_card
from lus_cli.ranks import Ranks
from lus_cli.scoring import score_videos
from lus_cli.split import Split, read_split
from lus_cli.steps import Progress, Result, Table
from lus_cli.trainer import Trainer, summary
from lus_cli.training_checks import check_map, check_recipe, check_study, check_weights
from lus_cli.video_cache import VideoCache

log = logging.getLogger("lus.train")


@dataclass(frozen=True)
class Setting:
    """Everything a run works with, before its first step."""

    config: TrainConfig
    run: Run
    videos: VideoCache
    split: Split
    device: torch.device
    ranks: Ranks

    def indices(self, part: str) -> list[int]:
        """The videos of a part. Raises LusError if it has none."""
        indices = self.split.indices(part, self.videos.patients, self.videos.scores)
        if not indices:
            raise LusError(f"the {part} patients have no annotated video", "mend split.json")
        return indices

    @property
    def recipe(self) -> Recipe:
        names = [field.name for field in dataclasses.fields(Recipe)]
        return Recipe(**{name: getattr(self.config, name) for name in names})


def train(setting: Setting, progress: Progress, *, becomes_latest: bool = True) -> Result:
    """Runs the epochs that are left and scores the test patients; the run can be resumed after it
    was stopped at any moment."""
    if setting.config.head == "kernel":
        if setting.ranks.world > 1:
            raise UsageError("a kernel head is fitted in one process", "start it without torchrun")
        check_new(setting)
        with run_begun(setting, becomes_latest):
            return finish(setting, fit_kernel(setting, progress), progress)
    trainer = new_trainer(setting)
    with explaining_out_of_memory(smaller(setting.config)):
        if isinstance(trainer.loader, FeatureLoader):
            both = setting.indices("train") + setting.indices("validation")
            trainer.loader.fill(both, setting.ranks, progress)
        with run_begun(setting, becomes_latest):
            epochs = fit(setting, trainer, progress)
            return finish(setting, epochs, progress)


@contextlib.contextmanager
def run_begun(setting: Setting, becomes_latest: bool) -> Iterator[None]:
    """The run's folder, with what is about to be run written down, and its log. Raises LusError if
    another process goes on with the run."""
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
        yield


def fit_kernel(setting: Setting, progress: Progress) -> list[dict[str, float]]:
    """Fits a kernel head at once, on the training and validation patients.

    Nothing is stopped early, so nobody is needed to stop by: the validation figures are of the
    answers for each of these patients when left out.
    """
    config, videos, device = setting.config, setting.videos, setting.device
    split = setting.split
    known = [i for part in ("train", "validation") if getattr(split, part) for i in
             split.indices(part, videos.patients, videos.scores)]  # fmt: skip
    if not known:
        raise LusError("the training patients have no annotated video", "mend split.json")
    model = new_model(config, len(known)).eval().to(device)
    assert isinstance(model, KernelModel)
    vectors: list[np.ndarray] = []
    loader = BatchLoader(videos, config, device)
    with torch.inference_mode():
        for batch in loader.batches(grouped(known, 1)):
            moved = batch.to(device)
            vectors.append(model.vectors(moved.frames, moved.lengths).cpu().numpy())
            loader.kept.clear()  # each is needed once
            progress("videos", len(vectors), len(known))
    scores = videos.scores[known]
    patients = [videos.patients[index] for index in known]
    head, left_out = kernel_head.fit(np.concatenate(vectors), scores, patients, config.seed)
    model.head = head
    figures = {f"validation_{k}": v for k, v in summary(left_out, scores, config.loss).items()}
    card = Card(
        setting.recipe,
        videos.frame_format,
        int(videos.lengths[known].max()),
        1,
        figures["validation_loss"],
        videos.fingerprint,
        videos.provenance.get("mask_text"),
    )
    save_best(setting.run.best, model.state_dict(), card)
    epochs = [{"epoch": 1.0, **figures}]
    write_text(setting.run.epochs, run_folder.to_csv(epochs))
    return epochs


def resumed(config: TrainConfig, run: Run, device: torch.device, ranks: Ranks) -> Setting:
    """The setting of an interrupted run: its own recipe and split, today's device and threads."""
    cache = Cache(config.cache)
    recipe = build(Recipe, read_toml(run.config), str(run.config))
    videos = VideoCache(cache.videos)
    check_study(read_json(run.provenance, "start a new run"), videos, f"run {run.name}")
    split, _ = read_split(run.split, videos.patients)
    config = dataclasses.replace(config, **dataclasses.asdict(recipe))
    return Setting(config, run, videos, split, device, ranks)


def new_trainer(setting: Setting) -> Trainer:
    """The model and what trains it. Raises LusError or UsageError for what cannot be trained."""
    config, device, ranks = setting.config, setting.device, setting.ranks
    if ranks.world > config.batch_size * config.accumulate:
        raise UsageError(
            f"{ranks.world} processes cannot share steps of "
            f"{config.batch_size * config.accumulate} videos",
            "start fewer, or raise --batch-size, which counts the videos of all",
        )
    choose_precision(config.precision, device)
    check_new(setting)
    torch.manual_seed(config.seed)
    model = new_model(config).to(device)
    if device.type == "mps":
        model.frames_at_once = frames_at_once(model.backbone, setting.videos.frame_format.shape)
    check_map(model, setting.videos.frame_format, config)
    loader = BatchLoader(setting.videos, config, device)
    if config.freeze:
        kept = (
            None
            if config.dry_run or config.feature_cache == "none"
            else Cache(config.cache).features
        )
        loader = FeatureLoader(setting.videos, config, device, model, kept)
    setting.indices("validation")
    return Trainer(
        model,
        loader,
        setting.indices("train"),
        lambda event: run_folder.note_nonfinite(setting.run, event) if ranks.first else None,
        ranks,
    )


def check_new(setting: Setting) -> None:
    """Raises LusError or UsageError for a run that must not begin; one that has begun may go on."""
    if not setting.config.resume:
        check_recipe(setting.recipe)
        check_weights(setting.config.weights, setting.split)


def smaller(config: TrainConfig) -> str:
    """What to try where memory does not suffice, the mildest first."""
    half = config.batch_size // 2
    tries = [
        "" if config.checkpointing else "--checkpointing",
        f"--batch-size {half} --accumulate {config.accumulate * 2}" if half else "",
        f"--stride {config.stride * 2}",
        "" if 0 < config.frames_per_video <= 32 else "--frames-per-video 32",
    ]
    return f"try {', or '.join(t for t in tries if t)}"


def fit(setting: Setting, trainer: Trainer, progress: Progress) -> list[dict[str, float]]:
    """The epochs still to be run; returns the figures of all, earlier ones included."""
    config, run, ranks = setting.config, setting.run, setting.ranks
    validation = setting.indices("validation")
    epochs: list[dict[str, float]] = []
    if config.resume:
        state = load_last(run.last)
        if state is not None:
            try:
                trainer.restore(state)
                epochs = checked_epochs(state["epochs"])
            except UNREADABLE as error:
                raise LusError(
                    f"{run.last} does not fit the recipe of its run ({reason_of(error)})",
                    "start a new run",
                ) from error
            log.info("going on with run %s after epoch %d", run.name, len(epochs))
        else:
            log.info("run %s had finished no epoch: starting it over", run.name)
    scores = torch.from_numpy(setting.videos.scores[validation])
    book = run_folder.EpochBook(run, epochs, scores, config.loss) if ranks.first else None
    progress("epochs", len(epochs), config.epochs)
    for epoch in range(len(epochs) + 1, config.epochs + 1):
        if out_of_patience(epochs, config.patience):
            log.info("no better epoch in %d: stopping", config.patience)
            break
        figures = trainer.epoch(epoch, progress) | trainer.validate(validation, progress)
        epochs.append({"epoch": epoch, **figures})
        if book is not None:
            keep(setting, trainer, epochs)
            book.write(trainer.frames_per_s)
            log.info("%s", told(epochs, config.epochs, trainer.frames_per_s))
        progress("epochs", len(epochs), config.epochs)
    if book is not None:
        book.close()
    return epochs


def checked_epochs(epochs: Any) -> list[dict[str, float]]:
    """The figures of the epochs in a checkpoint. Raises ValueError if they are none."""
    for number, figures in enumerate(epochs, start=1):
        if figures["epoch"] != number or not all(
            isinstance(value, (int, float)) for value in figures.values()
        ):
            raise ValueError(f"epoch {number} is none")
    return list(epochs)


def keep(setting: Setting, trainer: Trainer, epochs: list[dict[str, float]]) -> None:
    """Saves the newest epoch: as the best, if it is, and to go on from."""
    if best_epoch(epochs) is epochs[-1]:
        card = card_of(setting, trainer, epochs[-1])
        save_best(setting.run.best, trainer.answering.state_dict(), card)
    save_last(setting.run.last, trainer.state() | {"epochs": epochs})


def told(epochs: Sequence[dict[str, float]], total: int, frames_per_s: float) -> str:
    newest = epochs[-1]
    return (
        f"epoch {len(epochs)}/{total}  train loss {newest['train_loss']:.4f}  "
        f"validation loss {newest['validation_loss']:.4f}  "
        f"accuracy {newest['validation_accuracy']:.3f}  kappa {newest['validation_kappa']:.3f}  "
        f"{frames_per_s:.0f} frames/s{'  best' if best_epoch(epochs) is newest else ''}"
    )


def best_epoch(epochs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The epoch with the lowest validation loss, the earlier one of equals."""
    return min(epochs, key=lambda row: (row["validation_loss"], row["epoch"]))


def out_of_patience(epochs: Sequence[dict[str, float]], patience: int) -> bool:
    return bool(patience and epochs and len(epochs) - best_epoch(epochs)["epoch"] >= patience)


def card_of(setting: Setting, trainer: Trainer, figures: dict[str, float]) -> Card:
    return Card(
        setting.recipe,
        setting.videos.frame_format,
        trainer.pad_to,
        int(figures["epoch"]),
        figures["validation_loss"],
        setting.videos.fingerprint,
        setting.videos.provenance.get("mask_text"),
    )


def finish(setting: Setting, epochs: list[dict[str, float]], progress: Progress) -> Result:
    """Scores the test patients, this once, with the best epoch's weights."""
    run = setting.run
    setting.ranks.gathered(None)  # the first process may still be writing them
    model, card = load_best(run.best)
    test = score_part(setting, model, card, "test", progress) if setting.split.test else {}
    if setting.ranks.first:
        write_model_card(run)
    best = best_epoch(epochs)
    numbers = {"run": run.name, "best_epoch": best, "epochs": len(epochs), "test": test}
    rows = [
        ("validation", best["validation_loss"], best["validation_excess"],
         best["validation_accuracy"], best["validation_kappa"]),
    ]  # fmt: skip
    if test:
        rows.append(("test", test["loss"], test["excess"], test["accuracy"], test["kappa"]))
    columns = ("part", "loss", "above a perfect answer", "accuracy", "kappa")
    path = run.root / "curves.png"
    curves = {"curves": path} if path.is_file() else {}
    return Result(
        numbers,
        [Table(f"run {run.name}: best epoch {card.epoch} of {len(epochs)}", columns, rows)],
        {"run": run.root, **curves, "card": run.model_card},
    )


def score_part(
    setting: Setting, model: LusModel, card: Card, part: str, progress: Progress
) -> dict[str, float]:
    """The figures of a trained model on the videos of a part."""
    indices = setting.indices(part)
    logits = score_videos(
        model.to(setting.device),
        BatchLoader(setting.videos, card.recipe, setting.device),
        indices,
        pad_to=card.longest,
        task=f"score {part}",
        progress=progress,
        ranks=setting.ranks,
    )
    return summary(logits, setting.videos.scores[indices], card.recipe.loss)
