"""Time and memory of a training run, estimated from one of its batches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lus_cli.cache.batches import Batch
from lus_cli.cache.video_cache import VideoCache
from lus_cli.progress import Result, Table
from lus_cli.training.feature_cache import FeatureLoader
from lus_cli.training.forecast import LONG, faster
from lus_cli.training.sampling import epoch_order
from lus_cli.training.scoring import evaluating, predict
from lus_cli.training.tally import Tally
from lus_cli.training.trainer import Trainer
from lus_cli.words import duration


def dry_result(trainer: Trainer, videos: VideoCache, validation: Sequence[int]) -> Result:
    """Estimates time and memory of a run from the step of its first epoch with the most frames."""
    recipe, loader = trainer.recipe, trainer.loader
    groups = epoch_order(trainer.indices, videos.scores, recipe, 1)

    def frames_of(indices: Sequence[int]) -> int:
        return sum(loader.steps(index) for index in indices)

    largest = max(groups, key=frames_of)
    share = trainer.ranks.share(largest)
    features_s = 0.0
    if isinstance(loader, FeatureLoader):
        missing = loader.missing(loader.keys(trainer.indices, validation))
        if missing:
            index, copy = missing[0]
            once = timed(lambda: loader.computed(index, copy)) / loader.steps(index)
            features_s = once * frames_of([index for index, _ in missing])
    batch = loader.load(share, 1).to(trainer.device)
    trainer.train_mode()
    step_s = timed(lambda: trainer.step(batch, largest, 1, Tally()))
    score_s = timed(lambda: score(trainer, batch))
    frame_s, scored_s = step_s / frames_of(largest), score_s / frames_of(largest)
    epoch_s = frame_s * frames_of(trainer.indices) + scored_s * frames_of(validation)
    numbers: dict[str, Any] = {
        "device": str(trainer.device),
        "processes": trainer.ranks.world,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "videos": {"train": len(trainer.indices), "validation": len(validation)},
        "frames_per_epoch": frames_of(trainer.indices),
        "largest_step_frames": frames_of(largest),
        "step_s": step_s,
        "features_s": features_s,
        "epoch_s": epoch_s,
        "run_s": features_s + epoch_s * recipe.epochs,
        "peak_mb": peak_mb(trainer.device),
    }
    table = Table("dry run: nothing was written", ("", ""), rows(numbers, recipe.epochs))
    less = faster(recipe, numbers["frames_per_epoch"] / len(trainer.indices))
    return Result(numbers, [table], notes=[less] if numbers["run_s"] > LONG else [])


def rows(numbers: dict[str, Any], epochs: int) -> list[tuple[Any, ...]]:
    features = [("feature maps", f"{duration(numbers['features_s'])}, once")]
    megabytes = numbers["peak_mb"]
    peak = [("peak memory", f"{megabytes:.0f} MB, in the largest step")] if megabytes else []
    return [
        ("device", numbers["device"]),
        *((f"{part} videos", count) for part, count in numbers["videos"].items()),
        ("parameters", f"{numbers['parameters']:,}"),
        ("frames per epoch", f"{numbers['frames_per_epoch']:,}"),
        ("largest step", f"{numbers['step_s']:.2f} s for {numbers['largest_step_frames']} frames"),
        *(features if numbers["features_s"] else []),
        ("one epoch", f"{duration(numbers['epoch_s'])}, with validation"),
        (f"{epochs} epochs", duration(numbers["run_s"])),
        *peak,
    ]


def score(trainer: Trainer, batch: Batch) -> None:
    with evaluating(trainer.model, trainer.loader):
        predict(trainer.model, batch, trainer.pad_to)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes in its second call; the first one warms up."""
    seconds = 0.0
    for _ in range(2):
        synchronize()
        started = time.perf_counter()
        work()
        synchronize()
        seconds = time.perf_counter() - started
    return seconds


def synchronize() -> None:
    """Waits until an accelerator has finished its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def peak_mb(device: torch.device) -> float | None:
    """Peak memory so far in MB, of the GPU or else of this process; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS reports bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
