"""What `lus prepare` has to do: the videos of the study against those that are decoded already."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lus_cli.cache.chunks import SHARD_SUFFIX, FrameFormat
from lus_cli.cache.decoding import DecodeTask, source_key
from lus_cli.cache.layout import Cache
from lus_cli.cache.ledger import Ledger, Reading, read_ledger, sizes_of, take_readings
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.config import PrepareConfig
from lus_cli.errors import LusError
from lus_cli.progress import Progress
from lus_cli.study.annotations import UNKNOWN, Findings
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import Source
from lus_cli.study.study import counted_frames, read_study

log = logging.getLogger("lus.prepare")

SHOWN_SCORES = 5  # that changed, in one sentence


@dataclass(frozen=True)
class Plan:
    """What the cache is to hold, and what has to be left out of it."""

    frame_format: FrameFormat
    sources: dict[VideoId, Source]
    entries: list[Entry]
    problems: list[str]
    provenance: dict[str, object]
    notes: list[str] = field(default_factory=list)  # what must be said of how they are read

    def task(self, entry: Entry, cache: Cache) -> DecodeTask:
        return DecodeTask(self.sources[entry.id], self.frame_format, shard_of(entry, cache))


def make_plan(config: PrepareConfig, root: Path) -> Plan:
    """An entry for each scored video whose files can be read. Raises LusError if none is left."""
    frame_format = FrameFormat(config.size, config.letterbox, config.color)
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
        raise LusError(
            f"no video in {root} can be read, the first", problems[0], left_out=problems[1:]
        )
    provenance = {"exams": str(root.absolute()), "mask_text": config.mask_text}
    notes = counted_frames(study.sources[entry.id] for entry in entries)
    return Plan(frame_format, study.sources, entries, problems, provenance, notes)


def known(finding: bool | None) -> int:
    return UNKNOWN if finding is None else int(finding)


# -------------------------------------------------------------------------- what is decoded already


def shards_folder(cache: Cache) -> Path:
    return cache.root / "videos.parts"


def shard_of(entry: Entry, cache: Cache) -> Path:
    return shards_folder(cache) / f"{entry.source_key}{SHARD_SUFFIX}"


def shard_readings(cache: Cache) -> Ledger:
    """What was read for the shards that there are."""
    readings: Ledger = {}
    for path in shards_folder(cache).glob("*.json"):
        readings |= read_ledger(path)
    return readings


@dataclass(frozen=True)
class Place:
    """Where a video lies decoded, and what its files held then, where that is known."""

    index: int | None  # in the old cache; None: in a shard
    reading: Reading | None
    same_files: bool  # by name, size and time; else by name and size alone

    @property
    def certain(self) -> bool:
        return self.same_files and (self.reading is None or not self.reading.racy)


@dataclass(frozen=True)
class Work:
    """What is left to do for a plan."""

    kept: dict[str, int]  # where in the old cache the video of a source key lies
    new: list[Entry]  # to be decoded
    ledger: Ledger  # what is known of the files of all others
    compared: int  # videos whose content had to be looked at
    remarks: list[str] = field(default_factory=list)


def find_work(plan: Plan, old: VideoCache | None, cache: Cache, progress: Progress) -> Work:
    """Finds what is decoded already; reads files only where their times leave a doubt."""
    ledger = read_ledger(cache.sources)
    places = find_decoded(plan, old, cache, ledger)
    doubtful = [e for e in plan.entries if places[e.id] and not any_certain(places[e.id])]
    if doubtful:
        progress("compare", 0, len(doubtful))
    sources = (plan.sources[entry.id] for entry in doubtful)
    readings = take_readings(sources, plan.frame_format)
    now = {entry.id: reading for entry, reading in zip(doubtful, readings, strict=True)}
    if doubtful:
        progress("compare", len(doubtful), len(doubtful))
    kept, new, known_readings = {}, [], {}
    for entry in plan.entries:
        fitting = [p for p in places[entry.id] if p.certain or same(p.reading, now.get(entry.id))]
        place = next(iter(sorted(fitting, key=lambda place: not place.certain)), None)
        if place is None:
            new.append(entry)
            continue
        if place.index is not None:
            kept[entry.source_key] = place.index
        reading = now.get(entry.id) or place.reading
        if reading is not None:
            known_readings[entry.source_key] = reading
    return Work(kept, new, known_readings, len(doubtful), list(remarks(plan, old, new)))


def find_decoded(
    plan: Plan, old: VideoCache | None, cache: Cache, ledger: Ledger
) -> dict[VideoId, list[Place]]:
    """Where each video of the plan may lie decoded."""
    by_key = {key: index for index, key in enumerate(old.source_keys)} if old else {}
    by_id = {video: index for index, video in enumerate(old.ids)} if old else {}
    of_shards = shard_readings(cache)
    shards = {path.stem for path in shards_folder(cache).glob(f"*{SHARD_SUFFIX}")}
    places: dict[VideoId, list[Place]] = {}
    for entry in plan.entries:
        key, found = entry.source_key, places.setdefault(entry.id, [])
        if key in by_key:
            found.append(Place(by_key[key], ledger.get(key), True))
        elif old is not None and entry.id in by_id:
            index = by_id[entry.id]
            reading = ledger.get(old.source_keys[index])
            if reading and reading.sizes == sizes_of(plan.sources[entry.id], plan.frame_format):
                found.append(Place(index, reading, False))  # copied or touched, or rewritten
        if key in shards:
            found.append(Place(None, of_shards.get(key), True))
    return places


def any_certain(places: Iterable[Place]) -> bool:
    return any(place.certain for place in places)


def same(before: Reading | None, now: Reading | None) -> bool:
    return before is not None and now is not None and before.content == now.content


def remarks(plan: Plan, old: VideoCache | None, new: list[Entry]) -> Iterator[str]:
    """Why videos are decoded that were decoded before, and which are gone."""
    if old is None:
        return
    before, now = set(old.ids), {entry.id for entry in plan.entries}
    if old.frame_format != plan.frame_format:
        yield (
            f"frame settings changed from {described(old.frame_format)} to "
            f"{described(plan.frame_format)}: every video is decoded again"
        )
    elif changed := [entry.id for entry in new if entry.id in before]:
        masking = old.provenance.get("mask_text") != plan.provenance["mask_text"]
        why = "--mask-text or their files" if masking else "their files"
        yield f"{counted(changed)} decoded again: {why} changed"
    yield from rescored(changed_scores(plan, old))
    if gone := [video for video in old.ids if video not in now]:
        yield f"{counted(gone)} no longer in the study"


def changed_scores(plan: Plan, old: VideoCache | None) -> list[str]:
    """`video 3 -> 2` for each video that had another score in the old cache."""
    before = {entry.id: entry.score for entry in old.entries} if old else {}
    return [
        f"{entry.id} {before[entry.id]} -> {entry.score}"
        for entry in plan.entries
        if before.get(entry.id, entry.score) != entry.score
    ]


def rescored(changes: Sequence[str]) -> list[str]:
    """A sentence about scores that changed, with the first of them."""
    if not changes:
        return []
    number = "1 score" if len(changes) == 1 else f"{len(changes)} scores"
    more = len(changes) - SHOWN_SCORES
    return [
        f"{number} changed: {', '.join(changes[:SHOWN_SCORES])}"
        + (f" and {more} more (-v)" if more > 0 else "")
    ]


def described(frame_format: FrameFormat) -> str:
    kind = "letterboxed " if frame_format.letterbox else ""
    return (
        f"{kind}{frame_format.size}x{frame_format.size} {'RGB' if frame_format.color else 'gray'}"
    )


def counted(videos: list[VideoId]) -> str:
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
