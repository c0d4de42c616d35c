"""Exam trees to measure on: phantom frames as real JPEGs of the sizes that scanners write."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from lus_cli.config import PhantomConfig
from lus_cli.progress import silent
from lus_cli.steps import phantom
from lus_cli.study.annotations import ANNOTATIONS, write_annotations
from lus_cli.study.ids import VideoId

QUALITY = 90
PATIENTS = 10
SIDE = 350  # of the phantom's own frames, as COVID-BLUES has them


def phantom_frames(folder: Path, wanted: int) -> list[Path]:
    """At least `wanted` frames, in the order of their videos."""
    config = PhantomConfig(
        root=folder, patients=6, videos=max(6, wanted // 25), size=SIDE, max_frames=50
    )
    phantom.run(config, silent)
    frames = sorted(folder.rglob("*.jpg"), key=lambda path: (path.parent, len(path.name), path))
    if len(frames) < wanted:
        raise ValueError(f"the phantom made {len(frames)} frames, not {wanted}")
    return frames[:wanted]


def encode(frames: Sequence[Path], folder: Path, size: tuple[int, int], color: bool) -> list[Path]:
    """The frames as JPEGs of `size`, (width, height); colour is 4:2:0."""
    folder.mkdir()
    paths = []
    for number, frame in enumerate(frames):
        with Image.open(frame) as image:
            picture = image.resize(size, Image.Resampling.BICUBIC)
        paths.append(folder / f"{number}.jpg")
        picture.convert("RGB" if color else "L").save(
            paths[-1], quality=QUALITY, **({"subsampling": "4:2:0"} if color else {})
        )
    return paths


def make_study(root: Path, frames: Sequence[Path], videos: int, length: int) -> Path:
    """An exam tree of `videos` videos of `length` frames each: links to the frames, over and over."""
    endless = itertools.cycle(frames)
    ids = list(itertools.islice(video_ids(), videos))
    for video in ids:
        folder = root.joinpath(*video)
        folder.mkdir(parents=True)
        for number in range(length):
            os.link(next(endless), folder / f"Frame_{number}.jpg")
    write_annotations(root / ANNOTATIONS, ((video, i % 4) for i, video in enumerate(ids)))
    return root


def video_ids() -> Iterator[VideoId]:
    """Ten patients in turn, with more and more areas and exams."""
    for exam, area, patient in itertools.product(range(1000), range(14), range(PATIENTS)):
        yield VideoId(f"p{patient}", str(exam), str(area))


def files_of(study: Path) -> list[Path]:
    return sorted(study.rglob("*.jpg"))
