"""Writes video files through PyAV: .mp4 and .gif that common players show."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from lus_cli.errors import LusError
from lus_cli.files import replacing

GIF_TICK = Fraction(1, 100)  # seconds


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Writes (row, column, 3) uint8 RGB frames, all of one size, as .mp4 or .gif, by the suffix.

    A GIF plays at 50 frames/s at most, since viewers slow down faster ones. Raises LusError if the
    file cannot be written.
    """
    writers: dict[str, Callable[[Path, Iterable[np.ndarray], Fraction], None]]
    writers = {".mp4": write_mp4, ".gif": write_gif}
    write = writers[path.suffix.lower()]
    waiting = iter(frames)
    try:
        first = next(waiting)
    except StopIteration:
        raise ValueError(f"{path}: a video needs at least one frame") from None
    rate = Fraction(fps).limit_denominator(1001)
    with replacing(path) as part:
        write(part, itertools.chain([first], waiting), rate)


def write_mp4(
    target: Path | BinaryIO,
    frames: Iterable[np.ndarray],
    rate: Fraction,
    x264: Mapping[str, str] = MappingProxyType({"crf": "18"}),
) -> None:
    """Writes H.264 that every browser and slide program plays: BT.709, and 4:2:0, so even sides.

    x264: options of the encoder. `crf` sets the loss: at 18 it is hardly visible, and an increase
    by 6 halves the file.
    """
    bt709 = 1  # ITU-T H.273, the same number for primaries, transfer and matrix
    reformatter = VideoReformatter()
    # Only in a file can the index be moved to the front, for players that download it.
    place, options = (
        (str(target), {"movflags": "faststart"}) if isinstance(target, Path) else (target, {})
    )
    with av.open(place, "w", format="mp4", options=options) as container:
        try:
            stream = container.add_stream("libx264", rate=rate, options=dict(x264))
        except ValueError as error:
            raise LusError(
                "this build of PyAV cannot write H.264", "pip install av, or write a .gif"
            ) from error
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_range, context.colorspace = 1, bt709
        context.color_primaries, context.color_trc = bt709, bt709
        for number, rgb in enumerate(frames):
            rows, columns = rgb.shape[:2]
            even = rgb
            if rows % 2 or columns % 2:
                even = np.pad(rgb, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
            if number == 0:
                stream.height, stream.width = even.shape[:2]
            frame = reformatter.reformat(
                VideoFrame.from_ndarray(even, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_gif(path: Path, frames: Iterable[np.ndarray], rate: Fraction) -> None:
    """Writes a GIF with one palette for all frames; a palette per frame flickers and is larger.

    For gray frames with a heat map, FFmpeg's palette is 4 dB closer than Pillow's and takes a fifth of
    the time. Bayer dithering at this scale shows neither bands nor moving patterns.
    """
    rate = min(rate, Fraction(50))
    with av.open(str(path), "w", format="gif") as container:
        stream = container.add_stream("gif", rate=rate)
        stream.codec_context.time_base = GIF_TICK
        stream.pix_fmt = "pal8"
        graph: av.filter.Graph | None = None
        for number, rgb in enumerate(frames):
            if graph is None:
                stream.height, stream.width = rgb.shape[:2]
                graph = palette_graph(stream)
            frame = VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = round(number / rate / GIF_TICK), GIF_TICK
            graph.vpush(frame)
        assert graph is not None
        graph.vpush(None)  # ends the input: the palette is made, and the frames come out
        mux_filtered(graph, stream, container)


def palette_graph(stream: VideoStream) -> av.filter.Graph:
    """A filter graph that reduces frames to 256 colours, with a palette made from all of them."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=stream.width,
        height=stream.height,
        format=av.VideoFormat("rgb24", stream.width, stream.height),
        time_base=GIF_TICK,
    )
    split = graph.add("split")
    make = graph.add("palettegen", "stats_mode=full")
    use = graph.add("paletteuse", "dither=bayer:bayer_scale=5")
    source.link_to(split)
    split.link_to(make, 0, 0)
    split.link_to(use, 1, 0)
    make.link_to(use, 0, 1)
    use.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def mux_filtered(graph: av.filter.Graph, stream: VideoStream, container: OutputContainer) -> None:
    while True:
        try:
            frame = graph.vpull()
        except (BlockingIOError, EOFError):
            break
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
