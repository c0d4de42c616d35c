"""Kills, Ctrl-C and a failing disk at random moments of every command that writes.

`python -m tests.stress.faults [--seed N] [--kills N] [--minutes M] [--only COMMAND]`. Half of the kills
come after a random time, half right before a random change of the disk, where chance hits rarely.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.killing import Child, Ended
from tests.stress.artifacts import contents, faults_in, leftovers
from tests.stress.faults_scenarios import Scenario, make_scenarios
from tests.stress.faults_single import single_faults

KILLS = 224
IN_A_ROW = 3  # before the command is let through
CONSOLE = Console(soft_wrap=True, markup=False, highlight=False)
RESULTS = Path("cache/stress/faults.json")
INTERRUPTED = 130


@dataclass
class Tally:
    """What became of one scenario."""

    name: str
    kills: Counter[str] = field(default_factory=Counter)  # by how and when
    ends: int = 0  # how often the command was let through and ended as if nothing had happened
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def row(self) -> str:
        killed, interrupted = (
            sum(n for key, n in self.kills.items() if key.startswith(how))
            for how in ("KILL", "INT")
        )
        return (
            f"{self.name:<24}{killed:>8}{interrupted:>8}{self.ends:>8}{len(self.findings):>10}"
            f"{self.seconds:>9.0f}"
        )


def try_kills(scenario: Scenario, kills: int, seed: int, folder: Path) -> Tally:
    """Kills the command again and again, looks at what is left, and lets it through."""
    draw = random.Random(f"{seed} {scenario.name}")
    tally, begun = Tally(scenario.name), time.perf_counter()
    seconds = scenario.seconds
    while tally.kills.total() < kills:
        here = scenario.fresh(folder / "here")
        for _ in range(min(IN_A_ROW, kills - tally.kills.total())):
            how, at_change = draw.choice(("KILL", "INT")), draw.random() < 0.5
            note = f"{how} {'before a change' if at_change else 'at a time'}"
            number = signal.SIGKILL if how == "KILL" else signal.SIGINT
            command = scenario.command(here)
            before = leftovers(here)
            if at_change:
                child = Child(command, draw.randint(2, scenario.changes), number)  # 1: what it says
                outcome = child.end()
            else:
                child = Child(command)
                time.sleep(draw.uniform(0, seconds))
                outcome = child.kill_group(number)
                if isinstance(outcome, Ended) and not outcome.code:
                    seconds = min(seconds, child.seconds)
            if isinstance(outcome, Ended) and not outcome.code:
                tally.findings += [f"{note}: {found}" for found in compared(here, scenario)]
                break  # it was done before
            tally.kills[note] += 1
            found = left_by(here, scenario)
            if how == "INT":
                found += left_by_interrupt(outcome, command.said)
                new = set(leftovers(here)) - set(before)
                found += [f"{name} is left" for name in new if name.endswith(".part")]
            tally.findings += [f"{note}: {line}" for line in found]
        tally.findings += let_through(scenario, here)
        tally.ends += 1
    tally.seconds = time.perf_counter() - begun
    return tally


def left_by_interrupt(outcome: object, said: str) -> list[str]:
    """What is wrong with how a command took Ctrl-C."""
    code = outcome.code if isinstance(outcome, Ended) else outcome
    if code == INTERRUPTED and "Traceback" not in said:
        return []
    if code is None and not said:  # the command had not begun
        return []
    return [f"ended with {code}, not 130: {said[-300:]!r}"]


def left_by(here: Path, scenario: Scenario) -> list[str]:
    """What is wrong with what a command that did not end left."""
    return [f"not whole: {line}" for line in faults_in(here)] + mixed(contents(here), scenario)


def mixed(now: dict[str, str], scenario: Scenario) -> list[str]:
    """What is neither as it was nor as it will be, or both side by side."""
    old, goal, found = scenario.old, scenario.goal, []
    for whole in scenario.wholes:
        there, was, will = (part_of(files, whole) for files in (now, old, goal))
        if there not in ({}, was, will):
            strange = [n for n in there if there[n] not in (was.get(n), will.get(n))]
            found.append(f"{whole} is neither the old nor the new, for one {strange[:1]}")
    if len(scenario.wholes) > 1:
        parts = [{w: part_of(f, w) for w in scenario.wholes} for f in (now, old, goal)]
        fits = [all(parts[0][w] in ({}, one[w]) for w in scenario.wholes) for one in parts[1:]]
        if not any(fits):
            found.append("folders that belong together are of two studies")
    within = tuple(f"{whole}/" for whole in scenario.wholes)
    lost = [n for n in old if n in goal and n not in now and not n.startswith(within)]
    found += [f"{name} is lost" for name in lost if within == () or not name.startswith(within)]
    return found


def part_of(files: dict[str, str], folder: str) -> dict[str, str]:
    return {name: value for name, value in files.items() if name.startswith(f"{folder}/")}


def let_through(scenario: Scenario, here: Path) -> list[str]:
    """Runs the command again, without a kill; what is not as if nothing had happened."""
    command = scenario.command(here)
    ended = Child(command).end()
    if not (isinstance(ended, Ended) and not ended.code):
        return [f"run again it ends with {ended}: {command.said[-300:]!r}"]
    return [f"run again: {line}" for line in compared(here, scenario)]


def compared(here: Path, scenario: Scenario) -> list[str]:
    """How what is there differs from what an uninterrupted run gives."""
    now, goal = contents(here), scenario.goal
    found = [f"{name} is missing" for name in sorted(goal.keys() - now.keys())]
    found += [f"{name} is left over" for name in sorted(now.keys() - goal.keys())]
    found += [f"{n} differs" for n in sorted(goal.keys() & now.keys()) if goal[n] != now[n]]
    return found + [f"{name} is left" for name in leftovers(here)]


# -------------------------------------------------------------------------------------- the program


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--kills", type=int, default=KILLS)
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--only", action="append")
    given = options.parse_args()
    until = time.monotonic() + 60 * given.minutes
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="lus-faults-") as name:
        scenarios = make_scenarios(Path(name), set(given.only) if given.only else None)
        CONSOLE.print(
            f"{'scenario':<24}{'SIGKILL':>8}{'Ctrl-C':>8}{'ended':>8}{'findings':>10}{'s':>9}"
        )
        each = -(-given.kills // len(scenarios))
        for scenario in scenarios:
            if time.monotonic() > until:
                CONSOLE.print("out of time")
                break
            tallies.append(try_kills(scenario, each, given.seed, Path(name)))
            show(tallies[-1])
        for fault, found, seconds in single_faults(
            scenarios, Path(name), until, compared, given.seed
        ):
            tallies.append(Tally(fault, findings=found, ends=1, seconds=seconds))
            show(tallies[-1])
    write_results(given, tallies)
    return int(any(tally.findings for tally in tallies))


def show(tally: Tally) -> None:
    CONSOLE.print(tally.row)
    for line, times in Counter(tally.findings).most_common(12):
        CONSOLE.print(f"    {times} x {line}")


def write_results(given: argparse.Namespace, tallies: list[Tally]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "seed": given.seed,
        "kills": sum(tally.kills.total() for tally in tallies),
        "scenarios": [vars(tally) for tally in tallies],
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")
    CONSOLE.print(f"{content['kills']} kills; {RESULTS}")


if __name__ == "__main__":
    sys.exit(main())
