"""Reads a study: its videos with sources, scores and findings, and a line for each problem."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lus_cli.errors import LusError, UsageError
from lus_cli.study.annotations import (
    ANNOTATIONS,
    FINDINGS,
    UNKNOWN,
    Findings,
    read_annotations,
    read_findings,
    read_groups,
)
from lus_cli.study.finding import find_files, find_sources, unlinked
from lus_cli.study.frame_order import are_counted
from lus_cli.study.groups import check_groups
from lus_cli.study.ids import VideoId, video_order
from lus_cli.study.sources import FrameFolder, MatFile, Source, open_source, require_libraries
from lus_cli.study.spellings import alike, spreadsheet_date


@dataclass(frozen=True)
class StudyFiles:
    """Where the videos of a study lie, where their scores are, and how DICOM files are read."""

    root: Path  # an exam tree, or the folder of the videos of a label table
    labels: Path | None = None  # a label table
    annotations: Path | None = None  # the file of scores, if it is not Annotations.txt under `root`
    mat_scores: bool = False  # whether _score.mat files hold the scores of .mat videos
    mask_text: bool = False  # whether DICOM frames are blackened outside their ultrasound regions

    @property
    def scores(self) -> Path:
        return self.labels or self.annotations or self.root / ANNOTATIONS


@dataclass(frozen=True)
class Study:
    """The videos of a study, in its order; `problems` has a line for each that is left out."""

    sources: dict[VideoId, Source]
    scores: dict[VideoId, int]
    findings: dict[VideoId, Findings]
    problems: list[str]
    groups: dict[VideoId, str] = field(default_factory=dict)  # hospital, scanner: empty, or of all


def read_study(files: StudyFiles) -> Study:
    """The videos that have a score. Raises LusError if there is none."""
    if files.labels is not None and files.annotations is not None:
        raise UsageError("--labels and --annotations both give scores", "use one of them")
    study = tree_study(files) if files.labels is None else table_study(files, files.labels)
    problems = [*study.problems, *unmatched(study, files.scores)]
    scored = {
        video: source
        for video, source in study.sources.items()
        if study.scores.get(video, UNKNOWN) != UNKNOWN
    }
    if not scored:
        raise LusError(
            f"{files.root} contains no annotated video",
            f"{len(problems)} problem{'s' * (len(problems) > 1)}, the first: {problems[0]}",
            left_out=problems[1:],
        )
    groups = check_groups({video: study.groups.get(video, "") for video in scored}, files.scores)
    return Study(scored, study.scores, study.findings, problems, groups)


def unmatched(study: Study, where: Path) -> list[str]:
    """A line for each video without a score, and for each score without a video."""
    unscored = [video for video in study.sources if video not in study.scores]
    missing = [video for video in study.scores if video not in study.sources]
    by_spelling = {tuple(map(alike, video)): video for video in unscored}
    return [
        *(f"video {video}: no annotation in {where}" for video in unscored),
        *(
            f"video {video}: annotated, but no readable video exists"
            + hint(video, by_spelling.get(tuple(map(alike, video))))
            for video in missing
        ),
    ]


def hint(video: VideoId, similar: VideoId | None) -> str:
    """A guess why an annotated id matches no video; `similar` is a video with an alike id."""
    if similar is not None:
        return (
            f"; {similar} exists: write both the same way (spreadsheets drop leading zeros "
            "unless the cells are formatted as text)"
        )
    if date := spreadsheet_date(video):
        return (
            f"; {date!r} looks like a date into which a spreadsheet turned an id such as 1-2: "
            "format the cells as text, and write the id again"
        )
    return ""


def time_order_notes(sources: Iterable[Source]) -> list[str]:
    """A sentence on videos whose frames are ordered by the times in their names."""
    by_time = [
        source
        for source in sources
        if isinstance(source, FrameFolder) and are_counted(dict(source.frame_files))
    ]
    if not by_time:
        return []
    first = by_time[0]
    more = f" and {len(by_time) - 1} more" if len(by_time) > 1 else ""
    return [
        f"video {first.id}{more}: the last numbers in the frame names do not give the order of the frames "
        f"({first.frame_files[0].path.name}): frames are ordered by the times in their names, "
        "and are numbered from 0"
    ]


def tree_study(files: StudyFiles) -> Study:
    """Reads an exam tree: ids are folders, scores are annotations."""
    source_list, problems = find_sources(files.root, files.mask_text)
    sources = {source.id: source for source in source_list}
    mat_scores = read_mat_scores(sources, problems) if files.mat_scores else {}
    # If .mat files give all scores, annotations are not needed.
    needed = not sources.keys() <= mat_scores.keys()
    scores = read_annotations(files.scores) if needed else {}
    groups = read_groups(files.scores) if needed or files.annotations else {}
    path = files.root / FINDINGS
    findings = read_findings(path) if path.is_file() else {}
    return Study(sources, scores | mat_scores, findings, problems, groups)


def table_study(files: StudyFiles, table: Path) -> Study:
    """Reads videos anywhere under the root: ids and scores are in the label table `table`."""
    from lus_cli.study.label_tables import by_name, pair, table_labels

    root = files.root
    if not root.is_dir():
        raise LusError(f"there is no folder {root}", "name the folder of videos: lus prepare DIR")
    problems: list[str] = []
    kinds = find_files(root, problems, problems)
    paths = by_name(root, kinds, problems)
    labelled, missing = pair(paths, table, table_labels(table))
    problems += missing
    labelled_names = {entry.name for entry in labelled}
    problems += [
        f"{name}: no row in {table} names it" for name in paths if name not in labelled_names
    ]
    sources: dict[VideoId, Source] = {}
    for entry in sorted(labelled, key=lambda entry: video_order(entry.label.video)):
        video, kind = entry.label.video, kinds[entry.path]
        try:
            sources[video] = open_source(kind, video, root, entry.path, files.mask_text)
        except LusError as error:
            problems.append(str(error))
    single, doubles = unlinked(sources.values())
    sources = {source.id: source for source in single}
    problems += doubles
    require_libraries(single)
    labels = [entry.label for entry in labelled if entry.label.video in sources]
    scores = {label.video: label.score for label in labels if label.score is not None}
    scores |= read_mat_scores(sources, problems) if files.mat_scores else {}
    findings = {label.video: label.findings for label in labels}
    groups = {label.video: label.group for label in labels}
    return Study(sources, scores, findings, problems, groups)


def read_mat_scores(sources: dict[VideoId, Source], problems: list[str]) -> dict[VideoId, int]:
    """The scores in .mat files.

    A video whose file of scores is invalid gets UNKNOWN, and `problems` a line.
    """
    scores = {}
    for video, source in sources.items():
        if isinstance(source, MatFile):
            try:
                scores[video] = source.highest_score()
            except LusError as error:
                scores[video] = UNKNOWN
                problems.append(f"video {video}: {error}")
    return scores
