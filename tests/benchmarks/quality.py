"""What scores COVID-BLUES: `python -m tests.benchmarks.quality`, into tests/benchmarks/QUALITY.md.

Two cross-validations by `lus crossval` (the recipe `tuned` beside all baselines, the recipe `paper`
with a frozen CNN), then the recipe with one thing changed at a time, then its CNN trained further, then
fewer patients. What takes long is kept in the cache, and not done again. The text of QUALITY.md outside
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
REPEATS = 6  # of the folds, for the changes
FEWER = 3  # of the folds, for what takes minutes a fold
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
    columns = "kappa | 95 % | macro F1 | accuracy | kappa less tuned"
    yield f"| five folds, three seeds (`paper`: one) | {columns} |"
    yield "|---|---|---|---|---|---|"
    for name, options in CROSSVALS.items():
        folder = study.cache.crossvals / name
        if not (folder / "comparison.json").is_file():
            arguments = ["crossval", "--cache", study.cache.root, "--run", name, *options]
            if folder.is_dir():
                arguments.append("--resume")
            subprocess.run([sys.executable, "-m", "lus_cli", *map(str, arguments)], check=True)
    beside = json.loads((study.cache.crossvals / TUNED / "comparison.json").read_text())
    yield from (line(row) for row in beside["candidates"])
    both = {"tuned": crossval_answers(study, TUNED), "paper": crossval_answers(study, PAPER)}
    yield line(compare(both)["candidates"][1])


def crossval_answers(study: Study, name: str) -> list[Predictions]:
    """What the models of a cross-validation answered for all videos, each time over."""
    place = {video: index for index, video in enumerate(study.videos.ids)}
    given: dict[str, np.ndarray] = {}
    for path in sorted((study.cache.crossvals / name / "folds").glob("*.json")):
        fold = json.loads(path.read_text())
        answers = given.setdefault(path.stem.split("-")[0], np.full((len(place), 4), np.nan))
        answers[[place[VideoId(*video)] for video in fold["videos"]]] = fold["probabilities"]
    return [Predictions(list(place), study.scores, answers) for answers in given.values()]


def line(row: dict[str, Any]) -> str:
    """A candidate's row: mean over the times; the interval is over patients."""
    figures = row["metrics"]
    kappa = figures["kappa_quadratic"]
    sd = f" ± {kappa['sd']:.3f}" if kappa.get("sd") is not None else ""
    difference = kappa.get("difference")
    less = "" if difference is None else f"{difference['low']:+.2f} to {difference['high']:+.2f}"
    cells = (
        row["name"],
        f"{kappa['value']:.3f}{sd}",
        f"{kappa['low']:.2f} to {kappa['high']:.2f}",
        f"{figures['f1_macro']['value']:.3f}",
        f"{figures['accuracy']['value']:.3f}",
        less,
    )
    return f"| {' | '.join(cells)} |"


def change_lines(study: Study, console: Console) -> Iterator[str]:
    """The recipe with one thing changed, and the experts' findings in place of pixels."""
    variants = {**CHANGES, "A-lines and B-lines as the experts noted them": Variant(findings=True)}
    candidates = {}
    for name, variant in variants.items():
        console.print(name)
        candidates[name] = out_of_fold(study, variant)
    yield f"| one change, {REPEATS} seeds | kappa | 95 % | macro F1 | accuracy | less the recipe |"
    yield "|---|---|---|---|---|---|"
    for row in compare(candidates)["candidates"]:
        yield line(row)


def further_lines(study: Study, console: Console) -> Iterator[str]:
    """The CNN trained further on the same pictures."""
    candidates = {RECIPE: out_of_fold(study, Variant())[:FEWER]}
    for name, (variant, loss) in FURTHER.items():
        console.print(name)
        candidates[name] = trained_further(study, variant, loss, FEWER)
    columns = "kappa | 95 % | macro F1 | accuracy | less the recipe"
    yield f"| the last five blocks of the CNN trained further, {FEWER} seeds | {columns} |"
    yield "|---|---|---|---|---|---|"
    for row in compare(candidates)["candidates"]:
        yield line(row)


def learning_lines(study: Study) -> Iterator[str]:
    """Fewer patients to train on."""
    candidates = {f"{n} patients": out_of_fold(study, Variant(), n) for n in PATIENTS}
    yield f"| to train on, {REPEATS} seeds | kappa | 95 % | macro F1 | accuracy | |"
    yield "|---|---|---|---|---|---|"
    for row in compare(candidates)["candidates"]:
        row["metrics"]["kappa_quadratic"].pop("difference", None)
        yield line(row)


def opened(root: Path) -> Study:
    """The study, imported and prepared where that has not been done."""
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
        options.exit(1, f"there is no {COVID_BLUES}: get COVID-BLUES and lay it there\n")
    set_threads(chosen.threads)
    study = opened(chosen.cache)
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
