"""One sitting of a rater: the videos in order, what was said about each, and what the page may see.

Everything that reaches the page comes from here. Without a review, that is positions in the order,
pictures and the rater's own ratings: no id, no path, no score of others and no prediction.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lus_cli.errors import LusError
from lus_cli.labelling.frames import Ahead, Clip, make_clip
from lus_cli.labelling.ratings import UNRATED, Rated, RaterFile, Rating, RatingLog
from lus_cli.labelling.tables import rating_rows, write_table
from lus_cli.labelling.videos import LabelVideo
from lus_cli.progress import Progress, silent

log = logging.getLogger("lus.label")

COMING = 3  # videos that are decoded ahead


@dataclass(frozen=True)
class Review:
    """What a review shows next to each video.

    title: what is reviewed. about: file -> lines of a name and a text.
    hidden: whether a video's lines are shown only after it was rated.
    """

    title: str
    about: Mapping[str, Sequence[tuple[str, str]]]
    hidden: bool


@dataclass
class Session:
    """The videos of a sitting, `videos` in the rater's order and `listed` in that of the table."""

    rater: str
    videos: Sequence[LabelVideo]
    listed: Sequence[LabelVideo]
    log: RatingLog
    table: Path
    ratings: dict[str, Rated]
    review: Review | None = None
    progress: Progress = silent
    problems: list[str] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)  # bytes of the videos that were decoded
    table_is_old: bool = True

    def __post_init__(self) -> None:
        self.writing_table = threading.Lock()
        self.ahead = Ahead(self.read)
        self.ahead.expect(self.upcoming(self.start - 1))

    @property
    def start(self) -> int:
        """The position of the first video that is not done; 0 if all are."""
        return next((p for p in range(len(self.videos)) if not self.rating(p).is_done), 0)

    @property
    def done(self) -> int:
        return sum(self.rating(position).is_done for position in range(len(self.videos)))

    def rating(self, position: int) -> Rating:
        rated = self.ratings.get(self.videos[position].file)
        return rated.rating if rated else UNRATED

    def upcoming(self, position: int) -> list[int]:
        """The positions that the rater is likely to see after `position`: unscored ones, the next."""
        after = [*range(position + 1, len(self.videos)), *range(max(position, 0))]
        unscored = [p for p in after if not self.rating(p).is_done][:COMING]
        return list(dict.fromkeys(unscored + after[:1]))

    # -------------------------------------------------------------------------------- for the page

    def state(self) -> dict[str, Any]:
        """What the page shows besides pictures."""
        positions = range(len(self.videos))
        return {
            "rater": self.rater,
            "review": self.review.title if self.review else None,
            "waits": bool(self.review and self.review.hidden),
            "start": self.start,
            "ratings": [asdict(self.rating(position)) for position in positions],
            "about": [self.about(position) for position in positions],
        }

    def about(self, position: int) -> list[tuple[str, str]] | None:
        """What a review says about a video; None if it says nothing, or not yet."""
        if self.review is None or (self.review.hidden and not self.rating(position).is_done):
            return None
        video = self.videos[position]
        name = str(video.id) if video.id else video.file
        return [("video", name), *self.review.about.get(video.file, ())]

    def rate(self, position: int, rating: Rating) -> dict[str, Any]:
        """Stores a rating; returns when it is on the disk. Raises LusError if it could not be."""
        video = self.videos[position]
        size = self.sizes.get(position) or video.bytes
        rated = Rated(video.file, video.id, size, rating)
        self.log.add(rated)
        self.ratings[video.file] = rated
        self.table_is_old = True
        self.tell()
        return {"rating": asdict(rating), "about": self.about(position)}

    def tell(self) -> None:
        """Reports how many videos are done."""
        self.progress("label", self.done, len(self.videos))

    # -------------------------------------------------------------------------------------- pictures

    def read(self, position: int) -> Clip:
        video = self.videos[position]
        try:
            self.sizes[position] = video.bytes
            return make_clip(video.source)
        except (LusError, OSError) as error:
            log.warning("a video cannot be shown: %s", error)  # the page must not name it
            self.problems.append(str(error))
            raise

    # ----------------------------------------------------------------------------------------- table

    def write_table(self) -> None:
        """Writes the label table of the ratings so far, if they have changed."""
        with self.writing_table:
            if self.table_is_old:
                self.table_is_old = False
                names = [(video.file, video.id) for video in self.listed]
                write_table(self.table, rating_rows(names, self.ratings), lasting=False)

    def close(self) -> None:
        self.ahead.close()
        self.write_table()


def matching(videos: Sequence[LabelVideo], before: RaterFile) -> tuple[dict[str, Rated], list[str]]:
    """The earlier ratings of these videos, and a note on those of other files.

    A rating belongs to a video if path and size are the same.
    """
    known = {video.file: video for video in videos}
    kept, other = {}, 0
    for file, rated in before.by_file.items():
        if file not in known:
            other += rated.rating != UNRATED
        elif rated.rating != UNRATED and known[file].bytes != rated.bytes:
            other += 1
        else:
            kept[file] = rated
    if not other:
        return kept, []
    return kept, [
        f"{before.rater} has rated {other} files that are not among these videos, or have changed "
        "since; these ratings are kept but not used"
    ]
