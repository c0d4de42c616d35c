"""lus import: a folder of video files and their labels -> an exam tree.

All labels are read and checked before the first video is decoded, so that a mistake in them costs
no time. What the tree has no place for (source file, frame rate) goes into Sources.csv.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lus_cli.cache.layout import Cache
from lus_cli.config import ImportConfig
from lus_cli.disk_errors import placed_by
from lus_cli.errors import LusError, UsageError
from lus_cli.files import csv_text
from lus_cli.folders import replacing_folders
from lus_cli.phantom.true_masks import STUDY, masks_folder
from lus_cli.processes import spread
from lus_cli.progress import Progress, Result, Table
from lus_cli.study.annotations import (
    ANNOTATIONS,
    FINDINGS,
    SCORES,
    Findings,
    write_annotations,
)
from lus_cli.study.covid_blues import covid_blues_labels, covid_blues_unlabelled
from lus_cli.study.exam_tree import SOURCES, files_under, refuse_foreign
from lus_cli.study.finding import is_picture, names
from lus_cli.study.frames import save_jpeg
from lus_cli.study.ids import VideoId, natural_key, video_order
from lus_cli.study.label_tables import LabelledFile, by_name, pair, table_labels
from lus_cli.study.notes import Note, summary
from lus_cli.study.video_containers import OTHER_SUFFIXES, VIDEO_SUFFIXES
from lus_cli.study.video_files import frame_rate, read_frames


@dataclass(frozen=True)
class ImportTask:
    """One video for a worker process."""

    path: Path
    folder: Path
    quality: int


@dataclass(frozen=True)
class Imported:
    """What became of one video: its frames, or the reason why there are none."""

    frames: int = 0
    fps: float = 0.0
    reason: str = ""
    notes: tuple[str, ...] = ()


def run(config: ImportConfig, progress: Progress) -> Result:
    """Makes the exam tree of all videos whose patient, exam and area are known."""
    root = config.root or Cache(config.cache).exams
    sources, problems = find_labelled(config)
    refuse_overlap(root, [source.path for source in sources], config)
    refuse_foreign(root)
    with (
        placed_by("folder"),
        replacing_folders(root, *old_masks(root), force=config.force) as [tree, *_],
    ):
        outcomes = import_all(tree, sources, config, progress)
        failed = [outcome.reason for outcome in outcomes if outcome.reason]
        if len(failed) == len(sources):
            raise LusError(f"none of {len(failed)} videos can be imported, the first", failed[0])
        done = [(s, o) for s, o in zip(sources, outcomes, strict=True) if not o.reason]
        write_tables(tree, done)
        remove_empty_folders(tree)
    return result(root, done, problems, failed)


def old_masks(root: Path) -> list[Path]:
    """Where a phantom study that is replaced has its true masks: they go with it, not being of the
    videos imported. Masks that somebody else put there stay."""
    masks = masks_folder(root.resolve())
    return [] if masks.exists() and not (masks / STUDY).is_file() else [masks]


def refuse_overlap(root: Path, videos: Iterable[Path], config: ImportConfig) -> None:
    """Raises UsageError if replacing the exam tree would delete what is to be imported."""
    tree = root.resolve()
    inputs = [config.videos, *videos, *([config.labels] if config.labels else [])]
    inside = next((p for p in inputs if tree in (p.resolve(), *p.resolve().parents)), None)
    if inside is not None:
        raise UsageError(f"{inside} lies in {root}, which is to be made", "name another folder")


# ------------------------------------------------------------------------------------------ frames


def import_all(
    tree: Path, sources: Sequence[LabelledFile], config: ImportConfig, progress: Progress
) -> list[Imported]:
    """Decodes videos into frames, side by side; one outcome a source, in their order."""
    tasks = [ImportTask(s.path, tree.joinpath(*s.label.video), config.quality) for s in sources]
    outcomes = [Imported()] * len(tasks)
    progress("import", 0, len(tasks))
    frames = 0
    with contextlib.closing(spread(import_video, tasks, config.workers)) as imported:
        for done, (index, outcome) in enumerate(imported, start=1):
            outcomes[index] = outcome
            frames += outcome.frames
            progress("import", done, len(tasks), frames=frames)
    return outcomes


def import_video(task: ImportTask) -> Imported:
    """Decodes one video into its folder. A video that cannot be decoded leaves no frame there."""
    notes: list[str] = []
    task.folder.mkdir(parents=True)
    try:
        frames, fps = write_frames(task, notes.append), frame_rate(task.path)
        return Imported(frames, fps, notes=tuple(dict.fromkeys(notes)))
    except LusError as error:
        shutil.rmtree(task.folder)
        return Imported(reason=str(error))


def write_frames(task: ImportTask, note: Note) -> int:
    """Writes a video's frames as JPEG, all gray if all are gray, else all RGB; how many."""
    for mode in ("L", "RGB"):
        for number, frame in enumerate(read_frames(task.path, note)):
            if mode == "L" and frame.ndim == 3:
                break  # colour, mostly in the first frame: start over, all in RGB
            image = Image.fromarray(frame)
            path = task.folder / f"Frame_{number}.jpg"
            save_jpeg(path, image if image.mode == mode else image.convert(mode), task.quality)
        else:
            return number + 1
    raise AssertionError("an RGB frame is never refused")


