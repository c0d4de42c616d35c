"""Variants of the recipe `tuned`: how a video becomes a vector, and the vector a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from torch.nn import functional as F

from lus_cli.cache.layout import Cache
from lus_cli.cache.sector import find_sector
from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval.folds import Fold
from lus_cli.evaluation.metrics import SCORES, Predictions
from lus_cli.model import kernel_head, kernel_model
from lus_cli.model.backbones import build_backbone
from lus_cli.model.network import MEAN, STD
from tests.benchmarks import further_training

RECIPE = "the recipe"


@dataclass(frozen=True)
class Variant:
    """How a video becomes a vector, and the vector a score. The defaults are those of `tuned`."""

    along_lines: bool = True
    planes: tuple[str, str, str] = ("max", "mean", "sd")
    keep: str = "rows"  # of the CNN's map: rows, cells, mean
    linear: bool = False
    rounded: bool = False
    findings: bool = False  # the experts' A-lines and B-lines instead of pixels

    @property
    def pixels(self) -> tuple[bool, tuple[str, str, str]]:
        """The input of the CNN: the slow part, which several variants share."""
        return self.along_lines, self.planes


CHANGES = {
    RECIPE: Variant(),
    "the regression's output rounded, not cut": Variant(rounded=True),
    "linear, no Gaussian kernel": Variant(linear=True),
    "the frame as it is, not along the scan lines": Variant(along_lines=False),
    "maximum, mean and minimum over time": Variant(planes=("max", "mean", "min")),
    "the mean over time alone": Variant(planes=("mean", "mean", "mean")),
    "the standard deviation over time alone": Variant(planes=("sd", "sd", "sd")),
    "every cell of the CNN's map kept": Variant(keep="cells"),
    "the map's mean, depth lost": Variant(keep="mean"),
}
# The CNN trained further: on which picture, and with which loss. The first as Khan et al. 2024.
FURTHER = {
    "maximum, mean and minimum, the frame as it is, cross entropy": (
        Variant(along_lines=False, planes=("max", "mean", "min")),
        "cross-entropy",
    ),
    "the recipe's picture, SORD": (Variant(), "sord"),
}


@dataclass(frozen=True)
class Study:
    """The prepared videos, and every fold of every repetition."""

    cache: Cache
    videos: VideoCache
    folds: list[Fold]

    @property
    def scores(self) -> np.ndarray:
        return self.videos.scores.astype(np.int64)

    def in_(self, patients: Sequence[str]) -> np.ndarray:
        return np.flatnonzero(np.isin(self.videos.patients, list(patients)))


def vectors(study: Study, variant: Variant) -> np.ndarray:
    """(video, 1, feature) float32."""
    if variant.findings:
        findings = np.stack([study.videos.a_lines, study.videos.b_lines], axis=1)
        return findings.astype(np.float32)[:, None]
    maps = torch.from_numpy(kept_maps(study, *variant.pixels))
    side = maps.shape[-1]
    size = {"rows": (side, 1), "cells": (side, side), "mean": (1, 1)}[variant.keep]
    return F.adaptive_avg_pool2d(maps, size).flatten(1)[:, None].numpy()


def kept_maps(study: Study, along_lines: bool, planes: tuple[str, str, str]) -> np.ndarray:
    """(video, channel, row, column) float32: the frozen CNN's maps."""

    def seen(shown: torch.Tensor) -> torch.Tensor:
        return cnn(shown[None])[0]

    cnn, _ = kernel_model.without_head(*build_backbone("efficientnet_lite0", "imagenet"))
    cnn.eval()
    return kept(study, "", along_lines, planes, seen)


def kept(
    study: Study,
    name: str,
    along_lines: bool,
    planes: tuple[str, str, str],
    seen: Callable[[torch.Tensor], torch.Tensor],
) -> np.ndarray:
    """The features of the picture of each video, one row each, computed once and stored."""
    where = "lines" if along_lines else "frame"
    path = study.cache.root / "quality" / f"{name}{where}-{'-'.join(planes)}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    rows = []
    with torch.inference_mode():
        for index in range(len(study.videos)):
            shown = picture(study.videos.read(index), along_lines, planes)
            rows.append(seen((shown - mean) / std).numpy())
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.stack(rows))
    return np.stack(rows)


def picture(frames: np.ndarray, along_lines: bool, planes: tuple[str, str, str]) -> torch.Tensor:
    """kernel_model.video_image, with other planes or another geometry."""
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
    """Replaces kernel_head.kernel: the mean product of the features."""
    return torch.einsum("akc,bkc->ab", some, others) / some[0].numel()


def out_of_fold(study: Study, variant: Variant, patients: int = 0) -> list[Predictions]:
    """Predictions for all videos, one per repetition.

    patients: the number of training patients per fold; 0: all.
    """
    features, kernel = vectors(study, variant), linear if variant.linear else kernel_head.kernel
    by_repeat: dict[int, np.ndarray] = {}
    for fold in study.folds:
        training = [*fold.split.train, *fold.split.validation]
        if patients:
            random = np.random.default_rng([patients, fold.repeat, fold.number])
            training = random.permutation(sorted(training))[:patients].tolist()
        train, test = study.in_(training), study.in_(fold.split.test)
        names = [study.videos.patients[index] for index in train]
        with mock.patch.object(kernel_head, "kernel", kernel), torch.inference_mode():
            head, _ = kernel_head.fit(features[train], study.scores[train], names, fold.repeat)
            shown = torch.from_numpy(features[test])
            level, logits = head.level(shown), head(shown)
        rows = by_repeat.setdefault(fold.repeat, np.zeros((len(study.videos), len(SCORES))))
        nearest = np.eye(len(SCORES))[level.round().clamp(0, 3).long().numpy()]
        rows[test] = nearest if variant.rounded else torch.softmax(logits, dim=1).numpy()
    return [Predictions(list(study.videos.ids), study.scores, rows) for rows in by_repeat.values()]


def trained_further(
    study: Study, variant: Variant, loss: str, repetitions: int
) -> list[Predictions]:
    """Predictions for all videos by a CNN trained on the training patients, one per repetition."""

    def seen(shown: torch.Tensor) -> torch.Tensor:
        return front(torch.stack([shown, shown.flip(dims=(2,))])).half()

    front = further_training.half_way()
    maps = torch.from_numpy(kept(study, "half-way-", *variant.pixels, seen))
    videos = further_training.Videos(maps, torch.from_numpy(study.scores))
    predicted = np.zeros((repetitions, len(study.videos), len(SCORES)))
    for fold in (fold for fold in study.folds if fold.repeat <= repetitions):
        train, validation, test = map(
            study.in_, (fold.split.train, fold.split.validation, fold.split.test)
        )
        where = f"{'lines' if variant.along_lines else 'frame'}-{loss}"
        predicted[fold.repeat - 1, test] = further_training.kept_fold(
            study.cache.root / "quality" / "further" / f"{where}-{fold.name}.npy",
            *(videos, (train, validation, test), loss, fold.repeat),
        )
    return [Predictions(list(study.videos.ids), study.scores, rows) for rows in predicted]
