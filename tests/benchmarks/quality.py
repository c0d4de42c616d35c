"""Measures methods on COVID-BLUES: `python -m tests.benchmarks.quality` updates QUALITY.md.

Cross-validations by `lus crossval`: the default recipe with all baselines, and one change at a time from
the default recipe with five members. Each is then trained on all patients of
COVID-BLUES and evaluated on the POCUS videos, whose scanners it never saw. What is finished is kept in
the cache and reused. The text of QUALITY.md outside its two marks is written by hand.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import VideoCache
from lus_cli.evaluation.comparison import compare
from lus_cli.evaluation.metrics import Predictions
from lus_cli.files import write_text
from lus_cli.study.ids import VideoId
from lus_cli.words import has_interval

SHARED = Path(__file__).parents[3] / "shared"
COVID_BLUES, POCUS = SHARED / "covid-blues", SHARED / "pocus-cc-by"
PAGE = Path(__file__).with_name("QUALITY.md")
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
STANDARD, FIVE = "standard", "five members"
MEMBERS = ("--members", "5")
COPIES = ("--augmented-copies", "4", *MEMBERS)
# The recipe options of each row. After the first one, one change at a time from five members.
ROWS = {
    STANDARD: (),
    FIVE: MEMBERS,
    "gain 0.3": ("--gain", "0.3", *COPIES),
    "gamma 0.5": ("--gamma", "0.5", *COPIES),
    "depth 0.3": ("--depth", "0.3", *COPIES),
    "crop 0.3": ("--crop", "0.3", *COPIES),
    "speckle 0.1": ("--speckle", "0.1", *COPIES),
    "speckle 0.3": ("--speckle", "0.3", *COPIES),
    "windows of 16 frames": ("--window-frames", "16", *MEMBERS),
    "the whole video and six windows": ("--whole-video", *MEMBERS),
    "one picture of the whole video": ("--windows", "1", *MEMBERS),
    "three windows": ("--windows", "3", *MEMBERS),
    "pictures not along the scan lines": ("--no-scan-lines", *MEMBERS),
    "no normalisation by the video": ("--feature-norm", "none", *MEMBERS),
    "no attention": ("--no-attention", *MEMBERS),
    "cuts by kappa": ("--decision", "kappa", *MEMBERS),
    "the most probable score": ("--decision", "most-probable", *MEMBERS),
    "fifteen epochs, of which the best is kept": ("--epochs", "15", "--patience", "15", *MEMBERS),
    "one network, validated on the validation patients": ("--members", "1", "--no-leave-out"),
    "`paper`, frozen CNN, every tenth frame": (
        *("--recipe", "paper", "--backbone", "efficientnet_lite0", "--freeze", "--stride", "10"),
    ),
}


def lus(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "lus_cli", *map(str, words)], check=True)


class Bench:
    """The two studies, and the rows that are measured on them."""

    def __init__(self, root: Path, threads: int) -> None:
        self.cache, self.other = Cache(root), root / "pocus"
        self.options = ("--cache", root, "--threads", threads)
        if not self.cache.videos.is_file():
            lus("import", COVID_BLUES, "--format", "covid-blues", "--cache", root)
            alone = ("--test-share", 0, "--validation-share", 0)
            lus("prepare", "--size", 224, *alone, "--cache", root)
        if not Cache(self.other).videos.is_file():
            labels = ("--labels", POCUS / "labels.csv")
            lus("prepare", POCUS / "videos", *labels, "--size", 224, "--cache", self.other)
        self.videos = VideoCache(self.cache.videos)

    def crossvalidate(self, row: str) -> list[Predictions]:
        """The out-of-fold predictions of a row, one per repetition."""
        name = f"{slug(row)}-cv"
        folder = self.cache.crossvals / name
        if not (folder / "comparison.json").is_file():
            new = ("--repeats", 3, *(() if row == STANDARD else ("--no-baselines",)))
            start = ("--resume",) if folder.is_dir() else (*new, *ROWS[row])
            lus("crossval", "--run", name, *start, *self.options)
        place = {video: index for index, video in enumerate(self.videos.ids)}
        by_repeat: dict[str, np.ndarray] = {}
        for path in sorted((folder / "folds").glob("*.json")):
            fold = json.loads(path.read_text())
            rows = by_repeat.setdefault(path.stem.split("-")[0], np.full((len(place), 4), np.nan))
            rows[[place[VideoId(*video)] for video in fold["videos"]]] = fold["probabilities"]
        return [Predictions(list(place), self.videos.scores, rows) for rows in by_repeat.values()]

    def elsewhere(self, row: str) -> Predictions:
        """The predictions of a row, trained on all patients, for the POCUS videos."""
        name = f"{slug(row)}-all"
        run = self.cache.run(name) if (self.cache.runs / name).is_dir() else None
        if run is None or not run.best.is_file():
            lus("train", "--run", name, *ROWS[row], *self.options)
            run = self.cache.run(name)
        videos = self.other / "videos.h5"
        lus("evaluate", "--run", name, "--videos", videos, "--permutations", 0, *self.options)
        [path] = (run.root / "evaluation").glob("*/predictions.csv")
        return read_predictions(path)


def slug(row: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in row)


def read_predictions(path: Path) -> Predictions:
    """predictions.csv of an evaluation."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ids = [VideoId(row["patient"], row["exam"], row["area"]) for row in rows]
    scores = np.array([int(row["score"]) for row in rows])
    return Predictions(
        ids, scores, np.array([[float(row[f"p{s}"]) for s in range(4)] for row in rows])
    )


