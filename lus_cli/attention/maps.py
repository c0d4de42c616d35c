"""The attention of a whole split: a picture and the raw maps of every video, one video in memory at
a time. Stopped at any moment, it goes on where it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lus_cli.attention.explained import (
    Explained,
    all_masks,
    card,
    explain,
    original_frames,
    save_png,
)
from lus_cli.attention.mask_file import joined, read_maps, write_masks, written
from lus_cli.disk_errors import explaining_disk_errors
from lus_cli.files import read_json, write_json
from lus_cli.progress import Progress
from lus_cli.study.ids import VideoId
from lus_cli.training.trained_run import TrainedRun

# What lus attention writes, besides pictures that are called after their video.
MADE = {"masks.h5", "check.json", "findings.json", "localisation.json"} | {
    f"{name}.{suffix}" for name in ("gallery", "localisation") for suffix in ("png", "svg")
}
PICTURES = (".png", ".mp4", ".gif")
# Draws the masks of all frames of a video, (frame, row, column), over these.
Film = Callable[[Explained, np.ndarray, Path], None]


@dataclass(frozen=True)
class MaskFolder:
    """runs/<run>/attention/, or <split>/ in it: pictures and masks.h5."""

    root: Path

    @property
    def masks(self) -> Path:
        return self.root / "masks.h5"

    @property
    def parts(self) -> Path:
        """What is done of masks.h5, a file a video, while it is not whole."""
        return self.root / "parts"

    @property
    def made_by(self) -> Path:
        return self.root / "made-by.json"

    def part(self, video: VideoId) -> Path:
        return self.parts.joinpath(*video[:2], f"{video.area}.h5")

    def picture(self, video: VideoId, suffix: str, frame: int | None = None) -> Path:
        """1017-1048-11.png, 1017-1048-11-86.png.

        A dash or tilde in an id gets a tilde before it, so that no two videos share a picture.
        """
        parts = [part.replace("~", "~~").replace("-", "~-") for part in video]
        if frame is not None:
            parts.append(str(frame))
        return self.root / f"{'-'.join(parts)}.{suffix}"


def draw_videos(
    trained: TrainedRun,
    root: Path,
    folder: MaskFolder,
    indices: Sequence[int],
    *,
    films: tuple[str, Film] | None,
    progress: Progress,
) -> list[str]:
    """Draws every video of a split and keeps its maps in masks.h5; says what it did not draw anew.

    root: the exam tree. films: their suffix and who draws one, if films are wanted.
    """
    ids = {index: trained.videos.ids[index] for index in indices}
    notes = forget_others(trained, folder)
    have = written(folder.masks, ids.values())
    before = 0
    for done, (index, video) in enumerate(ids.items(), start=1):
        wanted = [folder.picture(video, suffix) for suffix in ("png", *(films or ())[:1])]
        known = video in have or folder.part(video).is_file()
        if known and all(path.is_file() for path in wanted):
            before += 1
        else:
            draw_one(trained, root, folder, index, films)
        progress("draw", done, len(ids))
    parts = {video: path for video in ids.values() if (path := folder.part(video)).is_file()}
    new = {video: path for video, path in parts.items() if video not in have}
    joined(folder.masks, new, trained.weights)
    shutil.rmtree(folder.parts, ignore_errors=True)
    return notes + ([f"{before} of {len(ids)} videos had been drawn before."] if before else [])


def draw_one(
    trained: TrainedRun, root: Path, folder: MaskFolder, index: int, films: tuple[str, Film] | None
) -> None:
    """Draws a video's telling frame, and the video if wanted, and keeps its maps."""
    shown, masks = explain(trained, index), all_masks(trained, index)
    numbers = trained.videos.frame_numbers(index)
    frame = int(numbers[shown.positions[shown.telling]])
    [original] = original_frames(trained, root, index, [frame])
    save_png(folder.picture(shown.id, "png"), card(trained, shown, shown.telling, original))
    if films:
        films[1](shown, masks, folder.picture(shown.id, films[0]))
    maps = {
        "frame_number": numbers,
        "mask": masks,
        "scored": numbers[shown.positions],
        "grad_cam": shown.grad_cam,
        "probability": np.array(shown.probabilities),
    }
    # Last, so that a video whose maps are there is a video that is done.
    write_masks(folder.part(shown.id), {shown.id: maps}, trained.weights)


def forget_others(trained: TrainedRun, folder: MaskFolder) -> list[str]:
    """Drops the maps, pictures and measures of other weights, and says so: a run that was resumed may
    have better ones."""
    mine = {"weights": trained.weights, "videos": trained.videos.fingerprint}
    before = read_json(folder.made_by, "delete it") if folder.made_by.is_file() else None
    if before == mine:
        return []
    pictures = [path for path in folder.root.glob("*-*-*") if path.suffix in PICTURES]
    stale = [*pictures, *(folder.root / name for name in MADE)]
    had_some = folder.masks.exists() or folder.parts.exists()
    with explaining_disk_errors(folder.root):
        for path in stale:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder.parts, ignore_errors=True)
    write_json(folder.made_by, mine)
    if not had_some:
        return []
    name = f"{folder.root.name}/{folder.masks.name}"
    return [
        f"The run has other weights than before, or other videos: {name} is started again, and the "
        "pictures in its folder, which showed those, are removed."
    ]


@dataclass(frozen=True)
class Maps:
    """What masks.h5 knows of a video's scored frames: see mask_file."""

    index: int
    id: VideoId
    numbers: np.ndarray
    masks: np.ndarray
    grad_cam: np.ndarray
    probabilities: np.ndarray


def kept(trained: TrainedRun, folder: MaskFolder, indices: Sequence[int]) -> Iterator[Maps]:
    """The maps of each video of a split, one after the other."""
    for index in indices:
        video = trained.videos.ids[index]
        maps = read_maps(folder.masks, video)
        among = np.searchsorted(maps["frame_number"], maps["scored"])
        yield Maps(
            index,
            video,
            maps["scored"],
            maps["mask"][among],
            maps["grad_cam"],
            maps["probability"],
        )
