"""The order of a recipe's fields in help and in TOML files: panels, what everyone sets first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# Panel -> fields of Recipe, and names of other options of the commands that train.
PANELS: dict[str, tuple[str, ...]] = {
    "Run": (
        "recipe", "config", "epochs", "patience", "seed", "repeats", "fold", "baselines", "permutations",
        "run", "resume", "dry_run", "name", "cache",
    ),
    "Model": (
        "backbone", "weights", "freeze", "members", "leave_out", "decision", "hidden", "pool",
        "attention", "attention_channels", "attention_mask", "dropout", "feature_dropout",
        "projection", "feature_norm", "feature_stride", "feature_cache", "padding",
    ),
    "Loss": ("loss", "class_weights", "balanced_sampling"),
    "Optimisation": (
        "learning_rate", "learning_rate_cnn", "batch_size", "optimizer", "momentum", "weight_decay",
        "schedule", "warmup_epochs", "average", "clip_norm", "accumulate",
    ),
    "Frames": (
        "frames_per_video", "stride", "windows", "window_frames", "whole_video", "scan_lines",
        "standardize", "jitter", "flip", "gain", "shift", "gamma", "depth", "crop", "speckle",
        "augmented_copies",
    ),
    "Hardware": ("device", "precision", "checkpointing", "threads"),
    "Output": ("json", "quiet", "verbose", "help"),
}  # fmt: skip
OTHERS = "Options"  # the panel of what is in no other


def in_panels(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Panels and those of `names` that they hold; a name in no panel comes last, in Options."""
    left = list(names)
    for panel, fields in PANELS.items():
        if held := [name for name in fields if name in left]:
            yield panel, held
            left = [name for name in left if name not in held]
    if left:
        yield OTHERS, left
