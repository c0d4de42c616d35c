"""lus prepare: exam tree or video files -> videos.h5, split.json and the study's figures.

Each video is decoded into a shard of its own under videos.parts/, named by its source files and
the frame format. When all are there, videos.h5 is put together from shards and from what the
previous videos.h5 already held. A killed run leaves the old cache and its shards, and the next run
goes on from there.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lus_cli.cache import Cache, only_writer
from lus_cli.config import REPORT_TEST_PATIENTS, PrepareConfig
from lus_cli.decoding import DecodeTask, decode_all, decode_video, source_key
from lus_cli.errors import LusError
from lus_cli.exam_tree import SCORES, Findings, VideoId
from lus_cli.sources import Source
from lus_cli.split import (
    PARTS,
    Split,
    count_table,
    draw_split,
    named_test_patients,
    read_split,
    write_split,
)
from lus_cli.steps import Progress, Result, Table
from lus_cli.study import read_study
from lus_cli.video_cache import (
    UNKNOWN,
    Entry,
    FrameFormat,
    StoredVideo,
    VideoCache,
    write_video_cache,
)

log = logging.getLogger("lus.prepare")


@dataclass(frozen=True)
class Plan:
    """What the cache is to hold, and what has to be left out of it."""

    sources: dict[VideoId, Source]
    entries: list[Entry]
    problems: list[str]


def run(config: PrepareConfig, progress: Progress) -> Result:
    """Brings the cache up to date with the study, doing only what changed."""
    cache = Cache(config.cache)
    if config.verify:
        return verify(cache, progress)
    frame_format = FrameFormat(config.size, config.letterbox, config.color)
    plan = make_plan(config, config.exams or cache.exams, frame_format)
    if config.strict and plan.problems:
        raise LusError(
            f"{len(plan.problems)} problems, the first: {plan.problems[0]}", "--strict is on"
        )
    old = open_old(cache)
    if config.dry_run:
        return dry_result(plan, old, cache)
    with only_writer(config.cache):
        if is_current(old, plan, frame_format):
            assert old is not None
            log.info("%s is up to date: nothing to decode", cache.videos)
            failed: list[str] = []
        else:
            failed = build(config, cache, plan, old, frame_format, progress)
        videos = VideoCache(cache.videos)
        split = update_split(config, cache, videos)
        files = draw_figures(cache, videos, split)
    return result(cache, videos, split, plan.problems + failed, files)


def make_plan(config: PrepareConfig, root: Path, frame_format: FrameFormat) -> Plan:
    """An entry for each scored video whose files can be read. Raises LusError if none is left."""
    study = read_study(config, root)
    entries, problems = [], list(study.problems)
    for video, source in study.sources.items():
        seen = study.findings.get(video, Findings(None, None))
        try:
            key = source_key(source, frame_format)
        except LusError as error:
            problems.append(str(error))
            continue
        a_lines, b_lines = known(seen.a_lines), known(seen.b_lines)
        score = study.scores[video]
        entries.append(Entry(video, score, a_lines, b_lines, key, source.kind, source.path))
    if not entries:
        raise LusError(f"no video in {root} can be read, the first", problems[0])
    return Plan(study.sources, entries, problems)


def known(finding: bool | None) -> int:
    return UNKNOWN if finding is None else int(finding)


def open_old(cache: Cache) -> VideoCache | None:
    """The cache as the last run left it; None if there is none that can be read."""
    if not cache.videos.exists():
        return None
    try:
        return VideoCache(cache.videos)
    except LusError as error:
        log.warning("%s; building it anew", error.message)
        return None


def is_current(old: VideoCache | None, plan: Plan, frame_format: FrameFormat) -> bool:
    return old is not None and old.frame_format == frame_format and old.entries == plan.entries


def shards_folder(cache: Cache) -> Path:
    return cache.root / "videos.parts"


def decode_task(entry: Entry, plan: Plan, cache: Cache, frame_format: FrameFormat) -> DecodeTask:
    shard = shards_folder(cache) / f"{entry.source_key}.npz"
    return DecodeTask(plan.sources[entry.id], frame_format, shard)


def undecoded(plan: Plan, old: VideoCache | None, cache: Cache) -> list[Entry]:
    """The videos that neither the previous cache nor a shard holds."""
    kept = set(old.source_keys) if old is not None else set()
    kept |= {path.stem for path in shards_folder(cache).glob("*.npz")}
    return [entry for entry in plan.entries if entry.source_key not in kept]


def build(
    config: PrepareConfig,
    cache: Cache,
    plan: Plan,
    old: VideoCache | None,
    frame_format: FrameFormat,
    progress: Progress,
) -> list[str]:
    """Decodes what is new, writes videos.h5, and returns what could not be decoded."""
    if old is not None and old.frame_format != frame_format:
        log.info("frame settings changed: every video is decoded again")
    kept = {key: i for i, key in enumerate(old.source_keys)} if old is not None else {}
    tasks = {e.id: decode_task(e, plan, cache, frame_format) for e in plan.entries}
    new = [tasks[e.id] for e in undecoded(plan, old, cache)]
    failed = decode_all(new, config.workers, progress)
    if config.strict and failed:
        raise LusError(f"{len(failed)} videos failed, the first: {failed[0][1]}", "--strict is on")
    bad = {task.source.id for task, _ in failed}
    entries = [e for e in plan.entries if e.id not in bad]
    if not entries:
        raise LusError("no video could be decoded", failed[0][1])

    def video_of(entry: Entry) -> StoredVideo:
        if old is not None and entry.source_key in kept:
            return old.stored(kept[entry.source_key])
        # A shard that the disk damaged is decoded once more.
        return StoredVideo.load(tasks[entry.id].shard) or decode_video(tasks[entry.id])

    exams = (config.exams or cache.exams).absolute()
    provenance = {"exams": str(exams), "mask_text": config.mask_text}
    write_video_cache(cache.videos, entries, video_of, frame_format, provenance)
    shutil.rmtree(shards_folder(cache), ignore_errors=True)
    return [reason for _, reason in failed]


def verify(cache: Cache, progress: Progress) -> Result:
    """Reads the cache from end to end and names what is not as it was written."""
    videos = VideoCache(cache.videos)
    damaged = ["the table of ids, scores and settings"] if videos.tables_damaged() else []
    for done, (index, is_damaged) in enumerate(videos.damaged(), start=1):
        if is_damaged:
            damaged.append(f"video {videos.ids[index]}")
        progress("verify", done, len(videos))
    notes = [f"{cache.videos}: {what} is damaged" for what in damaged]
    if damaged:
        notes.append(f"delete {cache.videos} and run `lus prepare`")
    return Result(
        {"videos": len(videos), "damaged": damaged},
        [Table("verified", ("videos", "damaged"), [(len(videos), len(damaged))])],
        notes=notes,
        failed=bool(damaged),
    )


def update_split(config: PrepareConfig, cache: Cache, videos: VideoCache) -> Split:
    """Keeps the split there is where it still fits, edited by hand or not; else draws it."""
    settings = {
        name: getattr(config, name)
        for name in ("test_share", "validation_share", "stratify", "folds", "seed")
    }
    named = named_test_patients(config.test_patients, REPORT_TEST_PATIENTS, videos.patients)
    settings["test_patients"] = list(named)
    if cache.split.exists() and not config.force:
        split, edited = read_split(cache.split, videos.patients)
        if edited:
            log.info("%s was edited by hand: kept as it is", cache.split)
            return split
        if split.drawn_by == settings:
            return split
        log.info("split settings changed: %s is drawn anew", cache.split)
    split = draw_split(videos.patients, videos.scores, settings, named)
    write_split(cache.split, split)
    return split


def part_counts(videos: VideoCache, split: Split) -> dict[str, list[int]]:
    """Videos per score in each part (Table I of the report)."""
    table = count_table(videos.patients, videos.scores)
    none = np.zeros(len(SCORES), int)
    return {
        part: np.sum([table[p] for p in getattr(split, part)] or [none], axis=0).tolist()
        for part in PARTS
    }


def draw_figures(cache: Cache, videos: VideoCache, split: Split) -> dict[str, Path]:
    """Figures 3 and 4 and Table I of the report."""
    from lus_cli import figures

    drawn = {
        "lengths_by_score": figures.lengths_by_score(videos.lengths, videos.scores),
        "lengths_by_patient": figures.lengths_by_patient(videos.lengths, videos.patients),
        "scores_by_part": figures.scores_by_part(part_counts(videos, split)),
    }
    for name, figure in drawn.items():
        figures.save(figure, cache.figures / name)
    return {name: cache.figures / f"{name}.png" for name in drawn}


def result(
    cache: Cache, videos: VideoCache, split: Split, problems: list[str], files: dict[str, Path]
) -> Result:
    counts = part_counts(videos, split)
    rows = [(part, *counts[part], sum(counts[part]), names(getattr(split, part))) for part in PARTS]
    numbers: dict[str, Any] = {
        "videos": len(videos),
        "patients": len(set(videos.patients)),
        "frames": int(videos.lengths.sum()),
        "longest": int(videos.lengths.max()),
        "bytes": cache.videos.stat().st_size,
        "videos_per_score": counts,
        "fingerprint": videos.fingerprint,
    }
    columns = ("part", *(f"score {s}" for s in SCORES), "videos", "patients")
    title = (
        f"{len(videos)} videos, {numbers['frames']} frames, {numbers['patients']} patients, "
        f"{numbers['bytes'] / 1e6:.1f} MB"
    )
    return Result(
        numbers,
        [Table(title, columns, rows)],
        {"cache": cache.videos, "split": cache.split, **files},
        problems=problems,
    )


def names(patients: tuple[str, ...]) -> str:
    shown = " ".join(patients[:6])
    return f"{len(patients)}: {shown}{' ...' if len(patients) > 6 else ''}"


def dry_result(plan: Plan, old: VideoCache | None, cache: Cache) -> Result:
    """What a run would do, without doing it."""
    new = undecoded(plan, old, cache)
    lengths = [plan.sources[e.id].length for e in new]
    # Only folders say beforehand how many frames they hold.
    frames = None if None in lengths else sum(length or 0 for length in lengths)
    rows = [
        ("annotated videos", len(plan.entries)),
        ("already decoded", len(plan.entries) - len(new)),
        ("to decode", len(new)),
        ("frames to decode", frames),
        ("problems", len(plan.problems)),
    ]
    numbers = {"videos": len(plan.entries), "to_decode": len(new), "frames_to_decode": frames}
    table = Table("dry run: nothing was written", ("", "count"), rows)
    return Result(numbers, [table], problems=plan.problems)
