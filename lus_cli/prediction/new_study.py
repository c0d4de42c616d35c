"""A new video as a study of one video, for what reads the videos of a cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from lus_cli.cache.chunks import FrameFormat, StoredVideo
from lus_cli.cache.split import Split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.prediction.new_videos import (
    NewVideo,
    Search,
    decode,
    frames_at,
    id_from_path,
    open_video,
)
from lus_cli.study.annotations import UNKNOWN
from lus_cli.study.ids import VideoId
from lus_cli.training.trained_run import TrainedModel, TrainedRun

FINGERPRINT = "new videos"  # instead of that of a study


class NewStudy(VideoCache):
    """One decoded video that is in no cache, read as VideoCache reads those of videos.h5."""

    def __init__(
        self, video: NewVideo, name: VideoId, frame_format: FrameFormat, mask_text: bool
    ) -> None:
        """Decodes the video. Raises LusError if that fails.

        name: its id in the results. mask_text: whether text in DICOM frames is blackened.
        """
        self.decoded: StoredVideo = decode(open_video(video, mask_text), frame_format)
        self.path, self.fingerprint = video.path, FINGERPRINT
        self.stored_format = self.frame_format = frame_format
        folder = video.path.absolute().parent
        self.provenance = {"exams": str(folder), "mask_text": mask_text}
        self.ids, self.groups, self.notes = [name], [""], [self.decoded.notes]
        self.scores, self.lengths = np.array([UNKNOWN]), np.array([self.decoded.length])
        self.source_kinds, self.source_paths = [video.kind], [video.path.name]
        self.checksums = [self.decoded.checksum]

    def source(self, index: int) -> tuple[Any, str]:
        """Kind and path of the original frames."""
        return self.source_kinds[index], self.source_paths[index]

    def frame_numbers(self, index: int) -> np.ndarray:
        """The number of each frame: (frame,) int32."""
        return self.decoded.frame_numbers

    def read(self, index: int, positions: np.ndarray | None = None) -> np.ndarray:
        """Frames of the video: (frame, row, column[, channel]) uint8; None reads all."""
        if positions is None:
            positions = np.arange(self.decoded.length)
        return frames_at(self.decoded, np.asarray(positions), self.stored_format)


def distinct_ids(search: Search) -> dict[VideoId, NewVideo]:
    """An id for each video, from the end of its path; of equal ones, the later get a number."""
    ids: dict[VideoId, NewVideo] = {}
    for video in search.videos:
        first = name = id_from_path(video.path)
        number = 1
        while name in ids:
            number += 1
            name = first._replace(area=f"{first.area}~{number}")
        ids[name] = video
    return ids


def with_video(
    trained: TrainedModel, video: NewVideo, name: VideoId, mask_text: bool
) -> TrainedRun:
    """A model with a new video as its study. Raises LusError if the video cannot be decoded."""
    videos = NewStudy(video, name, trained.card.frame_format, mask_text)
    none = Split((), (), ())
    return TrainedRun(trained.run, trained.model, trained.card, videos, none, trained.weights)
