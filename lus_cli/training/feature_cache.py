"""Feature maps of a frozen CNN, computed once per video and stored in cache/features/.

The name of a file is a fingerprint of all that its maps depend on: the pixels, the chosen frames,
the CNN and its weights, the precision and the kind of device. A file is therefore never out of date,
and runs share the files.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lus_cli.cache.batches import Batch, BatchLoader
from lus_cli.cache.pictures import PICTURES_VERSION
from lus_cli.cache.video_cache import VideoCache
from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import UsageError
from lus_cli.files import fingerprint, replacing
from lus_cli.model.checkpoint import checksum
from lus_cli.model.network import LusModel
from lus_cli.model.ranks import Ranks
from lus_cli.progress import Progress
from lus_cli.recipes.recipe import Recipe
from lus_cli.training.augmentation import augmentations_of

log = logging.getLogger("lus.features")

FRAMES_AT_ONCE = 32  # constant, so that maps do not depend on the size of a request


class FeatureLoader(BatchLoader):
    """A BatchLoader of feature maps, (step, channel, row, column), instead of pictures."""

    def __init__(
        self,
        videos: VideoCache,
        recipe: Recipe,
        device: torch.device,
        model: LusModel,
        folder: Path | None,
    ) -> None:
        """Prepares to compute or read feature maps.

        model: on `device`, with the frozen CNN.
        folder: where feature maps are stored; with None, each request computes them.
        Raises UsageError for a recipe that augments pixels, which would have no effect.
        """
        if augmented := [f"--{name}" for name in augmentations_of(recipe)]:
            raise UsageError(
                f"--freeze computes features once: {', '.join(augmented)} would have no effect",
                "omit these options, or train the CNN with --no-freeze",
            )
        super().__init__(videos, recipe, device)
        self.model, self.folder = model, folder
        made_by = f"{model.backbone!r}{model.prepare.__name__}"
        self.cnn = checksum(made_by, model.backbone.state_dict())
        self.dtype = torch.float16 if recipe.feature_cache == "float16" else torch.float32
        black = torch.zeros(1, *self.shape, dtype=torch.uint8)
        self.black = self.compute(black) if recipe.padding == "zeros" else None

    def path(self, index: int) -> Path:
        """The file of the feature maps of one video."""
        assert self.folder is not None
        made_from = [
            self.videos.checksums[index],
            asdict(self.videos.frame_format),
            self.needed(index).tolist(),
            [self.cnn, self.recipe.precision, str(self.dtype), self.device.type],
            *([] if self.pictures.are_frames else [asdict(self.pictures), PICTURES_VERSION]),
        ]
        return self.folder / f"{fingerprint(made_from)}.npz"

    def fill(self, indices: Sequence[int], ranks: Ranks, progress: Progress) -> None:
        """Computes the missing feature maps of these videos; each process computes its share."""
        if self.folder is None:
            return
        missing = [index for index in indices if not self.path(index).is_file()]
        for done, index in enumerate(ranks.share(missing), start=1):
            self.store(index)
            progress("features", min(done * ranks.world, len(missing)), len(missing))
        ranks.gathered(None)  # wait until all processes are done
        if missing:
            size = sum(self.path(index).stat().st_size for index in indices)
            log.info(
                "feature maps of %d videos: %.0f MB in %s", len(indices), size / 1e6, self.folder
            )

    def store(self, index: int) -> Tensor:
        maps = self.compute(super().read(index))
        with replacing(self.path(index), lasting=False) as part, part.open("wb") as file:
            np.savez(file, maps=maps.numpy())
        return maps

    def compute(self, pictures: Tensor) -> Tensor:
        """The feature maps of pictures, on the CPU and in the data type in which they are stored."""
        with torch.no_grad():
            pieces = [self.model.cnn(f.to(self.device)) for f in pictures.split(FRAMES_AT_ONCE)]
            maps = torch.cat([piece.to(self.dtype).cpu() for piece in pieces])
            return maps.contiguous()  # the same memory layout as maps read from a file

    def read(self, index: int) -> Tensor:
        if self.folder is None:
            return self.compute(super().read(index))
        path = self.path(index)
        try:
            if not path.is_file():
                return self.store(index)
            with explaining_refusal(path), np.load(path, allow_pickle=False) as stored:
                return torch.from_numpy(stored["maps"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            log.warning("%s is damaged; its feature maps are computed again", path)
            return self.store(index)

    def load(
        self, indices: Sequence[int], epoch: int | None = None, turns: Sequence[int] = ()
    ) -> Batch:
        batch = super().load(indices, epoch, turns)
        if self.black is None or not indices:
            return batch
        black = self.black.to(batch.pictures.device)
        return replace(batch, pictures=torch.cat([batch.pictures, black]))
