"""The part `data`: the cost of `lus prepare` besides decoding, and the size and speed of its cache."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from lus_cli.cache.video_cache import VideoCache
from lus_cli.processes import cores
from tests.benchmarks.chains import by_video, frames_in_a_row, processes
from tests.benchmarks.decoders import SMALL, WHOLE, copy_ms, decode_times, decoding_processes
from tests.benchmarks.measured import Measured, Rows, middle, spread_of
from tests.benchmarks.processes import lus, lus_times, peak_mb
from tests.benchmarks.studies import PATIENTS, encode, files_of, make_study, phantom_frames
from tests.benchmarks.video_files import measure_videos

FRAMES = 480  # different ones; studies repeat them
LENGTH = 80  # frames of a video in the studies for speed
# What is measured on: (width, height), colour, videos in the study for speed.
KINDS: dict[str, tuple[tuple[int, int], bool, int]] = {
    "1024x768": ((1024, 768), False, 100),
    "350x350": ((350, 350), False, 200),
    "1024x768 colour": ((1024, 768), True, 0),
}
MAIN, OTHER = "1024x768", "350x350"
ROUNDS = 3
BASELINE_FRAMES = 240
READ_SIZE, READ_LENGTH, READS = 224, 100, 200
SMALL_VIDEOS, MANY_VIDEOS, SHORT = 200, 2000, 6
MEANING = {
    "chain_ratio": "prepare / the library calls in a row",
    "decode_ratio": "prepare / decode",
    "decode_ratio_after_start": "the same, less what 10 frames take",
    "decode_ratio_of_cpu": "the same, by time of the cores",
    "baseline_ratio": "prepare / baseline",
}
GOALS = {
    "chain_ratio": "0.8",
    "decode_ratio": "",
    "decode_ratio_after_start": "",
    "decode_ratio_of_cpu": "",
    "baseline_ratio": "5",
}
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def measure(folder: Path) -> Measured:
    measured = Measured({"prepare": {}, "cache": {}, "decode_ms": {}})
    frames = phantom_frames(folder / "phantom", FRAMES)
    encoded = {
        name: encode(frames, folder / name, size, color) for name, (size, color, _) in KINDS.items()
    }
    fastest = compare_decoders(measured, encoded)
    speed(measured, folder, encoded, fastest)
    measure_videos(measured, folder, encoded[OTHER])
    memory(measured, folder, frames)
    reading(measured, folder, encoded[OTHER])
    return measured


def compare_decoders(measured: Measured, encoded: dict[str, list[Path]]) -> dict[str, str]:
    """Every decoder on every kind of file; the name of the fastest whole one of each kind."""
    times = {name: decode_times(files[:: len(files) // 100], 5) for name, files in encoded.items()}
    measured.sections["decode_ms"] = {
        kind: {name: round(ms, 3) for name, ms in of_kind.items()}
        for kind, of_kind in times.items()
    }
    measured.tables.append(
        Rows(
            "JPEG file to gray pixels, one process, ms (best of 5 rounds)",
            ("decoder", *times),
            [(name, *(f"{times[k][name]:.2f}" for k in times)) for name in WHOLE | SMALL],
        )
    )
    return {kind: min(WHOLE, key=lambda name: times[kind][name]) for kind in times}


# ------------------------------------------------------------------------------------------- speed


def speed(
    measured: Measured, folder: Path, encoded: dict[str, list[Path]], fastest: dict[str, str]
) -> None:
    """`lus prepare` as a whole against its library calls in a row, against decoding alone and
    against the plain baseline, in turns."""
    rows: list[tuple[str, ...]] = []
    figures = measured.sections["prepare"]
    for kind in (MAIN, OTHER):
        _, _, videos = KINDS[kind]
        study = make_study(folder / f"study {kind}", encoded[kind], videos, LENGTH)
        single = make_study(folder / f"start {kind}", encoded[kind], PATIENTS, 1)
        times = race(study, single, folder / "cache", fastest[kind])
        ratios = {
            "chain_ratio": [r.chain / r.prepare for r in times],
            "decode_ratio": [r.decode / r.prepare for r in times],
            "decode_ratio_after_start": [r.decode / (r.prepare - r.start) for r in times],
            "decode_ratio_of_cpu": [r.decode_cpu / (r.prepare_cpu - r.start_cpu) for r in times],
            "baseline_ratio": [r.baseline / r.prepare for r in times],
        }
        frames = videos * LENGTH
        figures[kind] = {
            **{name: middle(values) for name, values in ratios.items()},
            "decode_ratio_rounds": [round(ratio, 3) for ratio in ratios["decode_ratio"]],
            "decoder": fastest[kind],
            "frames": frames,
            "frames_per_s": middle([frames / r.prepare for r in times]),
            "start_s": middle([r.start for r in times]),
        }
        for name in ("decode", "chain", "prepare", "baseline"):
            rates = [frames / getattr(r, name) for r in times]
            rows.append((f"{kind}: {name}", f"{middle(rates):.0f} frames/s", spread_of(rates), ""))
        for name, goal in GOALS.items():
            of_rounds = ratios[name]
            value = f"{middle(of_rounds):.2f}"
            rows.append((f"{kind}: {MEANING[name]}", value, spread_of(of_rounds), goal))
        measured.sections["cache"] |= size_figures(folder / "cache", kind)
        shutil.rmtree(study)
    of_all = ("chain_ratio", "decode_ratio", "baseline_ratio")
    figures |= {name: figures[MAIN][name] for name in of_all}
    title = f"speed: the whole command `lus prepare`, {cores()} cores, {ROUNDS} rounds"
    measured.tables.append(Rows(title, ("", "median", "rounds", "goal: at least"), rows))


@dataclass(frozen=True)
class Round:
    """Seconds for all frames of a study; `start` is a `lus prepare` of one frame a patient."""

    decode: float
    decode_cpu: float
    prepare: float
    prepare_cpu: float
    start: float
    start_cpu: float
    baseline: float
    chain: float


def race(study: Path, single: Path, cache: Path, decoder: str) -> list[Round]:
    """Each in turn, ROUNDS times."""
    files = files_of(study)
    rounds = []
    with decoding_processes(cores()) as decode, processes(cores()) as run:
        for _ in range(ROUNDS):
            decoding = decode(files, decoder)
            chain = run(frames_in_a_row, by_video(files))
            shutil.rmtree(cache, ignore_errors=True)
            starting = lus_times("prepare", single, "--cache", cache)
            shutil.rmtree(cache)
            preparing = lus_times("prepare", study, "--cache", cache)
            rounds.append(
                Round(*decoding, *preparing, *starting, len(files) / baseline_rate(files), chain)
            )
    return rounds


def baseline_rate(files: Sequence[Path]) -> float:
    """A straightforward implementation: frames/s to normalised float32 RGB, one process, no cache."""
    turn = transforms.Compose(
        [transforms.Resize((256, 256)), transforms.ToTensor(), transforms.Normalize(*IMAGENET)]
    )
    files = files[:BASELINE_FRAMES]
    began = time.perf_counter()
    for start in range(0, len(files), LENGTH):
        torch.stack([turn(Image.open(f).convert("RGB")) for f in files[start : start + LENGTH]])
    return len(files) / (time.perf_counter() - began)


def size_figures(cache: Path, kind: str) -> dict[str, float]:
    """The file against padded float32 RGB tensors of the same videos."""
    videos = VideoCache(cache / "videos.h5")
    padded = len(videos) * int(videos.lengths.max()) * videos.frame_format.size**2 * 3 * 4
    ratio = round(videos.path.stat().st_size / padded, 4)
    videos.file.close()
    return {"size_ratio": ratio} if kind == MAIN else {f"size_ratio_{kind}": ratio}


# ------------------------------------------------------------------------------------------ memory


def memory(measured: Measured, folder: Path, frames: Sequence[Path]) -> None:
    """Peak memory of the whole process tree for a small and a large study."""
    small = encode(frames[:200], folder / "small", (160, 120), color=False)
    figures = measured.sections["prepare"]
    rows = []
    for videos in (SMALL_VIDEOS, MANY_VIDEOS):
        study = make_study(folder / f"{videos} videos", small, videos, SHORT)
        peak = peak_mb("prepare", study, "--cache", folder / f"cache {videos}")
        figures[f"peak_mb_{videos}"] = peak and round(peak, 1)
        rows.append((f"{videos} videos of {SHORT} frames", f"{peak:.0f} MB" if peak else "unknown"))
    title = "peak memory of all processes (proportional set size); goal: below 1000 MB, equal"
    measured.tables.append(Rows(title, ("", "peak"), rows))


# ----------------------------------------------------------------------------------------- reading


def reading(measured: Measured, folder: Path, frames: Sequence[Path]) -> None:
    """Milliseconds to read a frame, and a video of 100 frames, in any order."""
    study = make_study(folder / "reading", frames, 40, READ_LENGTH)
    lus("prepare", study, "--cache", folder / "reading cache", "--size", str(READ_SIZE))
    videos = VideoCache(folder / "reading cache" / "videos.h5")
    draw = np.random.default_rng(0)
    frame_times, video_times = [], []
    for _ in range(READS):
        index, position = int(draw.integers(len(videos))), draw.integers(READ_LENGTH, size=1)
        began = time.perf_counter()
        videos.read(index, position)
        between = time.perf_counter()
        pixels = videos.read(index)
        video_times.append((time.perf_counter() - between) * 1e3)
        frame_times.append((between - began) * 1e3)
    copy = copy_ms(pixels, 50)
    frame_ms, video_ms = statistics.median(frame_times), statistics.median(video_times)
    measured.sections["cache"] |= {
        "frame_ms": round(frame_ms, 3),
        "video_ms": round(video_ms, 3),
        "video_copy_ms": round(copy, 3),
        "video_to_copy": round(video_ms / copy, 2),
    }
    size = measured.sections["cache"]["size_ratio"]
    rows = [
        ("a random frame", f"{frame_ms:.2f} ms", spread_of(frame_times), "1.5 ms"),
        (f"a video of {READ_LENGTH}", f"{video_ms:.2f} ms", spread_of(video_times), "10 ms"),
        ("the video copied in memory", f"{copy:.2f} ms", "", ""),
        (f"file / padded float32 RGB, {MAIN}", f"{size:.3f}", "", "0.05"),
    ]
    title = f"the cache: read at {READ_SIZE} px from warm disk, median of {READS}"
    measured.tables.append(Rows(title, ("", "median", "reads", "goal: at most"), rows))
