"""Reads video files through PyAV, whose wheel contains FFmpeg."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec import CodecContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.study.exam_tree import MAX_PIXELS
from lus_cli.study.notes import Note, ignore
from lus_cli.study.video_containers import (
    DEMUXERS,
    MP4,
    container_of,
    lacks_end,
    lacks_moov,
    mp4_boxes,
)
from lus_cli.study.video_pictures import Pictures

# One hour at 25 frames/s has 90,000 frames; no recording of one inspection area is longer.
MAX_FRAMES = 100_000
COPY_AGAIN = "copy it again from the recorder, or re-encode it"
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
# The native decoders of FFmpeg for these ignore transparency.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# In these formats, each packet is one picture, and each picture one frame.
ONE_A_PACKET = ("mpeg1video", "mpeg2video", "h264", "hevc")
# Concatenated frames; the number of bytes of a frame header to add to the position of a packet.
BARE = {"ivf": 12, "yuv4mpegpipe": 0, "dv": 0}
END_OF_IMAGE = b"\xff\xd9"  # of a JPEG
# In these formats, FFmpeg skips a second video without an error.
READ_TO_FIRST_END = (MP4, "apng", "asf")
# The number of bytes at the start of a file that do not occur again in it.
ONLY_AT_START = {"apng": 16, "asf": 16, "flv": 9, "ivf": 16, "yuv4mpegpipe": 9, "mxf": 16}
LATE = Fraction(19, 10)  # frames by which a stated duration may be longer, because of rounding


@dataclass(frozen=True)
class Video:
    """An open video file: its video stream and its decoder."""

    path: Path
    container: InputContainer
    stream: VideoStream
    decoder: VideoCodecContext

    @property
    def kind(self) -> str:
        return self.container.format.name

    @property
    def rate(self) -> Fraction:
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    def lacks_end(self, last: av.Packet | None) -> bool:
        """Whether pictures are missing at the end of the file, given its last packet.

        To be called after reading that packet: the index of a fragmented file grows until then.
        """
        size = self.path.stat().st_size
        if self.kind in BARE and last is not None and last.pos is not None:
            return last.pos + BARE[self.kind] + last.size != size
        if self.kind == "mjpeg" and last is not None:
            return not bytes(last).rstrip(b"\0").endswith(END_OF_IMAGE)
        entries = self.stream.index_entries if self.kind.startswith("mov") else ()
        if any(entry.pos + entry.size > size for entry in entries):
            return True
        return lacks_end(self.path, self.kind)


@dataclass
class Tally:
    """The frames and packets read so far from a video file."""

    frames: int = 0
    pictures: int = 0  # packets to be displayed
    end: Fraction = Fraction(0)  # of their display, in seconds
    last: av.Packet | None = None
    interlaced: bool = False  # then two packets may give one frame

    def add(self, packet: av.Packet) -> None:
        if packet.size:
            self.last = packet
            self.pictures += not packet.is_discard
            self.end = max(self.end, packet_end(packet))


def read_frames(path: Path, note: Note = ignore) -> Iterator[np.ndarray]:
    """Yields every frame that a player shows, once, in presentation order (see Pictures).

    Frames hidden by an edit list are left out. Frames of interlaced video stay interlaced. Decoding
    takes one thread, as many videos are read in parallel. `note` is called if the header states a
    number of frames or a length that the file does not have.

    Raises LusError, after the frames before the damage, if the file cannot be decoded, is damaged or
    truncated, or exceeds MAX_PIXELS or MAX_FRAMES.
    """
    with opened(path) as video:
        tally = Tally()
        try:
            yield from decoded(video, tally)
        except av.FFmpegError:
            if video.lacks_end(tally.last):
                raise cut_short(path, tally.frames) from None
            raise
        if video.lacks_end(tally.last):
            raise cut_short(path, tally.frames)
        if video.kind in READ_TO_FIRST_END and holds_two(path):
            raise two_videos(path)
        if tally.frames == 0:
            raise LusError(f"{path} contains no frame", COPY_AGAIN)
        for sentence in differences(video, tally):
            note(sentence)


def decoded(video: Video, tally: Tally) -> Iterator[np.ndarray]:
    """Yields the frames of an open file and counts them in `tally`. Raises LusError if damaged."""
    path = video.path
    pictures = Pictures(video.stream.sample_aspect_ratio, no_alpha=video.kind == "avi")
    for packet in video.container.demux(video.stream):
        if packet.is_corrupt:
            raise cut_short(path, tally.frames)
        tally.add(packet)
        for frame in video.decoder.decode(packet):
            if frame.is_corrupt:  # the decoder concealed missing data
                raise damaged(path, tally.frames)
            if tally.frames == MAX_FRAMES:
                raise LusError(f"{path} has more than {MAX_FRAMES} frames", "split it")
            yield picture(path, pictures, frame)
            tally.interlaced = tally.interlaced or frame.interlaced_frame
            tally.frames += 1


def picture(path: Path, pictures: Pictures, frame: av.VideoFrame) -> np.ndarray:
    try:
        return pictures.read(frame)
    except LusError as error:
        raise LusError(f"{path}: {error.message}", error.remedy) from None


def differences(video: Video, tally: Tally) -> Iterator[str]:
    """Sentences on frames that the file has, or states that it has, but that were not read."""
    count, stated = tally.frames, video.stream.frames
    rest = f"all {count} are read"
    undecoded = tally.pictures - count
    if undecoded > 0 and not tally.interlaced and video.decoder.name in ONE_A_PACKET:
        yield (
            f"{undecoded} of its {tally.pictures} pictures cannot be decoded, as happens where a "
            f"recording was cut: the other {count} are read"
        )
    elif stated > count and video.kind.startswith("mov"):
        yield f"its edit list hides {stated - count} of its {stated} frames: {count} are read"
    elif stated > count:
        yield f"its header states {stated} frames, but it holds {count}: {rest}"
    elif (length := stated_length(video)) and (length - tally.end) * video.rate > LATE:
        yield (
            f"its header states {float(length):.2f} s, but its frames end after "
            f"{float(tally.end):.2f} s: {rest}"
        )


def stated_length(video: Video) -> Fraction | None:
    """The end of the pictures according to the header, in seconds; None if not stated."""
    stream, container = video.stream, video.container
    if video.kind.startswith(("mov", "flv")) and stream.duration and stream.time_base:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    # The duration is that of the longest stream, which may be sound.
    if video.kind.startswith(("matroska", "flv")) and len(container.streams) == 1:
        return None if not container.duration else Fraction(container.duration, av.time_base)
    return None


def packet_end(packet: av.Packet) -> Fraction:
    """The end of the presentation of a packet, in seconds; 0 if not stated."""
    start = packet.pts if packet.pts is not None else packet.dts
    if start is None or packet.time_base is None:
        return Fraction(0)
    return (start + (packet.duration or 0)) * packet.time_base


def frame_rate(path: Path) -> float:
    """The average number of frames per second; 25 if not stated. Raises LusError."""
    with opened(path) as video:
        stream = video.stream
        if video.kind == "gif" and stream.duration and stream.time_base:
            return float(stream.frames / (stream.duration * stream.time_base))
        return float(video.rate)


def holds_two(path: Path) -> bool:
    """Whether a file consists of two videos, one after the other, as `copy /b` writes them.

    An MP4 then has two indices; in the formats of ONLY_AT_START, the start of the file occurs again.
    """
    kind = container_of(path)
    with path.open("rb") as file:
        if kind == MP4:
            boxes = [box for _, box, _ in mp4_boxes(file, path.stat().st_size)]
            return boxes.count(b"moov") > 1
        if kind not in ONLY_AT_START:
            return False
        start = file.read(ONLY_AT_START[kind])
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(start, len(start)) > 0


def two_videos(path: Path) -> LusError:
    return LusError(f"{path} holds two videos, one after the other", "export each to its own file")


def cut_short(path: Path, count: int) -> LusError:
    if holds_two(path):
        return two_videos(path)
    return LusError(f"{path} is cut short after {count} frames", COPY_AGAIN)


def damaged(path: Path, count: int) -> LusError:
    return LusError(f"{path} is damaged, or cut short, after {count} frames", COPY_AGAIN)


# ---------------------------------------------------------------------------------------- opening


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Video]:
    """Opens a video file. Every error of FFmpeg becomes a LusError."""
    limit = {"max_pixels": str(MAX_PIXELS)}  # FFmpeg allocates no larger frame, even for probing
    try:
        with explaining_refusal(path):
            if not path.exists():
                raise LusError(f"there is no file {path}", "check the path")
            if path.stat().st_size == 0:
                raise LusError(f"{path} is empty", COPY_AGAIN)
        with open_container(path, limit) as container:
            stream = choose_stream(path, container)
            # Without `explode`, FFmpeg conceals errors in damaged frames.
            decoder = decoder_of(stream)
            decoder.options = {"err_detect": "explode", **limit}
            decoder.thread_count = 1
            yield Video(path, container, stream, decoder)
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, av.FFmpegError) and holds_two(path):
            raise two_videos(path) from error
        reason = getattr(error, "strerror", None) or str(error)
        raise LusError(f"{path} cannot be decoded ({reason})", COPY_AGAIN) from error


def open_container(path: Path, limit: dict[str, str]) -> InputContainer:
    """Opens a file in FFmpeg. Raises LusError if it finds out why that fails, else FFmpegError."""
    try:
        # An absolute path, so that a file called `http:x.mp4` is not taken for an address.
        return av.open(
            str(path.absolute()),
            metadata_errors="replace",
            options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file", **limit},
        )
    except av.FFmpegError:
        kind = container_of(path)
        if kind == MP4 and lacks_moov(path):
            raise LusError(
                f"{path}: its index (moov) is missing: the recording was not finished, or the file "
                "is cut short",
                "copy or export it again, or recover it with the device's software or untrunc",
            ) from None
        if not kind:
            raise LusError(
                f"{path} cannot be decoded: its header is missing or damaged, or it is not a video",
                COPY_AGAIN,
            ) from None
        if lacks_end(path, kind):
            raise cut_short(path, 0) from None
        raise


def choose_stream(path: Path, container: InputContainer) -> VideoStream:
    """The only video stream of a file. Raises LusError if there are none or several.

    A cover, thumbnails, and a single picture next to a longer stream are ignored.
    """
    pictures = [stream for stream in container.streams if isinstance(stream, VideoStream)]
    streams = [stream for stream in pictures if not stream.disposition & COVERS]
    if len(streams) > 1:
        streams = [stream for stream in streams if stream.frames != 1] or streams
    if not streams and lacks_end(path, container.format.name):
        raise cut_short(path, 0)
    if not streams:
        what = "only a cover picture" if pictures else "no video stream"
        raise LusError(f"{path} contains {what}", "check whether it is a sound recording")
    if len(streams) > 1:
        sizes = ", ".join(f"{stream.width}x{stream.height}" for stream in streams)
        raise LusError(
            f"{path} holds {len(streams)} videos ({sizes})", "export each to its own file"
        )
    if streams[0].codec_context is None:
        raise LusError(f"{path}: its codec is not supported", "re-encode it as H.264")
    return streams[0]


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    name = stream.codec_context.name
    if stream.metadata.get("alpha_mode") != "1" or name not in ALPHA_DECODERS:
        return stream.codec_context
    decoder = CodecContext.create(ALPHA_DECODERS[name], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = stream.codec_context.extradata
    return decoder
