"""The whole pipeline over COVID-BLUES twice, with the same seed: which artifacts are not the same.

`python -m tests.stress.twice [--videos FOLDER] [--folder KEPT]`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.stress.artifacts import contents

COVID_BLUES = Path(__file__).parents[3] / "shared" / "covid-blues" / "lus_videos"
CONSOLE = Console(soft_wrap=True, markup=False, highlight=False)
RESULTS = Path("cache/stress/twice.json")
CPU = ["--device", "cpu", "--threads", "1"]
LIGHT = ["--epochs", "1", "--stride", "10", "--frames-per-video", "6", "--weights", "none"]


def commands(exams: Path) -> list[list[str]]:
    return [
        ["prepare", str(exams), "--size", "64", "--workers", "1"],
        ["train", "--recipe", "standard", *CPU, "--run", "standard"],
        ["evaluate", "--run", "standard", *CPU],
        ["train", "--recipe", "demo", *LIGHT, *CPU, "--run", "light"],
        ["evaluate", "--run", "light", *CPU],
        ["attention", "--run", "light", *CPU],
    ]


def lus(words: list[str]) -> None:
    """Raises RuntimeError with what the command said if it fails."""
    ended = subprocess.run(
        [sys.executable, "-m", "lus_cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if ended.returncode:
        raise RuntimeError(f"lus {' '.join(words)}: {ended.stderr[-2000:]}")


def pipeline(exams: Path, cache: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Runs all of it; what each artifact says, and how long each command took, s."""
    shutil.rmtree(cache, ignore_errors=True)
    seconds = {}
    for words in commands(exams):
        begun = time.perf_counter()
        lus([*words, "--cache", str(cache)])
        seconds[" ".join(words[:3])] = round(time.perf_counter() - begun, 1)
        CONSOLE.print(f"{seconds[' '.join(words[:3])]:>8.1f} s  lus {' '.join(words)}")
    return contents(cache), seconds


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--videos", type=Path, default=COVID_BLUES)
    options.add_argument("--exams", type=Path, help="An exam tree imported from them before.")
    given = options.parse_args()
    if not (given.exams or given.videos).is_dir():
        CONSOLE.print(f"nothing was tried: the COVID-BLUES videos are not at {given.videos}")
        return 0
    with tempfile.TemporaryDirectory(prefix="lus-twice-") as name:
        exams = given.exams or Path(name) / "exams"
        if given.exams is None:
            lus(["import", str(given.videos.parent), str(exams), "--format", "covid-blues"])
        # Both times at the same place, which is in some artifacts.
        runs = [pipeline(exams, Path(name) / "cache") for _ in range(2)]
    (first, seconds), (second, _) = runs
    found = sorted(first.keys() ^ second.keys())
    found += [n for n in sorted(first.keys() & second.keys()) if first[n] != second[n]]
    CONSOLE.print(f"{len(first)} artifacts, {len(found)} of them not the same twice")
    CONSOLE.print("\n".join(found))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    content = {"artifacts": len(first), "differ": found, "seconds": seconds}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
