"""What a shell offers to complete: recipes, runs, videos and frames. Not a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lus_cli.errors import LusError

MOST = 2000  # offers; a shell asks before it lists that many


def offers(kind: str, cache: Path, incomplete: str) -> list[tuple[str, str]]:
    """Values that start with `incomplete`, each with a remark for shells that show one.

    kind: recipe, run, video or frame. Of a list separated by commas, the last value is completed.
    Nothing is offered if the cache cannot be read.
    """
    before, comma, start = incomplete.rpartition(",")
    found: list[tuple[str, str]] = []
    with contextlib.suppress(LusError, OSError):
        values = {"recipe": recipes, "run": runs, "video": videos, "frame": frames}[kind]
        for value, remark in values(cache, start):
            if len(found) == MOST:
                break
            if value.startswith(start):
                found.append((f"{before}{comma}{value}", remark))
    return found


def recipes(cache: Path, start: str) -> Iterator[tuple[str, str]]:
    from lus_cli.recipes.shipped import recipe_names, summary

    for name in recipe_names():
        yield name, summary(name)


def runs(cache: Path, start: str) -> Iterator[tuple[str, str]]:
    for folder, remark in (("runs", "run"), ("crossvals", "cross-validation")):
        for path in sorted((cache / folder).glob(f"{start}*")):
            if path.is_dir() and not path.name.startswith("."):
                yield path.name, remark


def videos(cache: Path, start: str) -> Iterator[tuple[str, str]]:
    from lus_cli.cache.video_cache import VideoCache

    read = VideoCache(cache / "videos.h5")
    for index, video in enumerate(read.ids):
        score = read.scores[index]
        yield str(video), f"score {score}" if score >= 0 else "no score"


def frames(cache: Path, start: str) -> Iterator[tuple[str, str]]:
    """Every frame of the videos that fit; only the first frame of each if these are too many."""
    from lus_cli.cache.video_cache import VideoCache

    read = VideoCache(cache / "videos.h5")
    fitting = [
        index
        for index, video in enumerate(read.ids)
        if start.startswith(f"{video}/") or str(video).startswith(start)
    ]
    all_of_them = read.lengths[fitting].sum() <= MOST
    for index in fitting:
        numbers = read.frame_numbers(index)
        for number in numbers if all_of_them else numbers[:1]:
            yield f"{read.ids[index]}/{number}", f"{read.lengths[index]} frames"
