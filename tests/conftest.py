"""Studies that the tests share. Real JPEGs, real HDF5, the real model, only small."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from lus_cli.config import PhantomConfig, PrepareConfig, TrainConfig, build
from lus_cli.steps import phantom, prepare, silent

COVID_BLUES = Path(__file__).parents[2] / "shared" / "covid-blues"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small models are slower on several threads, and sums then depend on how many there are."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def exams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom study: read it, do not change it."""
    root = tmp_path_factory.mktemp("study") / "exams"
    config = PhantomConfig(root=root, patients=6, videos=18, size=64, max_frames=20, workers=1)
    phantom.run(config, silent)
    return root


@pytest.fixture(scope="session")
def prepared(exams: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of that study: read it, do not change it."""
    cache = tmp_path_factory.mktemp("prepared")
    prepare.run(PrepareConfig(exams=exams, cache=cache, size=64, workers=1), silent)
    return cache


def tiny(cache: Path, **changes: Any) -> TrainConfig:
    """The recipe `paper`, from scratch, over few and small frames and few epochs."""
    values: dict[str, Any] = {"weights": "none", "feature_stride": 16, "epochs": 2}
    values |= {"frames_per_video": 3, "device": "cpu", "threads": 1}
    return dataclasses.replace(build(TrainConfig, values), cache=cache, **changes)


@pytest.fixture(scope="session")
def covid_blues() -> Path:
    if not COVID_BLUES.is_dir():
        pytest.skip(f"the COVID-BLUES videos are not at {COVID_BLUES}")
    return COVID_BLUES