# ----------------------------------------------------------------------------------------- results


def write_tables(tree: Path, done: Sequence[tuple[LabelledFile, Imported]]) -> None:
    """Annotations, findings where there are any, and where each video came from."""
    labels = [source.label for source, _ in done]
    scores = [(known.video, known.score) for known in labels if known.score is not None]
    write_annotations(tree / ANNOTATIONS, scores)
    words = {True: "yes", False: "no", None: ""}
    findings = [
        (*known.video, words[known.findings.a_lines], words[known.findings.b_lines], known.comment)
        for known in labels
        if known.findings != Findings(None, None) or known.comment
    ]
    if findings:
        write_csv(tree / FINDINGS, ("a_lines", "b_lines", "comment"), findings)
    rows = [(*s.label.video, s.name, o.frames, round(o.fps, 3)) for s, o in done]
    write_csv(tree / SOURCES, ("file", "frames", "fps"), rows)


def write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    names = (*VideoId._fields, *columns)
    table = [dict(zip(names, row, strict=True)) for row in rows]
    path.write_text(csv_text(table, decimals=None), encoding="utf-8", newline="\n")


def remove_empty_folders(tree: Path) -> None:
    """Removes the patients and exams of which no video could be decoded."""
    for pattern in ("*/*", "*"):
        for folder in filter(Path.is_dir, tree.glob(pattern)):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def unscored(done: Sequence[tuple[LabelledFile, Imported]]) -> list[str]:
    """A sentence about the videos that are in the tree, but that `lus prepare` will leave out."""
    names = [source.name for source, _ in done if source.label.score is None]
    if not names:
        return []
    first = f"{names[0]} was" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more were"
    return [f"{first} imported without a score: no label gives one"]


def result(
    root: Path,
    done: Sequence[tuple[LabelledFile, Imported]],
    problems: list[str],
    failed: list[str],
) -> Result:
    counts = Counter(source.label.score for source, _ in done)
    rows = [(str(score), counts[score]) for score in SCORES]
    rows += [("none", counts[None])] if counts[None] else []
    return Result(
        numbers={
            "videos": len(done),
            "frames": sum(outcome.frames for _, outcome in done),
            "patients": len({source.label.video.patient for source, _ in done}),
            "failed": len(failed),
            "unlabelled": counts[None],
            "notes": {s.name: o.notes for s, o in done if o.notes},
            "scores": {str(score): counts[score] for score in SCORES},
        },
        tables=[Table("Score", ("score", "videos"), rows)],
        files={"exams": root},
        notes=summary((s.name, o.notes) for s, o in done) + unscored(done),
        problems=failed + problems,
        failed=bool(failed),
    )


def find_labelled(config: ImportConfig) -> tuple[list[LabelledFile], list[str]]:
    """The videos to import, in the study's order, and what is wrong with the others.

    Raises LusError, naming file and line, for a label that cannot be right.
    """
    lost: list[str] = []
    if config.format == "covid-blues":
        labels = config.labels or config.videos / "severity.csv"
        files = find_video_files(config.videos, lost, "lus_videos")
        sources, problems = pair(files, labels, covid_blues_labels(labels))
        unlabelled, strangers = covid_blues_unlabelled(files, sources, labels)
        sources += unlabelled
        problems += strangers
    else:
        if config.labels is None:
            raise UsageError(
                "--labels is missing",
                "name a CSV with the columns file,patient,exam,area,score, or use "
                "--format covid-blues",
            )
        files = find_video_files(config.videos, lost)
        sources, problems = pair(files, config.labels, table_labels(config.labels))
        known = {source.name for source in sources}
        problems += [f"{f}: no row in {config.labels} names it" for f in files if f not in known]
    problems += lost
    if not sources:
        raise LusError(f"no video in {config.videos} has a known patient and area", problems[0])
    return sorted(sources, key=lambda source: video_order(source.label.video)), problems


def find_video_files(root: Path, problems: list[str], folder: str = "") -> dict[str, Path]:
    """The video files under `folder` of `root`, by their path from `root`, in natural order.

    `problems` is told of what cannot be read.
    """
    if not (root / folder).is_dir():
        raise LusError(f"there is no folder {root / folder}", "name the folder of video files")
    paths, pictures = [], []
    for path in files_under(root / folder, problems):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            paths.append(path)
        elif path.suffix.lower() in OTHER_SUFFIXES:
            problems.append(f"{path} is a video of a kind not read here: make .mp4 of it")
        elif is_picture(path):
            pictures.append(path)
    if pictures:
        problems.append(
            f"{names(pictures)} in {pictures[0].parent} and below: pictures are not imported; "
            "`lus prepare` reads folders of frames"
        )
    if not paths:
        raise LusError(
            f"{root / folder} holds no video", "videos are .mp4, .avi, .mpeg and the like"
        )
    files = by_name(root, paths, problems)
    return {name: files[name] for name in sorted(files, key=natural_key)}
