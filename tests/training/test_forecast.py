"""How long a run takes is said in its first epoch, from its own steps."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.video_cache import VideoCache
from lus_cli.model.checkpoint import new_model
from lus_cli.model.ranks import ALONE
from lus_cli.options import build
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.training import forecast
from lus_cli.training.feature_cache import FeatureLoader
from lus_cli.training.forecast import Forecast, faster
from lus_cli.training.scoring import seconds_per_picture
from lus_cli.training.tally import Tally
from lus_cli.training.trainer import Trainer
from tests.conftest import tiny

NONE = build(Recipe, {})


def trainer_of(cache: Path, videos: int = 8, **changes: Any) -> Trainer:
    """Videos of 3 pictures each, two per step."""
    config = tiny(cache, batch_size=2, **changes)
    loader = BatchLoader(VideoCache(cache / "videos.h5"), config)
    return Trainer(new_model(config), loader, list(range(videos)), lambda _event: None)


def test_one_line_before_the_first_epoch_is_over(
    prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock of 2 s per reading: each step and each wait takes 2 s, for 6 pictures."""
    caplog.set_level(logging.INFO, "lus.train")
    trainer = trainer_of(prepared, epochs=60, patience=10)
    trainer.clock = itertools.count(0.0, 2.0).__next__  # type: ignore[method-assign]
    after: list[int] = []
    said = Forecast(trainer, range(12, 18), 0)

    def listening(tally: Tally) -> None:
        said(tally)
        after.append(len(caplog.records))

    trainer.epoch(1, silent, listening)
    assert after == [0, 0, 1, 1]  # after the third of four steps
    # (24 + 18 / 3) pictures of 1/3 s; all 42 pictures are waited for once.
    assert caplog.messages == [
        "about 10 s per epoch: up to 10 min for 60 epochs; early stopping may end it sooner"
    ]
    trainer.epoch(2, silent, listening)
    assert len(caplog.messages) == 1


