"""COVID-BLUES as it is published: ids in file names, scores in severity.csv."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lus_cli.errors import LusError
from lus_cli.study.annotations import Findings
from lus_cli.study.csv_tables import csv_rows, read_text
from lus_cli.study.ids import VideoId, is_name
from lus_cli.study.label_tables import (
    ONLY_EXAM,
    Label,
    LabelledFile,
    folder_key,
    read_label,
    without_suffix,
)

COVID_BLUES_VIDEO = re.compile(r"patient_([^_]+)_(.+)")


def covid_blues_labels(path: Path) -> Iterator[tuple[int, Label]]:
    """The rows of severity.csv of COVID-BLUES, each with its line number; file names hold the ids."""
    names = {
        "score": "severity_score",
        "a_lines": "a-lines",
        "b_lines": "b-lines",
        "comment": "comments",
    }
    text = read_text(path, "it is part of COVID-BLUES; name it with --labels")
    for line, row in csv_rows(path, text, ("video_file", "Severity Score")):
        video = covid_blues_id(row["video_file"])
        if video is None:
            raise LusError(
                f"{path}, line {line}: {row['video_file']!r} does not name a patient and an area",
                "write patient_<patient>_<area>",
            )
        cells = {key: row.get(column, "") for key, column in names.items()}
        yield line, read_label(path, line, f"lus_videos/{row['video_file']}", video, cells)


def covid_blues_id(name: str) -> VideoId | None:
    """patient_15_L2_2.mp4 is area L2_2 of patient 15; None for other names."""
    match = COVID_BLUES_VIDEO.fullmatch(without_suffix(name))
    video = VideoId.of(match[1], ONLY_EXAM, match[2]) if match else None
    return video if video and all(map(is_name, video)) else None


def covid_blues_unlabelled(
    files: dict[str, Path], labelled: Sequence[LabelledFile], labels: Path
) -> tuple[list[LabelledFile], list[str]]:
    """The files without a row, with the ids in their names, and a line for each problem."""
    labelled_names = {source.name for source in labelled}
    taken = {folder_key(source.label.video) for source in labelled}
    sources, problems = [], []
    for name, path in files.items():
        if name in labelled_names:
            continue
        video = covid_blues_id(path.name)
        if video is None:
            problems.append(f"{name}: its name is not patient_<patient>_<area>")
        elif folder_key(video) in taken:
            problems.append(f"{name}: another file is also video {video}")
        else:
            taken.add(folder_key(video))
            sources.append(
                LabelledFile(name, path, Label(name, video, None, Findings(None, None), ""))
            )
    return sources, problems
