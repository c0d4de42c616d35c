"""lus prepare: exam tree or video files -> videos.h5, split.json and the study's figures.

Under torchrun all processes decode, and the first one does all else.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lus_cli.cache.building import clean, open_old, update_videos
from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.decoding import decode_all, decode_for_first, nothing_to_decode
from lus_cli.cache.drawn import draw_figures, part_counts
from lus_cli.cache.hdf5 import is_sealed
from lus_cli.cache.layout import Cache
from lus_cli.cache.planning import (
    Plan,
    Work,
    changed_scores,
    find_work,
    is_current,
    make_plan,
)
from lus_cli.cache.readme import write_readme
from lus_cli.cache.same_patient import alike_id_notes, separated_ids, shared_video_notes
from lus_cli.cache.split import PARTS, Split, check_split, load_split, write_split
from lus_cli.cache.split_drawing import (
    PER_GROUP,
    count_table,
    draw_split,
    fixed_test_patients,
    group_folds,
    patients_of_groups,
)
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import REPORT_TEST_PATIENTS, PrepareConfig
from lus_cli.errors import LusError
from lus_cli.files import check_writable
from lus_cli.folders import only_writer
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import SCORES
from lus_cli.study.notes import summary
from lus_cli.study.study import StudyFiles
from lus_cli.torchrun.group import Group, connected
from lus_cli.words import counted

log = logging.getLogger("lus.prepare")


def run(config: PrepareConfig, progress: Progress) -> Result:
    """Updates the cache to the study; decodes only new and changed videos."""
    group = Group.of_environment()
    with connected(group):
        if not group.first:
            decode_for_first(config.workers, group)
            return Result()
        prepared = prepare(config, group, progress)
        nothing_to_decode(group)
        return prepared


def prepare(config: PrepareConfig, group: Group, progress: Progress) -> Result:
    """The work of the first process, in which the others help to decode."""
    cache = Cache(config.cache)
    if config.verify:
        return verify(cache, progress)
    if not config.dry_run:
        check_writable(cache.root, cache.figures)
    plan = make_plan(
        StudyFiles(
            config.exams or cache.exams,
            config.labels,
            config.annotations,
            config.mat_scores,
            config.mask_text,
        ),
        FrameFormat(config.size, config.letterbox, config.color),
    )
    if config.strict and plan.problems:
        raise LusError(
            f"{counted(len(plan.problems), 'problem')}, the first: {plan.problems[0]}",
            "--strict makes this an error",
            left_out=plan.problems[1:],
        )
    if config.dry_run:
        old = open_old(cache)
        return dry_result(plan, old, find_work(plan, old, cache))
    with only_writer(config.cache):
        old = open_old(cache)  # under the lock: another prepare may have replaced it just before
        decode = partial(decode_all, workers=config.workers, progress=progress, group=group)
        failed = update_videos(cache, plan, old, decode, config.strict)
        videos = VideoCache(cache.videos)
        problems = plan.problems + failed
        with explaining_the_split(videos, problems):
            split = update_split(config, cache, videos)
        files = draw_figures(cache, videos, split)
        write_readme(cache)
        clean(cache)
    notes = plan.notes + shared_video_notes(videos) + alike_id_notes(videos.patients, split)
    return result(cache, videos, split, problems, files, notes)


@contextlib.contextmanager
def explaining_the_split(videos: VideoCache, problems: Sequence[str]) -> Iterator[None]:
    """Adds to an error of the split how many videos were read and how many were left out."""
    try:
        yield
    except LusError as error:
        if not problems:
            raise
        patients = len(set(videos.patients))
        raise type(error)(
            f"{error.message}; {counted(len(videos), 'video')} of {counted(patients, 'patient')} "
            f"can be read; {counted(len(problems), 'problem')} left others out, the first: "
            f"{problems[0]}",
            error.remedy,
            left_out=problems,
        ) from None


def verify(cache: Cache, progress: Progress) -> Result:
    """Reads the whole cache and names every part that differs from what was written."""
    videos = VideoCache(cache.videos)
    damaged = []
    for done, (index, is_damaged) in enumerate(videos.damaged(), start=1):
        if is_damaged:
            damaged.append(f"video {videos.ids[index]}")
        progress("verify", done, len(videos))
    intact = len(videos) - len(damaged)
    if not damaged and not is_sealed(cache.videos):
        damaged.append("the HDF5 structure around videos and tables")
    notes = [f"{cache.videos}: {what} is damaged" for what in damaged]
    if damaged:
        notes.append(f"delete {cache.videos} and run `lus prepare`")
    return Result(
        {"videos": len(videos), "damaged": damaged},
        [Table("verified", ("videos", "intact"), [(len(videos), intact)])],
        notes=notes,
        failed=bool(damaged),
    )


def update_split(config: PrepareConfig, cache: Cache, videos: VideoCache) -> Split:
    """Keeps the existing split if it still fits the study and the settings; otherwise draws one.

    A split that was edited by hand is kept whatever the settings are.
    """
    settings = {
        name: getattr(config, name)
        for name in ("test_share", "validation_share", "stratify", "folds", "seed")
    }
    test_patients = in_test(config, videos)
    settings["test_patients"] = list(test_patients)
    if cache.split.exists() and not config.force:
        split, edited = load_split(cache.split)
        if edited:
            check_split(cache.split, split, videos.patients)
            log.info("%s was edited by hand and is kept", cache.split)
            if split.drawn_by not in ({}, settings):  # {}: written by hand
                log.warning("the split settings have no effect on it; --force draws it again")
            return split
        if set(split.patients("all")) != set(videos.patients):
            log.warning("the patients of the study have changed: %s is drawn again", cache.split)
        elif separated_ids(videos.patients, split):
            log.warning(
                "ids that may be one patient were in two parts: %s is drawn again", cache.split
            )
        elif split.drawn_by == settings:
            if config.folds != PER_GROUP or split.folds == group_folds(
                videos.patients, videos.groups
            ):
                return split
            log.info("the groups of the patients changed: %s is drawn again", cache.split)
        else:
            log.info("the split settings changed: %s is drawn again", cache.split)
    split = draw_split(videos.patients, videos.scores, settings, test_patients, videos.groups)
    write_split(cache.split, split)
    return split


def in_test(config: PrepareConfig, videos: VideoCache) -> tuple[str, ...]:
    """The patients that must be in the test part, by name or by group."""
    by_default = () if config.test_groups else REPORT_TEST_PATIENTS
    named = fixed_test_patients(config.test_patients, by_default, videos.patients)
    if not config.test_groups:
        return named
    of_groups = patients_of_groups(config.test_groups, videos.patients, videos.groups)
    return tuple(dict.fromkeys(named + of_groups))


def result(
    cache: Cache,
    videos: VideoCache,
    split: Split,
    problems: list[str],
    files: dict[str, Path],
    notes: list[str],
) -> Result:
    counts = part_counts(videos, split)
    reader_notes = list(zip(videos.source_paths, videos.notes, strict=True))
    rows = [(part, *counts[part], sum(counts[part]), names(getattr(split, part))) for part in PARTS]
    numbers: dict[str, Any] = {
        "videos": len(videos),
        "patients": len(set(videos.patients)),
        "frames": int(videos.lengths.sum()),
        "longest": int(videos.lengths.max()),
        "bytes": cache.videos.stat().st_size,
        "videos_per_score": counts,
        "fingerprint": videos.fingerprint,
        "notes": {path: sentences for path, sentences in reader_notes if sentences},
    }
    columns = ("part", *(f"score {s}" for s in SCORES), "videos", "patients")
    title = (
        f"{len(videos)} videos, {numbers['frames']} frames, {numbers['patients']} patients, "
        f"{numbers['bytes'] / 1e6:.1f} MB"
    )
    groups = group_rows(videos)
    numbers["groups"] = {
        group: {"patients": p, "videos": v, "scores": s} for group, p, v, s in groups
    }
    tables = [Table(title, columns, rows)]
    if groups:
        columns = ("group", *columns[1:])
        rows = [(group, *s, v, p) for group, p, v, s in groups]
        tables.append(Table(counted(len(groups), "group"), columns, rows))
    return Result(
        numbers,
        tables,
        {"cache": cache.videos, "split": cache.split, **files},
        notes=summary(reader_notes) + notes,
        problems=problems,
    )


def group_rows(videos: VideoCache) -> list[tuple[str, int, int, list[int]]]:
    """Each group with its number of patients, of videos and of videos of each score."""
    owners = list(zip(videos.groups, videos.patients, strict=True))
    return [
        (group, len({p for g, p in owners if g == group}), videos.groups.count(group), row.tolist())
        for group, row in count_table(videos.groups, videos.scores).items()
        if group
    ]


def names(patients: tuple[str, ...]) -> str:
    shown = " ".join(patients[:6])
    return f"{len(patients)}: {shown}{' ...' if len(patients) > 6 else ''}"


def dry_result(plan: Plan, old: VideoCache | None, work: Work) -> Result:
    """What a run would do."""
    lengths = [plan.sources[entry.id].length for entry in work.new]
    # Only for folders is the number of frames known before decoding.
    frames = None if None in lengths else sum(length or 0 for length in lengths)
    rows = [
        ("annotated videos", len(plan.entries)),
        ("already decoded", len(plan.entries) - len(work.new)),
        ("to decode", len(work.new)),
        ("frames to decode", frames),
        ("problems", len(plan.problems)),
    ]
    numbers: dict[str, Any] = {
        "videos": len(plan.entries),
        "to_decode": len(work.new),
        "frames_to_decode": frames,
        "up_to_date": is_current(old, plan, work),
    }
    changes = changed_scores(plan, old)
    for change in changes:
        log.debug("score changed: %s", change)
    numbers["scores_changed"] = changes
    notes = ["the cache is up to date"] if numbers["up_to_date"] else work.remarks
    notes = notes + plan.notes + alike_id_notes([entry.id.patient for entry in plan.entries], None)
    table = Table("dry run: nothing was written", ("", "count"), rows)
    return Result(numbers, [table], notes=notes, problems=plan.problems)
