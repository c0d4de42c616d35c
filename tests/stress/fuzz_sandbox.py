"""Runs cases in a child process that is watched: for time, for memory, for what it writes.

A case that hangs, or that a C library dies of, costs a child, not the program.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lus_cli.errors import LusError

SECONDS = 10.0  # of the processor's time, or PATIENCE times as many that pass by
PATIENCE = 6  # the machine may be busy with other things
MOST_BYTES = 2 * 10**9
LOOK_EVERY_S = 0.05
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What Python tells an audit hook before files change, and which of its arguments are their paths.
CHANGING = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.chmod"), (0,)),
    **dict.fromkeys(("os.symlink", "os.link"), (1,)),
    "os.rename": (0, 1),
    "shutil.rmtree": (0,),
}
EXECUTING = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")

# Does something with hostile input, and may write below the folder it is given.
Case = Callable[[Path], None]


class WrongError(Exception):
    """Spoiled input gave another answer than sound input, and nobody was told."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `read`, `refused`, or else a finding."""

    what: str
    detail: str = ""
    seconds: float = 0.0  # of the processor's time
    peak: int = 0  # resident bytes of its child so far

    @property
    def is_finding(self) -> bool:
        return self.what not in ("read", "refused")


def run_all(cases: Sequence[Case], folder: Path) -> Iterator[Outcome]:
    """The outcome of each case, in order; `folder` is made and emptied as needed."""
    done = 0
    while done < len(cases):
        with contextlib.closing(Child(cases[done:], folder)) as child:
            for outcome in child.outcomes():
                yield outcome
                done += 1


class Child:
    """A forked process that works through cases until one of them is its end."""

    def __init__(self, cases: Sequence[Case], folder: Path) -> None:
        self.cases, self.folder = cases, folder
        self.here, there = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")
        self.process: BaseProcess = context.Process(target=work, args=(cases, folder, there))
        self.process.start()
        there.close()

    def outcomes(self) -> Iterator[Outcome]:
        for _ in self.cases:
            outcome = self.next_outcome()
            yield outcome
            if outcome.what in ("hang", "memory", "died"):
                return

    def next_outcome(self) -> Outcome:
        started = time.monotonic()
        self.spent = processor_seconds(self.process.pid)
        while True:
            seconds = time.monotonic() - started
            try:
                if self.here.poll(LOOK_EVERY_S):
                    outcome: Outcome = self.here.recv()
                    return outcome
            except EOFError:
                self.process.join()
                return Outcome("died", f"exit code {self.process.exitcode}", seconds)
            if processor_seconds(self.process.pid) - self.spent > SECONDS or (
                seconds > SECONDS * PATIENCE
            ):
                return Outcome("hang", f"longer than {SECONDS:.0f} s", seconds)
            if (size := resident(self.process.pid)) > MOST_BYTES:
                return Outcome("memory", f"{size / 1e9:.1f} GB", seconds, size)

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.here.close()


def processor_seconds(pid: int | None) -> float:
    """What another process has had of the processor; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int | None) -> int:
    """The resident bytes of another process; 0 where the system does not say."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# -------------------------------------------------------------------------------------- the child


def work(cases: Sequence[Case], folder: Path, there: Connection) -> None:
    os.nice(5)
    null = os.open(os.devnull, os.O_WRONLY)  # C libraries write to the terminal what they find
    os.dup2(null, 1)
    os.dup2(null, 2)
    guard = Guard(f"{folder.resolve()}{os.sep}")
    sys.addaudithook(guard)
    for case in cases:
        there.send(attempt(case, folder, guard))
    os._exit(0)  # nothing of the parent's is to be tidied up twice


def attempt(case: Case, folder: Path, guard: Guard) -> Outcome:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    guard.broken = ""
    started = time.process_time()
    what, detail = "read", ""
    try:
        case(folder)
    except LusError as error:
        what, detail = "refused", str(error)
        if len(detail.splitlines()) != 1 or len(detail) > 4000:
            what = "no single line"
    except WrongError as error:
        what, detail = "wrong", str(error)
    except BaseException as error:
        what, detail = "traceback", described(error)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    if guard.broken:
        what, detail = "forbidden", guard.broken
    elif seconds > SECONDS:
        what = "hang"
    elif peak > MOST_BYTES:
        what, detail = "memory", f"{peak / 1e9:.1f} GB"
    return Outcome(what, detail[:300], seconds, peak)


def described(error: BaseException) -> str:
    """The exception, and where lus was when it came."""
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "lus_cli" in frame.filename
    ]
    return f"{type(error).__name__} at {' > '.join(places[-2:])}: {str(error)[:150]!r}"


@dataclass
class Guard:
    """An audit hook that notes what changes files outside one folder, and what is executed."""

    allowed: str
    broken: str = ""

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.broken:
            return
        if event == "open" and isinstance(args[2], int) and args[2] & WRITING:
            self.check(args[0])
        elif event in CHANGING and args[-1] in (-1, None):  # else a part of a tree that is removed
            for place in CHANGING[event]:
                self.check(args[place])
        elif event in EXECUTING and "git" not in str(args[:2]):  # a run notes its commit
            self.broken = f"{event} {args[:2]!r}"

    def check(self, path: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return  # a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        if not real.startswith(self.allowed) and real not in (os.devnull, self.allowed[:-1]):
            self.broken = f"writes to {real}"
