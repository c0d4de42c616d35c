"""From the frames of a video folder to the compressed video that the cache stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lus_cli.cache import fingerprint
from lus_cli.errors import LusError
from lus_cli.exam_tree import VideoFolder, decode_frame, fit_frame
from lus_cli.processes import spread
from lus_cli.steps import Progress
from lus_cli.video_cache import FrameFormat, StoredVideo, store_video


@dataclass(frozen=True)
class DecodeTask:
    """One video for a worker process."""

    folder: VideoFolder
    frame_format: FrameFormat
    shard: Path


def source_key(folder: VideoFolder, frame_format: FrameFormat) -> str:
    """Names a stored video by what it is made from: files by name, size and time, and the format."""
    stats = ((frame, frame.path.stat()) for frame in folder.frames)
    files = [[frame.number, frame.path.name, s.st_size, s.st_mtime_ns] for frame, s in stats]
    return fingerprint([asdict(frame_format), folder.id, files])


def decode_all(
    tasks: Sequence[DecodeTask], workers: int, progress: Progress
) -> list[tuple[DecodeTask, str]]:
    """Decodes videos into shards, side by side; returns those that failed, with the reason."""
    failed = []
    total = sum(len(task.folder.frames) for task in tasks)
    done = 0
    if tasks:
        progress("decode", 0, total)
    for index, reason in spread(decode_shard, tasks, workers):
        if reason:
            failed.append((tasks[index], reason))
        done += len(tasks[index].folder.frames)
        progress("decode", done, total)
    return sorted(failed, key=lambda pair: pair[0].folder.id)


def decode_shard(task: DecodeTask) -> str:
    """Decodes one video into its shard; returns the reason if it cannot be decoded."""
    try:
        video = decode_folder(task)
    except LusError as error:
        return f"video {task.folder.id}: {error}"
    video.save(task.shard)  # a full disk is not the video's fault: that error goes up
    return ""


def decode_folder(task: DecodeTask) -> StoredVideo:
    """Reads, resizes and compresses the frames of one video. Raises LusError if one is no image."""
    shapes: set[tuple[int, int]] = set()
    mode = "RGB" if task.frame_format.color else "L"

    def frames() -> Iterator[np.ndarray]:
        for frame in task.folder.frames:
            image = decode_frame(frame.path, "RGB" if mode == "RGB" else "L")
            shapes.add((image.height, image.width))
            if len(shapes) > 1:
                sizes = " and ".join(f"{width}x{height}" for height, width in sorted(shapes))
                raise LusError(f"{frame.path.name} has another size ({sizes})", "remove or mend it")
            yield fit_frame(image, task.frame_format.size, task.frame_format.letterbox)

    numbers = [frame.number for frame in task.folder.frames]
    stored = store_video(frames(), numbers, (0, 0))
    return StoredVideo(stored.frame_numbers, stored.checksum, shapes.pop(), stored.chunks)
