"""Decodes a source into the compressed video that the cache stores."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lus_cli.cache.chunks import FrameFormat, StoredVideo, store_video
from lus_cli.errors import LusError, printable
from lus_cli.files import fingerprint
from lus_cli.processes import cores, in_parallel
from lus_cli.progress import Progress, silent
from lus_cli.study.frames import USED, Mode, fit_frame, read_frame, refuse_unused_bits
from lus_cli.study.notes import Note, ignore
from lus_cli.study.sources import FrameFolder, Source
from lus_cli.torchrun.group import ALONE, Group

DECODING = 5  # increase it when frames are decoded or stored differently: they are decoded again
DARK = int(256 * USED)  # gray level; all frames below it may lack their upper bits
FEW_FRAMES = 200  # are decoded sooner than processes start


@dataclass(frozen=True)
class DecodeTask:
    """One video for a worker process."""

    source: Source
    frame_format: FrameFormat
    shard: Path  # named by the source key


@dataclass(frozen=True)
class Decoded:
    """The outcome for one video: its number of frames, or the reason why it cannot be decoded."""

    frames: int = 0
    reason: str = ""


def source_key(source: Source, frame_format: FrameFormat) -> str:
    """Identifies a stored video by its source files, the reader's options and the frame format.

    A file counts by its name, size and modification time in ns, not by its content. So a touched
    or copied file is decoded again, and a file that is rewritten with the same size within one
    tick of the file system's clock (2 s on FAT) is taken for unchanged. DECODING is part
    of the key, because another version of lus may decode or store frames differently.

    Raises LusError if a file cannot be read.
    """
    root = f"{source.root.as_posix()}/"  # Path.relative_to is slow, and this is for every frame
    files = []
    for path in source.files:
        try:
            status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat
        except OSError as error:
            raise LusError(
                f"video {source.id}: {path} cannot be read", error.strerror or str(error)
            ) from error
        files.append([path.as_posix().removeprefix(root), status.st_size, status.st_mtime_ns])
    made_of = [vars(frame_format), source.id, source.kind, source.options, files]
    return fingerprint([DECODING, *made_of])


Failed = tuple[DecodeTask, str]  # and the reason


def decode_all(
    tasks: Sequence[DecodeTask], workers: int, progress: Progress, group: Group = ALONE
) -> list[Failed]:
    """Decodes videos into shards in parallel. Returns the failed ones.

    Each process of the group decodes its share: the first one calls this, the others call
    decode_for_first.
    """
    if group.world > 1:
        group.agreed(True)
    return decode_share(tasks, workers, progress, group)


def decode_for_first(workers: int, group: Group) -> None:
    """Decodes this process's shares of videos until the first process calls nothing_to_decode."""
    while group.agreed(True):
        decode_share([], workers, silent, group)


def nothing_to_decode(group: Group) -> None:
    """Lets the other processes return from decode_for_first."""
    group.agreed(False)


def decode_share(
    tasks: Sequence[DecodeTask], workers: int, progress: Progress, group: Group
) -> list[Failed]:
    """Decodes the share of this process. Only in the first process, `tasks` are the videos of all
    processes, and the result lists the failures of all."""
    lengths = [task.source.length for task in tasks]
    # Only for folders is the number of frames known before decoding.
    total = None if None in lengths else sum(length or 0 for length in lengths)
    progress, share = group.whole(progress), group.dealt(tasks)
    known = [task.source.length for task in share]
    if None not in known and sum(length or 0 for length in known) <= FEW_FRAMES:
        workers = 1
    failed, done = [], 0
    if share:
        progress("decode", 0, total)
    workers = workers or max(1, cores() // group.local_world)
    with contextlib.closing(in_parallel(decode_shard, share, workers)) as decoded:
        for videos, (index, outcome) in enumerate(decoded, start=1):
            if outcome.reason:
                failed.append((share[index], outcome.reason))
            done += share[index].source.length or outcome.frames
            facts = {"videos": f"{videos}/{len(tasks)}"} if group.world == 1 else {}
            progress("decode", done, total, **facts)
    every = itertools.chain(*group.collected(failed))
    return sorted(every, key=lambda pair: pair[0].source.id)


def decode_shard(task: DecodeTask) -> Decoded:
    """Decodes one video into its shard. Returns the reason if it cannot be decoded.

    Raises LusError if the source changes during decoding, for example because its disk is gone or
    a copy is still running. Such a video is not damaged, so it must not be left out of the cache.
    """
    try:
        video = decode_video(task)
    except LusError as error:
        refuse_change(task)
        return Decoded(reason=f"video {task.source.id}: {error}")
    refuse_change(task)
    video.save(task.shard)  # outside `try`: an error of the disk is not an error of the video
    return Decoded(video.length)


def refuse_change(task: DecodeTask) -> None:
    if source_key(task.source, task.frame_format) != task.shard.stem:
        raise LusError(
            f"video {task.source.id} changed while it was read",
            "run `lus prepare` again when no other program writes to its files",
        )


def decode_video(task: DecodeTask) -> StoredVideo:
    """Reads, resizes and compresses the frames of one video.

    Raises LusError if a frame cannot be decoded.
    """
    notes: list[str] = []
    return stored_frames(fitted_frames(task.source, task.frame_format, notes.append), notes)


def stored_frames(
    frames: Iterable[tuple[int, np.ndarray, tuple[int, int]]], notes: Sequence[str] = ()
) -> StoredVideo:
    """Compresses the frames that `fitted_frames` yields, and stores `notes`, which may grow meanwhile.

    Raises LusError if the frames differ in size, or if there are none.
    """
    shapes: set[tuple[int, int]] = set()
    numbers: list[int] = []

    def pixels() -> Iterator[np.ndarray]:
        for number, frame, shape in frames:
            shapes.add(shape)
            if len(shapes) > 1:
                sizes = " and ".join(f"{width}x{height}" for height, width in sorted(shapes))
                raise LusError(
                    f"frame {number} has a different size ({sizes})",
                    "all frames of a video must have the same size",
                )
            numbers.append(number)
            yield frame

    stored = store_video(pixels(), numbers, (0, 0))
    if not numbers:
        raise LusError("it contains no frame", "remove it, or export it again")
    # Each sentence once: a reader may repeat it for every frame.
    return replace(
        stored, source_shape=shapes.pop(), notes=tuple(map(printable, dict.fromkeys(notes)))
    )


def fitted_frames(
    source: Source, frame_format: FrameFormat, note: Note = ignore
) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Yields the number of each frame, its pixels as stored, and its rows and columns in the source.

    Raises LusError for a frame that cannot be decoded, and for a video that is black.
    """
    brightest = -1
    for number, frame, shape in resized_frames(source, frame_format, note):
        if brightest < DARK:
            brightest = max(brightest, int(frame.max()))
        yield number, frame, shape
    if isinstance(source, FrameFolder) and brightest < DARK:
        refuse_unused_bits(source.files)
    if brightest == 0:
        raise LusError(
            "all its frames are black", "if a player shows more, export it in another format"
        )


def resized_frames(
    source: Source, frame_format: FrameFormat, note: Note
) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """What `fitted_frames` yields."""
    mode: Mode = "RGB" if frame_format.color else "L"
    size, letterbox = frame_format.size, frame_format.letterbox
    if isinstance(source, FrameFolder):
        for number, path in source.frame_files:
            yield number, *read_frame(path, mode, size, letterbox)
    else:
        for number, image in source.frames(mode, note=note):
            frame = fit_frame(np.asarray(image), size, letterbox)
            yield number, frame, (image.height, image.width)
