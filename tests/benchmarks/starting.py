"""The part `start`: how long short commands take, next to loading PyTorch and torchvision alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from tests.benchmarks.large_caches import write_untrained_run
from tests.benchmarks.measured import Measured, Rows, middle, spread_of
from tests.benchmarks.processes import command, cpu_of_children, lus
from tests.benchmarks.studies import make_study, phantom_frames

ROUNDS = 5
VIDEOS, LENGTH = 50, 100
VIDEO = "p0/0/0"
GOALS = {"predict": 1.6, "attention": 1.3, "evaluate": 2.0, "prepare_s": 0.6}
LOADING = [sys.executable, "-c", "import torch, torchvision"]


def measure(folder: Path) -> Measured:
    """Every round runs each command once, so that a busy minute slows all of them."""
    frames = phantom_frames(folder / "phantom", 200)
    study = make_study(folder / "study", frames, VIDEOS, LENGTH)
    cache = Cache(folder / "cache")
    lus("prepare", study, "--cache", cache.root, "--size", "224")
    videos = VideoCache(cache.videos)
    write_untrained_run(cache, videos, read_split(cache.split, videos.patients)[0], "standard")
    single = make_study(folder / "single", frames, 10, 1)
    # One thread, as for loading alone: several wait for each other where the machine is shared.
    there = ("--cache", cache.root, "--device", "cpu", "--threads", "1")
    commands = {
        "predict": ("predict", study / VIDEO, *there),
        "attention": ("attention", "--frame", f"{VIDEO}/5", *there),
        "evaluate": ("evaluate", "--split", "all", *there),
    }
    ratios: dict[str, list[float]] = {name: [] for name in commands}
    of_cores: dict[str, list[float]] = {name: [] for name in commands}
    prepare: list[float] = []
    for number in range(ROUNDS):
        loading = seconds_of(LOADING)
        for name, words in commands.items():
            wall, cores = seconds_of(command(*words))
            ratios[name].append(wall / loading[0])
            of_cores[name].append(cores / loading[1])
        prepare.append(lus("prepare", single, "--cache", folder / f"single {number}"))
    figures = {name: middle(values) for name, values in ratios.items()}
    figures["prepare_s"] = middle(prepare)
    figures |= {f"{name}_of_cores": middle(values) for name, values in of_cores.items()}
    every = {**ratios, "prepare_s": prepare}
    rows = [
        (name, f"{middle(values):.2f}", spread_of(values), f"{GOALS[name]:g}")
        for name, values in every.items()
    ]
    title = (
        f"start: ratios to `import torch, torchvision`, `lus prepare` of ten frames in s, "
        f"{ROUNDS} rounds"
    )
    return Measured(
        {"start": figures}, [Rows(title, ("", "median", "rounds", "goal: at most"), rows)]
    )


def seconds_of(words: Sequence[str]) -> tuple[float, float]:
    """Runs a command; seconds that pass, and seconds of all cores."""
    began, used = time.perf_counter(), cpu_of_children()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - began, cpu_of_children() - used
