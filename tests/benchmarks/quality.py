"""What scores COVID-BLUES: `python -m tests.benchmarks.quality`, into tests/benchmarks/QUALITY.md.

Three cross-validations by `lus crossval` (the recipe `tuned` beside all baselines, the recipe `paper`
with a frozen CNN), then the recipe with one thing changed at a time, then fewer patients, then what
the experts' own findings would reach. Each is kept in the cache, and not done again. The text of
QUALITY.md outside its two marks is written by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from torch.nn import functional as F

from lus_cli import kernel_head, kernel_model
from lus_cli.backbones import build_backbone
from lus_cli.cache import Cache, write_text
from lus_cli.comparison import compare
from lus_cli.devices import set_threads
from lus_cli.folds import Fold, draw_repeats, folds_of
from lus_cli.metrics import SCORES, Predictions
from lus_cli.model import MEAN, STD
from lus_cli.sector import find_sector
from lus_cli.split import read_split
from lus_cli.video_cache import VideoCache

COVID_BLUES = Path(__file__).parents[3] / "shared" / "covid-blues"
PAGE = Path(__file__).with_name("QUALITY.md")
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
REPEATS = 6  # of the folds, for the changes
PATIENTS = (10, 16, 24, 32, 40)  # to train on
CROSSVALS = {
    "tuned-cv-1": ("--recipe", "tuned", "--repeats", "3"),
    "paper-cv-1": (
        *("--recipe", "paper", "--backbone", "efficientnet_lite0", "--freeze"),
        *("--stride", "10", "--repeats", "1", "--no-baselines"),
    ),
}
RECIPE = "the recipe"


@dataclass(frozen=True)
class Variant:
    """How a video is made into a vector, and the vector into a score; by default as `tuned` does."""

    along_lines: bool = True
    planes: tuple[str, str, str] = ("max", "mean", "sd")
    keep: str = "rows"  # of the CNN's map: rows, cells, mean
    linear: bool = False
    rounded: bool = False
    findings: bool = False  # the experts' A-lines and B-lines in place of pixels

    @property
    def pixels(self) -> tuple[bool, tuple[str, str, str]]:
        """What the CNN is shown: the costly part, which several variants share."""
        return self.along_lines, self.planes


CHANGES = {
    RECIPE: Variant(),
    "the regression's answer rounded, not cut": Variant(rounded=True),
    "linear, no Gaussian kernel": Variant(linear=True),
    "the frame as it lies, not along the scan lines": Variant(along_lines=False),
    "maximum, mean and minimum over time": Variant(planes=("max", "mean", "min")),
    "the mean over time alone": Variant(planes=("mean", "mean", "mean")),
    "the spread over time alone": Variant(planes=("sd", "sd", "sd")),
    "every cell of the CNN's map kept": Variant(keep="cells"),
    "the map's mean, depth lost": Variant(keep="mean"),
}


@dataclass(frozen=True)
class Study:
    """The prepared videos and every fold of every time over."""

    cache: Cache
    videos: VideoCache
    folds: list[Fold]

    @property
    def scores(self) -> np.ndarray:
        return self.videos.scores.astype(np.int64)

    def in_(self, patients: Sequence[str]) -> np.ndarray:
        return np.flatnonzero(np.isin(self.videos.patients, list(patients)))


# ---------------------------------------------------------------------------------- what is measured


def vectors(study: Study, variant: Variant) -> np.ndarray:
    """(video, 1, feature) float32."""
    if variant.findings:
        found = np.stack([study.videos.a_lines, study.videos.b_lines], axis=1)
        return found.astype(np.float32)[:, None]
    maps = torch.from_numpy(kept_maps(study, *variant.pixels))
    side = maps.shape[-1]
    size = {"rows": (side, 1), "cells": (side, side), "mean": (1, 1)}[variant.keep]
    return F.adaptive_avg_pool2d(maps, size).flatten(1)[:, None].numpy()


def kept_maps(study: Study, along_lines: bool, planes: tuple[str, str, str]) -> np.ndarray:
    """(video, channel, row, column) float32: the frozen CNN's maps, computed once."""
    where = "lines" if along_lines else "frame"
    path = study.cache.root / "quality" / f"{where}-{'-'.join(planes)}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    cnn, _ = kernel_model.without_head(*build_backbone("efficientnet_lite0", "imagenet"))
    cnn.eval()
    maps = [
        shown_to(cnn, picture(study.videos.read(index), along_lines, planes))
        for index in range(len(study.videos))
    ]
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.stack(maps))
    return np.stack(maps)


