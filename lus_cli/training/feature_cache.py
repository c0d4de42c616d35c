"""Feature maps of a frozen CNN, computed once per video and stored in cache/features/.

The name of a file is a fingerprint of all that its maps depend on: the pixels, the chosen frames,
the CNN and its weights, the precision and the kind of device. A file is therefore never out of date,
and runs share the files.
"""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Callable, Sequence
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
from lus_cli.training.forecast import LONG, faster
from lus_cli.words import duration

log = logging.getLogger("lus.features")

TIMED = 5  # videos, from whose time that of all is estimated
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

    def fill(
        self,
        indices: Sequence[int],
        ranks: Ranks,
        progress: Progress,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Computes the missing feature maps of these videos; each process computes its share.

        Logs once how long the rest will take, from the first TIMED videos.
        """
        if self.folder is None:
            return
        missing = [index for index in indices if not self.path(index).is_file()]
        share, begun = ranks.share(missing), clock()
        for done, index in enumerate(share, start=1):
            self.store(index)
            progress("features", min(done * ranks.world, len(missing)), len(missing))
            if done == TIMED < len(share) and ranks.first:
                self.forecast(share, clock() - begun, len(missing))
        ranks.gathered(None)  # wait until all processes are done
        if missing:
            size = sum(self.path(index).stat().st_size for index in indices)
            log.info(
                "feature maps of %d videos: %.0f MB in %s", len(indices), size / 1e6, self.folder
            )

    def forecast(self, share: Sequence[int], seconds: float, videos: int) -> None:
        """Logs how long the feature maps take, and over an hour, what takes less.

        share: the videos of this process, of which the first TIMED took `seconds`.
        videos: the number of videos of all processes.
        """
        steps = [self.steps(index) for index in share]
        whole = seconds / sum(steps[:TIMED]) * sum(steps)
        log.info("feature maps of %d videos: about %s, once", videos, duration(whole))
        if whole > LONG:
            log.info("%s", faster(self.recipe, sum(steps) / len(steps)))

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
