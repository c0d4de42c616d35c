"""Caches of as many videos as one likes, to measure on: tables, split and a run, but no pixels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from lus_cli.cache import video_writer
from lus_cli.cache.chunks import FrameFormat, StoredVideo
from lus_cli.cache.layout import Cache
from lus_cli.cache.planning import make_plan
from lus_cli.cache.split import Split, write_split
from lus_cli.cache.split_drawing import draw_split
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.config import PrepareConfig
from lus_cli.files import write_text
from lus_cli.model.checkpoint import Card, new_model, save_best
from lus_cli.options import build, read_toml
from lus_cli.recipes.recipe import Recipe
from lus_cli.recipes.shipped import recipe_path
from lus_cli.study.annotations import ANNOTATIONS
from lus_cli.study.ids import VideoId
from lus_cli.study.study import StudyFiles
from lus_cli.training import run_folder

FORMAT = FrameFormat(224, letterbox=False, color=False)
PER_PATIENT = 10  # videos
LENGTHS = (40, 253)  # frames, as in the study of the report
SPLIT = {"test_share": 0.2, "validation_share": 0.2, "stratify": False, "folds": 5, "seed": 5}
RUN = "none-1"


def entries(videos: int) -> Iterator[Entry]:
    """Ten videos of each patient, with the keys and paths that `lus prepare` gives them."""
    scores = np.random.default_rng(0).integers(4, size=videos).tolist()
    for number, score in enumerate(scores):
        patient, area = divmod(number, PER_PATIENT)
        video = VideoId(f"P{patient:06}", "1", str(area + 1))
        key = f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"
        yield Entry(video, score, -1, score >= 2, key, "video", f"{video}.mp4")


def write_large_cache(root: Path, videos: int) -> Cache:
    """A cache of `videos` videos, written as `lus prepare` does, whose pixels were never stored.

    It holds a split and a run with untrained weights. So every command starts as it would with the
    pixels, and ends with an error when it reads the first of them.
    """
    cache = Cache(root)
    random = np.random.default_rng(1)

    def video_of(_: Entry) -> StoredVideo:
        numbers = np.arange(random.integers(*LENGTHS), dtype=np.int32)
        return StoredVideo(numbers, random.bytes(16).hex(), (480, 640), ())

    origin = {"exams": str(root / "exams"), "mask_text": False}
    with mock.patch.object(video_writer, "read_ahead", map):  # there is nothing to wait for
        video_writer.write_video_cache(
            cache.videos, list(entries(videos)), video_of, FORMAT, origin
        )
    stored = VideoCache(cache.videos)
    split = draw_split(stored.patients, stored.scores, SPLIT | {"test_patients": []}, ())
    write_split(cache.split, split)
    write_untrained_run(cache, stored, split, "demo")
    return cache


def write_untrained_run(cache: Cache, videos: VideoCache, split: Split, recipe_name: str) -> None:
    """A run of a recipe with random weights, as `lus train` leaves it, which becomes the latest."""
    recipe = build(Recipe, {"name": recipe_name} | read_toml(recipe_path(recipe_name)))
    recipe = dataclasses.replace(recipe, weights="none")
    run = cache.new_run(RUN)
    run_folder.start_folder(run, recipe, split, {"labels": videos.labels})
    write_text(cache.latest, f"{RUN}\n")
    torch.manual_seed(0)
    longest = int(videos.lengths.max())
    card = Card(recipe, videos.frame_format, longest, 1, 1.0, videos.fingerprint, False)
    save_best(run.best, new_model(recipe).state_dict(), card)


def write_large_study(root: Path, videos: int) -> Path:
    """An exam tree of empty video files, with annotations."""
    lines = []
    for entry in entries(videos):
        path = root / entry.source_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lines.append(f"{entry.id};{entry.score}\n")
    (root / ANNOTATIONS).write_text("".join(lines))
    return root


def pretend_prepared(config: PrepareConfig) -> None:
    """Makes the cache that `lus prepare` would make of the study, without reading its files."""
    assert config.exams is not None
    frame_format = FrameFormat(config.size, config.letterbox, config.color)
    cache, plan = Cache(config.cache), make_plan(StudyFiles(config.exams), frame_format)
    numbers = np.arange(LENGTHS[0], dtype=np.int32)
    checksums = (f"{number:032x}" for number in itertools.count())

    def video_of(_: Entry) -> StoredVideo:
        return StoredVideo(numbers, next(checksums), (480, 640), ())

    with mock.patch.object(video_writer, "read_ahead", map):
        video_writer.write_video_cache(
            cache.videos, plan.entries, video_of, plan.frame_format, plan.provenance
        )
