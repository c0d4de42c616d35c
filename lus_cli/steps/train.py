"""lus train: fits the model to the training patients and keeps the epoch that validates best."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import io
import json
import logging
import math
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import lus_cli
from lus_cli.batches import BatchLoader
from lus_cli.cache import Cache, Run, explaining_disk_errors, write_json, write_text
from lus_cli.checkpoint import Card, load_best, load_last, new_model, save_best, save_last
from lus_cli.config import Recipe, TrainConfig, build, read_toml, to_toml
from lus_cli.devices import choose_device, frames_at_once, set_threads
from lus_cli.errors import LusError
from lus_cli.losses import entropy_floor, soft_labels
from lus_cli.model import LusModel
from lus_cli.scoring import score_videos
from lus_cli.split import PARTS, Split, read_split, write_split
from lus_cli.steps import Progress, Result, Table
from lus_cli.trainer import Trainer, summary
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

    def indices(self, part: str) -> list[int]:
        """The videos of a part. Raises LusError if it has none."""
        indices = self.split.indices(part, self.videos.patients, self.videos.scores)
        if not indices:
            raise LusError(f"the {part} patients have no annotated video", "mend split.json")
        return indices


def run(config: TrainConfig, progress: Progress) -> Result:
    """Trains from the start, or from where an interrupted run stopped."""
    cache = Cache(config.cache)
    setting = resumed(config, cache) if config.resume else fresh(config, cache)
    set_threads(config.threads)
    torch.manual_seed(setting.config.seed)
    model = new_model(setting.config).to(setting.device)
    if setting.device.type == "mps":
        model.frames_at_once = frames_at_once(model.backbone, setting.videos.frame_format.shape)
    check_map(model, setting)
    loader = BatchLoader(setting.videos, setting.config)
    trainer = Trainer(
        model, loader, setting.indices("train"), lambda event: note_nonfinite(setting.run, event)
    )
    setting.indices("validation")
    if config.dry_run:
        return dry_result(setting, trainer)
    if not config.resume:
        start_folder(setting, cache)
    with logging_to(setting.run.root / "log.txt"):
        epochs = fit(setting, trainer, progress)
        return finish(setting, epochs, progress)


def check_map(model: LusModel, setting: Setting) -> None:
    """Raises LusError if frames are so small that attention has a single cell to look at."""
    frame = torch.zeros((1, *setting.videos.frame_format.shape), dtype=torch.uint8)
    with torch.no_grad():
        rows, columns = model.eval().features(frame.to(setting.device)).shape[2:]
    if setting.config.attention and min(rows, columns) < 2:
        raise LusError(
            f"frames of {setting.videos.frame_format.size} pixels leave {setting.config.backbone} a map "
            f"of {rows}x{columns}: nothing to attend to",
            "prepare with a larger --size, or train with --feature-stride 16 or --no-attention",
        )


def fresh(config: TrainConfig, cache: Cache) -> Setting:
    videos = VideoCache(cache.videos)
    split, _ = read_split(cache.split, videos.patients)
    run = cache.new_run(config.run) if config.run else next_run(cache, config.name)
    if run.root.exists():
        raise LusError(
            f"there is a run {run.name} already",
            "choose another --run, or go on with it by --resume",
        )
    return Setting(config, run, videos, split, choose_device(config.device))


def resumed(config: TrainConfig, cache: Cache) -> Setting:
    """The setting of an interrupted run: its own recipe and split, today's device and threads."""
    run = cache.run(config.run)
    recipe = build(Recipe, read_toml(run.config), str(run.config))
    videos = VideoCache(cache.videos)
    split, _ = read_split(run.split, videos.patients)
    provenance = json.loads(run.provenance.read_text())
    if provenance["fingerprint"] != videos.fingerprint:
        raise LusError(
            f"{cache.videos} has changed since run {run.name} began",
            "prepare the same study again, or start a new run",
        )
    config = dataclasses.replace(config, **dataclasses.asdict(recipe))
    return Setting(config, run, videos, split, choose_device(config.device))


def next_run(cache: Cache, name: str) -> Run:
    """The first of name-1, name-2, ... that is not there yet."""
    number = 1
    while cache.new_run(f"{name}-{number}").root.exists():
        number += 1
    return cache.new_run(f"{name}-{number}")


