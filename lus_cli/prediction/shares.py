"""Scores the videos of a search, shared by the processes that torchrun started."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Scores the share of this process. Its clips alone may already fill the page."""
    outcomes: list[Outcome] = []
    size = 0
    for done, video in enumerate(group.share(videos)):
        progress("predict", done, len(videos), video=video.name)
        try:
            prediction, stored = scorer.score(video)
            has_clip = with_clips and size <= MOST_PAGE_BYTES
            clip = clip_of(scorer, video, prediction, stored) if has_clip else None
            outcomes.append(Outcome(prediction, clip))
        except LusError as error:
            outcomes.append(Outcome(None, problem=failure(video, error)))
        size += outcomes[-1].clip_bytes
    progress("predict", len(outcomes), len(videos))
    return outcomes


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


def clip_of(scorer: Scorer, video: NewVideo, prediction: Prediction, stored: StoredVideo) -> Clip:
    """The video for the page, in the frames that the model takes, evenly spaced in long videos."""
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
    return make_clip(frames, scorer.masks(frames), stored.frame_numbers[shown], scored, BUDGET)
