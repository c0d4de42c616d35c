"""Videos of a study other than the one a model was trained on, in the model's frame format."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.split import patient_list
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError
from lus_cli.study.frames import fit_box, fit_frame


class OtherStudy(VideoCache):
    """A cache with its own frame settings, which returns frames in another `frame_format`."""

    def __init__(self, path: Path, frame_format: FrameFormat) -> None:
        super().__init__(path / "videos.h5" if path.is_dir() else path)
        self.frame_format = frame_format

    def read(self, index: int, positions: np.ndarray | None = None) -> np.ndarray:
        frames = super().read(index, positions)
        if self.stored_format == self.frame_format:
            return frames
        rows, columns = map(int, self.source_shapes[index])
        fitted = [self.fitted(frame, (rows, columns)) for frame in frames]
        return np.stack(fitted) if fitted else np.zeros((0, *self.frame_format.shape), np.uint8)

    def fitted(self, frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """A stored frame in the requested format.

        `shape` is its original rows and columns, which determine its borders and its aspect.
        """
        stored, target = self.stored_format, self.frame_format
        if stored.letterbox:  # the borders are not part of the picture
            left, top, width, height = fit_box(shape[1], shape[0], stored.size, letterbox=True)
            frame = frame[top : top + height, left : left + width]
        if stored.color != target.color:
            mode = "RGB" if target.color else "L"
            frame = np.asarray(Image.fromarray(np.ascontiguousarray(frame)).convert(mode))
        return fit_frame(np.ascontiguousarray(frame), target.size, target.letterbox, shape)

    @property
    def changed(self) -> str:
        """A sentence on how frames are converted; empty if they are not."""
        stored, target = self.stored_format, self.frame_format
        if stored == target:
            return ""
        words = [
            f"{stored.size} to {target.size} pixels" if stored.size != target.size else "",
            f"{aspect(stored)} to {aspect(target)}" if stored.letterbox != target.letterbox else "",
            f"{colour(stored)} to {colour(target)}" if stored.color != target.color else "",
        ]
        flags = [
            f"--size {target.size}",
            "--letterbox" if target.letterbox else "",
            "--color" if target.color else "",
        ]
        return (
            f"frames are converted for the model: {', '.join(filter(None, words))}; "
            f"`lus prepare {' '.join(filter(None, flags))}` does so from the original frames"
        )


def aspect(frame_format: FrameFormat) -> str:
    return "letterboxed" if frame_format.letterbox else "stretched"


def colour(frame_format: FrameFormat) -> str:
    return "colour" if frame_format.color else "gray"


@dataclass(frozen=True)
class TrainedOn:
    """What is known of the patients and videos that a model was trained and selected on.

    patients: their ids; empty if they are unknown.
    checksums: of the stored frames of their videos, which reveal the same pixels under another id.
    frame_format: in which these frames are stored; None if the videos are unknown.
    """

    patients: Collection[str]
    checksums: Collection[str] = ()
    frame_format: FrameFormat | None = None


def why_not_compared(videos: VideoCache, known: TrainedOn) -> str:
    """Why the videos cannot be compared with those of the run's patients; empty if they can.

    Comparing stored frames finds a patient who has another id in this study.
    """
    if known.frame_format is None:
        why = "the videos that the run was trained on are not available"
    elif known.frame_format != getattr(videos, "stored_format", None):
        why = "the two studies have different frame settings"
    else:
        return ""
    return f"cannot check whether the run's patients are among these under other ids: {why}"


def videos_to_evaluate(videos: VideoCache, known: TrainedOn, policy: str) -> list[int]:
    """Indices of the labelled videos of another study on which a run may be evaluated.

    policy: what to do with videos of the run's patients: refuse, skip or keep.

    Raises LusError if there are such videos and the policy is refuse, or if no video is left.
    """
    labelled = [index for index in range(len(videos)) if videos.scores[index] >= 0]
    seen = [
        index
        for index in labelled
        if videos.ids[index].patient in known.patients or videos.checksums[index] in known.checksums
    ]
    if seen and policy == "refuse":
        names = list(dict.fromkeys(videos.ids[index].patient for index in seen))
        raise LusError(
            f"the run was trained on patient {patient_list(names)} of {videos.path}",
            "leave their videos out with --trained-patients skip; if only the ids are equal, "
            "keep them with --trained-patients keep",
        )
    chosen = [i for i in labelled if i not in set(seen)] if policy == "skip" else labelled
    if not chosen:
        raise LusError(
            f"{videos.path} contains no labelled video"
            + (" of a patient that the run was not trained on" if labelled else ""),
            "prepare it with annotations" if not labelled else "evaluate another study",
        )
    return chosen
