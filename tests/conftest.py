"""Studies that the tests share. Real JPEGs, real HDF5, the real model, only small."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lus_cli.cache.layout import Run
from lus_cli.config import CrossvalConfig, PhantomConfig, PrepareConfig, TrainConfig
from lus_cli.files import part_of
from lus_cli.model.checkpoint import load_last
from lus_cli.options import build, read_toml
from lus_cli.processes import cores
from lus_cli.progress import Result, silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.recipes.shipped import recipe_path
from lus_cli.steps import crossval, phantom, prepare

COVID_BLUES = Path(__file__).parents[2] / "shared" / "covid-blues"


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: a third of the time, tests wait for what they started."""
    return cores() + 1


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


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """As by another program that writes HDF5. Skips the test where there are no such locks."""
    fcntl = pytest.importorskip("fcntl")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


PAPER = read_toml(recipe_path("paper"))  # what the recipe `paper` changes


def dead_part(path: Path) -> Path:
    """Where a process that is dead by now would have written what was to become `path`."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    part = part_of(path)
    return part.with_name(part.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))


def tiny(cache: Path, **changes: Any) -> TrainConfig:
    """The recipe `paper`, from scratch, over few and small frames and few epochs."""
    values = PAPER | {"weights": "none", "feature_stride": 16, "epochs": 2}
    values |= {"frames_per_video": 3, "device": "cpu", "threads": 1}
    return dataclasses.replace(build(TrainConfig, values), cache=cache, **changes)


def check_same_training(one: Run, other: Run) -> None:
    """Asserts that two runs ended with the same metrics and the same weights, bit for bit."""
    assert one.epochs.read_bytes() == other.epochs.read_bytes()
    states = [load_last(run.last) for run in (one, other)]
    assert states[0] is not None
    assert states[1] is not None
    weights = [state["model"] for state in states if state is not None]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def crossval_config(cache: Path, **changes: Any) -> CrossvalConfig:
    recipe = {f.name: getattr(tiny(cache, epochs=1), f.name) for f in dataclasses.fields(Recipe)}
    same = {"cache": cache, "device": "cpu", "threads": 1, "permutations": 50, "baselines": False}
    return CrossvalConfig(**(recipe | same | changes))


def folded_study(exams: Path, folder: Path) -> Path:
    """A study of its own, three folds."""
    shutil.copytree(exams, folder / "exams")
    made = PrepareConfig(exams=folder / "exams", cache=folder, size=64, folds=3, workers=1)
    prepare.run(made, silent)
    return folder


@pytest.fixture(scope="session")
def crossvalidated(exams: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """`paper-cv-1`, a finished cross-validation, twice over: the cache folder, which nobody may
    change, and what the step gave."""
    cache = folded_study(exams, tmp_path_factory.mktemp("crossval"))
    return cache, crossval.run(crossval_config(cache, repeats=2), silent)


@pytest.fixture(scope="session")
def covid_blues() -> Path:
    if not COVID_BLUES.is_dir():
        pytest.skip(f"the COVID-BLUES videos are not at {COVID_BLUES}")
    return COVID_BLUES
