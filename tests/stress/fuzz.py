"""Hostile input of every kind that lus reads: what is neither read right nor refused in one line.

`python -m tests.stress.fuzz [--seed N] [--cases N] [--minutes M] [--kind NAME] [--only NUMBER]
[--seconds S]`. Each case is a function of seed, kind and number, so that a line of findings is enough
to see it again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console

from tests.stress import fuzz_sandbox
from tests.stress.fuzz_kinds import KINDS, Kind, case_of
from tests.stress.fuzz_sandbox import SECONDS, Outcome, run_all
from tests.stress.fuzz_seeds import Seeds, make_seeds

CASES = 6000
RESULTS = Path("cache/stress/fuzz.json")
CONSOLE = Console(soft_wrap=True, markup=False, highlight=False)


@dataclass
class Tally:
    """What became of the cases of one kind."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0  # seconds
    peak: int = 0  # bytes

    def add(self, number: int, outcome: Outcome) -> None:
        self.counts[outcome.what] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.peak = max(self.peak, outcome.peak)
        if outcome.is_finding:
            self.findings.append({"number": number, "what": outcome.what, "detail": outcome.detail})

    @property
    def row(self) -> str:
        read, refused = self.counts["read"], self.counts["refused"]
        return (
            f"{self.kind:<20}{self.counts.total():>7}{read:>7}{refused:>9}{len(self.findings):>10}"
            f"{self.slowest:>9.1f}{self.peak / 1e6:>9.0f}"
        )


def tried(kind: Kind, seeds: Seeds, seed: int, numbers: range, folder: Path) -> Tally:
    """Runs cases of one kind by their numbers."""
    cases = [case_of(kind, seeds, seed, number) for number in numbers]
    tally = Tally(kind.name)
    for number, outcome in zip(numbers, run_all(cases, folder), strict=True):
        tally.add(number, outcome)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=CASES, help="over all kinds")
    parser.add_argument(
        "--minutes", type=float, default=0, help="go on with other seeds for so long"
    )
    parser.add_argument("--kind", help="only this one")
    parser.add_argument("--only", type=int, help="only the case of this number, its error in full")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="a longer case is a hang")
    asked = parser.parse_args()
    fuzz_sandbox.SECONDS = asked.seconds
    torch.set_num_threads(1)
    kinds = [kind for kind in KINDS if asked.kind in (None, kind.name)]
    started, tallies, seed = time.monotonic(), [], asked.seed
    with tempfile.TemporaryDirectory(prefix="lus-fuzz-") as temporary:
        root = Path(temporary).resolve()
        seeds = make_seeds(root / "sound")
        if asked.only is not None:
            (root / "case").mkdir()
            case_of(kinds[0], seeds, seed, asked.only)(root / "case")
            return 0
        CONSOLE.print(
            f"{'':<20}{'cases':>7}{'read':>7}{'refused':>9}{'findings':>10}{'slowest':>9}{'peak MB':>9}"
        )
        while True:
            for kind in kinds:
                count = max(3, asked.cases * kind.share // sum(k.share for k in kinds))
                tally = tried(kind, seeds, seed, range(count), root / "case")
                tallies.append((seed, tally))
                CONSOLE.print(tally.row)
                for finding in unlike(tally.findings):
                    CONSOLE.print(
                        f"  seed {seed} number {finding['number']}: {finding['what']}: {finding['detail']}"
                    )
            seed += 1
            if time.monotonic() - started > asked.minutes * 60:
                break
    return told(tallies, time.monotonic() - started)


def unlike(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first of each sort of findings: those whose exception comes from one place are one."""
    first: dict[str, dict[str, Any]] = {}
    for finding in findings:
        first.setdefault(finding["what"] + finding["detail"].partition(": ")[0], finding)
    return list(first.values())


def told(tallies: list[tuple[int, Tally]], seconds: float) -> int:
    """The totals, on the terminal and in a file; the exit code."""
    cases = sum(tally.counts.total() for _, tally in tallies)
    findings = sum(len(tally.findings) for _, tally in tallies)
    peak = max(tally.peak for _, tally in tallies)
    CONSOLE.print(
        f"{cases} cases in {seconds / 60:.1f} minutes, {findings} findings, peak {peak / 1e6:.0f} MB"
    )
    document = {
        "cases": cases,
        "seconds": round(seconds, 1),
        "findings": findings,
        "peak_bytes": peak,
        "kinds": [{"seed": seed} | vars(tally) for seed, tally in tallies],
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
