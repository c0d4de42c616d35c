"""What no pipeline can beat: the library calls of `lus prepare` in a row, in as many processes.

A frame is read, decoded, resized and copied into a chunk, and chunks are compressed; nothing is
checked, explained or written. Of a video file, the frames are only decoded.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import simplejpeg
import zstandard
from av.video.reformatter import VideoReformatter

from lus_cli.cache.chunks import CHUNK_FRAMES, ZSTD_LEVEL
from lus_cli.study.frames import MARGIN, REDUCTIONS, SCALING

SIZE = 256  # the default of --size
Chain = Callable[[Sequence[Path]], int]  # the files of a video -> its frames


def frames_in_a_row(files: Sequence[Path]) -> int:
    """JPEGs -> compressed chunks of SIZE x SIZE, as videos.h5 holds them."""
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
    resize = VideoReformatter().reformat
    chunk = np.zeros((CHUNK_FRAMES, SIZE, SIZE), np.uint8)
    source: av.VideoFrame | None = None
    for number, file in enumerate(files):
        content = file.read_bytes()
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
        spare = min(width, height) / SIZE / MARGIN
        by = next((reduction for reduction in REDUCTIONS if reduction <= spare), 1)
        pixels = simplejpeg.decode_jpeg(
            content, "GRAY", min_height=-(-height // by), min_width=-(-width // by), strict=True
        )[..., 0]
        if source is None:
            source = av.VideoFrame(pixels.shape[1], pixels.shape[0], "gray")
            into = pixels_of(source)
        into[...] = pixels
        scaled = resize(source, SIZE, SIZE, "gray", interpolation=SCALING, threads=1)
        chunk[number % CHUNK_FRAMES] = pixels_of(scaled)
        if number % CHUNK_FRAMES == CHUNK_FRAMES - 1 or number == len(files) - 1:
            compressor.compress(chunk.data)
    return len(files)


def pixels_of(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : frame.width]


def decoded(files: Sequence[Path]) -> int:
    """A video file -> its frames, in the one thread that a worker of lus takes."""
    count = 0
    for file in files:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            count += sum(1 for _ in container.decode(stream))
    return count


@contextmanager
def processes(workers: int) -> Iterator[Callable[[Chain, Sequence[Sequence[Path]]], float]]:
    """Started processes: (chain, files of each video) -> seconds that pass."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:

        def run(chain: Chain, videos: Sequence[Sequence[Path]]) -> float:
            pool.map(chain, videos[: 2 * workers], chunksize=1)  # warms up
            began = time.perf_counter()
            sum(pool.imap_unordered(chain, videos))
            return time.perf_counter() - began

        yield run


def by_video(files: Sequence[Path]) -> list[list[Path]]:
    """The files of an exam tree, video by video."""
    return [list(group) for _, group in itertools.groupby(files, key=lambda file: file.parent)]
