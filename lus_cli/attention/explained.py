"""What a trained model says about a video and where it looked, over the frames as they were recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lus_cli.attention.cells import cell_centres, evenly, placed
from lus_cli.attention.saliency import explained, to_largest
from lus_cli.cache.batches import select_frames
from lus_cli.cache.chunks import FrameFormat
from lus_cli.errors import LusError
from lus_cli.files import replacing
from lus_cli.pages.overlay import Caption, draw_card
from lus_cli.study.annotations import UNKNOWN
from lus_cli.study.frames import letterbox_box
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import Mode, Source, open_source
from lus_cli.training.scoring import softmax
from lus_cli.training.trained_run import TrainedRun

MASKED_AT_ONCE = 64  # frames


@dataclass(frozen=True)
class Explained:
    """A video of the run, what the model answered for it and why, and where its frames are.

    positions: (scored frame,) int, the frames that the answer rests on, as the recipe chose them,
    counted from the video's first. masks, grad_cam: (scored frame, row, column) float32, the mask
    in [0, 1] and the Grad-CAM for the answered score, 0 and more.
    """

    index: int
    id: VideoId
    score: int  # UNKNOWN if unlabelled
    probabilities: tuple[float, ...]
    positions: np.ndarray
    masks: np.ndarray
    grad_cam: np.ndarray

    @property
    def telling(self) -> int:
        """The place, among the scored frames, of the one whose mask stands out most: by its largest
        value less its mean."""
        return int(np.argmax(self.masks.max(axis=(1, 2)) - self.masks.mean(axis=(1, 2))))

    def caption(self, run: str, frame: int) -> Caption:
        score = None if self.score == UNKNOWN else self.score
        return Caption(f"{self.id}/{frame}", run, score, self.probabilities)


def explain(trained: TrainedRun, index: int, extra: int | None = None) -> Explained:
    """Scores a video of the run's study and keeps where the model looked.

    The frames are those that the recipe would score. With `extra`, the position of a frame that is
    not among them, the answer stays theirs, and that frame's maps come from scoring the video once
    more with it in its place in time; then only its maps are kept.
    """
    recipe, videos, model = trained.card.recipe, trained.videos, trained.model
    length = int(videos.lengths[index])
    positions = select_frames(length, recipe.stride, recipe.frames_per_video)
    device = next(model.parameters()).device

    def look(at: np.ndarray, score: int | None) -> Explained:
        frames = torch.from_numpy(videos.read(index, at)).to(device)
        output, maps = explained(model, frames, trained.card.longest, score)
        return Explained(
            index,
            videos.ids[index],
            int(videos.scores[index]),
            tuple(softmax(output.logits.float().cpu().numpy())[0].tolist()),
            at,
            output.masks.float().cpu().numpy(),
            maps.float().cpu().numpy(),
        )

    answer = look(positions, None)
    if extra is None:
        return answer
    among = positions
    found = answer
    if extra not in positions:
        among = np.sort(np.append(positions, extra))
        found = look(among, int(np.argmax(answer.probabilities)))
    [place] = np.flatnonzero(among == extra)
    one = slice(place, place + 1)
    return replace(
        answer, positions=among[one], masks=found.masks[one], grad_cam=found.grad_cam[one]
    )


def all_masks(trained: TrainedRun, index: int) -> np.ndarray:
    """The mask of every frame of a video: (frame, row, column) float32 in [0, 1]."""
    device = next(trained.model.parameters()).device
    every, masks = np.arange(int(trained.videos.lengths[index])), []
    at_once = len(every) if trained.model.masks_videos else MASKED_AT_ONCE
    with torch.inference_mode():
        for start in range(0, len(every), at_once):
            frames = trained.videos.read(index, every[start : start + at_once])
            masks.append(trained.model.mask(torch.from_numpy(frames).to(device)).float().cpu())
    found: np.ndarray = torch.cat(masks).numpy()
    return found


def source_of(trained: TrainedRun, root: Path, index: int) -> Source:
    """Where a video's original frames are. Raises LusError if they are not there."""
    videos = trained.videos
    path = root / videos.source_paths[index]
    if not path.exists():
        raise LusError(f"the original frames are not at {path}", "say where with --exams")
    mask_text = videos.provenance["mask_text"]  # what was masked then must not be shown now
    return open_source(videos.source_kinds[index], videos.ids[index], root, path, mask_text)


def original_frames(
    trained: TrainedRun, root: Path, index: int, numbers: Sequence[int]
) -> Iterator[np.ndarray]:
    """Frames by their ascending numbers, as they lie in their source: (row, column[, 3]) uint8.

    Raises LusError if one of them is gone.
    """
    mode: Mode = "RGB" if trained.videos.frame_format.color else "L"
    there = source_of(trained, root, index).frames(mode, set(numbers))
    for wanted in numbers:
        number, image = next(there, (None, None))
        if number != wanted:
            video = trained.videos.ids[index]
            raise LusError(f"video {video}: frame {wanted} is gone", "run `lus prepare` again")
        yield np.asarray(image)


def card(trained: TrainedRun, shown: Explained, place: int, original: np.ndarray) -> np.ndarray:
    """The frame at a place among the scored ones, under its mask and under Grad-CAM, with the
    model's answer: (row, column, 3) uint8."""
    frame = int(trained.videos.frame_numbers(shown.index)[shown.positions[place]])
    saliency = to_largest(shown.grad_cam[place : place + 1])[0]
    maps = [shown.masks[place]] if trained.model.masks_videos else [shown.masks[place], saliency]
    covers = [over_frame(trained, cells, original.shape[:2]) for cells in maps]
    caption = shown.caption(trained.run.name, frame)
    return draw_card(original, covers[0], caption, *covers[1:])


def over_frame(trained: TrainedRun, cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map, (row, column) of cells, as it lies over an original frame of `shape`: each cell where
    it is centred, and without the bars that letterboxing adds around the frame."""
    frame_format = trained.videos.frame_format
    centres = centres_of(trained, len(cells), frame_format.size)
    whole: np.ndarray = placed(cells[None], centres, frame_format.size)[0]
    return without_bars(whole, frame_format, shape)


def centres_of(trained: TrainedRun, cells: int, size: int) -> tuple[float, ...]:
    """The pixels of a stored frame on which the rows, and columns, of a map's cells are centred."""
    if trained.model.masks_videos:
        return evenly(cells, size)
    return cell_centres(trained.model.backbone, cells, size)


def without_bars(
    whole: np.ndarray, frame_format: FrameFormat, shape: tuple[int, ...]
) -> np.ndarray:
    """The part of a stored frame, or of a map of its size, that lies over the original frame of
    `shape`."""
    if not frame_format.letterbox:
        return whole
    left, top, width, height = letterbox_box(shape[1], shape[0], frame_format.size)
    return whole[top : top + height, left : left + width]


def save_png(path: Path, image: np.ndarray) -> None:
    with replacing(path) as part:
        Image.fromarray(image).save(part, format="PNG")
