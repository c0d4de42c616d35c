"""Keeps what the evaluation page plays while videos are scored."""

from __future__ import annotations

import dataclasses
import heapq

from lus_cli.cache.batches import Batch, select_frames
from lus_cli.cache.video_cache import VideoCache
from lus_cli.evaluation.player import Budget, Clip, Scored, make_clip
from lus_cli.model.network import Output
from lus_cli.recipes.recipe import Recipe

BUDGET = Budget(frames=100, side=224, crf=26, strip=True)  # of one clip, but for its bytes
CLIP_BYTES = 60_000  # of one clip, at most
PAGE_BYTES = 18_000_000  # of all clips together
MOST = 1000  # clips: of more videos those stay whose own score is the least probable


def budget_of(count: int) -> Budget:
    """What each of the clips may take, where `count` videos are scored."""
    room = PAGE_BYTES // min(max(count, 1), MOST)
    return dataclasses.replace(BUDGET, bytes=min(CLIP_BYTES, room))


class Clips:
    """Keeps a clip of each video while it is scored: the `keep` of `scoring.score_videos`.

    A video's frames are let go with its batch; what stays is `PAGE_BYTES` for all of `count`
    videos, or as little as `FEWEST` frames of each take. Of more than `MOST` videos the worst errors
    stay, so that neither memory nor the page grow with the study.
    """

    def __init__(self, videos: VideoCache, recipe: Recipe, looks: bool, count: int) -> None:
        """`looks`: whether the model's masks say where it looks."""
        self.videos, self.recipe, self.looks = videos, recipe, looks
        self.budget = budget_of(count)
        self.of: dict[int, Clip] = {}  # by the video's place in the cache
        self.chances: list[tuple[float, int]] = []  # a heap: the surest of its own score first

    def __call__(self, batch: Batch, output: Output) -> None:
        videos, recipe = self.videos, self.recipe
        sizes = batch.lengths.tolist()
        chances = output.logits.float().softmax(dim=1).cpu()
        pieces = (batch.frames, output.masks, output.weights)
        of_videos = zip(batch.indices, *(piece.split(sizes) for piece in pieces), strict=True)
        for place, (index, frames, masks, weights) in enumerate(of_videos):
            if not self.is_among_worst(index, float(chances[place, int(videos.scores[index])])):
                continue
            rows, columns = videos.source_shapes[index].tolist()
            length = int(videos.lengths[index])
            positions = select_frames(length, recipe.stride, recipe.frames_per_video)
            numbers = videos.frame_numbers(index)[positions]
            scored = Scored(
                length,
                numbers,
                weights.float().cpu().numpy() if recipe.pool == "attention" else None,
                recipe.pool,
                # Borders are shown: they are part of what the model saw.
                1.0 if videos.frame_format.letterbox else columns / rows,
            )
            shown = masks.float().cpu().numpy() if self.looks else None
            self.of[index] = make_clip(frames.cpu().numpy(), shown, numbers, scored, self.budget)

    def is_among_worst(self, index: int, chance: float) -> bool:
        """Whether a video is to be kept whose own score has this probability; if so, the surest of
        those kept before makes room for it where there is none."""
        entry = -chance, index
        if len(self.chances) < MOST:
            heapq.heappush(self.chances, entry)
            return True
        surest = heapq.heappushpop(self.chances, entry)
        self.of.pop(surest[1], None)
        return surest != entry
