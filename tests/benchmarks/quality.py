"""Measures methods on COVID-BLUES: `python -m tests.benchmarks.quality` updates QUALITY.md.

Two cross-validations by `lus crossval` (the recipe `tuned` with all baselines, the recipe `paper` with a
frozen CNN), then the recipe with one change at a time, then with its CNN trained further, then with
fewer training patients. Slow results are stored in the cache and reused. The text of QUALITY.md outside
its two marks is written by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval.folds import draw_repeats, folds_of
from lus_cli.evaluation.comparison import compare
from lus_cli.evaluation.metrics import Predictions
from lus_cli.files import write_text
from lus_cli.model.devices import set_threads
from lus_cli.study.ids import VideoId
from tests.benchmarks.quality_variants import (
    CHANGES,
    FURTHER,
    RECIPE,
    Study,
    Variant,
    out_of_fold,
    trained_further,
)

COVID_BLUES = Path(__file__).parents[3] / "shared" / "covid-blues"
PAGE = Path(__file__).with_name("QUALITY.md")
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
REPEATS = 6  # repetitions of the folds, for the changes
FEWER = 3  # repetitions, for what takes minutes per fold
PATIENTS = (10, 16, 24, 32, 40)  # to train on
TUNED, PAPER = "tuned-cv-1", "paper-cv-1"
CROSSVALS = {
    TUNED: ("--recipe", "tuned", "--repeats", "3"),
    PAPER: (
        *("--recipe", "paper", "--backbone", "efficientnet_lite0", "--freeze"),
        *("--stride", "10", "--repeats", "1", "--no-baselines"),
    ),
}


def crossval_lines(study: Study) -> Iterator[str]:
    """The recipe, the baselines and the recipe `paper`, from what `lus crossval` wrote."""
    columns = "kappa | 95 % | macro F1 | accuracy | kappa minus tuned"
    yield f"| five folds, three seeds (`paper`: one) | {columns} |"
    yield "|---|---|---|---|---|---|"
    for name, options in CROSSVALS.items():
        folder = study.cache.crossvals / name
        if not (folder / "comparison.json").is_file():
            arguments = ["crossval", "--cache", study.cache.root, "--run", name, *options]
            if folder.is_dir():
                arguments.append("--resume")
            subprocess.run([sys.executable, "-m", "lus_cli", *map(str, arguments)], check=True)
    compared = json.loads((study.cache.crossvals / TUNED / "comparison.json").read_text())
    yield from (line(row) for row in compared["candidates"])
    both = {
        "tuned": crossval_predictions(study, TUNED),
        "paper": crossval_predictions(study, PAPER),
    }
    yield line(compare(both)["candidates"][1])


def crossval_predictions(study: Study, name: str) -> list[Predictions]:
    """The predictions of a cross-validation for all videos, one per repetition."""
    place = {video: index for index, video in enumerate(study.videos.ids)}
    by_repeat: dict[str, np.ndarray] = {}
    for path in sorted((study.cache.crossvals / name / "folds").glob("*.json")):
        fold = json.loads(path.read_text())
        rows = by_repeat.setdefault(path.stem.split("-")[0], np.full((len(place), 4), np.nan))
        rows[[place[VideoId(*video)] for video in fold["videos"]]] = fold["probabilities"]
    return [Predictions(list(place), study.scores, rows) for rows in by_repeat.values()]


def line(row: dict[str, Any]) -> str:
    """The row of a candidate: the mean over repetitions; the interval is over patients."""
    metrics = row["metrics"]
    kappa = metrics["kappa_quadratic"]
    sd = f" ± {kappa['sd']:.3f}" if kappa.get("sd") is not None else ""
    difference = kappa.get("difference")
    minus = "" if difference is None else f"{difference['low']:+.2f} to {difference['high']:+.2f}"
    cells = (
        row["name"],
        f"{kappa['value']:.3f}{sd}",
        f"{kappa['low']:.2f} to {kappa['high']:.2f}",
        f"{metrics['f1_macro']['value']:.3f}",
        f"{metrics['accuracy']['value']:.3f}",
        minus,
    )
    return f"| {' | '.join(cells)} |"


def change_lines(study: Study, console: Console) -> Iterator[str]:
    """The recipe with one change at a time, and with the experts' findings instead of pixels."""
    variants = {**CHANGES, "A-lines and B-lines as the experts noted them": Variant(findings=True)}
    candidates = {}
    for name, variant in variants.items():
        console.print(name)
        candidates[name] = out_of_fold(study, variant)
    yield f"| one change, {REPEATS} seeds | kappa | 95 % | macro F1 | accuracy | minus the recipe |"
    yield "|---|---|---|---|---|---|"
    for row in compare(candidates)["candidates"]:
        yield line(row)


def further_lines(study: Study, console: Console) -> Iterator[str]:
    """The recipe with the CNN trained further on the same pictures."""
    candidates = {RECIPE: out_of_fold(study, Variant())[:FEWER]}
    for name, (variant, loss) in FURTHER.items():
        console.print(name)
        candidates[name] = trained_further(study, variant, loss, FEWER)
    columns = "kappa | 95 % | macro F1 | accuracy | minus the recipe"
    yield f"| the last five blocks of the CNN trained further, {FEWER} seeds | {columns} |"
    yield "|---|---|---|---|---|---|"
    for row in compare(candidates)["candidates"]:
        yield line(row)


def learning_lines(study: Study) -> Iterator[str]:
    """The recipe with fewer training patients."""
    candidates = {f"{n} patients": out_of_fold(study, Variant(), n) for n in PATIENTS}
    yield f"| to train on, {REPEATS} seeds | kappa | 95 % | macro F1 | accuracy | |"
    yield "|---|---|---|---|---|---|"
    for row in compare(candidates)["candidates"]:
        row["metrics"]["kappa_quadratic"].pop("difference", None)
        yield line(row)


def open_study(root: Path) -> Study:
    """The study, imported and prepared if necessary."""
    cache = Cache(root)
    if not cache.videos.is_file():
        here = ("--cache", str(root))
        steps = (
            ["import", str(COVID_BLUES), "--format", "covid-blues"],
            ["prepare", "--size", "224"],
        )
        for step in steps:
            subprocess.run([sys.executable, "-m", "lus_cli", *step, *here], check=True)
    videos = VideoCache(cache.videos)
    split, _ = read_split(cache.split, videos.patients)
    repeats = draw_repeats(split, videos.patients, videos.scores, REPEATS)
    return Study(cache, videos, folds_of(split, repeats, videos.patients, videos.scores))


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.quality", description=__doc__
    )
    options.add_argument("--cache", type=Path, default=Path("cache") / "quality")
    options.add_argument("--threads", type=int, default=0)
    chosen = options.parse_args()
    if not COVID_BLUES.is_dir():
        options.exit(1, f"there is no {COVID_BLUES}: download COVID-BLUES to this folder\n")
    set_threads(chosen.threads)
    study = open_study(chosen.cache)
    console = Console()
    parts = [
        crossval_lines(study),
        change_lines(study, console),
        further_lines(study, console),
        learning_lines(study),
    ]
    measured = "\n\n".join("\n".join(part) for part in parts)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(PAGE, f"{before}{BEGIN}\n{measured}\n{END}{after}")


if __name__ == "__main__":
    main()
