"""A command in a process tree of its own: how long it takes, and how much memory it peaks at."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

EVERY_S = 0.05


def lus(*arguments: str | Path) -> float:
    """Runs a lus command; the seconds from its start to its end, all that it does included."""
    return lus_times(*arguments)[0]


def lus_times(*arguments: str | Path) -> tuple[float, float]:
    """Runs a lus command; seconds that pass, and seconds of all cores, its workers' included."""
    began, used = time.perf_counter(), cpu_of_children()
    subprocess.run(command(*arguments), check=True, capture_output=True)
    return time.perf_counter() - began, cpu_of_children() - used


def cpu_of_children() -> float:
    """Seconds of all cores that processes started here, and ended, have taken."""
    times = os.times()
    return times.children_user + times.children_system


def peak_mb(*arguments: str | Path) -> float | None:
    """The most memory that a lus command and its processes ever hold, 1e6 bytes.

    Proportional set sizes, looked at every EVERY_S seconds: a page that processes share counts
    once. None where the system does not tell (it is Linux that does).
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    peak = 0
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(held, tree(process.pid))))
            time.sleep(EVERY_S)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return peak / 1e6


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "lus_cli", *map(str, arguments)]


def tree(process: int) -> list[int]:
    """A process and all that it started."""
    found, waiting = [], [process]
    while waiting:
        one = waiting.pop()
        found.append(one)
        try:
            tasks = list(Path(f"/proc/{one}/task").iterdir())
            for task in tasks:
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has just ended
    return found


def held(process: int) -> int:
    """The proportional set size of a process, bytes."""
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has just ended
    return 0
