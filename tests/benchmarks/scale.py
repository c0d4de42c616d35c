"""The part `scale`: what commands cost at their start with a cache of 1,000,000 videos."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from lus_cli.config import PrepareConfig
from tests.benchmarks.large_caches import pretend_prepared, write_large_cache, write_large_study
from tests.benchmarks.measured import Measured, Rows
from tests.benchmarks.processes import command

FEW, MANY = 100, 1_000_000
FILES = 100_000
# Each ends when it reads the first pixel, which is not stored. So what is measured is its start.
COMMANDS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate",),
    "attention": ("attention", "--frame", "P000003/1/3/5"),
    "train": ("train", "--recipe", "paper", "--weights", "none", "--run", "new"),
    "crossval": ("crossval", "--recipe", "paper", "--weights", "none", "--run", "new-cv"),
}
GOALS = {"open_s": 5.0, "open_mb": 500.0}


def measure(folder: Path) -> Measured:
    starts = {
        videos: {
            name: start_of(*words, "--device", "cpu", "--cache", cache)
            for name, words in COMMANDS.items()
        }
        for videos in (FEW, MANY)
        for cache in [write_large_cache(folder / str(videos), videos).root]
    }
    more = {
        name: [many - few for few, many in zip(starts[FEW][name], starts[MANY][name], strict=True)]
        for name in COMMANDS
    }
    rows = [(name, f"{seconds:.1f} s", f"{mb:.0f} MB") for name, (seconds, mb) in more.items()]
    seconds = prepare_again(folder)
    rows.append((f"prepare, {FILES:,} video files, nothing new", f"{seconds:.1f} s in all", ""))
    figures = {
        "open_s": {name: round(seconds, 2) for name, (seconds, _) in more.items()},
        "open_mb": {name: round(mb) for name, (_, mb) in more.items()},
        "nothing_new_s": round(seconds, 1),
        "videos": MANY,
    }
    title = (
        f"{MANY:,} videos against {FEW}: more until the first pixel (time of the cores; peak memory); "
        f"goals: {GOALS['open_s']:g} s, {GOALS['open_mb']:g} MB, and 20 s for prepare"
    )
    return Measured({"scale": figures}, [Rows(title, ("", "time", "memory"), rows)])


def start_of(*arguments: str | Path) -> tuple[float, float]:
    """Seconds of the cores, and peak memory in 1e6 bytes, of a lus command that fails."""
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if "a chunk is missing" not in said:
        raise RuntimeError(f"{' '.join(map(str, arguments))} did not reach the pixels: {said}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def prepare_again(folder: Path) -> float:
    """Seconds of `lus prepare` with nothing to do, after one that drew the figures."""
    study = write_large_study(folder / "study", FILES)
    cache = folder / "prepared"
    pretend_prepared(PrepareConfig(exams=study, cache=cache))
    began = time.perf_counter()
    subprocess.run(
        command("prepare", study, "--cache", cache, "--dry-run"), check=True, capture_output=True
    )
    return time.perf_counter() - began
