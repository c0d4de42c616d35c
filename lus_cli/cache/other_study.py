"""Videos of a study that a model was not made for, their frames made what it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.split import in_words
from lus_cli.cache.video_cache import VideoCache
from lus_cli.errors import LusError
from lus_cli.study.frames import fit_box, fit_frame


class OtherStudy(VideoCache):
    """A cache prepared with settings of its own; `frame_format` is the one it is asked for in."""

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
        """A stored frame in the format asked for; `shape`: its rows and columns before it was
        stored, from which its borders and its aspect follow."""
        stored, wanted = self.stored_format, self.frame_format
        if stored.letterbox:  # the borders are no part of the picture
            left, top, width, height = fit_box(shape[1], shape[0], stored.size, letterbox=True)
            frame = frame[top : top + height, left : left + width]
        if stored.color != wanted.color:
            mode = "RGB" if wanted.color else "L"
            frame = np.asarray(Image.fromarray(np.ascontiguousarray(frame)).convert(mode))
        return fit_frame(np.ascontiguousarray(frame), wanted.size, wanted.letterbox, shape)

    @property
    def changed(self) -> str:
        """What is done to every frame, in words; empty if nothing."""
        stored, wanted = self.stored_format, self.frame_format
        if stored == wanted:
            return ""
        words = [
            f"{stored.size} to {wanted.size} pixels" if stored.size != wanted.size else "",
            f"{aspect(stored)} to {aspect(wanted)}" if stored.letterbox != wanted.letterbox else "",
            f"{colour(stored)} to {colour(wanted)}" if stored.color != wanted.color else "",
        ]
        flags = [
            f"--size {wanted.size}",
            "--letterbox" if wanted.letterbox else "",
            "--color" if wanted.color else "",
        ]
        return (
            f"frames are brought from {', '.join(filter(None, words))}, as the model knows them; "
            f"`lus prepare {' '.join(filter(None, flags))}` does so from the original frames"
        )


def aspect(frame_format: FrameFormat) -> str:
    return "letterboxed" if frame_format.letterbox else "stretched"


def colour(frame_format: FrameFormat) -> str:
    return "colour" if frame_format.color else "gray"


def not_compared(videos: VideoCache, trained_on: VideoCache | None) -> str:
    """Why videos of patients that a run knows, under other names, could not be looked for; empty if
    they could: frames are compared as they are stored."""
    if trained_on is None:
        why = "the videos that the run was trained on are not in the cache any more"
    elif trained_on.stored_format != getattr(videos, "stored_format", None):
        why = "the two studies were prepared with frames of different kinds"
    else:
        return ""
    return f"whether its patients are among these under other names could not be looked for: {why}"


def foreign(
    videos: VideoCache, trained_on: VideoCache | None, patients: set[str], policy: str
) -> list[int]:
    """The labelled videos of another study that a run may be judged by.

    trained_on: the videos it was trained on, where they are still there: the same pixels under
        another patient's name are found, too.
    patients: those it was trained and selected on.
    policy: what happens to their videos: refuse, skip or keep.

    Raises LusError for such a video, where they are refused, or if no other is labelled.
    """
    pixels = set()
    if trained_on is not None:
        rows = zip(trained_on.patients, trained_on.checksums, strict=True)
        pixels = {checksum for patient, checksum in rows if patient in patients}
    labelled = [index for index in range(len(videos)) if videos.scores[index] >= 0]
    seen = [
        index
        for index in labelled
        if videos.ids[index].patient in patients or videos.checksums[index] in pixels
    ]
    if seen and policy == "refuse":
        names = list(dict.fromkeys(videos.ids[index].patient for index in seen))
        raise LusError(
            f"the run was trained on patient {in_words(names)} of {videos.path}",
            "leave their videos out with --trained-patients skip, or, if only the ids are the "
            "same, score them with --trained-patients keep",
        )
    chosen = [i for i in labelled if i not in set(seen)] if policy == "skip" else labelled
    if not chosen:
        raise LusError(
            f"{videos.path} holds no labelled video"
            + (" of a patient that the run does not know" if labelled else ""),
            "prepare it with annotations" if not labelled else "score another study",
        )
    return chosen
