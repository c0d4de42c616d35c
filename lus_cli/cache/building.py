"""Brings videos.h5 up to date with the study.

Each video is decoded into a shard of its own under videos.parts/, named by its source key. When all
shards exist, videos.h5 is assembled from them and from the videos that the previous videos.h5
already holds. A killed run leaves the previous cache and its shards, and the next run continues
from there.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace

from lus_cli.cache.chunks import StoredVideo
from lus_cli.cache.decoding import DecodeTask, Failed, decode_video
from lus_cli.cache.hdf5 import is_sealed
from lus_cli.cache.layout import Cache
from lus_cli.cache.planning import (
    Plan,
    Work,
    changed_scores,
    find_work,
    is_current,
    shards_folder,
)
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.cache.video_writer import write_video_cache
from lus_cli.disk_errors import explaining_disk_errors
from lus_cli.errors import CannotReadError, LusError
from lus_cli.files import sweep
from lus_cli.words import counted

log = logging.getLogger("lus.prepare")


def open_old(cache: Cache) -> VideoCache | None:
    """The existing cache; None if there is none, or if it is damaged or has another format.

    Raises CannotReadError if the system does not allow reading it.
    """
    if not cache.videos.exists():
        return None
    try:
        old = VideoCache(cache.videos)
        old.entries, old.checksums, old.notes  # noqa: B018 - damage shows here, not later
    except CannotReadError:
        raise
    except LusError as error:
        log.warning("%s; rebuilding it", error.message)
        return None
    return old


def update_videos(
    cache: Cache,
    plan: Plan,
    old: VideoCache | None,
    decode: Callable[[list[DecodeTask]], list[Failed]],
    strict: bool,
) -> list[str]:
    """Updates videos.h5 to the plan. Returns a line for each video that cannot be decoded.

    decode: decodes videos into their shards and returns the failed ones, see decode_all.
    strict: whether a failed one is an error.
    """
    work = find_work(plan, old, cache)
    if is_current(old, plan, work):
        log.info("%s is up to date: nothing to decode", cache.videos)
        return []
    if old is not None and not is_sealed(cache.videos):
        log.warning("%s is damaged; rebuilding it", cache.videos)
        old.close()
        old = None  # videos copied from it could be damaged too
        work = find_work(plan, old, cache)
    for remark in work.remarks:
        log.info("%s", remark)
    for change in changed_scores(plan, old):
        log.debug("score changed: %s", change)
    tasks = [plan.task(e, cache) for e in work.new]
    failed = decode(tasks)
    if strict and failed:
        raise LusError(
            f"{counted(len(failed), 'video')} cannot be decoded, the first: {failed[0][1]}",
            "--strict makes this an error",
            left_out=[reason for _, reason in failed[1:]],
        )
    reasons = [reason for _, reason in failed]
    bad = {task.source.id for task, _ in failed}
    plan = replace(plan, entries=[entry for entry in plan.entries if entry.id not in bad])
    work = replace(work, new=[entry for entry in work.new if entry.id not in bad])
    if not plan.entries:
        raise LusError(
            "no video could be decoded", reasons[0], left_out=plan.problems + reasons[1:]
        )
    if is_current(old, plan, work):
        log.info("%s is up to date except for the videos left out", cache.videos)
    else:
        write_cache(cache, plan, old, work)
    return reasons


def write_cache(cache: Cache, plan: Plan, old: VideoCache | None, work: Work) -> None:
    """Assembles videos.h5 from the videos of the old one and from shards."""

    def video_of(entry: Entry) -> StoredVideo:
        index = work.kept.get(entry.source_key)
        if old is not None and index is not None:
            return old.stored(index)
        task = plan.task(entry, cache)
        # A damaged shard is decoded again.
        return StoredVideo.load(task.shard) or decode_video(task)

    write_video_cache(
        cache.videos,
        plan.entries,
        video_of,
        plan.frame_format,
        plan.provenance,
        written=old.close if old is not None else lambda: None,
    )


def clean(cache: Cache) -> None:
    """Removes the leftovers of killed runs: what they decoded is in videos.h5 now."""
    with explaining_disk_errors(cache.root):
        if shards_folder(cache).exists():
            shutil.rmtree(shards_folder(cache))
        sweep(cache.root)
        sweep(cache.figures)
