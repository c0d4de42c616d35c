"""Decodes films in DICOM (MPEG-2, H.264 and HEVC) with FFmpeg: one stream holds all frames."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
from av.video.frame import VideoFrame

from lus_cli.study.exam_tree import MAX_PIXELS
from lus_cli.study.video_pictures import Pictures

# Bare streams, and the containers that PS3.5 (8.2.5 to 8.2.8) allows, determined by content.
CONTAINERS = "mpegvideo,h264,hevc,mpeg,mpegts,mov"


def film_frames(content: bytes) -> Iterator[np.ndarray]:
    """Yields every frame: (row, column) uint8 luminance if it is gray, else (row, column, 3) RGB.

    Raises ValueError or an error of FFmpeg for a damaged film.
    """
    limit = {"max_pixels": str(MAX_PIXELS)}
    pictures = Pictures(None, False)
    options = {"format_whitelist": CONTAINERS, **limit}
    with av.open(io.BytesIO(content), "r", options=options) as film:
        stream = film.streams.best("video")
        if stream is None:
            raise ValueError("a film without a video stream")
        context = stream.codec_context
        # Without `explode`, FFmpeg conceals errors in damaged frames.
        context.options = {"err_detect": "explode", **limit}
        context.thread_count = 1
        for frame in film.decode(stream):
            assert isinstance(frame, VideoFrame)
            yield pictures.read(frame)
