"""Many short videos through the pipeline: whether time is linear in them and memory flat.

`python -m tests.stress.load [--sizes 20,200,2000,20000] [--folder KEPT]`. Each command is run as a user
runs it. Its start-up is the time to its first line of progress, its memory that of all its processes
together.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

SIZES = (20, 200, 2000, 20_000)
CONSOLE = Console(soft_wrap=True, markup=False, highlight=False)
RESULTS = Path("cache/stress")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
LINEAR = 1.15  # the largest exponent of time over size that is called linear
FLAT_MB = 400  # by how much memory may grow over the largest decade
CPU = ["--device", "cpu", "--threads", "1"]
RECIPE = ["--weights", "none", "--feature-stride", "8", "--epochs", "1", "--batch-size", "32"]
RECIPE += ["--frames-per-video", "2", "--hidden", "16", "--run", "load"]


@dataclass
class Cost:
    """What a command took over a study of so many videos."""

    command: str
    videos: int
    seconds: float
    startup: float  # seconds to the first line of progress
    peak_mb: float  # of all its processes together
    made_mb: float  # how much larger the cache is afterwards


def commands(videos: int, cache: Path) -> dict[str, list[str]]:
    patients = min(1000, max(10, videos // 10))
    study = ["--patients", str(patients), "--videos", str(videos), "--size", "32"]
    return {
        "phantom": [str(cache / "exams"), *study, "--max-frames", "4"],
        "prepare": ["--size", "32", "--workers", "2"],
        "prepare again": ["--size", "32", "--workers", "2"],
        "train": [*RECIPE, *CPU],
        "evaluate": [*CPU],
        "evaluate all": [*CPU, "--split", "all"],
    }


def measured(name: str, words: Sequence[str], videos: int, cache: Path) -> Cost:
    """Runs a command. Raises RuntimeError if it fails."""
    before, begun = size_of(cache), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "lus_cli", name.split()[0], *words, "--cache", str(cache)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    peak = [0.0]
    sampler = threading.Thread(target=sample, args=(process, peak))
    sampler.start()
    startup, lines = math.nan, list[str]()
    assert process.stderr is not None
    for line in process.stderr:
        startup = time.perf_counter() - begun if math.isnan(startup) else startup
        lines = [*lines[-20:], line]
    code = process.wait()
    seconds = time.perf_counter() - begun
    sampler.join()
    if code:
        raise RuntimeError(f"lus {name} over {videos} videos: {''.join(lines)}")
    made = (size_of(cache) - before) / 1e6
    return Cost(name, videos, round(seconds, 2), round(startup, 2), round(peak[0], 1), made)


def sample(process: subprocess.Popen[str], peak: list[float]) -> None:
    """Keeps the largest memory, MB, that the process and its workers held together."""
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(resident_kb, session(process.pid))) / 1024)
        time.sleep(0.1)


def session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def resident_kb(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KB
    except OSError:
        return 0


def size_of(folder: Path) -> int:
    """Bytes of a cache, without the exams."""
    return sum(
        path.stat().st_size
        for place in ("videos.h5", "runs", "figures")
        for path in [folder / place, *(folder / place).rglob("*")]
        if path.is_file()
    )


# ------------------------------------------------------------------------------------- what is found


def exponent(costs: Sequence[Cost]) -> float:
    """Of time over size, between the two largest studies."""
    small, large = costs[-2:]
    return math.log(large.seconds / small.seconds) / math.log(large.videos / small.videos)


def findings(by_command: dict[str, list[Cost]]) -> list[str]:
    """What is not linear in time, or not flat in memory."""
    found = []
    for name, costs in by_command.items():
        if len(costs) < 2:
            continue
        if exponent(costs) > LINEAR:
            found.append(f"{name}: time grows as videos to the power of {exponent(costs):.2f}")
        more = costs[-1].peak_mb - costs[-2].peak_mb
        if more > FLAT_MB:
            found.append(f"{name}: {more:.0f} MB more memory for {costs[-1].videos} videos")
    return found


def draw(by_command: dict[str, list[Cost]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    titles = {"seconds": "time, s", "startup": "start-up, s", "peak_mb": "peak memory, MB"}
    for ax, (field, title) in zip(axes, titles.items(), strict=True):
        for name, costs in by_command.items():
            ax.loglog(
                [c.videos for c in costs], [getattr(c, field) for c in costs], "o-", label=name
            )
        ax.set(xlabel="videos", title=title)
        ax.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sizes", default=",".join(map(str, SIZES)))
    options.add_argument("--folder", type=Path, help="Where to keep the caches.")
    given = options.parse_args()
    by_command: dict[str, list[Cost]] = {}
    CONSOLE.print(
        f"{'command':<16}{'videos':>8}{'s':>9}{'start-up':>10}{'peak MB':>9}{'made MB':>9}"
    )
    with tempfile.TemporaryDirectory(prefix="lus-load-") as name:
        for videos in map(int, given.sizes.split(",")):
            cache = (given.folder or Path(name)) / str(videos)
            for command, words in commands(videos, cache).items():
                cost = measured(command, words, videos, cache)
                by_command.setdefault(command, []).append(cost)
                CONSOLE.print(
                    f"{command:<16}{videos:>8}{cost.seconds:>9.1f}{cost.startup:>10.1f}"
                    f"{cost.peak_mb:>9.0f}{cost.made_mb:>9.1f}"
                )
    found = findings(by_command)
    CONSOLE.print("\n".join(found))
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {name: list(map(asdict, costs)) for name, costs in by_command.items()}
    (RESULTS / "load.json").write_text(json.dumps({"costs": content, "found": found}, indent=2))
    draw(by_command, RESULTS / "load.png")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