def test_the_first_step_warms_up_and_does_not_count(
    prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lus.train")
    said = Forecast(trainer_of(prepared, epochs=10), [], 0)
    for tally in (
        Tally(frames=6, stepped_s=500.0, waited_s=500.0),
        Tally(frames=12, stepped_s=501.0, waited_s=500.0),
        Tally(frames=18, stepped_s=502.0, waited_s=500.0),
    ):
        said(tally)
    assert caplog.messages == ["about 4 s per epoch: 40 s for 10 epochs"]


@pytest.mark.parametrize(("videos", "expected"), [(4, "about 2 s"), (2, "about 5 s")])
def test_an_epoch_of_few_steps_is_estimated_from_what_there_is(
    prepared: Path, caplog: pytest.LogCaptureFixture, videos: int, expected: str
) -> None:
    caplog.set_level(logging.INFO, "lus.train")
    said = Forecast(trainer_of(prepared, videos), [], 0)
    for tally in (Tally(frames=6, stepped_s=5.0), Tally(frames=12, stepped_s=6.0))[: videos // 2]:
        said(tally)
    assert [message.partition(" per epoch")[0] for message in caplog.messages] == [expected]


def test_a_resumed_run_counts_the_epochs_that_are_left(prepared: Path) -> None:
    trainer = trainer_of(prepared, epochs=60)
    (line,) = Forecast(trainer, [], 48).lines(step_s=1.0, wait_s=0.0)
    assert line == "about 24 s per epoch: 4.8 min for 12 more epochs"


def test_pictures_that_are_drawn_in_every_epoch_are_waited_for_in_every_epoch(
    prepared: Path,
) -> None:
    trainer = trainer_of(prepared, epochs=10)
    trainer.loader.load([0, 1])
    (line,) = Forecast(trainer, [], 0).lines(step_s=1.0, wait_s=1.0)
    assert line == "about 24 s per epoch: 4.4 min for 10 epochs"  # 11 x 24 s
    trainer.loader.room = 0  # nothing more is kept
    (line,) = Forecast(trainer, [], 0).lines(step_s=1.0, wait_s=1.0)
    assert line == "about 48 s per epoch: 8 min for 10 epochs"
    (line,) = Forecast(trainer_of(prepared, epochs=10, jitter=True), [], 0).lines(1.0, 1.0)
    assert line == "about 48 s per epoch: 8 min for 10 epochs"


def test_over_an_hour_the_remedy_is_named(prepared: Path) -> None:
    trainer = trainer_of(prepared, epochs=60)
    assert len(Forecast(trainer, [], 0).lines(step_s=2.4, wait_s=0.0)) == 1
    line, remedy = Forecast(trainer, [], 0).lines(step_s=9.0, wait_s=0.0)
    assert line == "about 3.6 min per epoch: 3.6 h for 60 epochs"
    assert remedy.startswith("--recipe standard takes minutes")


def test_the_remedy_is_one_that_this_recipe_does_not_have() -> None:
    assert "--windows 6" in faster(dataclasses.replace(NONE, windows=0), 130.4)
    assert "instead of 130" in faster(dataclasses.replace(NONE, windows=0), 130.4)
    assert "--windows" not in faster(dataclasses.replace(NONE, windows=0), 4.0)
    lengthy = dataclasses.replace(NONE, windows=6, window_frames=4)
    assert faster(lengthy, 63.0).startswith("--windows 6 --window-frames 0 takes less: 6 pictures")
    assert "--windows 6 takes less" in faster(dataclasses.replace(NONE, windows=40), 40.0)
    assert "--windows" not in faster(dataclasses.replace(NONE, windows=6, whole_video=True), 7.0)
    assert "--feature-cache float16" in faster(dataclasses.replace(NONE, feature_cache="none"), 6)
    assert "--recipe standard" in faster(dataclasses.replace(NONE, freeze=False), 6)
    assert "--recipe" not in faster(NONE, 6)


def test_the_feature_maps_are_estimated_once_from_the_first_five(
    prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lus")
    torch.manual_seed(0)
    config = tiny(prepared, freeze=True)
    videos = VideoCache(prepared / "videos.h5")
    model, device = new_model(config).eval(), torch.device("cpu")
    loader = FeatureLoader(videos, config, device, model, tmp_path)
    loader.fill(range(12), [], ALONE, silent, itertools.count(0.0, 600.0).__next__)
    first, *more = [message for message in caplog.messages if "about" in message]
    assert first == "feature maps of 12 videos: about 24 min, once"  # 5 of 12 took 10
    assert more == []
    caplog.clear()
    loader.fill(range(17), [], ALONE, silent, itertools.count(0.0, 3600.0).__next__)
    assert not [message for message in caplog.messages if "about" in message]  # only five are left
    other = FeatureLoader(videos, config, device, model, tmp_path / "other")
    other.fill(range(6), [], ALONE, silent, itertools.count(0.0, 3600.0).__next__)
    assert caplog.messages[-3:-1] == [
        "feature maps of 6 videos: about 1.2 h, once",
        "fewer --epochs or --members take less",
    ]


def test_a_crossval_says_how_long_all_its_runs_take(prepared: Path) -> None:
    trainer = trainer_of(prepared, epochs=60)
    (line,) = Forecast(trainer, [], 0, runs=5).lines(step_s=0.1, wait_s=0.0)
    assert (
        line
        == "about 2.4 s per epoch: 2.4 min for 60 epochs; 5 such runs: about 12 min, scoring not "
        "included"
    )


@pytest.mark.parametrize(
    ("scoring_s", "lines"),
    [
        (0.1, []),
        (0.2, ["judging by one video, roughly 14 s per epoch: 14 min for 60 epochs"]),
    ],
)
def test_a_rough_estimate_comes_before_slow_steps(
    prepared: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    scoring_s: float,
    lines: list[str],
) -> None:
    """Three steps of 6 pictures, each picture three times the time of scoring it: 5.4 s and 10.8 s."""
    caplog.set_level(logging.INFO, "lus.train")
    monkeypatch.setattr(forecast, "seconds_per_picture", lambda *_: scoring_s)
    trainer = trainer_of(prepared, epochs=60)
    Forecast(trainer, [], 0).rough(trainer)
    assert caplog.messages == lines


def test_timing_a_picture_changes_nothing_that_training_depends_on(prepared: Path) -> None:
    trainer = trainer_of(prepared, backbone="shufflenet_v2_x1_0")
    trainer.train_mode()
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    random = torch.get_rng_state()
    seconds = seconds_per_picture(trainer.model, trainer.loader, trainer.indices, trainer.pad_to)
    assert seconds > 0
    assert trainer.model.training
    assert torch.equal(torch.get_rng_state(), random)
    after = trainer.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
