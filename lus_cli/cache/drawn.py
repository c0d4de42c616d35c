"""Which figures of a folder still show what there is, and which have to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import lus_cli
from lus_cli.cache.layout import Cache
from lus_cli.cache.split import PARTS, Split
from lus_cli.cache.split_drawing import count_table
from lus_cli.cache.video_cache import VideoCache
from lus_cli.disk_errors import explaining_disk_errors
from lus_cli.errors import LusError
from lus_cli.files import fingerprint, read_json, write_json
from lus_cli.study.annotations import SCORES

RECORD = "drawn.json"


def draw_new(
    folder: Path, shows: Mapping[str, Any], draw: Callable[[str], list[Path]]
) -> dict[str, list[Path]]:
    """Draws what shows something new or has lost a file; gives the files of every figure by name.

    `shows` is, by a figure's name, all that it shows, JSON-able; `draw` writes the figure of a name
    into `folder` and gives its files. Files that a figure no longer has are removed. `drawn.json`
    in the folder keeps what was drawn from what.
    """
    record = read_record(folder / RECORD)
    for name, shown in shows.items():
        key = fingerprint([lus_cli.__version__, shown])
        known, names = record.get(name, ("", []))
        before = [folder / file for file in names]
        if known == key and before and all(path.is_file() for path in before):
            continue
        files = draw(name)
        for path in set(before) - set(files):
            with explaining_disk_errors(path):
                path.unlink(missing_ok=True)
        record[name] = key, [path.name for path in files]
        write_json(folder / RECORD, record)
    return {name: [folder / file for file in record[name][1]] for name in shows}


def read_record(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Fingerprint and files by figure; of a record that cannot be read nothing: all is drawn anew."""
    try:
        content = read_json(path, "") if path.exists() else {}
        # Names only: the files lie in this folder, whatever the record says.
        return {
            name: (str(key), [Path(file).name for file in files])
            for name, (key, files) in content.items()
        }
    except (LusError, TypeError, ValueError):
        return {}


def part_counts(videos: VideoCache, split: Split) -> dict[str, list[int]]:
    """Videos per score in each part (Table I of the report)."""
    table = count_table(videos.patients, videos.scores)
    none = np.zeros(len(SCORES), int)
    return {
        part: np.sum([table[p] for p in getattr(split, part)] or [none], axis=0).tolist()
        for part in PARTS
    }


def draw_figures(cache: Cache, videos: VideoCache, split: Split) -> dict[str, Path]:
    """Figures 3 and 4, Table I and the contact sheet: those of them that show something new."""
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
