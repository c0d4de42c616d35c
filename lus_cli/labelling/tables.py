"""The label tables that come out of ratings; `lus prepare --labels` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lus_cli.files import csv_text, replacing
from lus_cli.labelling.ratings import UNRATED, Rated, Rating
from lus_cli.study.ids import VideoId

WORDS = {True: "yes", False: "no", None: ""}
NOT_ASSESSABLE = "n.a."


def label_row(file: str, video: VideoId | None, rating: Rating) -> dict[str, Any]:
    """A row of a label table; the score is empty if the video is not scored, or not assessable.

    `assessable` is empty if it is not scored.
    """
    ids = video._asdict() if video else dict.fromkeys(VideoId._fields, "")
    return {
        "file": file,
        **ids,
        "score": "" if rating.score is None else rating.score,
        "a_lines": WORDS[rating.a_lines],
        "b_lines": WORDS[rating.b_lines],
        "assessable": WORDS[rating.assessable if rating.is_done else None],
        "comment": " ".join(rating.comment.split()),
    }


def rating_rows(
    videos: Iterable[tuple[str, VideoId | None]], ratings: Mapping[str, Rated]
) -> list[dict[str, Any]]:
    """One row per video, in the order given."""
    return [
        label_row(file, video, ratings[file].rating if file in ratings else UNRATED)
        for file, video in videos
    ]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], *, lasting: bool = True) -> None:
    """Writes a table whole or not at all. lasting: see `replacing`."""
    with replacing(path, lasting=lasting) as part:
        part.write_text(csv_text(rows), encoding="utf-8", newline="\n")


def cell(rating: Rating) -> str:
    """A rating in one cell of a list: the score, n.a., or nothing."""
    if not rating.assessable:
        return NOT_ASSESSABLE
    return "" if rating.score is None else str(rating.score)
