"""lus attention: the model's mask over the original frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lus_cli.batches import select_frames
from lus_cli.cache import Cache, replacing
from lus_cli.config import AttentionConfig
from lus_cli.devices import choose_device, set_threads
from lus_cli.errors import LusError
from lus_cli.exam_tree import SCORES, VideoId, parse_frame_id
from lus_cli.frames import letterbox_box
from lus_cli.overlay import Caption, colour_mask, draw_card
from lus_cli.scoring import TrainedRun, open_run
from lus_cli.sources import Mode, Source, open_source
from lus_cli.steps import Progress, Result, Table, silent
from lus_cli.video_cache import UNKNOWN, FrameFormat, write_masks

FRAMES_PER_S = 25  # of a written video; exam trees do not say how fast their frames were taken
GALLERY_PER_SCORE = 2  # two videos of each score make the report's eight pictures (Fig. 10)


@dataclass(frozen=True)
class Explained:
    """A video of the run, what the model answered for it, and where its frames are."""

    index: int
    id: VideoId
    probabilities: tuple[float, ...]
    source: Source

    def caption(self, trained: TrainedRun, frame: int) -> Caption:
        score = int(trained.videos.scores[self.index])
        return Caption(
            f"{self.id}/{frame}",
            trained.run.name,
            None if score == UNKNOWN else score,
            self.probabilities,
        )


def run(config: AttentionConfig, progress: Progress) -> Result:
    """Draws the frames and videos asked for, or eight telling frames."""
    frames = [parse_frame_id(text) for text in config.frame]
    videos = [VideoId.parse(text) for text in config.video]
    set_threads(config.threads)
    trained = open_run(Cache(config.cache), config.run, choose_device(config.device))
    if not trained.card.recipe.attention:
        raise LusError(f"run {trained.run.name} has no attention", "train one with --attention")
    root = config.exams or Path(trained.videos.provenance["exams"])
    files: dict[str, Path] = {}
    rows = []
    for video, frame in frames:
        shown = explain(trained, root, video)
        files[f"{video}/{frame}"] = draw_frame(trained, shown, frame)
        rows.append(row_of(trained, shown, frame))
    for video in videos:
        shown = explain(trained, root, video)
        files[str(video)] = draw_video(trained, shown, config.format, progress)
        rows.append(row_of(trained, shown, None))
    if not frames and not videos:
        files["gallery"], rows = draw_gallery(trained, root, progress)
    files["masks"] = masks_path(trained)
    table = Table(
        f"run {trained.run.name}", ("", "score", "answered", *(f"p({s})" for s in SCORES)), rows
    )
    numbers = {
        "run": trained.run.name,
        "answers": [dict(zip(table.columns, r, strict=True)) for r in rows],
    }
    return Result(numbers, [table], files)


def row_of(trained: TrainedRun, shown: Explained, frame: int | None) -> tuple[object, ...]:
    name = str(shown.id) if frame is None else f"{shown.id}/{frame}"
    score = int(trained.videos.scores[shown.index])
    answered = int(np.argmax(shown.probabilities))
    return (name, None if score == UNKNOWN else score, answered, *shown.probabilities)


def explain(
    trained: TrainedRun, root: Path, video: VideoId, probabilities: np.ndarray | None = None
) -> Explained:
    """Scores a video (unless its probabilities are known) and finds its original frames."""
    index = trained.videos.index(video)
    if probabilities is None:
        probabilities = trained.probabilities([index], "score", silent)[0]
    videos = trained.videos
    path = root / videos.source_paths[index]
    if not path.exists():
        raise LusError(f"the original frames are not at {path}", "say where with --exams")
    mask_text = videos.provenance["mask_text"]  # what was masked then must not be shown now
    source = open_source(videos.source_kinds[index], video, root, path, mask_text)
    return Explained(index, video, tuple(map(float, probabilities)), source)


def masks_of(trained: TrainedRun, index: int, positions: np.ndarray) -> np.ndarray:
    """Masks of some frames of a video, by position: (frame, row, column) float32 in [0, 1]."""
    device = next(trained.model.parameters()).device
    frames = trained.videos.read(index, positions)
    with torch.inference_mode():
        return trained.model.mask(torch.from_numpy(frames).to(device)).float().cpu().numpy()


def masks_path(trained: TrainedRun) -> Path:
    return trained.run.attention / "masks.h5"


def draw_frame(trained: TrainedRun, shown: Explained, frame: int) -> Path:
    """The card of one frame, by its number, as PNG; its mask goes into masks.h5."""
    numbers = trained.videos.frame_numbers(shown.index)
    position = np.flatnonzero(numbers == frame)
    if not len(position):
        raise LusError(
            f"video {shown.id} has no frame {frame}",
            f"it has {len(numbers)} frames, {numbers[0]} to {numbers[-1]}",
        )
    mask = masks_of(trained, shown.index, position)
    write_masks(masks_path(trained), {shown.id: (numbers[position], mask)})
    path = trained.run.attention / f"{'-'.join(shown.id)}-{frame}.png"
    [original] = original_frames(trained, shown, [frame])
    save_png(path, card(trained, shown, frame, mask[0], original))
    return path


def original_frames(
    trained: TrainedRun, shown: Explained, numbers: Sequence[int]
) -> Iterator[np.ndarray]:
    """Frames by their ascending numbers, as they lie in their source: (row, column[, 3]) uint8.

    Raises LusError if one of them is gone.
    """
    mode: Mode = "RGB" if trained.videos.frame_format.color else "L"
    there = shown.source.frames(mode, set(numbers))
    for wanted in numbers:
        number, image = next(there, (None, None))
        if number != wanted:
            raise LusError(f"video {shown.id}: frame {wanted} is gone", "run `lus prepare` again")
        yield np.asarray(image)


def card(
    trained: TrainedRun, shown: Explained, frame: int, mask: np.ndarray, original: np.ndarray
) -> np.ndarray:
    """(row, column, 3) uint8: the original frame, the mask over it, and the model's answer."""
    fitted = without_bars(mask, trained.videos.frame_format, original.shape[:2])
    return draw_card(original, fitted, shown.caption(trained, frame))


