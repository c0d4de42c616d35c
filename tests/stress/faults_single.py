"""One fault at a time, for every command: a full disk, a folder that cannot be written to, files that
vanish, a clock that goes backwards, two of a command at once."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.killing import Child, Ended
from tests.stress.artifacts import contents, faults_in
from tests.stress.faults_scenarios import Scenario

DAY = 86400
Finding = tuple[str, list[str], float]  # what was tried, what was wrong, seconds
Compare = Callable[[Path, Scenario], list[str]]


# ------------------------------------------------------------------- what befalls a process at first


@dataclass(frozen=True)
class SmallFiles:
    """No file may have more than so many bytes, as where a quota ends."""

    limit: int

    def __call__(self) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))


@dataclass(frozen=True)
class FailingWrites:
    """From the `number`-th time that it opens a file of `folder` to write, the disk says no."""

    folder: Path
    number: int
    code: int

    def __call__(self) -> None:
        count, root = 0, str(self.folder)

        def refuse(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            if event != "open" or not isinstance(args[0], (str, bytes, os.PathLike)):
                return
            writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if writes and os.fsdecode(args[0]).startswith(root):
                count += 1
                if count >= self.number:
                    raise OSError(self.code, os.strerror(self.code), os.fsdecode(args[0]))

        sys.addaudithook(refuse)


@dataclass(frozen=True)
class Vanishing:
    """When it opens the `number`-th file under `root`, the file `gone` of it is removed."""

    root: Path
    gone: Path
    number: int

    def __call__(self) -> None:
        count, root = 0, str(self.root)

        def remove(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
                count += os.fsdecode(args[0]).startswith(root)
                if count == self.number:
                    count += 1
                    self.gone.unlink(missing_ok=True)

        sys.addaudithook(remove)


@dataclass(frozen=True)
class Backwards:
    """The clock shows a day long ago."""

    days: int

    def __call__(self) -> None:
        true = time.time
        time.time = lambda: true() - self.days * DAY


# ------------------------------------------------------------------------------------- what is tried


def single_faults(
    scenarios: list[Scenario], folder: Path, until: float, compare: Compare, seed: int
) -> Iterator[Finding]:
    """Every fault on every scenario, until the time is over."""
    tried = {
        "disk full": disk_full,
        "small files only": small_files,
        "cannot be written to": read_only,
        "files vanish": vanishing,
        "clock backwards": backwards,
        "two at once": two_at_once,
    }
    for name, fault in tried.items():
        for scenario in scenarios:
            if time.monotonic() > until:
                return
            begun = time.perf_counter()
            draw = random.Random(f"{seed} {name} {scenario.name}")
            found = fault(scenario, folder / "here", compare, draw)
            yield f"{name}: {scenario.name}", found, time.perf_counter() - begun


def one_line(outcome: object, said: str, codes: tuple[int, ...] = (1,)) -> list[str]:
    """What is wrong with how a command ended that could not do its work."""
    code = outcome.code or 0 if isinstance(outcome, Ended) else outcome
    errors = [line for line in said.splitlines() if line.startswith("error ")]
    told = len(errors) == 1 or "\nleft out " in said  # the whole, or some of its videos
    if code not in codes or "Traceback" in said or (code and not told):
        return [f"ended with {code}: {said[-400:]!r}"]
    return []


# Without which a cache or a run is not read.
READ = ("videos.h5", "split.json", "best.safetensors", "config.toml", "last.pt")
# Written anew after every epoch, video or picture: whole each time, neither the first state nor the last.
GROWING = ("masks.h5", "last.pt", "best.safetensors", "epochs.csv", "drawn.json")


def stood(here: Path, scenario: Scenario) -> list[str]:
    """What of the old artifacts does not stand, or is not whole."""
    now = contents(here)
    lost = [name for name in scenario.old if name not in now]
    strange = [
        name
        for name, value in now.items()
        if value not in (scenario.old.get(name), scenario.goal.get(name))
        and not name.endswith(GROWING)
        and "/parts/" not in name
    ]
    found = [f"{name} is lost" for name in lost] + [f"not whole: {x}" for x in faults_in(here)]
    return found + [f"{name} is neither old nor new" for name in strange]


def again(here: Path, scenario: Scenario, compare: Compare) -> list[str]:
    command = scenario.command(here)
    outcome = Child(command).end()
    return one_line(outcome, command.said, (0,)) or [
        f"run again: {line}" for line in compare(here, scenario)
    ]


def disk_full(scenario: Scenario, here: Path, compare: Compare, draw: random.Random) -> list[str]:
    """On a real small disk where one may be mounted, else by refusing to open files."""
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    found: list[str] = []
    for share in (0.05, draw.uniform(0.1, 0.9)):
        files = [path for path in scenario.start.rglob("*") if path.is_file()]  # a folder is free
        old = sum(-(-path.stat().st_size // 4096) * 4 for path in files)
        new = sum(-(-len_of // 4096) * 4 for len_of in scenario.sizes)
        if not mounted(here, int(old + 64 + share * max(new - old, 64))):
            scenario.fresh(here)
            command = scenario.command(here, FailingWrites(here, 3, errno.ENOSPC))
        else:
            shutil.copytree(scenario.start, here, dirs_exist_ok=True)
            command = scenario.command(here)
        try:
            outcome = Child(command).end()
            if not (isinstance(outcome, Ended) and not outcome.code):
                found += one_line(outcome, command.said) + stood(here, scenario)
            if here.is_mount():
                mount("-o", "remount,size=500m", str(here))
            found += again(here, scenario, compare)
        finally:
            if here.is_mount():
                subprocess.run(["umount", str(here)], check=False)
    return found


def mounted(here: Path, kilobytes: int) -> bool:
    return mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(here))


def mount(*words: str) -> bool:
    try:
        return not subprocess.run(["mount", *words], capture_output=True, check=False).returncode
    except OSError:
        return False


def small_files(scenario: Scenario, here: Path, compare: Compare, draw: random.Random) -> list[str]:
    found = []
    for limit in (2500, draw.choice((4000, 8000, 100_000))):  # what a command says must fit, too
        scenario.fresh(here)
        command = scenario.command(here, SmallFiles(limit))
        outcome = Child(command).end()
        if not (isinstance(outcome, Ended) and not outcome.code):  # else its files are small
            found += one_line(outcome, command.said) + stood(here, scenario)
        found += again(here, scenario, compare)
    return found


def read_only(scenario: Scenario, here: Path, compare: Compare, draw: random.Random) -> list[str]:
    """A disk that turns read-only; refused opens where none can be mounted."""
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    if mounted(here, 500_000):
        shutil.copytree(scenario.start, here, dirs_exist_ok=True)
        mount("-o", "remount,ro", str(here))
        command = scenario.command(here)
    else:
        scenario.fresh(here)
        code = draw.choice((errno.EROFS, errno.EACCES))
        command = scenario.command(here, FailingWrites(here, 1, code))
    try:
        outcome = Child(command).end()
        found = one_line(outcome, command.said) + stood(here, scenario)
        if here.is_mount():
            mount("-o", "remount,rw", str(here))
        return found + again(here, scenario, compare)
    finally:
        if here.is_mount():
            subprocess.run(["umount", str(here)], check=False)


def vanishing(scenario: Scenario, here: Path, compare: Compare, draw: random.Random) -> list[str]:
    """Of what the command reads: the study, the video files or the cache."""
    roots = {"prepare": "exams", "attention": "exams", "import": "videos", "predict": "videos"}
    if scenario.kind == "phantom":  # reads nothing
        return []
    found = []
    if scenario.kind in roots:
        root = here.parent / roots[scenario.kind]
        for number in (2, draw.randint(3, 9)):
            files = sorted((p for p in root.rglob("*") if p.is_file()), reverse=True)
            gone = files[number % len(files)]  # it may not have read it yet
            found += without(scenario, here, compare, Vanishing(root, gone, number))
    for name in READ:
        for path in sorted(scenario.fresh(here).rglob(name)):
            for number in (1, draw.randint(2, 12)):
                fault = Vanishing(here, path, number)
                found += [f"{name}: {x}" for x in without(scenario, here, compare, fault)]
    return found


def without(scenario: Scenario, here: Path, compare: Compare, fault: Vanishing) -> list[str]:
    """What is wrong once a file vanished; what is no part of the cache then comes back."""
    scenario.fresh(here)
    aside = fault.root != here
    kept = here.parent / "kept"
    if aside:
        shutil.copytree(fault.root, kept)
    command = scenario.command(here, fault)
    try:
        outcome = Child(command).end()
    finally:
        if aside:
            shutil.rmtree(fault.root)
            kept.rename(fault.root)
    found = one_line(outcome, command.said, (0, 1))
    found += [f"not whole: {line}" for line in faults_in(here)]
    if aside and isinstance(outcome, Ended) and outcome.code:
        found += again(here, scenario, compare)
    return found


def backwards(scenario: Scenario, here: Path, compare: Compare, draw: random.Random) -> list[str]:
    """What there is is from tomorrow; then the clock is right again, and the command runs once more."""
    scenario.fresh(here)
    ahead = time.time() + DAY
    for path in here.rglob("*"):
        os.utime(path, (ahead, ahead))
    command = scenario.command(here, Backwards(draw.randint(1, 4000)))
    outcome = Child(command).end()
    found = one_line(outcome, command.said, (0,))
    return found or [f"then: {line}" for line in compare(here, scenario)]


def two_at_once(scenario: Scenario, here: Path, compare: Compare, draw: random.Random) -> list[str]:
    found = []
    for _ in range(2):
        scenario.fresh(here)
        first, second = scenario.command(here), scenario.command(here)
        second = type(second)(second.words, here.with_suffix(".said2"))
        one = Child(first)
        time.sleep(draw.uniform(0, scenario.seconds / 2))
        other = Child(second)
        outcomes = [one.end(), other.end()]
        found += one_line(outcomes[0], first.said, (0, 1))
        found += one_line(outcomes[1], second.said, (0, 1))
        if not any(isinstance(o, Ended) and not o.code for o in outcomes):
            found.append("neither ended well")
        found += [f"not whole: {line}" for line in faults_in(here)]
        if scenario.kind not in ("phantom", "import", "predict") or not contents(here):
            found += again(here, scenario, compare)
    return found
