"""A study: its videos, where their frames are, their scores, and what is wrong with the rest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lus_cli.config import PrepareConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.exam_tree import (
    ANNOTATIONS,
    FINDINGS,
    FRAME_SUFFIXES,
    Findings,
    VideoId,
    files_under,
    read_annotations,
    read_findings,
    video_order,
)
from lus_cli.sources import (
    Kind,
    MatFile,
    Source,
    find_sources,
    kind_of,
    open_source,
    require_libraries,
    told_apart,
)
from lus_cli.video_cache import UNKNOWN

OTHER_FRAMES = (".tif", ".tiff", ".bmp", ".webp")  # several with numbers are somebody's video


@dataclass(frozen=True)
class Study:
    """Videos in the study's order; `problems` has a line for each that is left out."""

    sources: dict[VideoId, Source]
    scores: dict[VideoId, int]
    findings: dict[VideoId, Findings]
    problems: list[str]


def read_study(config: PrepareConfig, root: Path) -> Study:
    """The videos under `root` that have a score. Raises LusError if there is none."""
    if config.labels is not None and config.annotations is not None:
        raise UsageError("--labels and --annotations both give scores", "give one of them")
    study = tree_study(config, root) if config.labels is None else table_study(config, root)
    unscored = [video for video in study.sources if video not in study.scores]
    where = config.labels or annotations_of(config, root)
    problems = [
        *study.problems,
        *(f"video {video}: no annotation in {where}" for video in unscored),
        *(
            f"video {video}: annotated, but there is no video that can be read"
            for video in study.scores
            if video not in study.sources
        ),
    ]
    scored = {
        video: source
        for video, source in study.sources.items()
        if study.scores.get(video, UNKNOWN) != UNKNOWN
    }
    if not scored:
        raise LusError(
            f"{root} holds no annotated video",
            f"{len(problems)} problems, the first: {problems[0]}",
        )
    return Study(scored, study.scores, study.findings, problems)


def annotations_of(config: PrepareConfig, root: Path) -> Path:
    return config.annotations or root / ANNOTATIONS


def tree_study(config: PrepareConfig, root: Path) -> Study:
    """An exam tree: ids are folders, scores are annotations."""
    found, problems = find_sources(root, config.mask_text)
    sources = {source.id: source for source in found}
    own = frame_scores(config, sources, problems)
    # A study of .mat files that bring their scores needs no annotations.
    scores = {} if sources.keys() <= own.keys() else read_annotations(annotations_of(config, root))
    findings = read_findings(root / FINDINGS) if (root / FINDINGS).is_file() else {}
    return Study(sources, scores | own, findings, problems)


def table_study(config: PrepareConfig, root: Path) -> Study:
    """Videos anywhere under `root`: ids and scores are in the label table."""
    from lus_cli.labels import normal, pair, table_labels

    assert config.labels is not None
    if not root.is_dir():
        raise LusError(f"there is no folder {root}", "name the folder of videos: lus prepare DIR")
    problems: list[str] = []
    kinds = find_files(root, problems)
    files = {normal(path.relative_to(root).as_posix()): path for path in kinds}
    labelled, missing = pair(files, config.labels, table_labels(config.labels))
    problems += missing
    named = {entry.name for entry in labelled}
    problems += [
        f"{name}: no row in {config.labels} names it" for name in files if name not in named
    ]
    sources: dict[VideoId, Source] = {}
    for entry in sorted(labelled, key=lambda entry: video_order(entry.label.video)):
        video, kind = entry.label.video, kinds[entry.path]
        try:
            sources[video] = open_source(kind, video, root, entry.path, config.mask_text)
        except LusError as error:
            problems.append(str(error))
    single, doubles = told_apart(sources.values())
    sources = {source.id: source for source in single}
    problems += doubles
    require_libraries(single)
    known = [entry.label for entry in labelled if entry.label.video in sources]
    scores = {label.video: label.score for label in known if label.score is not None}
    own = frame_scores(config, sources, problems)
    return Study(sources, scores | own, {label.video: label.findings for label in known}, problems)


def find_files(root: Path, problems: list[str]) -> dict[Path, Kind]:
    """Every video under a folder, however deep: files, and folders of frames.

    `problems` is told of what cannot be read, and of videos and frames in formats that are not.
    """
    found: dict[Path, Kind] = {}
    numbered: Counter[tuple[Path, str]] = Counter()
    for path in files_under(root, problems):
        suffix = path.suffix.lower()
        try:
            if suffix in FRAME_SUFFIXES:
                found[path.parent] = "frames"
            elif kind := kind_of(path):
                found[path] = kind
            elif suffix in OTHER_FRAMES and path.stem[-1:].isdecimal():
                numbered[path.parent, suffix] += 1
        except LusError as error:
            problems.append(str(error))
    beside = {path.parent for path in found} | set(found)
    problems += [
        f"{folder} holds {count} frames {suffix}, which are not read here: make .png of them"
        for (folder, suffix), count in numbered.items()
        if count > 1 and folder not in beside
    ]
    return found


def frame_scores(
    config: PrepareConfig, sources: dict[VideoId, Source], problems: list[str]
) -> dict[VideoId, int]:
    """Scores that .mat files bring, where they are asked for.

    UNKNOWN is the score of a video whose file of scores is no good; `problems` is told why.
    """
    scores = {}
    for video, source in sources.items() if config.mat_scores else ():
        if isinstance(source, MatFile):
            try:
                scores[video] = source.highest_score()
            except LusError as error:
                scores[video] = UNKNOWN
                problems.append(f"video {video}: {error}")
    return scores
