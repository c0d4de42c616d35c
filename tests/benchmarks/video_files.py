"""`lus prepare VIDEOS --labels` and `lus predict` compared with PyAV decoding the same files."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.processes import cores
from lus_cli.study.video_writing import write_video
from tests.benchmarks.chains import decoded, processes
from tests.benchmarks.large_caches import write_untrained_run
from tests.benchmarks.measured import Measured, Rows, middle, spread_of
from tests.benchmarks.processes import lus
from tests.benchmarks.studies import video_ids

VIDEOS, LENGTH, DIFFERENT, ROUNDS = 200, 80, 5, 3
SCORED = 100  # of these, scored by `lus predict`
GOAL = 0.7


def measure_videos(measured: Measured, folder: Path, frames: Sequence[Path]) -> None:
    """The rows prepare.video_ratio and prepare.predict_ratio."""
    videos, labels = make_videos(folder / "videos", frames, VIDEOS)
    cache = Cache(folder / "cache")
    to_prepare = ("prepare", videos[0].parent, "--labels", labels, "--cache", cache.root)
    to_predict = ("predict", *videos[:SCORED], "--cache", cache.root, "--device", "cpu")
    rates: dict[str, list[float]] = {"decoding alone": [], "prepare": [], "predict": []}
    with processes(cores()) as run:
        for _ in range(ROUNDS):
            seconds = run(decoded, [[video] for video in videos])
            rates["decoding alone"].append(VIDEOS * LENGTH / seconds)
            shutil.rmtree(cache.root, ignore_errors=True)
            rates["prepare"].append(VIDEOS * LENGTH / lus(*to_prepare))
            stored = VideoCache(cache.videos)
            patients = read_split(cache.split, stored.patients)[0]
            write_untrained_run(cache, stored, patients, "standard")
            rates["predict"].append(SCORED * LENGTH / lus(*to_predict))
    rows = [(what, f"{middle(r):.0f} frames/s", spread_of(r), "") for what, r in rates.items()]
    figures = measured.sections["prepare"]
    figures["video_frames"] = VIDEOS * LENGTH
    for what, name in (("prepare", "video_ratio"), ("predict", "predict_ratio")):
        pairs = zip(rates[what], rates["decoding alone"], strict=True)
        ratios = [command / decoding for command, decoding in pairs]
        figures[name] = middle(ratios)
        figures[f"{name}_rounds"] = [round(ratio, 3) for ratio in ratios]
        rows.append((f"{what} / decoding", f"{middle(ratios):.2f}", spread_of(ratios), str(GOAL)))
    title = f"{VIDEOS} H.264 files ({SCORED} for predict), whole commands, {cores()} cores"
    measured.tables.append(Rows(title, ("", "median", "rounds", "goal: at least"), rows))


def make_videos(folder: Path, frames: Sequence[Path], videos: int) -> tuple[list[Path], Path]:
    """Video files of LENGTH frames, links to DIFFERENT ones, and their label table."""
    folder.mkdir()
    originals = folder.with_name(f"{folder.name} once")
    originals.mkdir()
    for number in range(DIFFERENT):
        start = number * len(frames) // DIFFERENT
        chosen = [frames[(start + step) % len(frames)] for step in range(LENGTH)]
        pixels = (np.asarray(Image.open(path).convert("RGB")) for path in chosen)
        write_video(originals / f"{number}.mp4", pixels, 25)
    labels = folder.with_name("labels.csv")
    paths = []
    with labels.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "patient", "exam", "area", "score"))
        for number, video in zip(range(videos), video_ids(), strict=False):
            paths.append(folder / f"{number}.mp4")
            os.link(originals / f"{number % DIFFERENT}.mp4", paths[-1])
            table.writerow((paths[-1].name, *video, number % 4))
    return paths, labels
