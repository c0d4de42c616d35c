"""The features of the baselines: a few vectors per video, computed once and kept in cache/features/.

signs, confounders  hand-made features; see signs.
framewise           the features of a frozen CNN for evenly spaced frames, each averaged over the
                    frame; concatenated.
frames              the mean of these over the frames.
projections         the features of the same CNN for the maximum, the mean and the minimum of each
                    pixel over time, concatenated (Khan et al. 2024: a video compressed to three
                    frames).
picture             the features of the same CNN for one picture of the whole video along the scan
                    lines (see cache/pictures.py), averaged over the lines, which keeps depth.

The name of a file depends on everything that its vectors depend on, so a file is never outdated, and
an interrupted computation resumes at the next video.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lus_cli.cache.pictures import PICTURES_VERSION, Pictures
from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval import signs
from lus_cli.disk_errors import explaining_refusal
from lus_cli.files import fingerprint, replacing
from lus_cli.model.checkpoint import checksum
from lus_cli.progress import Progress, silent
from lus_cli.torchrun.group import ALONE, Group

log = logging.getLogger("lus.features")

KINDS = ("signs", "confounders", "framewise", "frames", "projections", "picture")
BACKBONE, WEIGHTS = "efficientnet_lite0", "imagenet"
CNN_FRAMES = 8  # evenly spaced over the video; in a shorter video, some are repeated

Features = dict[str, np.ndarray]  # kind -> (video, feature) float64
Vectors = dict[str, np.ndarray]  # kind -> (feature,) float32, of one video


def compute_features(
    videos: VideoCache, folder: Path, progress: Progress, group: Group = ALONE
) -> Features:
    """The vectors of every video of the cache by kind, one row per video.

    Each process of the group computes those of its share, then reads those of the others.
    """
    cnn, every = FrozenCNN(), range(len(videos))
    if group.world > 1:
        vectors_of(cnn, videos, group.share(every), folder, group.whole(progress))
        group.meet()
        progress = silent
    rows = vectors_of(cnn, videos, every, folder, progress)
    return {kind: np.array([row[kind] for row in rows], np.float64) for kind in KINDS}


def vectors_of(
    cnn: FrozenCNN, videos: VideoCache, indices: Sequence[int], folder: Path, progress: Progress
) -> list[Vectors]:
    """The vectors of some videos, read from `folder` or computed and stored there."""
    columns = len(signs.SIGNS)
    rows: list[Vectors] = []
    for index in indices:
        source = [videos.checksums[index], asdict(videos.frame_format)]
        hand_made_vector = load_or_compute(
            folder / f"{fingerprint([*source, 'signs', signs.VERSION])}.npz",
            lambda at=index: {"all": hand_made(videos.read(at))},  # type: ignore[misc]
        )["all"]
        vectors = {"signs": hand_made_vector[:columns], "confounders": hand_made_vector[columns:]}
        name = fingerprint([*source, "framewise", cnn.made_by, CNN_FRAMES, PICTURES_VERSION])
        vectors |= load_or_compute(
            folder / f"{name}.npz",
            lambda at=index: cnn.vectors(videos.read(at)),  # type: ignore[misc]
        )
        vectors["frames"] = vectors["framewise"].reshape(CNN_FRAMES, -1).mean(axis=0)
        rows.append(vectors)
        progress("baseline features", len(rows), len(videos))
    return rows


def load_or_compute(path: Path, compute: Callable[[], Vectors]) -> Vectors:
    """The vectors in a file. Computed and written if the file is missing or damaged."""
    try:
        if path.is_file():
            with explaining_refusal(path), np.load(path, allow_pickle=False) as stored:
                return dict(stored)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        log.warning("%s is damaged: its features are computed again", path)
    vectors = compute()
    with replacing(path, lasting=False) as part, part.open("wb") as file:
        np.savez(file, **vectors)  # type: ignore[arg-type]
    return vectors


def hand_made(frames: np.ndarray) -> np.ndarray:
    """The signs, then the confounders: (frame, row, column[, channel]) uint8 -> (feature,) float32."""
    gray = frames if frames.ndim == 3 else frames.mean(axis=3).round().astype(np.uint8)
    return np.array(list(signs.measure(gray).values()), np.float32)


class FrozenCNN:
    """A CNN with ImageNet weights on the CPU."""

    def __init__(self) -> None:
        from lus_cli.model.backbones import build_backbone

        body, _ = build_backbone(BACKBONE, WEIGHTS)
        self.body = body.eval()
        self.made_by = checksum(f"{self.body!r}", self.body.state_dict())

    def vectors(self, frames: np.ndarray) -> Vectors:
        """The CNN's features of a video, (frame, row, column[, channel]) uint8."""
        chosen = np.linspace(0, len(frames) - 1, CNN_FRAMES).round().astype(int)
        pooled = self.pooled(np.concatenate([frames[chosen], projections(frames)]))
        return {
            "framewise": pooled[:CNN_FRAMES].ravel(),
            "projections": pooled[CNN_FRAMES:].ravel(),
            "picture": self.picture(frames),
        }

    def picture(self, frames: np.ndarray) -> np.ndarray:
        """The features of one picture of the whole video: (channel x depth,) float32."""
        import torch

        from lus_cli.model.network import normalised

        with torch.inference_mode():
            picture = Pictures(windows=1, scan_lines=True).of(torch.from_numpy(frames))
            maps = self.body(normalised(picture))
            return np.asarray(maps.mean(dim=3).flatten().numpy())

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """(frame, row, column[, channel]) uint8 -> (frame, channel) float32, means over the frame."""
        import torch

        from lus_cli.model.network import normalised

        with torch.inference_mode():
            maps = self.body(normalised(torch.from_numpy(frames)))
            return np.asarray(maps.mean(dim=(2, 3)).numpy())


def projections(frames: np.ndarray) -> np.ndarray:
    """The maximum, mean and minimum over time: (frame, ...) uint8 -> (3, ...) uint8."""
    mean = frames.mean(axis=0).round().astype(np.uint8)
    return np.stack([frames.max(axis=0), mean, frames.min(axis=0)])
