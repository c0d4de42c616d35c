"""The prediction of a trained model for a video, and its maps over the original frames."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lus_cli.attention.saliency import predict_with_grad_cam, scale_to_one
from lus_cli.cache.batches import pictures_of, places_of, select_frames
from lus_cli.cache.chunks import FrameFormat
from lus_cli.config import figure_look
from lus_cli.errors import LusError
from lus_cli.files import replacing
from lus_cli.model.cells import cell_centres, even_centres, over_frames, resample_maps
from lus_cli.pages.overlay import Caption, draw_card
from lus_cli.study.annotations import UNKNOWN
from lus_cli.study.frames import letterbox_box
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import Mode, Source, open_source
from lus_cli.training.scoring import masks_of, softmax
from lus_cli.training.trained_run import TrainedRun

PDF_DPI = 200  # of a picture, if [figures] names none


@dataclass(frozen=True)
class Explanation:
    """The prediction of a run for a video, with the maps of the frames it is based on.

    index: the video's index in the cache.
    score: the true score, UNKNOWN if the video is unlabelled.
    probabilities: one per score.
    positions: (scored frame,) int, the frames that the recipe selects, counted from 0.
    masks: (scored frame, row, column) float32 in [0, 1].
    grad_cam: (scored frame, row, column) float32, non-negative, for the predicted score.
    """

    index: int
    id: VideoId
    score: int
    probabilities: tuple[float, ...]
    positions: np.ndarray
    masks: np.ndarray
    grad_cam: np.ndarray

    @property
    def clearest(self) -> int:
        """The index, among the scored frames, of the mask with the most contrast: the largest
        difference of maximum and mean."""
        return int(np.argmax(self.masks.max(axis=(1, 2)) - self.masks.mean(axis=(1, 2))))

    def caption(self, run: str, frame: int) -> Caption:
        score = None if self.score == UNKNOWN else self.score
        return Caption(f"{self.id}/{frame}", run, score, self.probabilities)


def explain(trained: TrainedRun, index: int, extra: int | None = None) -> Explanation:
    """Scores a video of the run's study, and returns the maps of its frames.

    The recipe selects the frames. `extra` is the position of one frame to explain instead. If the
    recipe does not select it, the prediction remains that of the selected frames; the maps of the
    extra frame are those of its window, or come from a second pass, which includes it at its place in
    time. Only the maps of this frame are returned.
    """
    recipe, videos = trained.card.recipe, trained.videos
    length = int(videos.lengths[index])
    positions = select_frames(length, recipe.stride, recipe.frames_per_video)
    explanation = explain_frames(trained, index, positions)
    if extra is None:
        return explanation
    with_extra = explanation
    if extra not in positions and not pictures_of(recipe).are_windows:
        positions = np.sort(np.append(positions, extra))
        predicted = int(np.argmax(explanation.probabilities))
        with_extra = explain_frames(trained, index, positions, predicted)
    [place] = places_of(np.array([extra]), positions)
    return replace(
        explanation,
        positions=np.array([extra]),
        masks=with_extra.masks[[place]],
        grad_cam=with_extra.grad_cam[[place]],
    )


def explain_frames(
    trained: TrainedRun, index: int, positions: np.ndarray, score: int | None = None
) -> Explanation:
    """Scores these frames of a video. score: what Grad-CAM explains; None: the predicted score."""
    videos, model = trained.videos, trained.model
    device = next(model.parameters()).device
    frames = torch.from_numpy(videos.read(index, positions))
    makes = pictures_of(trained.card.recipe)
    pictures = makes.of(frames).to(device)
    output, maps = predict_with_grad_cam(model, pictures, trained.card.pad_to, score)
    return Explanation(
        index,
        videos.ids[index],
        int(videos.scores[index]),
        tuple(softmax(output.logits.float().cpu().numpy())[0].tolist()),
        positions,
        over_frames(model.backbone, makes, output.masks.float().cpu().numpy(), frames),
        over_frames(model.backbone, makes, maps.float().cpu().numpy(), frames),
    )


def all_masks(trained: TrainedRun, explanation: Explanation) -> np.ndarray:
    """The mask of every frame of an explained video: (frame, row, column) float32 in [0, 1].

    That of a scored frame is the one of the prediction. A frame between those of a scored window has
    the mask of the window.
    """
    makes, scored = pictures_of(trained.card.recipe), explanation.positions
    length = int(trained.videos.lengths[explanation.index])
    if makes.are_windows or len(scored) == length:  # the CNN need not see the frames again
        return explanation.masks[places_of(np.arange(length), scored)]
    frames = torch.from_numpy(trained.videos.read(explanation.index))
    masks = masks_of(trained.model, makes, frames)
    masks[scored] = explanation.masks
    return masks


def source_of(trained: TrainedRun, root: Path, index: int) -> Source:
    """The source of a video's original frames. Raises LusError if it does not exist."""
    videos = trained.videos
    kind, place = videos.source(index)
    path = root / place
    if not path.exists():
        raise LusError(
            f"the original frames are missing: there is no {path}", "give their folder with --exams"
        )
    mask_text = videos.provenance["mask_text"]  # text that was masked must not be shown now
    return open_source(kind, videos.ids[index], root, path, mask_text)


