"""lus import: a folder of video files and their labels -> an exam tree.

All labels are checked before the first video is decoded, so that a mistake in them is reported at
once. Sources.csv stores what an exam tree has no place for: source file and frame rate.
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
from lus_cli.processes import in_parallel
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
from lus_cli.study.finding import file_names, is_picture
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
    """The outcome for one video: its number of frames, or the reason why it cannot be decoded."""

    frames: int = 0
    fps: float = 0.0
    reason: str = ""
    notes: tuple[str, ...] = ()


def run(config: ImportConfig, progress: Progress) -> Result:
    """Writes an exam tree of all videos whose patient, exam and area are known."""
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
            raise LusError(
                f"none of {len(failed)} videos can be imported; the first problem", failed[0]
            )
        done = [(s, o) for s, o in zip(sources, outcomes, strict=True) if not o.reason]
        write_tables(tree, done)
        remove_empty_folders(tree)
    return result(root, done, problems, failed)


def old_masks(root: Path) -> list[Path]:
    """The true masks of a phantom study at `root`, which are replaced together with it.

    A masks folder that `lus phantom` did not write is kept.
    """
    masks = masks_folder(root.resolve())
    return [] if masks.exists() and not (masks / STUDY).is_file() else [masks]


def refuse_overlap(root: Path, videos: Iterable[Path], config: ImportConfig) -> None:
    """Raises UsageError if replacing the exam tree would delete the input."""
    tree = root.resolve()
    inputs = [config.videos, *videos, *([config.labels] if config.labels else [])]
    inside = next((p for p in inputs if tree in (p.resolve(), *p.resolve().parents)), None)
    if inside is not None:
        raise UsageError(
            f"{inside} is in {root}, which would be replaced", "choose another folder for the tree"
        )


# ------------------------------------------------------------------------------------------ frames


def import_all(
    tree: Path, sources: Sequence[LabelledFile], config: ImportConfig, progress: Progress
) -> list[Imported]:
    """Decodes videos into frames in parallel. Returns the outcomes in the order of `sources`."""
    tasks = [ImportTask(s.path, tree.joinpath(*s.label.video), config.quality) for s in sources]
    outcomes = [Imported()] * len(tasks)
    progress("import", 0, len(tasks))
    frames = 0
    with contextlib.closing(in_parallel(import_video, tasks, config.workers)) as imported:
        for done, (index, outcome) in enumerate(imported, start=1):
            outcomes[index] = outcome
            frames += outcome.frames
            progress("import", done, len(tasks), frames=frames)
    return outcomes


def import_video(task: ImportTask) -> Imported:
    """Decodes one video into its folder, or removes the folder if it cannot be decoded."""
    notes: list[str] = []
    task.folder.mkdir(parents=True)
    try:
        frames, fps = write_frames(task, notes.append), frame_rate(task.path)
        return Imported(frames, fps, notes=tuple(dict.fromkeys(notes)))
    except LusError as error:
        shutil.rmtree(task.folder)
        return Imported(reason=str(error))


def write_frames(task: ImportTask, note: Note) -> int:
    """Writes the frames of a video as JPEG, all gray or all RGB, and returns their number."""
    for mode in ("L", "RGB"):
        for number, frame in enumerate(read_frames(task.path, note)):
            if mode == "L" and frame.ndim == 3:
                break  # colour, mostly seen in the first frame: start over in RGB
            image = Image.fromarray(frame)
            path = task.folder / f"Frame_{number}.jpg"
            save_jpeg(path, image if image.mode == mode else image.convert(mode), task.quality)
        else:
            return number + 1
    raise AssertionError("RGB takes every frame")


# ----------------------------------------------------------------------------------------- results


def write_tables(tree: Path, done: Sequence[tuple[LabelledFile, Imported]]) -> None:
    """Writes annotations, findings if there are any, and the sources of the videos."""
    labels = [source.label for source, _ in done]
    scores = [(label.video, label.score) for label in labels if label.score is not None]
    groups = {label.video: label.group for label in labels if label.group}
    write_annotations(tree / ANNOTATIONS, scores, groups)
    words = {True: "yes", False: "no", None: ""}
    findings = [
        (*label.video, words[label.findings.a_lines], words[label.findings.b_lines], label.comment)
        for label in labels
        if label.findings != Findings(None, None) or label.comment
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
    """Removes the folders of patients and exams without a decoded video."""
    for pattern in ("*/*", "*"):
        for folder in filter(Path.is_dir, tree.glob(pattern)):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def unscored(done: Sequence[tuple[LabelledFile, Imported]]) -> list[str]:
    """A sentence about imported videos without a score, which `lus prepare` will leave out."""
    names = [source.name for source, _ in done if source.label.score is None]
    if not names:
        return []
    first = f"{names[0]} was" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more were"
    return [f"{first} imported without a score: the labels give none"]


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
    """The videos to import, in the order of the study, and a line for each other video.

    Raises LusError, naming file and line, for an invalid label.
    """
    unreadable: list[str] = []
    if config.format == "covid-blues":
        labels = config.labels or config.videos / "severity.csv"
        files = find_video_files(config.videos, unreadable, "lus_videos")
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
        files = find_video_files(config.videos, unreadable)
        sources, problems = pair(files, config.labels, table_labels(config.labels))
        names = {source.name for source in sources}
        problems += [f"{f}: no row in {config.labels} names it" for f in files if f not in names]
    problems += unreadable
    if not sources:
        raise LusError(f"no video in {config.videos} has a known patient and area", problems[0])
    return sorted(sources, key=lambda source: video_order(source.label.video)), problems


def find_video_files(root: Path, problems: list[str], folder: str = "") -> dict[str, Path]:
    """The video files under `root`/`folder` by their path relative to `root`, in natural order.

    `problems` gets a line for each file that cannot be read.
    """
    if not (root / folder).is_dir():
        raise LusError(f"there is no folder {root / folder}", "name the folder of video files")
    paths, pictures = [], []
    for path in files_under(root / folder, problems):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            paths.append(path)
        elif path.suffix.lower() in OTHER_SUFFIXES:
            problems.append(
                f"{path} is a video in a format that lus does not read: convert it to .mp4"
            )
        elif is_picture(path):
            pictures.append(path)
    if pictures:
        problems.append(
            f"{file_names(pictures)} in or below {pictures[0].parent}: pictures are not imported; "
            "`lus prepare` reads folders of frames"
        )
    if not paths:
        raise LusError(
            f"{root / folder} contains no video", "videos are .mp4, .avi, .mpeg and similar files"
        )
    files = by_name(root, paths, problems)
    return {name: files[name] for name in sorted(files, key=natural_key)}
