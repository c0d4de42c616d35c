"""Draws the figures of a folder that are missing or out of date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import lus_cli
from lus_cli.cache.layout import Cache
from lus_cli.cache.split import PARTS, Split
from lus_cli.cache.split_drawing import count_table
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import figure_look
from lus_cli.disk_errors import explaining_disk_errors
from lus_cli.errors import LusError
from lus_cli.files import fingerprint, read_json, write_json
from lus_cli.study.annotations import SCORES

RECORD = "drawn.json"


def draw_new(
    folder: Path, shows: Mapping[str, Any], draw: Callable[[str], list[Path]]
) -> dict[str, list[Path]]:
    """Draws figures whose content changed or that lost a file; returns the files of each figure.

    `shows` maps the name of a figure to its content, JSON-serialisable; `draw` writes a figure into
    `folder` and returns its files. Old files that a figure no longer has are removed. `drawn.json`
    in the folder stores a fingerprint of the content of each figure.
    """
    record = read_record(folder / RECORD)
    for name, shown in shows.items():
        key = fingerprint([lus_cli.__version__, shown, asdict(figure_look())])
        drawn_key, names = record.get(name, ("", []))
        before = [folder / file for file in names]
        if drawn_key == key and before and all(path.is_file() for path in before):
            continue
        files = draw(name)
        for path in set(before) - set(files):
            with explaining_disk_errors(path):
                path.unlink(missing_ok=True)
        record[name] = key, [path.name for path in files]
        write_json(folder / RECORD, record)
    return {name: [folder / file for file in record[name][1]] for name in shows}


def read_record(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Fingerprint and files of each figure; empty if the record cannot be read: all are drawn again."""
    try:
        content = read_json(path, "") if path.exists() else {}
        # Names only: the files must be in this folder, whatever the record says.
        return {
            name: (str(key), [Path(file).name for file in files])
            for name, (key, files) in content.items()
        }
    except (LusError, TypeError, ValueError):
        return {}


def part_counts(videos: VideoCache, split: Split) -> dict[str, list[int]]:
    """Number of videos of each score in each part (Table I of the report)."""
    table = count_table(videos.patients, videos.scores)
    none = np.zeros(len(SCORES), int)
    return {
        part: np.sum([table[p] for p in getattr(split, part)] or [none], axis=0).tolist()
        for part in PARTS
    }


def draw_figures(cache: Cache, videos: VideoCache, split: Split) -> dict[str, Path]:
    """Figures 3 and 4, Table I and the contact sheet; draws those that are out of date."""
    lengths, scores, counts = videos.lengths, videos.scores, part_counts(videos, split)
    shows = {
        "lengths_by_score": [lengths.tolist(), scores.tolist()],
        "lengths_by_patient": [lengths.tolist(), videos.patients],
        "scores_by_part": counts,
        "contact_sheet": [videos.fingerprint, scores.tolist()],
    }

    def draw(name: str) -> list[Path]:
        from lus_cli import figures
        from lus_cli.cache import contact_sheet
        from lus_cli.cache import figures as study_figures

        match name:
            case "lengths_by_score":
                figure = study_figures.lengths_by_score(lengths, scores)
            case "lengths_by_patient":
                figure = study_figures.lengths_by_patient(lengths, videos.patients)
            case "scores_by_part":
                figure = study_figures.scores_by_part(counts)
            case _:
                return contact_sheet.write_pages(videos, cache.figures)
        return figures.save(figure, cache.figures / name)

    files = draw_new(cache.figures, shows, draw)
    return {name: next(f for f in files[name] if f.suffix == ".png") for name in shows}