def without_bars(mask: np.ndarray, frame_format: FrameFormat, shape: tuple[int, ...]) -> np.ndarray:
    """The part of a mask that lies over the original frame: letterboxing adds bars around it."""
    if not frame_format.letterbox:
        return mask
    size = frame_format.size
    whole = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    left, top, width, height = letterbox_box(shape[1], shape[0], size)
    return np.asarray(whole)[top : top + height, left : left + width]


def save_png(path: Path, image: np.ndarray) -> None:
    with replacing(path) as part:
        Image.fromarray(image).save(part, format="PNG")


def draw_video(trained: TrainedRun, shown: Explained, suffix: str, progress: Progress) -> Path:
    """Every frame's card as a video file; all masks go into masks.h5."""
    from lus_cli.video_files import write_video

    numbers = trained.videos.frame_numbers(shown.index)
    masks = masks_of(trained, shown.index, np.arange(len(numbers)))
    write_masks(masks_path(trained), {shown.id: (numbers, masks)})

    def cards() -> Iterator[np.ndarray]:
        originals = original_frames(trained, shown, numbers.tolist())
        rows = zip(numbers.tolist(), masks, originals, strict=True)
        for done, (number, mask, original) in enumerate(rows, start=1):
            yield card(trained, shown, number, mask, original)
            progress(f"draw {shown.id}", done, len(numbers))

    path = trained.run.attention / f"{'-'.join(shown.id)}.{suffix}"
    write_video(path, cards(), FRAMES_PER_S)
    return path


def draw_gallery(
    trained: TrainedRun, root: Path, progress: Progress
) -> tuple[Path, list[tuple[object, ...]]]:
    """Eight telling frames: of each score the test video the model is surest of, right and wrong.

    Of each video the frame is shown whose mask stands out most, by its largest value less its mean.
    """
    from lus_cli import evaluation_figures, figures

    part = "test" if trained.split.test else "validation"
    indices = trained.split.indices(part, trained.videos.patients, trained.videos.scores)
    probabilities = trained.probabilities(indices, f"score {part}", progress)
    images, rows = [], []
    for place in telling(trained.videos.scores[indices], probabilities):
        shown = explain(trained, root, trained.videos.ids[indices[place]], probabilities[place])
        recipe, length = trained.card.recipe, int(trained.videos.lengths[shown.index])
        positions = select_frames(length, recipe.stride, recipe.frames_per_video)
        masks = masks_of(trained, shown.index, positions)
        best = int(np.argmax(masks.max(axis=(1, 2)) - masks.mean(axis=(1, 2))))
        frame = int(trained.videos.frame_numbers(shown.index)[positions[best]])
        draw_frame(trained, shown, frame)
        row = row_of(trained, shown, frame)
        [original] = original_frames(trained, shown, [frame])
        mask = without_bars(masks[best], trained.videos.frame_format, original.shape[:2])
        title = f"{row[0]}\ntrue {row[1]}, answered {row[2]}"
        images.append((title, colour_mask(original, mask)))
        rows.append(row)
        progress("draw", len(images))
    gallery = trained.run.attention / "gallery"
    figures.save(evaluation_figures.attention_gallery(images), gallery)
    return gallery.with_suffix(".png"), rows


def telling(scores: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Positions of up to GALLERY_PER_SCORE videos of each score: first the surest right answer,
    then the surest wrong one, then whatever is surest."""
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    chosen: list[int] = []
    for score in SCORES:
        mine = sorted(np.flatnonzero(scores == score), key=lambda i: -sure[i])
        right = [i for i in mine if predicted[i] == score]
        wrong = [i for i in mine if predicted[i] != score]
        order = dict.fromkeys(map(int, right[:1] + wrong[:1] + mine))
        chosen += list(order)[:GALLERY_PER_SCORE]
    return chosen
