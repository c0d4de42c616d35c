"""The inputs of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lus_cli.cache.layout import Run
from lus_cli.cache.split import Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError
from lus_cli.model.ranks import ALONE, Ranks
from lus_cli.recipes.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """The recipe, videos, split and device of a run."""

    recipe: Recipe
    run: Run
    videos: VideoCache
    split: Split
    device: torch.device
    ranks: Ranks = field(default=ALONE)
    planned: Recipe | None = None  # of a resumed run: its recipe before this command
    to_train: int = 1  # runs like this one, of a cross-validation: this one and those after it

    @property
    def resume(self) -> bool:
        return self.planned is not None

    @property
    def replanned(self) -> bool:
        """Whether the run is resumed with other --epochs or --patience than before."""
        return self.planned is not None and self.planned != self.recipe

    def indices(self, part: str) -> list[int]:
        """The labelled videos of a part. Raises LusError if it has none."""
        indices = self.split.indices(part, self.videos.patients, self.videos.scores)
        if not indices:
            raise LusError(
                f"the {part} patients have no annotated video", "move patients in split.json"
            )
        return indices

    def training_indices(self) -> list[int]:
        """The labelled videos that the model is trained on."""
        if not self.recipe.leave_out:
            return self.indices("train")
        return [
            index for part in ("train", "validation") if getattr(self.split, part)
            for index in self.indices(part)
        ]  # fmt: skip

    def validation_indices(self) -> list[int]:
        """The labelled videos that the model is validated on; with leave_out, those of training."""
        return self.training_indices() if self.recipe.leave_out else self.indices("validation")
