"""Video files, read through PyAV, whose wheel carries FFmpeg."""

from __future__ import annotations

import contextlib
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

from lus_cli.errors import LusError
from lus_cli.exam_tree import MAX_PIXELS
from lus_cli.notes import Note, unheard
from lus_cli.video_containers import DEMUXERS, lacks_end
from lus_cli.video_pictures import Pictures

# An hour at 25 frames/s is 90,000; a longer one is no recording of one inspection area.
MAX_FRAMES = 100_000
COPY_AGAIN = "copy it again from where it was recorded, or re-encode it"
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
# FFmpeg's own decoders of these leave out what is transparent.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
LATE = Fraction(19, 10)  # frames by which a duration may be rounded, or count a last frame


@dataclass(frozen=True)
class Video:
    """An open video file: its stream of pictures, and what decodes it."""

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

    def lacks_end(self) -> bool:
        """Whether pictures are missing at the end. Asked after the last packet: the index of a file
        in fragments grows until then."""
        size = self.path.stat().st_size
        entries = self.stream.index_entries if self.kind.startswith("mov") else ()
        return any(entry.pos + entry.size > size for entry in entries) or lacks_end(
            self.path, self.kind, self.stream.id
        )


def read_frames(path: Path, note: Note = unheard) -> Iterator[np.ndarray]:
    """Every frame that a player shows, once each, in presentation order (see Pictures).

    Frames that an edit list hides are not shown. Those of interlaced video stay interlaced. Decodes
    on one thread: many videos are read side by side. `note` is told where a header promises other
    frames than there are.

    Raises LusError, after the frames before the damage, if the file cannot be decoded, is damaged or
    ends early. Also for frames or videos beyond MAX_PIXELS and MAX_FRAMES.
    """
    with opened(path) as video:
        pictures = Pictures(video.stream.sample_aspect_ratio, no_alpha=video.kind == "avi")
        count, end = 0, Fraction(0)
        try:
            for packet in video.container.demux(video.stream):
                if packet.is_corrupt:
                    raise cut_short(path, count)
                end = max(end, packet_end(packet))
                for frame in video.decoder.decode(packet):
                    if frame.is_corrupt:  # the decoder made up for what is missing
                        raise damaged(path, count)
                    if count == MAX_FRAMES:
                        raise LusError(f"{path} has more than {MAX_FRAMES} frames", "split it")
                    yield picture(path, pictures, frame)
                    count += 1
        except av.FFmpegError:
            if video.lacks_end():
                raise cut_short(path, count) from None
            raise
        if video.lacks_end():
            raise cut_short(path, count)
        if count == 0:
            raise LusError(f"{path} holds no frame", COPY_AGAIN)
        for sentence in differences(video, count, end):
            note(sentence)


def picture(path: Path, pictures: Pictures, frame: av.VideoFrame) -> np.ndarray:
    try:
        return pictures.read(frame)
    except LusError as error:
        raise LusError(f"{path}: {error.message}", error.remedy) from None


def differences(video: Video, count: int, end: Fraction) -> Iterator[str]:
    """Sentences on frames that the file's header promises and that were not read."""
    promised = video.stream.frames
    if promised > count:
        if video.kind.startswith("mov"):
            yield (
                f"it holds {promised} frames, of which its edit list or its decoder shows {count}: "
                f"these {count} are read"
            )
        else:
            yield f"its header promises {promised} frames, {count} are there: all {count} are read"
        return
    length = promised_length(video)
    if length is not None and (length - end) * video.rate > LATE:
        yield (
            f"its header promises {float(length):.2f} s, its frames end after {float(end):.2f} s: "
            f"all {count} are read"
        )


def promised_length(video: Video) -> Fraction | None:
    """Where the file's header says that its pictures end, in seconds; None if it does not."""
    stream, container = video.stream, video.container
    if video.kind.startswith(("mov", "flv")) and stream.duration and stream.time_base:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    # Of the longest stream, which may be sound.
    if video.kind.startswith(("matroska", "flv")) and len(container.streams) == 1:
        return None if not container.duration else Fraction(container.duration, av.time_base)
    return None


def packet_end(packet: av.Packet) -> Fraction:
    """When the packet's presentation ends, in seconds; 0 if it does not say."""
    start = packet.pts if packet.pts is not None else packet.dts
    if start is None or packet.time_base is None:
        return Fraction(0)
    return (start + (packet.duration or 0)) * packet.time_base


def frame_rate(path: Path) -> float:
    """Frames per second, on average: 25 if the file does not say. Raises LusError."""
    with opened(path) as video:
        stream = video.stream
        if video.kind == "gif" and stream.duration and stream.time_base:
            return float(stream.frames / (stream.duration * stream.time_base))
        return float(video.rate)


def cut_short(path: Path, count: int) -> LusError:
    return LusError(f"{path} is cut short after {count} frames", COPY_AGAIN)


def damaged(path: Path, count: int) -> LusError:
    return LusError(f"{path} is damaged, or cut short, after {count} frames", COPY_AGAIN)


# ---------------------------------------------------------------------------------------- opening


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Video]:
    """A video file; whatever FFmpeg finds wrong with it becomes a LusError."""
    limit = {"max_pixels": str(MAX_PIXELS)}  # FFmpeg allocates no larger frame, even to look
    try:
        if path.stat().st_size == 0:
            raise LusError(f"{path} is empty", COPY_AGAIN)
        # An absolute path, so that a file called `http:x.mp4` is still a file.
        with av.open(
            str(path.absolute()),
            metadata_errors="replace",
            options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file", **limit},
        ) as container:
            stream = choose_stream(path, container)
            # Without `explode`, damaged frames come out patched up, as if nothing had happened.
            decoder = decoder_of(stream)
            decoder.options = {"err_detect": "explode", **limit}
            decoder.thread_count = 1
            yield Video(path, container, stream, decoder)
    except FileNotFoundError:
        raise LusError(f"there is no file {path}") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LusError(f"{path} cannot be decoded ({reason})", COPY_AGAIN) from error


def choose_stream(path: Path, container: InputContainer) -> VideoStream:
    """The one video of a file. Raises LusError if there is none, or if there are several.

    A cover, thumbnails and a stream of a single picture next to a longer one are no videos.
    """
    pictures = [stream for stream in container.streams if isinstance(stream, VideoStream)]
    streams = [stream for stream in pictures if not stream.disposition & COVERS]
    if len(streams) > 1:
        streams = [stream for stream in streams if stream.frames != 1] or streams
    if not streams:
        what = "only a cover picture" if pictures else "no video stream"
        raise LusError(f"{path} holds {what}", "is it a sound recording?")
    if len(streams) > 1:
        sizes = ", ".join(f"{stream.width}x{stream.height}" for stream in streams)
        raise LusError(f"{path} holds {len(streams)} videos ({sizes})", "export each as a file")
    if streams[0].codec_context is None:
        raise LusError(f"{path}: its codec is not known", "re-encode it as H.264")
    return streams[0]


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    name = stream.codec_context.name
    if stream.metadata.get("alpha_mode") != "1" or name not in ALPHA_DECODERS:
        return stream.codec_context
    decoder = CodecContext.create(ALPHA_DECODERS[name], "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.extradata = stream.codec_context.extradata
    return decoder
