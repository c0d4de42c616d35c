"""Video files, read and written through PyAV, whose wheel carries FFmpeg."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from lus_cli.cache import replacing
from lus_cli.errors import LusError
from lus_cli.exam_tree import MAX_PIXELS

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".gif")
OTHER_SUFFIXES = (".wmv", ".m4v", ".webm", ".mpg", ".mpeg", ".mts", ".3gp", ".flv")  # not read
# By content, not by suffix, and nothing else: FFmpeg also reads playlists, which name other files
# and addresses to open.
CONTAINERS = "mov,avi,matroska,gif"
# An hour at 25 frames/s is 90,000; a longer one is no recording of one inspection area.
MAX_FRAMES = 100_000
# A frame is gray if in no pixel the largest and the smallest of red, green and blue are further
# apart. Compressed gray video strays by up to 6 (measured on COVID-BLUES); a coloured mark or
# Doppler is ten times this.
GRAY_SPREAD = 16
GIF_TICK = Fraction(1, 100)  # seconds
COPY_AGAIN = "copy it again from where it was recorded, or re-encode it"


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Every frame of a video file, in presentation order, turned upright.

    Yields (row, column) uint8 luminance for a gray frame (see GRAY_SPREAD) and (row, column, 3)
    uint8 RGB for any other. Decodes on one thread: many videos are read side by side.

    Raises LusError, after the frames before the damage, if the file cannot be decoded or ends
    early: never fewer frames than the file promises. Also for frames or videos beyond MAX_PIXELS
    and MAX_FRAMES.
    """
    count = 0
    with opened(path) as (container, stream):
        promise, streams = promised_length(container, stream)
        end = Fraction(0)
        to_rgb, to_gray = VideoReformatter(), VideoReformatter()  # each keeps its own tables
        for packet in container.demux(streams):
            if packet.is_corrupt:
                raise cut_short(path, count)
            end = max(end, packet_end(packet))
            if packet.stream.index != stream.index:
                continue
            for frame in stream.decode(packet):
                if count == MAX_FRAMES:
                    raise LusError(f"{path} has more than {MAX_FRAMES} frames", "split it")
                yield upright(frame, to_rgb, to_gray)
                count += 1
        # Up to a frame's length is rounding and the muxers' different habits.
        missing = promise - end if promise is not None else Fraction(0)
        if missing * rate_of(stream) > Fraction(9, 10):
            raise cut_short(path, count)
    if count == 0:
        raise LusError(f"{path} holds no frame", COPY_AGAIN)


def frame_rate(path: Path) -> float:
    """Frames per second, on average: 25 if the file does not say. Raises LusError."""
    with opened(path) as (container, stream):
        if container.format.name == "gif" and stream.duration and stream.time_base:
            return float(stream.frames / (stream.duration * stream.time_base))
        return float(rate_of(stream))


