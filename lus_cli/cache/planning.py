"""Compares the study with the videos that are already decoded: what `lus prepare` has to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lus_cli.cache.chunks import SHARD_SUFFIX, FrameFormat
from lus_cli.cache.decoding import DecodeTask, source_key
from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.errors import LusError
from lus_cli.study.annotations import UNKNOWN, Findings
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import Source
from lus_cli.study.study import StudyFiles, read_study, time_order_notes
from lus_cli.words import counted, shortened

log = logging.getLogger("lus.prepare")

SHOWN_SCORES = 5  # changed scores named in one sentence


@dataclass(frozen=True)
class Plan:
    """What the cache should hold, and a line for each video that is left out."""

    frame_format: FrameFormat
    sources: dict[VideoId, Source]
    entries: list[Entry]
    problems: list[str]
    provenance: dict[str, object]
    notes: list[str] = field(default_factory=list)  # on how videos are read

    def task(self, entry: Entry, cache: Cache) -> DecodeTask:
        return DecodeTask(self.sources[entry.id], self.frame_format, shard_of(entry, cache))


def make_plan(files: StudyFiles, frame_format: FrameFormat) -> Plan:
    """An entry for each scored video whose files can be read. Raises LusError if none is left."""
    study = read_study(files)
    entries, problems = [], list(study.problems)
    for video, source in study.sources.items():
        findings = study.findings.get(video, Findings(None, None))
        try:
            key = source_key(source, frame_format)
        except LusError as error:
            problems.append(str(error))
            continue
        a_lines, b_lines = as_number(findings.a_lines), as_number(findings.b_lines)
        score = study.scores[video]
        group = study.groups.get(video, "")
        entries.append(Entry(video, score, a_lines, b_lines, key, source.kind, source.path, group))
    if not entries:
        raise LusError(
            f"no video in {files.root} can be read; the first problem",
            problems[0],
            left_out=problems[1:],
        )
    provenance = {"exams": str(files.root.absolute()), "mask_text": files.mask_text}
    notes = time_order_notes(study.sources[entry.id] for entry in entries)
    return Plan(frame_format, study.sources, entries, problems, provenance, notes)


def as_number(finding: bool | None) -> int:
    return UNKNOWN if finding is None else int(finding)


# ---------------------------------------------------------------------------------- decoded videos


def shards_folder(cache: Cache) -> Path:
    return cache.root / "videos.parts"


def shard_of(entry: Entry, cache: Cache) -> Path:
    return shards_folder(cache) / f"{entry.source_key}{SHARD_SUFFIX}"


@dataclass(frozen=True)
class Work:
    """The work that a plan requires."""

    kept: dict[str, int]  # source key -> index of the video in the old cache
    new: list[Entry]  # videos to decode
    remarks: list[str] = field(default_factory=list)


def find_work(plan: Plan, old: VideoCache | None, cache: Cache) -> Work:
    """Finds the videos that are already decoded, in the old cache or as a shard, by source key."""
    by_key = {key: index for index, key in enumerate(old.source_keys)} if old else {}
    shards = {path.stem for path in shards_folder(cache).glob(f"*{SHARD_SUFFIX}")}
    kept = {e.source_key: by_key[e.source_key] for e in plan.entries if e.source_key in by_key}
    new = [e for e in plan.entries if e.source_key not in kept and e.source_key not in shards]
    return Work(kept, new, list(remarks(plan, old, new)))


def remarks(plan: Plan, old: VideoCache | None, new: list[Entry]) -> Iterator[str]:
    """Sentences on videos that are decoded again, changed scores and removed videos."""
    if old is None:
        return
    before, now = set(old.ids), {entry.id for entry in plan.entries}
    if old.frame_format != plan.frame_format:
        yield (
            f"frame settings changed from {format_words(old.frame_format)} to "
            f"{format_words(plan.frame_format)}: every video is decoded again"
        )
    elif changed := [entry.id for entry in new if entry.id in before]:
        number = counted(len(changed), "video")
        masking = old.provenance.get("mask_text") != plan.provenance["mask_text"]
        why = " (--mask-text, or the files)" if masking else ""
        yield f"{number} changed{why}: {first_of(changed)} decoded again"
    yield from score_sentences(changed_scores(plan, old))
    if gone := [video for video in old.ids if video not in now]:
        yield f"{first_of(gone)} no longer in the study"


def changed_scores(plan: Plan, old: VideoCache | None) -> list[str]:
    """`<video> 3 -> 2` for each video whose score differs from the old cache."""
    before = {entry.id: entry.score for entry in old.entries} if old else {}
    return [
        f"{entry.id} {before[entry.id]} -> {entry.score}"
        for entry in plan.entries
        if before.get(entry.id, entry.score) != entry.score
    ]


def score_sentences(changes: Sequence[str]) -> list[str]:
    """At most one sentence: the number of changed scores, and the first of them."""
    if not changes:
        return []
    more = " (-v)" if len(changes) > SHOWN_SCORES else ""
    return [f"{counted(len(changes), 'score')} changed: {shortened(changes, SHOWN_SCORES)}{more}"]


def format_words(frame_format: FrameFormat) -> str:
    kind = "letterboxed " if frame_format.letterbox else ""
    return (
        f"{kind}{frame_format.size}x{frame_format.size} {'RGB' if frame_format.color else 'gray'}"
    )


def first_of(videos: Sequence[VideoId]) -> str:
    """The subject and verb of a sentence about videos: `video p/1/2 and 3 more are`."""
    first = f"video {videos[0]}"
    return f"{first} is" if len(videos) == 1 else f"{first} and {len(videos) - 1} more are"


def is_current(old: VideoCache | None, plan: Plan, work: Work) -> bool:
    return (
        old is not None
        and not work.new
        and old.frame_format == plan.frame_format
        and old.entries == plan.entries
        and old.provenance == plan.provenance
    )
