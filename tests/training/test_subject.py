"""What an evaluation knows of the training of its model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.model.checkpoint import Card, new_model
from lus_cli.training.subject import Subject
from lus_cli.training.trained_run import TrainedRun
from tests.conftest import tiny


@pytest.mark.parametrize(
    ("leave_out", "parts"), [(False, ["train"]), (True, ["train", "validation"])]
)
def test_training_scores_are_those_of_all_patients_the_model_was_trained_on(
    prepared: Path, leave_out: bool, parts: list[str]
) -> None:
    """Members that leave out patients in turn are trained on the validation patients, too."""
    cache, recipe = Cache(prepared), tiny(prepared, freeze=True, members=2, leave_out=leave_out)
    videos = VideoCache(cache.videos)
    split, _ = read_split(cache.split, videos.patients)
    card = Card(recipe, videos.frame_format, 20, 1, 1.0, videos.fingerprint)
    trained = TrainedRun(cache.new_run("run"), new_model(recipe), card, videos, split, "")
    patients = {patient for part in parts for patient in split.patients(part)}
    scores = [s for s, p in zip(videos.scores, videos.patients, strict=True) if p in patients]
    expected = np.bincount(scores, minlength=4).tolist()
    assert Subject(trained, "test", [0], trained).training_scores == expected
    assert Subject(trained, "test", [0], None).training_scores is None