def start_folder(setting: Setting, cache: Cache) -> None:
    """Writes down what is about to be run, before the first step."""
    run = setting.run
    with explaining_disk_errors(run.root):
        run.root.mkdir(parents=True)
    write_text(run.config, to_toml(setting.config, only=Recipe))
    write_split(run.split, setting.split)
    write_json(run.provenance, provenance(setting))
    write_text(cache.latest, run.name + "\n")


def provenance(setting: Setting) -> dict[str, Any]:
    """Where a run came from: versions, device, data, commit."""
    source = Path(lus_cli.__file__).parent
    with contextlib.suppress(OSError):
        git = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    labels = [
        [*map(str, i), int(s)]
        for i, s in zip(setting.videos.ids, setting.videos.scores, strict=True)
    ]
    return {
        "lus": lus_cli.__version__,
        "git_commit": git.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(setting.device),
        "device_name": torch.cuda.get_device_name()
        if setting.device.type == "cuda"
        else platform.machine(),
        "threads": torch.get_num_threads(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprint": setting.videos.fingerprint,
        "videos": len(labels),
        "exams": setting.videos.provenance.get("exams"),
    }


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Keeps what is logged in a file of the run, too."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("lus")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def note_nonfinite(run: Run, event: dict[str, Any]) -> None:
    path = run.root / "nonfinite.json"
    known = json.loads(path.read_text())["events"] if path.is_file() else []
    write_json(path, {"events": [*known, event]})
    log.warning(
        "epoch %s: a step was not finite (%s, %s) and was not taken; see %s",
        event["epoch"],
        event["module"],
        event["direction"],
        path,
    )


def fit(setting: Setting, trainer: Trainer, progress: Progress) -> list[dict[str, float]]:
    """The epochs still to be run; returns the figures of all, earlier ones included."""
    config, run = setting.config, setting.run
    validation = setting.indices("validation")
    epochs: list[dict[str, float]] = []
    if run.last.exists():
        state = load_last(run.last)
        trainer.restore(state)
        epochs = state["epochs"]
        log.info("going on with run %s after epoch %d", run.name, len(epochs))
    elif config.resume:
        log.info("run %s had finished no epoch: starting it over", run.name)
    board = tensorboard(run, len(epochs))
    for epoch in range(len(epochs) + 1, config.epochs + 1):
        if out_of_patience(epochs, config.patience):
            log.info("no better epoch in %d: stopping", config.patience)
            break
        figures = trainer.epoch(epoch, progress) | trainer.validate(validation, progress)
        epochs.append({"epoch": epoch, **figures})
        if best_epoch(epochs)["epoch"] == epoch:
            save_best(
                run.best, trainer.answering.state_dict(), card_of(setting, trainer, epochs[-1])
            )
        save_last(run.last, trainer.state() | {"epochs": epochs})
        write_text(run.epochs, to_csv(epochs))
        draw_curves(setting, epochs)
        for name, value in figures.items():
            board.add_scalar(name.replace("_", "/", 1), value, epoch)
        log.info(
            "epoch %d/%d  train loss %.4f  validation loss %.4f  accuracy %.3f  kappa %.3f%s",
            epoch,
            config.epochs,
            figures["train_loss"],
            figures["validation_loss"],
            figures["validation_accuracy"],
            figures["validation_kappa"],
            "  best" if best_epoch(epochs)["epoch"] == epoch else "",
        )
    board.close()
    return epochs


def tensorboard(run: Run, done: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.root / "tensorboard"), purge_step=done + 1)


