"""lus prepare: exam tree -> videos.h5, split.json and the study's figures.

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
from lus_cli.decoding import DecodeTask, decode_all, decode_folder, source_key
from lus_cli.errors import LusError
from lus_cli.exam_tree import (
    ANNOTATIONS,
    FINDINGS,
    SCORES,
    VideoFolder,
    VideoId,
    find_videos,
    read_annotations,
    read_findings,
)
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
class Study:
    """What the exam tree holds: annotated videos, and what is wrong with the rest."""

    folders: dict[VideoId, VideoFolder]
    entries: list[Entry]
    problems: list[str]


def run(config: PrepareConfig, progress: Progress) -> Result:
    """Brings the cache up to date with the exam tree, doing only what changed."""
    cache = Cache(config.cache)
    frame_format = FrameFormat(config.size, config.letterbox, config.color)
    study = read_study(config, config.exams or cache.exams, frame_format)
    if config.strict and study.problems:
        raise LusError(
            f"{len(study.problems)} problems, the first: {study.problems[0]}", "--strict is on"
        )
    old = open_old(cache)
    if config.dry_run:
        return dry_result(study, old, cache)
    with only_writer(config.cache):
        if is_current(old, study, frame_format):
            assert old is not None
            log.info("%s is up to date: nothing to decode", cache.videos)
            failed: list[str] = []
        else:
            failed = build(config, cache, study, old, frame_format, progress)
        videos = VideoCache(cache.videos)
        split = update_split(config, cache, videos)
        files = draw_figures(cache, videos, split)
    return result(cache, videos, split, study.problems + failed, files)


def read_study(config: PrepareConfig, root: Path, frame_format: FrameFormat) -> Study:
    """Pairs folders with annotations. Raises LusError if nothing is left to prepare."""
    folders, problems = find_videos(root)
    annotations = config.annotations or root / ANNOTATIONS
    scores = read_annotations(annotations)
    findings = read_findings(root / FINDINGS) if (root / FINDINGS).is_file() else {}
    by_id = {folder.id: folder for folder in folders}
    problems += [f"video {v}: no annotation in {annotations}" for v in by_id if v not in scores]
    problems += [
        f"video {v}: annotated, but there is no such folder" for v in scores if v not in by_id
    ]
    entries = []
    for video, folder in by_id.items():
        if video not in scores:
            continue
        seen = findings.get(video)
        entries.append(
            Entry(
                video,
                scores[video],
                UNKNOWN if seen is None or seen.a_lines is None else int(seen.a_lines),
                UNKNOWN if seen is None or seen.b_lines is None else int(seen.b_lines),
                source_key(folder, frame_format),
            )
        )
    if not entries:
        reason = (
            f"{len(problems)} problems, the first: {problems[0]}" if problems else "it is empty"
        )
        raise LusError(f"{root} holds no annotated video", reason)
    return Study(by_id, entries, problems)


def open_old(cache: Cache) -> VideoCache | None:
    """The cache as the last run left it; None if there is none that can be read."""
    if not cache.videos.exists():
        return None
    try:
        return VideoCache(cache.videos)
    except LusError as error:
        log.warning("%s; building it anew", error.message)
        return None


def is_current(old: VideoCache | None, study: Study, frame_format: FrameFormat) -> bool:
    if old is None or old.frame_format != frame_format:
        return False
    rows = zip(old.ids, old.source_keys, old.scores, old.a_lines, old.b_lines, strict=True)
    return [tuple(row) for row in rows] == [
        (e.id, e.source_key, e.score, e.a_lines, e.b_lines) for e in study.entries
    ]


def shards_folder(cache: Cache) -> Path:
    return cache.root / "videos.parts"


def decode_task(entry: Entry, study: Study, cache: Cache, frame_format: FrameFormat) -> DecodeTask:
    shard = shards_folder(cache) / f"{entry.source_key}.npz"
    return DecodeTask(study.folders[entry.id], frame_format, shard)


def undecoded(study: Study, old: VideoCache | None, cache: Cache) -> list[Entry]:
    """The videos that neither the previous cache nor a shard holds."""
    kept = set(old.source_keys) if old is not None else set()
    kept |= {path.stem for path in shards_folder(cache).glob("*.npz")}
    return [entry for entry in study.entries if entry.source_key not in kept]


def build(
    config: PrepareConfig,
    cache: Cache,
    study: Study,
    old: VideoCache | None,
    frame_format: FrameFormat,
    progress: Progress,
) -> list[str]:
    """Decodes what is new, writes videos.h5, and returns what could not be decoded."""
    if old is not None and old.frame_format != frame_format:
        log.info("frame settings changed: every video is decoded again")
    kept = {key: i for i, key in enumerate(old.source_keys)} if old is not None else {}
    tasks = {e.id: decode_task(e, study, cache, frame_format) for e in study.entries}
    new = [tasks[e.id] for e in undecoded(study, old, cache)]
    failed = decode_all(new, config.workers, progress)
    if config.strict and failed:
        raise LusError(f"{len(failed)} videos failed, the first: {failed[0][1]}", "--strict is on")
    bad = {task.folder.id for task, _ in failed}
    entries = [e for e in study.entries if e.id not in bad]
    if not entries:
        raise LusError("no video could be decoded", failed[0][1])

    def video_of(entry: Entry) -> StoredVideo:
        if old is not None and entry.source_key in kept:
            return old.stored(kept[entry.source_key])
        # A shard that the disk damaged is decoded once more.
        return StoredVideo.load(tasks[entry.id].shard) or decode_folder(tasks[entry.id])

    exams = (config.exams or cache.exams).absolute()
    write_video_cache(cache.videos, entries, video_of, frame_format, {"exams": str(exams)})
    shutil.rmtree(shards_folder(cache), ignore_errors=True)
    return [reason for _, reason in failed]


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


def dry_result(study: Study, old: VideoCache | None, cache: Cache) -> Result:
    """What a run would do, without doing it."""
    new = undecoded(study, old, cache)
    frames = sum(len(study.folders[e.id].frames) for e in new)
    rows = [
        ("annotated videos", len(study.entries)),
        ("already decoded", len(study.entries) - len(new)),
        ("to decode", len(new)),
        ("frames to decode", frames),
        ("problems", len(study.problems)),
    ]
    numbers = {"videos": len(study.entries), "to_decode": len(new), "frames_to_decode": frames}
    return Result(
        numbers, [Table("dry run: nothing was written", ("", "count"), rows)], {}, study.problems
    )