def shown_to(cnn: torch.nn.Module, shown: torch.Tensor) -> np.ndarray:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        return np.asarray(cnn(((shown - mean) / std)[None])[0].numpy())


def picture(frames: np.ndarray, along_lines: bool, planes: tuple[str, str, str]) -> torch.Tensor:
    """kernel_model.picture, with other planes or another geometry."""
    levels = torch.from_numpy(frames).float()
    over_time = {
        "max": levels.amax(dim=0),
        "min": levels.amin(dim=0),
        "mean": levels.mean(dim=0),
        "sd": levels.std(dim=0, correction=0),
    }
    chosen = torch.stack([over_time[name] for name in planes])
    if along_lines:
        sector = find_sector(over_time["max"].to(torch.uint8).numpy())
        chosen = kernel_model.along_lines(chosen, sector)
    else:
        side = (kernel_model.SIDE, kernel_model.SIDE)
        chosen = F.interpolate(chosen[None], side, mode="bilinear", antialias=True)[0]
    return torch.stack([kernel_model.stretched(plane) for plane in chosen])


def linear(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """In place of kernel_head.kernel: the mean product of the features."""
    return torch.einsum("akc,bkc->ab", some, others) / some[0].numel()


def out_of_fold(study: Study, variant: Variant, patients: int = 0) -> list[Predictions]:
    """Answers for all videos, each time over; trained on so many of a fold's patients (0: all)."""
    seen, likeness = vectors(study, variant), linear if variant.linear else kernel_head.kernel
    answers: dict[int, np.ndarray] = {}
    for fold in study.folds:
        known = [*fold.split.train, *fold.split.validation]
        if patients:
            random = np.random.default_rng([patients, fold.repeat, fold.number])
            known = random.permutation(sorted(known))[:patients].tolist()
        train, test = study.in_(known), study.in_(fold.split.test)
        names = [study.videos.patients[index] for index in train]
        with mock.patch.object(kernel_head, "kernel", likeness), torch.inference_mode():
            head, _ = kernel_head.fit(seen[train], study.scores[train], names, fold.repeat)
            shown = torch.from_numpy(seen[test])
            level, logits = head.level(shown), head(shown)
        given = answers.setdefault(fold.repeat, np.zeros((len(study.videos), len(SCORES))))
        nearest = np.eye(len(SCORES))[level.round().clamp(0, 3).long().numpy()]
        given[test] = nearest if variant.rounded else torch.softmax(logits, dim=1).numpy()
    return [Predictions(list(study.videos.ids), study.scores, given) for given in answers.values()]


# ---------------------------------------------------------------------------------- what is written


def crossval_lines(study: Study) -> Iterator[str]:
    """The recipe, the baselines and the recipe `paper`, from what `lus crossval` wrote."""
    columns = "kappa | 95 % | macro F1 | accuracy | kappa less tuned"
    yield f"| five folds, three seeds (`paper`: one) | {columns} |"
    yield "|---|---|---|---|---|---|"
    for name, options in CROSSVALS.items():
        found = study.cache.crossvals / name / "comparison.json"
        if not found.is_file():
            arguments = ["crossval", "--cache", study.cache.root, "--run", name, *options]
            if found.parent.is_dir():
                arguments.append("--resume")
            subprocess.run([sys.executable, "-m", "lus_cli", *map(str, arguments)], check=True)
        compared = json.loads(found.read_text())
        rows = [
            row for row in compared["candidates"] if name != "paper-cv-1" or row["name"] == "paper"
        ]
        yield from (line(row) for row in rows)


def line(row: dict[str, Any]) -> str:
    """A candidate's row: mean over the times; the interval resamples patients."""
    figures = row["figures"]
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
    for row in compare(candidates, 1000, 0)["candidates"]:
        yield line(row)


def learning_lines(study: Study) -> Iterator[str]:
    """Fewer patients to train on."""
    candidates = {f"{n} patients": out_of_fold(study, Variant(), n) for n in PATIENTS}
    yield f"| to train on, {REPEATS} seeds | kappa | 95 % | macro F1 | accuracy | |"
    yield "|---|---|---|---|---|---|"
    for row in compare(candidates, 1000, 0)["candidates"]:
        row["figures"]["kappa_quadratic"].pop("difference", None)
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
    parts = [crossval_lines(study), change_lines(study, Console()), learning_lines(study)]
    measured = "\n\n".join("\n".join(part) for part in parts)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(PAGE, f"{before}{BEGIN}\n{measured}\n{END}{after}")


if __name__ == "__main__":
    main()