def best_epoch(epochs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The epoch with the lowest validation loss, the earlier one of equals."""
    return min(epochs, key=lambda row: (row["validation_loss"], row["epoch"]))


def out_of_patience(epochs: Sequence[dict[str, float]], patience: int) -> bool:
    return bool(patience and epochs and len(epochs) - best_epoch(epochs)["epoch"] >= patience)


def card_of(setting: Setting, trainer: Trainer, figures: dict[str, float]) -> Card:
    recipe = Recipe(**{f.name: getattr(setting.config, f.name) for f in dataclasses.fields(Recipe)})
    return Card(
        recipe,
        setting.videos.frame_format,
        trainer.pad_to,
        int(figures["epoch"]),
        figures["validation_loss"],
        setting.videos.fingerprint,
    )


def to_csv(epochs: Sequence[dict[str, float]]) -> str:
    """epochs.csv: an undefined figure is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(epochs[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if math.isnan(v) else v for k, v in row.items()} for row in epochs)
    return text.getvalue()


def draw_curves(setting: Setting, epochs: list[dict[str, float]]) -> None:
    """The curves so far, beside what a perfect answer and the best constant one would reach."""
    from lus_cli import figures

    scores = torch.from_numpy(setting.videos.scores[setting.indices("validation")])
    mean_label = soft_labels(scores, setting.config.loss).mean(dim=0)
    figure = figures.curves(
        epochs,
        constant_loss=torch.special.entr(mean_label).sum().item(),
        floor=entropy_floor(scores, setting.config.loss).mean().item(),
        majority=torch.bincount(scores).max().item() / len(scores),
    )
    figures.save(figure, setting.run.root / "curves")


def finish(setting: Setting, epochs: list[dict[str, float]], progress: Progress) -> Result:
    """Scores the test patients, this once, with the best epoch's weights."""
    run = setting.run
    model, card = load_best(run.best)
    test = score_part(setting, model, card, "test", progress) if setting.split.test else {}
    best = best_epoch(epochs)
    numbers = {"run": run.name, "best_epoch": best, "epochs": len(epochs), "test": test}
    rows = [
        ("validation", best["validation_loss"], best["validation_excess"],
         best["validation_accuracy"], best["validation_kappa"]),
    ]  # fmt: skip
    if test:
        rows.append(("test", test["loss"], test["excess"], test["accuracy"], test["kappa"]))
    columns = ("part", "loss", "above a perfect answer", "accuracy", "kappa")
    return Result(
        numbers,
        [Table(f"run {run.name}: best epoch {card.epoch} of {len(epochs)}", columns, rows)],
        {"run": run.root, "curves": run.root / "curves.png"},
    )


def score_part(
    setting: Setting, model: LusModel, card: Card, part: str, progress: Progress
) -> dict[str, float]:
    """The figures of a trained model on the videos of a part."""
    indices = setting.indices(part)
    logits = score_videos(
        model.to(setting.device),
        BatchLoader(setting.videos, card.recipe),
        indices,
        pad_to=card.longest,
        task=f"score {part}",
        progress=progress,
    )
    return summary(logits, setting.videos.scores[indices], card.recipe.loss)


def dry_result(setting: Setting, trainer: Trainer) -> Result:
    """What a run would cost, from one real batch: nothing is written."""
    import resource
    import time

    from lus_cli.batches import epoch_order, select_frames
    from lus_cli.trainer import Tally

    config, videos = setting.config, setting.videos
    groups = epoch_order(trainer.indices, videos.scores, config, 1)
    batch = trainer.loader.load(groups[0]).to(setting.device)
    trainer.model.train()
    trainer.step(batch, 1, Tally())  # the first step pays for warming up
    started = time.perf_counter()
    trainer.step(batch, 1, Tally())
    seconds = time.perf_counter() - started
    frames = sum(
        len(select_frames(int(videos.lengths[i]), config.stride, config.frames_per_video))
        for i in trainer.indices
    )
    epoch_s = seconds / len(batch.frames) * frames
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    numbers: dict[str, Any] = {
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "batch_frames": len(batch.frames),
        "step_s": seconds,
        "frames_per_epoch": frames,
        "epoch_s": epoch_s,
        "run_s": epoch_s * config.epochs,
        "peak_mb": peak_mb,
        "videos": {
            part: len(setting.indices(part)) for part in PARTS if getattr(setting.split, part)
        },
    }
    rows = [
        ("device", str(setting.device)),
        *((f"{part} videos", count) for part, count in numbers["videos"].items()),
        ("parameters", f"{numbers['parameters']:,}"),
        ("frames an epoch", f"{frames:,}"),
        ("one step", f"{seconds:.2f} s for {len(batch.frames)} frames"),
        ("one epoch", f"{epoch_s:.0f} s"),
        (f"{config.epochs} epochs", f"{numbers['run_s'] / 60:.1f} min, validation not counted"),
        ("peak memory", f"{peak_mb:.0f} MB"),
    ]
    return Result(numbers, [Table("dry run: nothing was written", ("", ""), rows)])
