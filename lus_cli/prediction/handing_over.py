"""What an exported folder holds besides the ONNX files, so that others can use and check the model."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lus_cli.cache import preprocess, sector
from lus_cli.cache.split import Split, write_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.evaluation.model_card import start_of
from lus_cli.files import write_text
from lus_cli.model.checkpoint import save_best
from lus_cli.prediction.installation import TOLERANCE, test_video
from lus_cli.prediction.models import BEST
from lus_cli.prediction.scorer import fitted_temperature, scorer_of
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.trained_run import TrainedModel
from lus_cli.training.training_videos import (
    FILE,
    read_used_videos,
    used_videos,
    write_used_videos,
)

FIELDS = ("stride", "frames_per_video", "windows", "window_frames", "whole_video", "scan_lines")


def preprocessing(trained: TrainedModel, exactly: int) -> dict[str, Any]:
    """The settings of preprocess.py. exactly: the frames that model.onnx takes; 0: any number."""
    recipe = {name: getattr(trained.card.recipe, name) for name in FIELDS}
    return asdict(trained.card.frame_format) | recipe | {"exactly": exactly}


def write_weights(folder: Path, trained: TrainedModel) -> None:
    """Writes best.safetensors, without the folder of the weights that the CNN started from."""
    recipe: Recipe = trained.card.recipe
    recipe = replace(recipe, weights=start_of(recipe.weights))
    save_best(folder / BEST, trained.model.state_dict(), replace(trained.card, recipe=recipe))


def write_preprocessing(folder: Path) -> None:
    """Copies preprocess.py and sector.py, which then import each other instead of lus."""
    text = Path(preprocess.__file__).read_text(encoding="utf-8")
    alone, changed = re.subn(r"^from lus_cli\.cache\.sector ", "from sector ", text, flags=re.M)
    assert changed == 1
    write_text(folder / "preprocess.py", alone)
    shutil.copyfile(sector.__file__, folder / "sector.py")


def write_training_videos(folder: Path, trained: TrainedModel, name_patients: bool) -> bool:
    """Writes the checksums of the training videos and, on request, the patients of each part.

    Returns whether the checksums are known.
    """
    study = trained.home.cache.videos
    uses: dict[str, str] = {}
    if study.is_file() and (videos := VideoCache(study)).fingerprint == trained.card.fingerprint:
        uses = used_videos(videos, trained.split)
    uses = uses or read_used_videos(trained.home)
    if uses:
        write_used_videos(folder / FILE, uses)
    split = trained.split
    if name_patients and split.train:
        write_split(folder / "split.json", Split(split.train, split.validation, split.test))
    return bool(uses)


def temperature_of(trained: TrainedModel) -> dict[str, Any] | None:
    """The temperature that `lus evaluate` fitted, as scores.json holds it; None if there is none."""
    fitted = fitted_temperature(trained.home, trained.weights)
    if fitted is None:
        return None
    on = {"videos": fitted.videos, "patients": fitted.patients}
    return {"value": fitted.value, "fitted_on": on}


def expected_prediction(folder: Path, trained: TrainedModel) -> dict[str, Any]:
    """What the model, on the CPU, predicts for the test video in the folder."""
    device = next(trained.model.parameters()).device
    scorer = scorer_of(trained, device, temperature=False, mask_text=None)
    prediction, _ = scorer.score(test_video(folder))
    return {"probabilities": list(prediction.probabilities), "tolerance": TOLERANCE}
