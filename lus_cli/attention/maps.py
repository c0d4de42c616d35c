"""The attention of a whole split: a picture and the maps of every video.

Only one video is in memory at a time. An interrupted command resumes at the next video.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lus_cli.attention.explained import (
    Explanation,
    all_masks,
    card,
    explain,
    original_frames,
    over_frame,
    save_png,
)
from lus_cli.attention.file_names import OUTPUTS, PICTURES, MaskFolder
from lus_cli.attention.mask_file import merge_files, read_maps, stored_videos, write_masks
from lus_cli.config import FigureLook, figure_look
from lus_cli.disk_errors import explaining_disk_errors
from lus_cli.files import read_json, write_json
from lus_cli.pages.overlay import draw_card
from lus_cli.progress import Progress
from lus_cli.study.ids import VideoId
from lus_cli.torchrun.group import ALONE, Group
from lus_cli.training.trained_run import TrainedRun

PLACES_VERSION = 3  # of where the cells of a map lie on the frame
FRAMES_PER_S = 25  # of a written video; exam trees do not record a frame rate
# Writes a video file: the masks of all frames, (frame, row, column), over the frames.
WriteFilm = Callable[[Explanation, np.ndarray, Path], None]


def draw_videos(
    trained: TrainedRun,
    root: Path,
    folder: MaskFolder,
    indices: Sequence[int],
    *,
    films: tuple[str, WriteFilm] | None,
    progress: Progress,
    group: Group = ALONE,
) -> list[str]:
    """Draws every video of a split and stores its maps in masks.h5. Returns notes for the user.

    Videos that were drawn before are skipped. Each process of the group draws its share, and the first
    one merges the maps. When a process returns, masks.h5 is complete.

    root: the exam tree. films: the suffix of the video files and the function that writes one.
    """
    ids = {index: trained.videos.ids[index] for index in indices}
    notes = []
    if group.first:
        notes = remove_outdated(trained, folder)
        remove_other_look(folder)
    group.meet()
    progress = group.whole(progress)
    in_file = stored_videos(folder.masks, ids.values())
    skipped = 0
    for done, (index, video) in enumerate(group.share([*ids.items()]), start=1):
        pictures = [folder.picture(video, suffix) for suffix in ("png", *(films or ())[:1])]
        has_maps = video in in_file or folder.part(video).is_file()
        if has_maps and all(path.is_file() for path in pictures):
            skipped += 1
        else:
            draw_one(trained, root, folder, index, films)
        progress("draw", done, len(ids))
    skipped = sum(group.gathered(skipped))  # after this, all are drawn
    if group.first:
        parts = {video: path for video in ids.values() if (path := folder.part(video)).is_file()}
        new = {video: path for video, path in parts.items() if video not in in_file}
        merge_files(folder.masks, new, trained.weights)
        shutil.rmtree(folder.parts, ignore_errors=True)
    group.meet()
    return notes + ([f"{skipped} of {len(ids)} videos were already drawn."] if skipped else [])


def draw_one(
    trained: TrainedRun,
    root: Path,
    folder: MaskFolder,
    index: int,
    films: tuple[str, WriteFilm] | None,
) -> Explanation:
    """Draws the clearest frame of a video, and the whole video if wanted, and stores the maps."""
    explanation = explain(trained, index)
    masks = all_masks(trained, explanation)
    video, clearest = explanation.id, explanation.clearest
    numbers = trained.videos.frame_numbers(index)
    scored = numbers[explanation.positions]
    [original] = original_frames(trained, root, index, [int(scored[clearest])])
    save_png(folder.picture(video, "png"), card(trained, explanation, clearest, original))
    if films:
        suffix, write_film = films
        write_film(explanation, masks, folder.picture(video, suffix))
    maps = {
        "frame_number": numbers,
        "mask": masks,
        "scored": scored,
        "grad_cam": explanation.grad_cam,
        "probability": np.array(explanation.probabilities),
    }
    # The maps are written last: a video that has maps is finished.
    write_masks(folder.part(video), {video: maps}, trained.weights)
    return explanation


def film(
    trained: TrainedRun,
    root: Path,
    progress: Progress,
    explanation: Explanation,
    masks: np.ndarray,
    path: Path,
) -> None:
    """Writes a video file with the mask of every frame over it.

    root: the exam tree. masks: (frame, row, column).
    """
    from lus_cli.study.video_writing import write_video

    numbers = trained.videos.frame_numbers(explanation.index).tolist()

    def cards() -> Iterator[np.ndarray]:
        originals = original_frames(trained, root, explanation.index, numbers)
        rows = zip(numbers, masks, originals, strict=True)
        for done, (number, mask, original) in enumerate(rows, start=1):
            over = over_frame(trained, mask, original.shape[:2])
            yield draw_card(original, over, explanation.caption(trained.run.name, number))
            progress(f"draw {explanation.id}", done, len(numbers))

    write_video(path, cards(), FRAMES_PER_S)


def remove_other_look(folder: MaskFolder) -> None:
    """Removes the pictures of a split that were drawn with another table [figures]."""
    current = asdict(figure_look())
    current["formats"] = list(current["formats"])
    record = folder.root / "look.json"
    default = asdict(FigureLook()) | {"formats": []}  # of pictures without a record
    if (read_json(record, "delete it") if record.is_file() else default) == current:
        return
    with explaining_disk_errors(folder.root):
        for path in folder.root.glob("*-*-*"):
            if path.suffix in PICTURES:
                path.unlink(missing_ok=True)
    write_json(record, current)


def remove_outdated(trained: TrainedRun, folder: MaskFolder) -> list[str]:
    """Removes the outputs of other weights or videos, or with cells at other places, and returns a
    note if there were any.

    A resumed run may have other weights than before.
    """
    current = {
        "weights": trained.weights,
        "videos": trained.videos.fingerprint,
        "places": PLACES_VERSION,
    }
    stored = read_json(folder.made_by, "delete it") if folder.made_by.is_file() else None
    if stored == current:
        return []
    pictures = [path for path in folder.root.glob("*-*-*") if path.suffix in PICTURES]
    outdated = [*pictures, *(folder.root / name for name in OUTPUTS)]
    had_maps = folder.masks.exists() or folder.parts.exists()
    with explaining_disk_errors(folder.root):
        for path in outdated:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder.parts, ignore_errors=True)
    write_json(folder.made_by, current)
    if not had_maps:
        return []
    name = f"{folder.root.name}/{folder.masks.name}"
    return [
        f"{name} was made with other weights, other videos or an earlier version of lus: it is started "
        "again, and the old pictures in its folder are removed."
    ]


@dataclass(frozen=True)
class ScoredMaps:
    """The maps of a video's scored frames, as masks.h5 stores them: see mask_file."""

    index: int
    id: VideoId
    numbers: np.ndarray
    masks: np.ndarray
    grad_cam: np.ndarray
    probabilities: np.ndarray


def read_scored_maps(
    trained: TrainedRun, folder: MaskFolder, indices: Sequence[int]
) -> Iterator[ScoredMaps]:
    """The maps of each video of a split, one video at a time."""
    for index in indices:
        video = trained.videos.ids[index]
        maps = read_maps(folder.masks, video)
        scored = np.searchsorted(maps["frame_number"], maps["scored"])
        yield ScoredMaps(
            index,
            video,
            maps["scored"],
            maps["mask"][scored],
            maps["grad_cam"],
            maps["probability"],
        )
