"""The feature maps that the processes of a cross-validation share are those of a single process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval.plan import create
from lus_cli.progress import silent
from lus_cli.steps import crossval
from lus_cli.torchrun.group import Group
from tests.conftest import crossval_config, folded_study
from tests.torchrun.launching import contents


def test_shared_feature_maps_are_those_of_training(
    exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a CNN with batch norm, which computes other maps while it is trained."""
    cache = Cache(folded_study(exams, tmp_path))
    config = crossval_config(
        cache.root, freeze=True, backbone="resnet18", feature_stride=32, baselines=False
    )
    study, device = create(config, cache, VideoCache(cache.videos)), torch.device("cpu")
    alone = Group()
    for name in ("agreed", "gathered", "share", "whole"):  # as if this process had the share of all
        monkeypatch.setattr(Group, name, partial(getattr(Group, name), alone))
    crossval.fill_features(study, study.folds, device, Group(0, 2), silent)
    shared = dict(contents(cache.features))
    assert len(shared) == 18
    for path in cache.features.iterdir():
        path.unlink()
    for fold in study.folds:
        crossval.train_fold(study, fold, device, silent)
    assert dict(contents(cache.features)) == shared
