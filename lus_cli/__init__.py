"""lus scores lung ultrasound videos from 0 to 3 and shows which regions the model attends to.

The names in `__all__` are imported when they are first used, so that `import lus_cli` costs nothing.
README.md in this folder has an example of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lus_cli.cache.video_dataset import VideoDataset, open_cache, pad_videos
    from lus_cli.errors import LusError
    from lus_cli.evaluation.assessment import metrics_with_intervals
    from lus_cli.prediction.prediction import Prediction
    from lus_cli.prediction.scorer import Scorer, load_model

__version__ = "0.1.0"

__all__ = [
    "LusError",
    "Prediction",
    "Scorer",
    "VideoDataset",
    "load_model",
    "metrics_with_intervals",
    "open_cache",
    "pad_videos",
]

# The module of each name.
MODULES = {
    "LusError": "errors",
    "Prediction": "prediction.prediction",
    "Scorer": "prediction.scorer",
    "VideoDataset": "cache.video_dataset",
    "load_model": "prediction.scorer",
    "metrics_with_intervals": "evaluation.assessment",
    "open_cache": "cache.video_dataset",
    "pad_videos": "cache.video_dataset",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use (PEP 562)."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
