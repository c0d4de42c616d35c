"""Commands of lus with several processes, started by torchrun on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE_S = 300  # for a machine that does other work, too


def started(processes: int, *arguments: str) -> subprocess.Popen[str]:
    """`torchrun -m -- lus_cli ...` on a free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "--", "lus_cli", *arguments]
    environment = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def ended(running: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        out, err = running.communicate(timeout=PATIENCE_S)
    except BaseException:
        running.terminate()  # and torchrun its processes
        with contextlib.suppress(subprocess.TimeoutExpired):  # its children may hold the pipes open
            running.communicate(timeout=30)
        running.kill()
        raise
    return subprocess.CompletedProcess(running.args, running.returncode, out, err)


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ended(started(processes, *arguments))


def lines_of_lus(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The errors that lus printed: torchrun adds its own report."""
    return [line for line in done.stderr.splitlines() if line.startswith("error ")]


def processes_of(running: subprocess.Popen[str]) -> dict[int, int]:
    """The process id of each rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
            if parent == running.pid:
                environment = dict(
                    entry.split("=", 1)
                    for entry in (folder / "environ").read_text().split("\0")
                    if "=" in entry
                )
                found[int(environment["RANK"])] = int(folder.name)
        except (OSError, KeyError, ValueError):
            continue
    return found


def killed_when(
    running: subprocess.Popen[str],
    begun: Callable[[], bool],
    rank: int,
    how: signal.Signals = signal.SIGKILL,
) -> subprocess.CompletedProcess[str]:
    """Kills one process as soon as `begun` returns True, and returns how all ended."""
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not begun():
            assert running.poll() is None, "it ended before it began"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(processes_of(running)[rank], how)
    except BaseException:
        running.kill()
        raise
    return ended(running)


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The relative path and the bytes of each file in a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()
