"""Clips for the evaluation page, kept while videos are scored."""

from __future__ import annotations

import dataclasses
import heapq
import itertools

import torch

from lus_cli.cache.batches import Batch, pictures_of, select_frames
from lus_cli.cache.video_cache import VideoCache
from lus_cli.evaluation.clip_encoding import Budget, Clip, Scored, make_clip
from lus_cli.model.cells import evenly_over_frames
from lus_cli.model.network import LusModel, Output
from lus_cli.recipes.recipe import Recipe
from lus_cli.torchrun.group import Group

BUDGET = Budget(frames=100, side=224, crf=26, strip=True)  # of one clip; budget_of sets its bytes
CLIP_BYTES = 60_000  # of one clip, at most
PAGE_BYTES = 18_000_000  # of all clips together
MOST = 1000  # clips: of more videos, those whose true score is the least probable are kept


def budget_of(count: int) -> Budget:
    """The budget of one clip when `count` videos are scored."""
    room = PAGE_BYTES // min(max(count, 1), MOST)
    return dataclasses.replace(BUDGET, bytes=min(CLIP_BYTES, room))


class Clips:
    """Keeps a clip of each video while it is scored: the `keep` of `scoring.score_videos`.

    The frames of a video are released with its batch. All clips together take at most `PAGE_BYTES`,
    or the size of `FEWEST` frames each. Of more than `MOST` videos only the worst errors are kept, so
    that neither memory nor the page grows with the study.
    """

    def __init__(self, videos: VideoCache, recipe: Recipe, count: int) -> None:
        """`count`: the number of videos that will be scored."""
        self.videos, self.recipe = videos, recipe
        self.budget = budget_of(count)
        self.of: dict[int, Clip] = {}  # by the index of the video in the cache
        self.chances: list[tuple[float, int]] = []  # a heap of (-chance, index)

    def __call__(self, model: LusModel, batch: Batch, output: Output) -> None:
        videos, recipe = self.videos, self.recipe
        sizes = batch.lengths.tolist()
        chances = output.logits.float().softmax(dim=1).cpu()
        pieces = (batch.pictures, output.masks, output.weights)
        of_videos = zip(batch.indices, *(piece.split(sizes) for piece in pieces), strict=True)
        for place, (index, pictures, masks, weights) in enumerate(of_videos):
            if not self.is_among_worst(index, float(chances[place, int(videos.scores[index])])):
                continue
            rows, columns = videos.source_shapes[index].tolist()
            length = int(videos.lengths[index])
            positions = select_frames(length, recipe.stride, recipe.frames_per_video)
            numbers = videos.frame_numbers(index)[positions]
            frames, makes = pictures, pictures_of(recipe)
            if not makes.are_frames:
                frames = torch.from_numpy(videos.read(index, positions))
            weights = makes.frame_weights(weights.float().cpu().numpy(), len(frames))
            shown = None
            if recipe.attention:
                maps = masks.float().cpu().numpy()
                shown = evenly_over_frames(model.backbone, makes, maps, frames.cpu())
            scored = Scored(
                length,
                numbers,
                weights if recipe.pool == "attention" else None,
                recipe.pool,
                # Black bars are shown: they are part of what the model sees.
                1.0 if videos.frame_format.letterbox else columns / rows,
            )
            self.of[index] = make_clip(frames.cpu().numpy(), shown, numbers, scored, self.budget)

    def collect(self, group: Group) -> None:
        """Moves the clips of all processes to the first one, which keeps the same as if it were alone."""
        kept = [(chance, index, self.of[index]) for chance, index in self.chances]
        self.chances, self.of = [], {}
        for chance, index, clip in itertools.chain(*group.collected(kept)):
            if self.is_among_worst(index, -chance):
                self.of[index] = clip

    @property
    def by_name(self) -> dict[str, Clip]:
        """patient/exam/area -> the clip."""
        return {str(self.videos.ids[index]): clip for index, clip in self.of.items()}

    def is_among_worst(self, index: int, chance: float) -> bool:
        """Whether to keep a video whose true score has this probability. When there are MOST clips, the
        one whose true score is the most probable is dropped."""
        entry = -chance, index
        if len(self.chances) < MOST:
            heapq.heappush(self.chances, entry)
            return True
        best = heapq.heappushpop(self.chances, entry)
        self.of.pop(best[1], None)
        return best != entry
