"""Feature maps of a frozen CNN, computed once per video and stored in cache/features/.

The name of a file is a fingerprint of all that its maps depend on: the pixels, the chosen frames,
the augmentation, the CNN and its weights, the precision and the kind of device. A file is therefore
never out of date, and runs share the files.

A frozen CNN is trained with augmentation from a few augmented copies of each video, whose maps are
stored as well: an epoch uses the video itself or one of its copies, at random.
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

from lus_cli.cache.batches import AUGMENTATION, Batch, BatchLoader, random_of
from lus_cli.cache.pictures import PICTURES_VERSION
from lus_cli.cache.video_cache import VideoCache
from lus_cli.disk_errors import explaining_refusal
from lus_cli.files import fingerprint, replacing
from lus_cli.model.checkpoint import checksum
from lus_cli.model.network import LusModel
from lus_cli.progress import Progress
from lus_cli.recipes.recipe import Recipe
from lus_cli.torchrun.group import Group
from lus_cli.training.augmentation import augmentations_of, augmented
from lus_cli.training.forecast import LONG, faster
from lus_cli.words import duration

log = logging.getLogger("lus.features")

TIMED = 5  # videos, from whose time that of all is estimated
# Constant on a device, so that maps do not depend on the size of a request.
FRAMES_AT_ONCE, ON_CPU = 32, 8


class FeatureLoader(BatchLoader):
    """A BatchLoader of feature maps, (step, channel, row, column), instead of pictures."""

    def __init__(
        self,
        videos: VideoCache,
        recipe: Recipe,
        device: torch.device,
        model: LusModel,
        folder: Path | None,
        writes: bool = True,
    ) -> None:
        """Prepares to compute or read feature maps.

        model: on `device`, with the frozen CNN.
        folder: where feature maps are stored; None: nowhere.
        writes: whether computed feature maps are stored.
        """
        super().__init__(videos, recipe, device)
        self.model, self.folder, self.writes = model, folder, writes
        made_by = f"{model.backbone!r}{model.prepare.__name__}"
        self.cnn = checksum(made_by, model.backbone.state_dict())
        self.dtype = torch.float16 if recipe.feature_cache == "float16" else torch.float32
        black = torch.zeros(1, *self.shape, dtype=torch.uint8)
        self.black = self.compute(black) if recipe.padding == "zeros" else None

    def path(self, index: int, copy: int = 0) -> Path:
        """The file of the feature maps of one video, or of one of its augmented copies."""
        assert self.folder is not None
        recipe = self.recipe
        augmentation = [[name, getattr(recipe, name)] for name in augmentations_of(recipe)]
        made_from = [
            self.videos.checksums[index],
            asdict(self.videos.frame_format),
            self.needed(index).tolist(),
            [self.cnn, recipe.precision, str(self.dtype), self.device.type],
            *([] if self.pictures.are_frames else [asdict(self.pictures), PICTURES_VERSION]),
            *([[recipe.seed, index, copy, augmentation]] if copy else []),  # see `computed`
        ]
        return self.folder / f"{fingerprint(made_from)}.npz"

    def fill(
        self,
        trained: Sequence[int],
        others: Sequence[int],
        ranks: Group,
        progress: Progress,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Computes the missing feature maps of videos; each process computes its share.

        trained: videos that are trained on, with their augmented copies.
        others: videos that are only scored.
        Logs once how long the rest will take, from the first TIMED videos.
        """
        if self.folder is None:
            return
        videos = self.keys(trained, others)
        missing = ranks.agreed(self.missing(videos))  # some processes may already store files
        share, begun = ranks.share(missing), clock()
        for done, (index, copy) in enumerate(share, start=1):
            self.store(index, copy)
            progress("features", min(done * ranks.world, len(missing)), len(missing))
            if done == TIMED < len(share) and ranks.first:
                self.forecast([index for index, _ in share], clock() - begun, len(missing))
        ranks.gathered(None)  # wait until all processes are done
        if missing:
            size = sum(self.path(*key).stat().st_size for key in videos)
            log.info(
                "feature maps of %d videos: %.0f MB in %s", len(videos), size / 1e6, self.folder
            )

    def keys(self, trained: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
        """The videos and copies, (index, copy), whose feature maps training reads; see `fill`."""
        copies = {(index, copy) for index in trained for copy in range(1, self.copies + 1)}
        return sorted(copies | {(index, 0) for index in [*trained, *others]})

    def missing(self, videos: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The videos and copies among these whose feature maps are not stored."""
        return [key for key in videos if self.folder is None or not self.path(*key).is_file()]

    @property
    def copies(self) -> int:
        """The number of augmented copies of a video in training."""
        return self.recipe.augmented_copies if augmentations_of(self.recipe) else 0

    def copy(self, index: int, epoch: int | None, turn: int) -> int:
        """Which copy of a video an epoch trains on; 0, outside of training, is the video itself."""
        if epoch is None or not self.copies:
            return 0
        random = random_of(self.recipe.seed, epoch, index, turn, AUGMENTATION)
        return int(random.integers(self.copies + 1))

    def forecast(self, share: Sequence[int], seconds: float, videos: int) -> None:
        """Logs how long the feature maps take and, if that is over an hour, what would be faster.

        share: the videos of this process, of which the first TIMED took `seconds`.
        videos: the number of videos of all processes.
        """
        steps = [self.steps(index) for index in share]
        whole = seconds / sum(steps[:TIMED]) * sum(steps)
        log.info("feature maps of %d videos: about %s, once", videos, duration(whole))
        if whole > LONG:
            log.info("%s", faster(self.recipe, sum(steps) / len(steps)))

    def computed(self, index: int, copy: int) -> Tensor:
        pictures = super().read(index)
        if copy:
            random = random_of(self.recipe.seed, copy, index, 0, AUGMENTATION)
            pictures = augmented(pictures, self.recipe, random)
        return self.compute(pictures)

    def store(self, index: int, copy: int = 0) -> Tensor:
        maps = self.computed(index, copy)
        with replacing(self.path(index, copy), lasting=False) as part, part.open("wb") as file:
            np.savez(file, maps=maps.numpy())
        return maps

    def compute(self, pictures: Tensor) -> Tensor:
        """The feature maps of pictures, on the CPU and in the data type in which they are stored."""
        with torch.no_grad():
            at_once = ON_CPU if self.device.type == "cpu" else FRAMES_AT_ONCE
            pieces = [self.model.cnn(f.to(self.device)) for f in pictures.split(at_once)]
            maps = torch.cat([piece.to(self.dtype).cpu() for piece in pieces])
            return maps.contiguous()  # the same memory layout as maps read from a file

    def read(self, index: int, copy: int = 0) -> Tensor:
        if self.folder is None:
            return self.computed(index, copy)
        path, compute = self.path(index, copy), self.store if self.writes else self.computed
        try:
            if not path.is_file():
                return compute(index, copy)
            with explaining_refusal(path), np.load(path, allow_pickle=False) as stored:
                return torch.from_numpy(stored["maps"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            log.warning("%s is damaged; its feature maps are computed again", path)
            return compute(index, copy)

    def load(
        self, indices: Sequence[int], epoch: int | None = None, turns: Sequence[int] = ()
    ) -> Batch:
        batch = super().load(indices, epoch, turns)
        if self.black is None or not indices:
            return batch
        black = self.black.to(batch.pictures.device)
        return replace(batch, pictures=torch.cat([batch.pictures, black]))
