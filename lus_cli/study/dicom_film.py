"""Decodes films in DICOM (MPEG-2, H.264 and HEVC) with FFmpeg: one stream holds all frames."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np

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
        stream = next(iter(film.streams.video), None)
        if stream is None:
            raise ValueError("a film without a video stream")
        context = stream.codec_context
        # Without `explode`, FFmpeg conceals errors in damaged frames.
        context.options = {"err_detect": "explode", **limit}
        context.thread_count = 1
        for packet in film.demux(stream):
            if packet.is_corrupt:
                raise ValueError("a damaged film")
            for frame in context.decode(packet):
                if frame.is_corrupt:  # the decoder concealed missing data
                    raise ValueError("a damaged film")
                yield pictures.read(frame)
