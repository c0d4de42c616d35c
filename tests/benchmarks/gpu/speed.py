"""Parts `c`, `d` and `f`: training and prediction against what the device can do.

The bare CNN is forward and backward of the backbone alone, on pictures that are already normalised,
in the memory layout and the precision of lus, in batches of the same size.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from lus_cli.cache.batches import in_batches
from lus_cli.cache.layout import Run
from lus_cli.model.checkpoint import Card, digest_of, save_best, save_last
from lus_cli.model.devices import computes_in
from lus_cli.model.losses import ordinal_loss
from lus_cli.model.network import normalised
from lus_cli.prediction.scorer import Scorer
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.sampling import epoch_order
from lus_cli.training.scoring import score_videos
from lus_cli.training.trained_run import TrainedModel, on_device
from lus_cli.training.trainer import Trainer
from tests.benchmarks.gpu.machine import (
    Machine,
    Task,
    parts_of,
    recipe_for,
    trainer_for,
)

BACKBONES = ("alexnet", "resnet18", "efficientnet_lite0")
OF_BARE = 0.5  # goal: of the bare CNN's frames/s, in bf16
LONG_RUN_S = 60.0  # goal of the long run, on an H100
TIMED_VIDEOS = 24
MEMORY_PER_FRAME = 150e6  # bytes of activations in training at 224 px, of the largest CNN here


# ------------------------------------------------------------------------------- part c: frames/s


def frames_per_s(backbone: str, precision: str, machine: Machine) -> dict[str, Any]:
    """Training in frames/s: the bare CNN, lus with pictures kept on the device, and without."""
    if precision == "bf16" and not computes_in(torch.bfloat16, machine.device):
        return {"bf16": "not on this device"}
    if machine.tiny and (backbone, precision) not in (
        (BACKBONES[0], "bf16"),
        (backbone, "float32"),
    ):
        return {"bf16": "left out, as it takes long on a CPU"}
    recipe = recipe_for(
        machine, backbone=backbone, precision=precision, batch_size=batch_size(machine)
    )
    videos = 2 if machine.tiny else TIMED_VIDEOS
    indices = parts_of(machine.videos())[0][:videos]
    kept = trainer_for(machine, recipe, indices)
    frames = int(kept.loader.videos.lengths[indices].sum())
    machine.forget_peak()
    bare = frames / bare_epoch(machine, kept)
    peak = machine.peak_mb()
    machine.forget_peak()
    with_cache = frames / epoch_s(machine, kept)
    rows = {"bare": bare, "lus": with_cache, "of_bare": with_cache / bare}
    peaks = {"peak_mb_bare": peak, "peak_mb": machine.peak_mb()}
    del kept
    plain = trainer_for(machine, recipe, indices, keep=False)
    rows |= {"lus_without_cache": frames / epoch_s(machine, plain)}
    rows |= {"without_cache_of_bare": rows["lus_without_cache"] / bare, **peaks}
    if precision == "bf16":
        rows |= {"goal": OF_BARE, "goal_met": rows["of_bare"] >= OF_BARE}
    return rows | {"batch_frames": recipe.batch_size * machine.sizes.length}


def batch_size(machine: Machine) -> int:
    """The report's four videos, or fewer where their activations would not fit."""
    if machine.device.type != "cuda":
        return 2
    free, _ = torch.cuda.mem_get_info(machine.device)
    return int(max(1, min(4, free // (MEMORY_PER_FRAME * machine.sizes.length))))


def epoch_s(machine: Machine, trainer: Trainer) -> float:
    """Median seconds of an epoch, the first one, which warms up and fills memory, left out."""
    numbers = itertools.count(1)
    return machine.median(lambda: trainer.epoch(next(numbers), silent))


def bare_epoch(machine: Machine, trainer: Trainer) -> float:
    """Median seconds of forward and backward of the backbone over the batches of an epoch."""
    recipe, loader = trainer.recipe, trainer.loader
    groups = epoch_order(trainer.indices, loader.videos.scores, recipe, 1)
    # One batch is enough, and more might not fit: the frames are as many in each.
    images = pictures(machine, trainer, groups[0])

    def run() -> None:
        for _ in groups:
            forward_and_backward(trainer, images)

    trainer.train_mode()
    return machine.median(run)


def pictures(machine: Machine, trainer: Trainer, group: list[int]) -> Tensor:
    """Normalised and channels last."""
    batch = trainer.loader.load(group, 1).to(machine.device)
    return normalised(batch.pictures).contiguous(memory_format=torch.channels_last)


def forward_and_backward(trainer: Trainer, images: Tensor) -> None:
    trainer.model.zero_grad(set_to_none=True)
    with half(trainer):
        maps = trainer.model.backbone(images)
    maps.float().sum().backward()


def half(trainer: Trainer) -> contextlib.AbstractContextManager[Any]:
    precision = trainer.model.precision
    if precision is None:
        return contextlib.nullcontext()
    return torch.autocast(trainer.device.type, precision)


def where_time_goes(machine: Machine) -> dict[str, Any]:
    """Milliseconds of the pieces of a step of AlexNet in bf16, each on its own."""
    precision = "float32" if machine.tiny else "bf16"
    recipe = recipe_for(machine, precision=precision, batch_size=batch_size(machine))
    indices = parts_of(machine.videos())[0][: recipe.batch_size]
    trainer = trainer_for(machine, recipe, indices)
    trainer.train_mode()
    batch = trainer.loader.load(indices, 1).to(machine.device)
    images = pictures(machine, trainer, indices)
    with torch.no_grad():
        features = trainer.model.features(batch.pictures)
    features.requires_grad_()

    def head() -> None:
        output = trainer.model.outputs(features, batch.lengths)[0]
        ordinal_loss(output.logits, batch.scores, recipe.loss).mean().backward()

    def whole() -> None:
        trainer.gradient(batch, indices)

    pieces = {
        "load": lambda: trainer.loader.load(indices, 1).to(machine.device),
        "normalise": lambda: pictures(machine, trainer, indices),
        "cnn": lambda: forward_and_backward(trainer, images),
        "head": head,
        "gradient": whole,
        "optimizer": trainer.optimizer.step,
        "buffers": lambda: [buffer.clone() for buffer in trainer.model.buffers()],
    }
    return {f"{name}_ms": round(1e3 * machine.median(work), 3) for name, work in pieces.items()}


# ------------------------------------------------------------------------------ part d: a long run


def long_run(batch_size: int, machine: Machine) -> dict[str, Any]:
    """35 epochs of the recipe `paper` in bf16, with validation and checkpoints, from the file.

    Where the time box ends before, the seconds of the epochs that are missing are those of the
    median of the others.
    """
    indices, held_out = parts_of(machine.videos())
    precision = "float32" if machine.tiny else "bf16"
    recipe = recipe_for(
        machine, precision=precision, batch_size=batch_size, epochs=machine.sizes.epochs
    )
    if machine.tiny:
        indices, held_out = indices[:4], held_out[:2]
    began = time.perf_counter()
    trainer = trainer_for(machine, recipe, indices)
    run = Run(machine.folder / f"long run {batch_size}")
    run.root.mkdir(exist_ok=True)
    seconds: list[float] = []
    epochs: list[dict[str, float]] = []
    while len(epochs) < recipe.epochs and machine.left() > 2 * max(seconds, default=0.0) + 2:
        seconds.append(machine.timed(lambda: epochs.append(one_epoch(trainer, held_out, epochs))))
        save(trainer, run, epochs)
    whole = time.perf_counter() - began
    missing = recipe.epochs - len(epochs)
    whole += missing * (statistics.median(seconds[1:]) if len(seconds) > 1 else sum(seconds))
    frames = int(trainer.loader.videos.lengths[indices].sum())
    return {
        "epochs": recipe.epochs,
        "epochs_trained": len(epochs),
        "frames": frames,
        "run_s": round(whole, 1),
        "first_epoch_s": round(seconds[0], 2),
        "epoch_s": round(statistics.median(seconds), 2),
        "frames_per_s": round(trainer.frames_per_s),
        "loss_first": epochs[0]["train_loss"],
        "loss_last": epochs[-1]["train_loss"],
        "accuracy_last": epochs[-1]["validation_accuracy"],
        "goal": LONG_RUN_S,
        "goal_met": whole < LONG_RUN_S,
    }


def one_epoch(
    trainer: Trainer, held_out: list[int], epochs: list[dict[str, float]]
) -> dict[str, float]:
    number = len(epochs) + 1
    metrics = trainer.epoch(number, silent) | trainer.validate(held_out, silent)
    return {"epoch": number, **metrics}


def save(trainer: Trainer, run: Run, epochs: list[dict[str, float]]) -> None:
    """As `lus train` does after an epoch, where each is the best so far."""
    save_best(run.best, trainer.scored_model.state_dict(), card_of(trainer.recipe, trainer))
    save_last(run.last, trainer.state() | {"epochs": epochs})


def card_of(recipe: Recipe, trainer: Trainer) -> Card:
    videos = trainer.loader.videos
    return Card(recipe, videos.frame_format, int(videos.lengths.max()), 1, 1.0, videos.fingerprint)


# ------------------------------------------------------------------------------ part f: predicting


def predicting(backbone: str, machine: Machine) -> dict[str, Any]:
    """Frames/s of scoring: in batches, as `lus evaluate` does, and array by array, as `lus predict`."""
    recipe = recipe_for(machine, backbone=backbone, batch_size=4)
    indices = parts_of(machine.videos())[1][: 4 if machine.tiny else TIMED_VIDEOS]
    trainer = trainer_for(machine, recipe, indices, keep=False)
    card, videos = card_of(recipe, trainer), trainer.loader.videos
    model = on_device(trainer.model.eval(), machine.device, card)
    trained = TrainedModel(Run(machine.folder / "none"), model, card, digest_of({}))
    scorer = Scorer(trained, None, False)
    frames = int(videos.lengths[indices].sum())
    arrays = [videos.read(index) for index in indices]

    def in_cache() -> None:
        score_videos(model, trainer.loader, indices, pad_to=card.pad_to, task="", progress=silent)

    def bare() -> None:
        with torch.inference_mode():
            for group in in_batches(indices, recipe.batch_size):
                model.backbone(images[: sum(videos.lengths[group])])

    machine.forget_peak()
    batched = frames / machine.median(in_cache)
    single = machine.median(lambda: [scorer.score_frames(array) for array in arrays])
    peak = machine.peak_mb()
    images = pictures(machine, trainer, indices[: recipe.batch_size])
    return {
        "bare": frames / machine.median(bare),
        "evaluate": batched,
        "predict": frames / single,
        "predict_ms_per_video": round(1e3 * single / len(indices), 2),
        "peak_mb": peak,
    }


SPEED: dict[str, Task] = {"where time goes": where_time_goes} | {
    f"{backbone} {precision}": functools.partial(frames_per_s, backbone, precision)
    for backbone, precision in itertools.product(BACKBONES, ("bf16", "float32"))
}
LONG: dict[str, Task] = {
    f"batches of {size}": functools.partial(long_run, size) for size in (4, 16)
}
PREDICTING: dict[str, Task] = {
    backbone: functools.partial(predicting, backbone) for backbone in BACKBONES
}
