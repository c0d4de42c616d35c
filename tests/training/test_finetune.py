"""The recipe `finetune`: its CNN is trained in bf16 with every augmentation, on a CPU, too."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lus_cli.cache.batches import BatchLoader
from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import TrainConfig
from lus_cli.model.checkpoint import load_best, new_model
from lus_cli.options import build, read_toml
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.recipes.shipped import recipe_path
from lus_cli.steps import train
from lus_cli.training.augmentation import AUGMENTATIONS, augmentations_of
from lus_cli.training.checks import check_recipe
from lus_cli.training.trainer import Trainer
from tests.conftest import check_same_training


def finetune(cache: Path, **changes: Any) -> TrainConfig:
    """The recipe with two windows of the small frames as they lie, which a CPU trains in seconds."""
    values = read_toml(recipe_path("finetune")) | {"device": "cpu", "threads": 1}
    values |= {"windows": 2, "scan_lines": False, "epochs": 2, "batch_size": 4}
    return dataclasses.replace(build(TrainConfig, values | changes), cache=cache)


@pytest.fixture
def cache(prepared: Path, tmp_path: Path) -> Path:
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, tmp_path / name)
    return tmp_path


def test_the_recipe_trains_the_cnn_of_the_default_one_with_every_augmentation() -> None:
    recipe, default = build(Recipe, read_toml(recipe_path("finetune"))), build(Recipe, {})
    check_recipe(recipe)
    assert not recipe.freeze
    assert (recipe.backbone, recipe.weights) == ("efficientnet_lite0", "imagenet")
    assert augmentations_of(recipe) == [*AUGMENTATIONS]
    for name in ("windows", "scan_lines", "feature_norm", "projection", "attention_mask", "loss"):
        assert getattr(recipe, name) == getattr(default, name)


class StoppedError(Exception):
    pass


def test_the_cnn_is_trained_and_resumed_bit_for_bit(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lus.train")
    train.run(finetune(cache, run="whole"), silent)
    assert [m for m in caplog.messages if "per epoch: up to" in m and "for 2 epochs" in m]

    def stop(task: str, done: int, _total: int | None = None, **_facts: object) -> None:
        if task == "epoch 2" and done > 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train.run(finetune(cache, run="broken"), stop)
    train.run(finetune(cache, run="broken", resume=True), silent)
    whole, broken = Cache(cache).run("whole"), Cache(cache).run("broken")
    check_same_training(whole, broken)

    pretrained = new_model(finetune(cache)).backbone
    trained = load_best(whole.best)[0].backbone
    convolutions = [
        (before.weight, after.weight)
        for before, after in zip(pretrained.modules(), trained.modules(), strict=True)
        if isinstance(before, nn.Conv2d) and isinstance(after, nn.Conv2d)
    ]
    assert len(convolutions) > 40
    assert all(not torch.equal(before, after) for before, after in convolutions)


def test_the_loss_falls_on_a_few_videos(prepared: Path) -> None:
    """Without what makes single losses noisy: dropout and augmentation. In bf16, in six steps."""
    off = dict.fromkeys(AUGMENTATIONS, 0.0) | {
        "flip": False,
        "dropout": 0.0,
        "feature_dropout": 0.0,
    }
    config = finetune(prepared, **off, warmup_epochs=0, learning_rate=0.01, schedule="constant")
    torch.manual_seed(config.seed)
    loader = BatchLoader(VideoCache(prepared / "videos.h5"), config)
    trainer = Trainer(new_model(config), loader, [0, 4, 9, 14], lambda _event: None)
    losses = [trainer.epoch(epoch, silent)["train_loss"] for epoch in range(1, 7)]
    assert losses[-1] < 0.6 * losses[0]
    assert trainer.model.precision == torch.bfloat16