def rate_of(stream: VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def cut_short(path: Path, count: int) -> LusError:
    return LusError(f"{path} is cut short after {count} frames", COPY_AGAIN)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file and its main video stream; whatever FFmpeg finds wrong becomes a LusError."""
    limit = {"max_pixels": str(MAX_PIXELS)}  # FFmpeg allocates no larger frame, even to look
    try:
        if path.stat().st_size == 0:
            raise LusError(f"{path} is empty", COPY_AGAIN)
        refuse_cut_gif(path)
        # An absolute path, so that a file called `http:x.mp4` is still a file.
        with av.open(
            str(path.absolute()),
            metadata_errors="replace",
            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file", **limit},
        ) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise LusError(f"{path} holds no video stream", "is it a sound recording?")
            if stream.codec_context is None:
                raise LusError(f"{path}: its codec is not known", "re-encode it as H.264")
            # Without `explode`, damaged frames come out patched up, as if nothing had happened.
            stream.codec_context.options = {"err_detect": "explode", **limit}
            stream.codec_context.thread_count = 1
            yield container, stream
    except FileNotFoundError:
        raise LusError(f"there is no file {path}") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LusError(f"{path} cannot be decoded ({reason})", COPY_AGAIN) from error


def promised_length(
    container: InputContainer, stream: VideoStream
) -> tuple[Fraction | None, list[av.stream.Stream]]:
    """Where the file's header says that it ends, in seconds, and the streams of which it says so."""
    own: list[av.stream.Stream] = [stream]
    if container.format.name == "avi":  # its duration is cut down to what FFmpeg finds
        return (stream.frames / rate_of(stream) if stream.frames else None), own
    if stream.duration is not None and stream.time_base is not None:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base, own
    if container.duration is not None:  # Matroska: of the longest stream
        return Fraction(container.duration, av.time_base), list(container.streams)
    return None, own


def packet_end(packet: av.Packet) -> Fraction:
    """When the packet's presentation ends, in seconds; 0 if it does not say."""
    start = packet.pts if packet.pts is not None else packet.dts
    if start is None or packet.time_base is None:
        return Fraction(0)
    return (start + (packet.duration or 0)) * packet.time_base


def upright(frame: VideoFrame, to_rgb: VideoReformatter, to_gray: VideoReformatter) -> np.ndarray:
    """A decoded frame as `read_frames` yields it, turned as the file's metadata asks."""
    gray = frame.format.name.startswith("gray")
    array = None if gray else to_rgb.reformat(frame, format="rgb24").to_ndarray()
    if array is None or channel_spread(array) <= GRAY_SPREAD:
        # Straight from the luminance: by way of RGB it would lose half a level to rounding.
        array = to_gray.reformat(frame, format="gray").to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4  # both count counterclockwise
    return np.ascontiguousarray(np.rot90(array, quarter_turns))


def channel_spread(rgb: np.ndarray) -> int:
    """The largest difference between two channels of one pixel of a (row, column, 3) frame."""
    # Each channel in one piece of memory: that takes half the time.
    red, green, blue = np.ascontiguousarray(rgb.reshape(-1, 3).T)
    highest = np.maximum(np.maximum(red, green), blue)
    return int((highest - np.minimum(np.minimum(red, green), blue)).max())


def refuse_cut_gif(path: Path) -> None:
    """Raises LusError for a GIF without its trailer: FFmpeg does not notice.

    Walks the blocks of the GIF89a specification: a header, then extensions (0x21), images (0x2C)
    and the trailer (0x3B).
    """
    with path.open("rb") as file:
        if file.read(6) not in (b"GIF87a", b"GIF89a"):
            return
        skip_color_table(file, file.read(7)[4:5])
        images = 0
        while (kind := file.read(1)) in (b"\x21", b"\x2c"):
            if kind == b"\x2c":
                skip_color_table(file, file.read(9)[8:9])
                images += 1
            file.seek(1, 1)  # the extension's label, or the image's code size
            while (size := file.read(1)) not in (b"", b"\x00"):
                file.seek(size[0], 1)
    if kind != b"\x3b":
        raise cut_short(path, max(0, images - 1))


def skip_color_table(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), 1)


# ---------------------------------------------------------------------------------------- writing


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Writes (row, column, 3) uint8 RGB frames, all of one size, as .mp4 or .gif, by the suffix.

    A GIF plays at 50 frames/s at most: viewers slow down what asks for more. Raises LusError if
    the disk does not allow it.
    """
    writers: dict[str, Callable[[Path, Iterable[np.ndarray], Fraction], None]]
    writers = {".mp4": write_mp4, ".gif": write_gif}
    write = writers[path.suffix.lower()]
    waiting = iter(frames)
    try:
        first = next(waiting)
    except StopIteration:
        raise ValueError(f"{path}: a video needs a frame") from None
    rate = Fraction(fps).limit_denominator(1001)
    with replacing(path) as part:
        write(part, itertools.chain([first], waiting), rate)


def write_mp4(
    target: Path | BinaryIO,
    frames: Iterable[np.ndarray],
    rate: Fraction,
    x264: Mapping[str, str] = MappingProxyType({"crf": "18"}),
) -> None:
    """H.264 that every browser and slide program plays: 4:2:0, hence even sides, and BT.709.

    x264: options of the encoder. `crf` is its measure of what may be lost, 18 hardly visible; six
    more halve the file.
    """
    bt709 = 1  # ITU-T H.273, the same number for primaries, transfer and matrix
    reformatter = VideoReformatter()
    # Only a file can be rewritten with its index in front, which is for players that download it.
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
    """One palette for all frames, from all frames: a palette a frame flickers and is larger.

    FFmpeg's palette came 4 dB closer to gray overlaid with heat than Pillow's, in a fifth of the
    time; of its ditherings, Bayer's at this scale shows no bands and does not crawl.
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
        graph.vpush(None)  # all are in: now the palette is known, and the frames come out
        mux_filtered(graph, stream, container)


def palette_graph(stream: VideoStream) -> av.filter.Graph:
    """Frames in, the same frames in 256 colours out: a copy makes the palette, a copy gets it."""
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
