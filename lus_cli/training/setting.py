"""The inputs of a training run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from lus_cli.cache.layout import Run
from lus_cli.cache.split import Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import TrainConfig
from lus_cli.errors import LusError
from lus_cli.model.ranks import Ranks
from lus_cli.recipes.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """The options, videos, split and device of a run."""

    config: TrainConfig
    run: Run
    videos: VideoCache
    split: Split
    device: torch.device
    ranks: Ranks
    planned: Recipe | None = None  # of a resumed run: its recipe before this command

    def indices(self, part: str) -> list[int]:
        """The labelled videos of a part. Raises LusError if it has none."""
        indices = self.split.indices(part, self.videos.patients, self.videos.scores)
        if not indices:
            raise LusError(
                f"the {part} patients have no annotated video", "move patients in split.json"
            )
        return indices

    @property
    def recipe(self) -> Recipe:
        names = [field.name for field in dataclasses.fields(Recipe)]
        return Recipe(**{name: getattr(self.config, name) for name in names})

    @property
    def replanned(self) -> bool:
        """Whether the run is resumed with other --epochs or --patience than before."""
        return self.planned is not None and self.planned != self.recipe