def original_frames(
    trained: TrainedRun, root: Path, index: int, numbers: Sequence[int]
) -> Iterator[np.ndarray]:
    """Frames as they are in the source: (row, column[, 3]) uint8.

    numbers: frame numbers in ascending order. Raises LusError if a frame is missing.
    """
    mode: Mode = "RGB" if trained.videos.frame_format.color else "L"
    frames = source_of(trained, root, index).frames(mode, set(numbers))
    for wanted in numbers:
        number, image = next(frames, (None, None))
        if number != wanted:
            video = trained.videos.ids[index]
            raise LusError(
                f"frame {wanted} of video {video} no longer exists", "run `lus prepare` again"
            )
        yield np.asarray(image)


def card(
    trained: TrainedRun, explanation: Explanation, place: int, original: np.ndarray
) -> np.ndarray:
    """A picture of a frame, its mask, its Grad-CAM and the prediction: (row, column, 3) uint8.

    place: the index of the frame among the scored frames.
    """
    frame = int(trained.videos.frame_numbers(explanation.index)[explanation.positions[place]])
    saliency = scale_to_one(explanation.grad_cam[place : place + 1])[0]
    mask = explanation.masks[place]
    covers = [over_frame(trained, cells, original.shape[:2]) for cells in (mask, saliency)]
    caption = explanation.caption(trained.run.name, frame)
    return draw_card(original, covers[0], caption, *covers[1:])


def over_frame(trained: TrainedRun, cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map, (row, column) of cells, as it lies over an original frame of `shape`.

    Each cell lies at its centre. The bars that letterboxing adds around the frame are cut off.
    """
    frame_format = trained.videos.frame_format
    centres = centres_of(trained, len(cells), frame_format.size)
    stored: np.ndarray = resample_maps(cells[None], centres, range(frame_format.size))[0]
    return without_bars(stored, frame_format, shape)


def centres_of(trained: TrainedRun, cells: int, size: int) -> tuple[float, ...]:
    """The pixels of a stored frame on which the rows, and columns, of a map are centred."""
    if trained.card.recipe.scan_lines:  # see Pictures.frame_maps
        return even_centres(cells, size)
    return cell_centres(trained.model.backbone, cells, size)


def without_bars(
    stored: np.ndarray, frame_format: FrameFormat, shape: tuple[int, ...]
) -> np.ndarray:
    """The part of a stored frame, or of a map of its size, that shows the original frame of `shape`."""
    if not frame_format.letterbox:
        return stored
    left, top, width, height = letterbox_box(shape[1], shape[0], frame_format.size)
    return stored[top : top + height, left : left + width]


def save_png(path: Path, image: np.ndarray) -> list[Path]:
    """Writes a picture as PNG, and next to it as PDF if [figures] wants that; returns the paths."""
    look, paths = figure_look(), [path]
    with replacing(path) as part:
        Image.fromarray(image).save(part, format="PNG")
    if "pdf" in look.formats:
        about = dict.fromkeys(("creationDate", "modDate"), time.gmtime(0)) | {"title": path.stem}
        paths.append(path.with_suffix(".pdf"))
        with replacing(paths[-1]) as part:
            Image.fromarray(image).save(part, "PDF", resolution=look.dpi or PDF_DPI, **about)
    return paths