def rank_correlation(predictions: Predictions) -> float:
    """Spearman's correlation of the expected with the true score."""
    return float(spearmanr(predictions.probabilities @ np.arange(4), predictions.scores).statistic)


def recipe_lines(bench: Bench, rows: Sequence[str]) -> Iterator[str]:
    """Each row out of fold and on the other source; the kappa of each is compared with the first."""
    columns = f"repetitions | rank correlation | kappa | 95 % | macro F1 | kappa minus {rows[0]}"
    yield f"| five folds by patient | {columns} | other source: rank correlation | kappa |"
    yield "|---|---|---|---|---|---|---|---|---|"
    candidates = {row: bench.crossvalidate(row) for row in rows}
    compared = {row["name"]: row for row in compare(candidates)["candidates"]}
    for row in rows:
        ranks = [rank_correlation(one) for one in candidates[row]]
        other = bench.elsewhere(row)
        kappa = compare({"other": [other]})["candidates"][0]["metrics"]["kappa_quadratic"]["value"]
        cells = (len(ranks), f"{np.mean(ranks):.3f}", *cells_of(compared[row]))
        yield f"| {row} | {' | '.join(map(str, cells))} | {rank_correlation(other):.3f} | {kappa:.3f} |"


def baseline_lines(bench: Bench) -> Iterator[str]:
    """The baselines on the folds of the default recipe."""
    columns = "rank correlation | kappa | 95 % | macro F1 | kappa minus `standard`"
    yield f"| baselines on the same folds | {columns} |"
    yield "|---|---|---|---|---|---|"
    root = bench.cache.crossvals / f"{STANDARD}-cv"
    ranks = baseline_ranks(root / "comparison_predictions.csv")
    for row in json.loads((root / "comparison.json").read_text())["candidates"]:
        if row["name"] != STANDARD:
            cells = [ranks.get(row["name"], ""), *cells_of(row)]
            yield f"| {row['name']} | {' | '.join(cells)} |"


def baseline_ranks(path: Path) -> dict[str, str]:
    """The mean rank correlation over the repetitions; none for a constant expected score."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pairs: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for row in rows:
        expected = sum(score * float(row[f"p{score}"]) for score in range(4))
        of_name = pairs.setdefault(row["name"], {})
        of_name.setdefault(row["repetition"], []).append((expected, int(row["score"])))
    return {
        name: f"{np.mean([spearmanr(np.array(pair)).statistic for pair in of_name.values()]):.3f}"
        for name, of_name in pairs.items()
        if all(len({expected for expected, _ in pair}) > 1 for pair in of_name.values())
    }


def cells_of(row: dict[str, Any]) -> list[str]:
    """Kappa, its interval over patients, macro F1, and the interval of the difference in kappa."""
    metrics = row["metrics"]
    kappa = metrics["kappa_quadratic"]
    deviation = f" ± {kappa['sd']:.3f}" if kappa.get("sd") is not None else ""
    difference = kappa.get("difference")
    return [
        f"{kappa['value']:.3f}{deviation}",
        f"{kappa['low']:.2f} to {kappa['high']:.2f}" if has_interval(kappa) else "–",
        f"{metrics['f1_macro']['value']:.3f}",
        f"{difference['low']:+.2f} to {difference['high']:+.2f}" if difference else "",
    ]


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.quality", description=__doc__
    )
    options.add_argument("--cache", type=Path, default=Path("cache") / "quality")
    options.add_argument("--threads", type=int, default=0)
    changes = list(ROWS)[2:]
    options.add_argument("--changes", nargs="*", default=changes, choices=changes)
    chosen = options.parse_args()
    for folder in (COVID_BLUES, POCUS):
        if not folder.is_dir():
            options.exit(1, f"there is no {folder}: put the data set there\n")
    bench = Bench(chosen.cache, chosen.threads)
    parts = [
        recipe_lines(bench, [STANDARD]),
        baseline_lines(bench),
        recipe_lines(bench, [FIVE, *chosen.changes]),
    ]
    measured = "\n\n".join("\n".join(part) for part in parts)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(PAGE, f"{before}{BEGIN}\n{measured}\n{END}{after}")


if __name__ == "__main__":
    main()
