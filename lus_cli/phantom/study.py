"""The synthetic study: patients, exams, scores and lengths like the report's data, and rendering."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import lus_cli
from lus_cli.errors import UsageError
from lus_cli.phantom.appearance import Scene
from lus_cli.phantom.scene import Label, Lesion, Look, draw_lesions, draw_look
from lus_cli.phantom.true_masks import write_mask
from lus_cli.processes import in_parallel
from lus_cli.progress import Progress
from lus_cli.study.frames import save_jpeg
from lus_cli.study.ids import VideoId, video_order

# The original study: these patients, 1.64 exams per patient, up to 14 areas per exam, these scores.
PATIENTS = (1017, 1045, 1047, 1048, 1050, 1051, 1052, 1066, 1067, 1068, 1069)
SHORT_PATIENTS = (1047, 1051)
LONGEST = VideoId("1017", "1048", "11")
EXAMS_PER_PATIENT = 18 / 11
AREAS = 14
SCORE_COUNTS = (45, 45, 101, 55)
JPEG_QUALITY = 90
POOL_PAYS_FROM = 4e7  # pixels; below, starting processes takes longer than it saves


@dataclass(frozen=True)
class Video:
    """One video to render; determines every byte of it."""

    id: VideoId
    score: int
    frames: int
    seed: int
    size: int

    def rng(self, *parts: str) -> np.random.Generator:
        """A random generator that depends on the seed of the study and on `parts`, not on an order."""
        return np.random.default_rng([self.seed, *map(int, parts)])

    def draw(self) -> tuple[Look, list[Lesion]]:
        """Draws look and lesions from separate streams, so that the look is independent of the score."""
        patient, exam, area = self.id
        look = draw_look(self.rng(patient, exam), self.rng(patient, exam, area, "1"))
        return look, draw_lesions(self.rng(patient, exam, area, "2"), self.score, look)


@dataclass(frozen=True)
class RenderTask:
    """One video for a worker process."""

    video: Video
    exams: Path
    masks: Path


# --------------------------------------------------------------------------------------- the study


def study(*, videos: int, patients: int, longest: int, size: int, seed: int) -> list[Video]:
    """The videos of the study in natural order: ids, scores and lengths.

    longest: frames of the longest video.
    size: rows and columns of a frame.
    """
    if videos < patients:
        raise UsageError(
            f"--videos {videos} is fewer than --patients {patients}",
            "each patient needs at least one video",
        )
    rng = np.random.default_rng(seed)
    ids = draw_ids(videos, patients, rng)
    scores = draw_scores(ids, rng)
    lengths = draw_lengths(ids, longest, rng)
    return [
        Video(video, scores[video], lengths[video], seed, size)
        for video in sorted(ids, key=video_order)
    ]


def draw_ids(total: int, people: int, rng: np.random.Generator) -> list[VideoId]:
    """The ids of `total` videos of `people` patients, with LONGEST among them.

    Distributes exams over the patients and areas over the exams.
    """
    required = [int(LONGEST.patient), *SHORT_PATIENTS]
    original = [*required, *(p for p in PATIENTS if p not in required)]
    others = list(range(max(PATIENTS) + 1, 10_000))
    step = max(1, min(len(others) // people, 3))
    patients = sorted([*original, *others[::step]][:people])
    exams = max(round(people * EXAMS_PER_PATIENT), -(-total // AREAS))
    exams = min(exams, total)
    numbers = draw_exam_numbers(exams, rng)
    first = patients.index(int(LONGEST.patient))
    order = [first, *(i for i in range(len(patients)) if i != first)]
    extra = itertools.cycle(rng.permutation(len(patients)).tolist())
    owners = [patients[i] for i in itertools.islice(itertools.chain(order, extra), exams)]
    areas_of = np.full(exams, total // exams)
    areas_of[rng.permutation(exams)[: total % exams]] += 1
    ids = []
    for owner, number, count in zip(owners, numbers, areas_of, strict=True):
        areas = rng.permutation(np.arange(1, AREAS + 1)).tolist()
        if number == int(LONGEST.exam):
            areas.sort(key=lambda area: area != int(LONGEST.area))
        ids += [VideoId(str(owner), str(number), str(area)) for area in areas[:count]]
    return ids


def draw_exam_numbers(count: int, rng: np.random.Generator) -> list[int]:
    """Unique four-digit exam numbers, that of LONGEST first."""
    first = int(LONGEST.exam)
    last = min(9999, 1000 + 20 * count)
    others = [n for n in range(1000, last + 1) if n != first]
    return [first, *rng.permutation(others)[: count - 1].tolist()]


def draw_scores(ids: Sequence[VideoId], rng: np.random.Generator) -> dict[VideoId, int]:
    """Draws scores with the shares of the original study; each patient has a mixture of scores.

    The severities of the videos of a patient are spaced evenly over 0 to 1 and shifted by a random
    tendency of the patient. The ranking of all videos is then cut at the shares.
    """
    severity: dict[VideoId, float] = {}
    for _, group in itertools.groupby(sorted(ids), key=lambda video: video.patient):
        videos = list(group)
        spaced = (rng.permutation(len(videos)) + rng.random(len(videos))) / len(videos)
        tendency = rng.normal(0, 0.08)
        severity |= {v: s + tendency for v, s in zip(videos, spaced, strict=True)}
    ranked = sorted(ids, key=lambda video: severity[video])
    ends = np.rint(np.cumsum(SCORE_COUNTS) / sum(SCORE_COUNTS) * len(ids)).astype(int)
    return {video: int(np.searchsorted(ends, i, "right")) for i, video in enumerate(ranked)}


def draw_lengths(
    ids: Sequence[VideoId], longest: int, rng: np.random.Generator
) -> dict[VideoId, int]:
    """The number of frames of each video: most for LONGEST, fewest for SHORT_PATIENTS."""
    lengths = {}
    for video in ids:
        short = int(video.patient) in SHORT_PATIENTS
        share = rng.uniform(0.2, 0.4) if short else rng.uniform(0.7, 1.0)
        lengths[video] = min(max(2, round(share * longest)), longest - 1)
    lengths[LONGEST] = longest
    return lengths


def study_record(seed: int, videos: Sequence[Video]) -> dict[str, Any]:
    """The content of study.json: all drawn parameters."""

    def record(video: Video) -> dict[str, Any]:
        look, lesions = video.draw()
        drawn = {"score": video.score, "frames": video.frames} | dataclasses.asdict(look)
        findings = [dataclasses.asdict(le) | {"label": le.label.name.lower()} for le in lesions]
        return drawn | {"lesions": findings}

    return {
        "version": lus_cli.__version__,
        "seed": seed,
        "labels": {label.name.lower(): int(label) for label in Label},
        "videos": {str(video.id): record(video) for video in videos},
    }


# --------------------------------------------------------------------------------------- the files


def render_all(tasks: Sequence[RenderTask], workers: int, progress: Progress) -> None:
    """Renders all videos, the longest first, in parallel if that saves time."""
    tasks = sorted(tasks, key=lambda task: -task.video.frames)
    total, done = sum(task.video.frames for task in tasks), 0
    if sum(task.video.frames * task.video.size**2 for task in tasks) < POOL_PAYS_FROM:
        workers = 1
    progress("phantom", 0, total)
    # Closed here, so that no worker is writing when the folders of a failed study are removed.
    with contextlib.closing(in_parallel(render, tasks, workers)) as outcomes:
        for index, _ in outcomes:
            done += tasks[index].video.frames
            progress("phantom", done, total)


def render(task: RenderTask) -> None:
    """Renders one video: frames as JPEG, true masks as PNG."""
    video = task.video
    look, lesions = video.draw()
    scene = Scene(look, lesions, video.size, video.rng(*video.id, "3"))
    frames, masks = (folder.joinpath(*video.id) for folder in (task.exams, task.masks))
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    for number, (frame, mask) in enumerate(scene.frames(video.frames)):
        image = Image.fromarray(frame)
        save_jpeg(frames / f"Frame_{number}.jpg", image, JPEG_QUALITY)
        write_mask(masks / f"Frame_{number}.png", mask)
