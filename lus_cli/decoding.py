"""From the frames of a source to the compressed video that the cache stores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lus_cli.cache import fingerprint
from lus_cli.errors import LusError
from lus_cli.exam_tree import fit_frame
from lus_cli.processes import spread
from lus_cli.sources import Source
from lus_cli.steps import Progress
from lus_cli.video_cache import FrameFormat, StoredVideo, store_video


@dataclass(frozen=True)
class DecodeTask:
    """One video for a worker process."""

    source: Source
    frame_format: FrameFormat
    shard: Path  # named by the source key


@dataclass(frozen=True)
class Decoded:
    """What became of one video: its frames, or the reason why there are none."""

    frames: int = 0
    reason: str = ""


def source_key(source: Source, frame_format: FrameFormat) -> str:
    """Names a stored video by what it is made from: files by name, size and time, and the format.

    Raises LusError if one of the files cannot be asked for them.
    """
    files = []
    for path in source.files:
        try:
            known = path.stat()
        except OSError as error:
            raise LusError(
                f"video {source.id}: {path} cannot be read", error.strerror or str(error)
            ) from error
        files.append([path.relative_to(source.root).as_posix(), known.st_size, known.st_mtime_ns])
    return fingerprint([asdict(frame_format), source.id, source.kind, source.options, files])


def decode_all(
    tasks: Sequence[DecodeTask], workers: int, progress: Progress
) -> list[tuple[DecodeTask, str]]:
    """Decodes videos into shards, side by side; returns those that failed, with the reason."""
    failed = []
    lengths = [task.source.length for task in tasks]
    # Only folders say beforehand how many frames they hold.
    total = None if None in lengths else sum(length or 0 for length in lengths)
    done = 0
    if tasks:
        progress("decode", 0, total)
    with contextlib.closing(spread(decode_shard, tasks, workers)) as decoded:
        for videos, (index, outcome) in enumerate(decoded, start=1):
            if outcome.reason:
                failed.append((tasks[index], outcome.reason))
            done += lengths[index] or outcome.frames
            progress("decode", done, total, videos=f"{videos}/{len(tasks)}")
    return sorted(failed, key=lambda pair: pair[0].source.id)


def decode_shard(task: DecodeTask) -> Decoded:
    """Decodes one video into its shard; hands back the reason if it cannot be decoded.

    Raises LusError if the source changes meanwhile: a disk that went away, or a copy still under
    way, is no damaged video, and a cache without it would be the wrong answer.
    """
    try:
        video = decode_video(task)
    except LusError as error:
        refuse_change(task)
        return Decoded(reason=f"video {task.source.id}: {error}")
    refuse_change(task)
    video.save(task.shard)  # a full disk is not the video's fault: that error goes up
    return Decoded(video.length)


def refuse_change(task: DecodeTask) -> None:
    if source_key(task.source, task.frame_format) != task.shard.stem:
        raise LusError(
            f"video {task.source.id} changed while it was read",
            "run `lus prepare` again when nothing writes to its files",
        )


def decode_video(task: DecodeTask) -> StoredVideo:
    """Reads, resizes and compresses the frames of one video. Raises LusError if one is no image."""
    shapes: set[tuple[int, int]] = set()
    numbers: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for number, image in task.source.frames("RGB" if task.frame_format.color else "L"):
            shapes.add((image.height, image.width))
            if len(shapes) > 1:
                sizes = " and ".join(f"{width}x{height}" for height, width in sorted(shapes))
                raise LusError(f"frame {number} has another size ({sizes})", "remove or mend it")
            numbers.append(number)
            yield fit_frame(image, task.frame_format.size, task.frame_format.letterbox)

    stored = store_video(frames(), numbers, (0, 0))
    return replace(stored, source_shape=shapes.pop())
