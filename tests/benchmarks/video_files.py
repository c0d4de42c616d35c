"""`lus prepare VIDEOS --labels` against PyAV, which only decodes the same files."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lus_cli.processes import cores
from lus_cli.study.video_writing import write_video
from tests.benchmarks.chains import decoded, processes
from tests.benchmarks.measured import Measured, Rows, middle, spread_of
from tests.benchmarks.processes import lus
from tests.benchmarks.studies import video_ids

VIDEOS, LENGTH, DIFFERENT, ROUNDS = 200, 80, 5, 3
GOAL = 0.7


def measure_videos(measured: Measured, folder: Path, frames: Sequence[Path]) -> None:
    """The row prepare.video_ratio."""
    videos, labels = make_videos(folder / "videos", frames, VIDEOS)
    seconds: dict[str, list[float]] = {"decoding alone": [], "prepare": []}
    with processes(cores()) as run:
        for _ in range(ROUNDS):
            seconds["decoding alone"].append(run(decoded, [[video] for video in videos]))
            shutil.rmtree(folder / "cache", ignore_errors=True)
            arguments = (videos[0].parent, "--labels", labels, "--cache", folder / "cache")
            seconds["prepare"].append(lus("prepare", *arguments))
    ratios = [a / b for a, b in zip(seconds["decoding alone"], seconds["prepare"], strict=True)]
    measured.sections["prepare"] |= {
        "video_ratio": middle(ratios),
        "video_ratio_rounds": [round(ratio, 3) for ratio in ratios],
        "video_frames": VIDEOS * LENGTH,
    }
    rows: list[tuple[str, ...]] = []
    for name, times in seconds.items():
        rates = [VIDEOS * LENGTH / time for time in times]
        rows.append((name, f"{middle(rates):.0f} frames/s", spread_of(rates), ""))
    rows.append(("prepare / decoding", f"{middle(ratios):.2f}", spread_of(ratios), str(GOAL)))
    title = f"H.264 files: the whole command `lus prepare VIDEOS --labels`, {cores()} cores"
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
