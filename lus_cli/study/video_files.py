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

from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.study.exam_tree import MAX_PIXELS
from lus_cli.study.notes import Note, ignore
from lus_cli.study.video_containers import DEMUXERS, lacks_end
from lus_cli.study.video_pictures import Pictures

# An hour at 25 frames/s is 90,000; a longer one is no recording of one inspection area.
MAX_FRAMES = 100_000
COPY_AGAIN = "copy it again from where it was recorded, or re-encode it"
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
# FFmpeg's own decoders of these leave out what is transparent.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# Of these, each packet is a picture, and each picture a frame.
ONE_A_PACKET = ("mpeg1video", "mpeg2video", "h264", "hevc")
# Frame after frame, and nothing else but so many bytes of a header, which FFmpeg counts in for IVF.
BARE = {"ivf": 12, "yuv4mpegpipe": 0, "dv": 0}
END_OF_IMAGE = b"\xff\xd9"  # of a JPEG
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

    def lacks_end(self, last: av.Packet | None) -> bool:
        """Whether pictures are missing at the end, given the last packet. Asked after it: the index
        of a file in fragments grows until then."""
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
    """What was met so far in a video file."""

    frames: int = 0
    pictures: int = 0  # packets that are to be shown
    end: Fraction = Fraction(0)  # of what they show, in seconds
    last: av.Packet | None = None
    interlaced: bool = False  # then a frame may come out of two packets

    def add(self, packet: av.Packet) -> None:
        if packet.size:
            self.last = packet
            self.pictures += not packet.is_discard
            self.end = max(self.end, packet_end(packet))


def read_frames(path: Path, note: Note = ignore) -> Iterator[np.ndarray]:
    """Every frame that a player shows, once each, in presentation order (see Pictures).

    Frames that an edit list hides are not shown. Those of interlaced video stay interlaced. Decodes
    on one thread: many videos are read side by side. `note` is told where a header promises other
    frames than there are.

    Raises LusError, after the frames before the damage, if the file cannot be decoded, is damaged or
    ends early. Also for frames or videos beyond MAX_PIXELS and MAX_FRAMES.
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
        if tally.frames == 0:
            raise LusError(f"{path} holds no frame", COPY_AGAIN)
        for sentence in differences(video, tally):
            note(sentence)


def decoded(video: Video, tally: Tally) -> Iterator[np.ndarray]:
    """The frames of an open file, counted in `tally`. Raises LusError for a damaged one."""
    path = video.path
    pictures = Pictures(video.stream.sample_aspect_ratio, no_alpha=video.kind == "avi")
    for packet in video.container.demux(video.stream):
        if packet.is_corrupt:
            raise cut_short(path, tally.frames)
        tally.add(packet)
        for frame in video.decoder.decode(packet):
            if frame.is_corrupt:  # the decoder made up for what is missing
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
    """Sentences on frames that the file has, or says that it has, and that were not read."""
    count, promised = tally.frames, video.stream.frames
    rest = f"all {count} are read"
    lost = tally.pictures - count
    if lost > 0 and not tally.interlaced and video.decoder.name in ONE_A_PACKET:
        yield (
            f"{lost} of its {tally.pictures} pictures cannot be decoded, as where a recording was "
            f"cut: the other {count} are read"
        )
    elif promised > count and video.kind.startswith("mov"):
        yield f"its edit list hides {promised - count} of its {promised} frames: {count} are read"
    elif promised > count:
        yield f"its header promises {promised} frames, {count} are there: {rest}"
    elif (length := promised_length(video)) and (length - tally.end) * video.rate > LATE:
        yield (
            f"its header promises {float(length):.2f} s, its frames end after "
            f"{float(tally.end):.2f} s: {rest}"
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
        with explaining_refusal(path):
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
