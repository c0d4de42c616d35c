"""JPEG decoders side by side, one file after the other, and the fastest of them on every core."""

from __future__ import annotations

import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

SCALED = 256  # what a scaled decoder has to leave along each axis
BATCH = 32  # files handed to a process at a time


def pillow_convert(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def pillow_draft(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    image.draft("L", image.size)
    return np.asarray(image)


def pillow_scaled(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    image.draft("L", (SCALED, SCALED))
    return np.asarray(image)


def torchvision(content: bytes) -> torch.Tensor:
    return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.GRAY)


def simplejpeg_whole(content: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(content, "GRAY")


def simplejpeg_scaled(content: bytes) -> np.ndarray:
    """At the least of libjpeg-turbo's sixteen sizes; most of them have no quick transform."""
    return simplejpeg.decode_jpeg(content, "GRAY", min_height=SCALED, min_width=SCALED)


def simplejpeg_half(content: bytes) -> np.ndarray:
    height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    return simplejpeg.decode_jpeg(
        content, "GRAY", min_height=-(-height // 2), min_width=-(-width // 2)
    )


Decoder = Callable[[bytes], object]
WHOLE: dict[str, Decoder] = {
    "Pillow, convert": pillow_convert,
    "Pillow, draft": pillow_draft,
    "torchvision decode_jpeg": torchvision,
    "simplejpeg": simplejpeg_whole,
}
SMALL: dict[str, Decoder] = {
    "Pillow, draft, scaled": pillow_scaled,
    "simplejpeg, scaled": simplejpeg_scaled,
    "simplejpeg, half size": simplejpeg_half,
}


def decode_times(files: Sequence[Path], rounds: int) -> dict[str, float]:
    """Milliseconds a file from disk to gray pixels, the best round of each decoder."""
    decoders = WHOLE | SMALL
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, decode in decoders.items():
            began = time.perf_counter()
            for file in files:
                decode(file.read_bytes())
            times[name].append((time.perf_counter() - began) / len(files) * 1e3)
    return {name: min(of_rounds) for name, of_rounds in times.items()}


# ------------------------------------------------------------------------------------- on every core


@contextmanager
def decoding_processes(
    workers: int,
) -> Iterator[Callable[[Sequence[Path], str], tuple[float, float]]]:
    """Started processes that only decode.

    (files, decoder) -> seconds that pass, and seconds of all cores.
    """
    with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:

        def decode(files: Sequence[Path], decoder: str) -> tuple[float, float]:
            batches = [(files[i : i + BATCH], decoder) for i in range(0, len(files), BATCH)]
            pool.map(decode_batch, batches[: 2 * workers], chunksize=1)
            began = time.perf_counter()
            used = sum(pool.imap_unordered(decode_batch, batches))
            return time.perf_counter() - began, used

        yield decode


def decode_batch(batch: tuple[Sequence[Path], str]) -> float:
    """Decodes files; the seconds of its core."""
    files, decoder = batch
    decode = WHOLE[decoder]
    began = time.process_time()
    for file in files:
        decode(file.read_bytes())
    return time.process_time() - began


def copy_ms(pixels: np.ndarray, rounds: int) -> float:
    """Milliseconds to copy an array within memory, the median."""
    target = np.empty_like(pixels)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        np.copyto(target, pixels)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)
