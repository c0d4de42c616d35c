"""Scores the videos of a search, shared by the processes that torchrun started."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np

from lus_cli.cache.batches import select_frames
from lus_cli.cache.chunks import StoredVideo
from lus_cli.errors import LusError, printable
from lus_cli.evaluation.clip_encoding import Clip, Scored, make_clip
from lus_cli.prediction.new_videos import NewVideo, Search, frames_at
from lus_cli.prediction.page import BUDGET, MOST_PAGE_BYTES, Page
from lus_cli.prediction.prediction import Prediction
from lus_cli.prediction.scorer import Scorer
from lus_cli.processes import read_ahead
from lus_cli.progress import Progress
from lus_cli.study.sources import recorded_rate
from lus_cli.torchrun.group import Group, in_order


class Outcome(NamedTuple):
    """A prediction, and a clip if the page has room for it; or why the video cannot be scored."""

    prediction: Prediction | None
    clip: Clip | None = None
    problem: str = ""

    @property
    def clip_bytes(self) -> int:
        """The size of the clip; 0 without one."""
        return 0 if self.clip is None else self.clip.bytes


def score_all(
    scorer: Scorer, search: Search, with_clips: bool, group: Group, progress: Progress
) -> tuple[Page, list[str]]:
    """Scores the videos of a search, each process its share. Returns the page and one line for each
    failure; both are empty except in the first process."""
    page, problems = Page(), list(search.problems)
    share = score_share(scorer, search.videos, with_clips, group, group.whole(progress))
    before = clip_bytes_before(in_order(group.gathered([one.clip_bytes for one in share])))
    share = [  # of the clips, those that a single process would have put on the page
        one if bytes_before <= MOST_PAGE_BYTES else one._replace(clip=None)
        for one, bytes_before in zip(share, group.share(before), strict=True)
    ]
    for one in in_order(group.collected(share)):
        if one.prediction is None:
            problems.append(one.problem)
        else:
            page.add(one.prediction, one.clip)
    return page, problems


def score_share(
    scorer: Scorer,
    videos: Sequence[NewVideo],
    with_clips: bool,
    group: Group,
    progress: Progress,
) -> list[Outcome]:
    """Scores the share of this process. Its clips alone may already fill the page.

    While the model scores a video, one thread reads the next and another encodes the last one's clip.
    """
    share, ended = group.share(videos), threading.Event()
    outcomes: list[Outcome] = []
    size = 0  # of the clips

    def scored() -> Iterator[Callable[[], Outcome]]:
        with closing(read_ahead(partial(read, scorer, ended), share)) as coming:
            for done, video in enumerate(share):
                progress("predict", done, len(videos), video=video.name)
                has_clip = with_clips and size <= MOST_PAGE_BYTES
                yield score(scorer, video, next(coming), has_clip)

    try:
        for outcome in read_ahead(operator.call, scored()):
            outcomes.append(outcome)
            size += outcome.clip_bytes
    finally:
        ended.set()  # after an error or Ctrl-C, the program cannot end while a video is read
    progress("predict", len(outcomes), len(videos))
    return outcomes


def read(scorer: Scorer, ended: threading.Event, video: NewVideo) -> StoredVideo | LusError:
    """The frames of a video, or why they cannot be read."""
    try:
        return scorer.read(video, ended)
    except LusError as error:
        return error


def score(
    scorer: Scorer, video: NewVideo, stored: StoredVideo | LusError, has_clip: bool
) -> Callable[[], Outcome]:
    """Scores a video that has been read. Returns a function that encodes its clip, if it has one."""
    try:
        if isinstance(stored, LusError):
            raise stored
        prediction = scorer.score_stored(stored, video.name, printable(str(video.path)))
        clip = clip_of(scorer, video, prediction, stored) if has_clip else lambda: None
    except LusError as error:
        return partial(Outcome, None, problem=failure(video, error))
    return lambda: Outcome(prediction, clip())


def clip_bytes_before(sizes: Sequence[int]) -> list[int]:
    """The bytes of the clips before each video on the page, where the last one may exceed the limit.

    sizes: the bytes of the clip of each video, 0 for none.
    """
    before, total = [], 0
    for size in sizes:
        before.append(total)
        total += size if total <= MOST_PAGE_BYTES else 0
    return before


def failure(video: NewVideo, error: LusError) -> str:
    """Why a video could not be scored, with its path."""
    reason, path = printable(str(error)), printable(str(video.path))
    return reason if path in reason else f"{path}: {reason}"


def clip_of(
    scorer: Scorer, video: NewVideo, prediction: Prediction, stored: StoredVideo
) -> Callable[[], Clip]:
    """A function that encodes the video for the page, in the frames that the model takes, evenly
    spaced in long videos."""
    shown = select_frames(stored.length, 1, BUDGET.frames)
    frames = frames_at(stored, shown, scorer.card.frame_format)
    weights = prediction.frame_weights
    rows, columns = stored.source_shape
    scored = Scored(
        stored.length,
        np.array(prediction.frame_numbers),
        None if weights is None else np.array(weights),
        scorer.card.recipe.pool,
        1.0 if scorer.card.frame_format.letterbox else columns / rows,
        recorded_rate(video.kind, video.path),
    )
    masks = scorer.masks(shown)
    return partial(make_clip, frames, masks, stored.frame_numbers[shown], scored, BUDGET)
