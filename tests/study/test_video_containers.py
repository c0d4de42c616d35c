"""Containers: each kind whole, cut, promising what it does not hold, or holding more than a video."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lus_cli.errors import LusError
from lus_cli.study.sources import kind_of
from lus_cli.study.video_containers import OTHER_SUFFIXES, VIDEO_SUFFIXES
from lus_cli.study.video_files import read_frames
from tests.conftest import COVID_BLUES

from .test_video_files import SIDE, bar_of, frames_or_complaint, gray_frames

COUNT = 12
POCUS = COVID_BLUES.with_name("pocus-cc-by") / "videos"


@dataclass(frozen=True)
class Kind:
    """How a file is made: FFmpeg's names of muxer, encoder and pixels, and options."""

    muxer: str
    codec: str
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    muxing: dict[str, str] = field(default_factory=dict)


GROUPS = {"g": "4"}
B_FRAMES = {"g": "4", "bf": "2"}
KINDS = {
    "a.mp4": Kind("mp4", "libx264", options=B_FRAMES),
    "fragments.mp4": Kind(
        "mp4", "libx264", options=GROUPS, muxing={"movflags": "frag_keyframe+empty_moov"}
    ),
    "a.m4v": Kind("mp4", "mpeg4"),
    "a.3gp": Kind("3gp", "mpeg4"),
    "animation.mov": Kind("mov", "qtrle", "rgb24"),
    "prores.mov": Kind("mov", "prores_ks", "yuv422p10le"),
    "h264.avi": Kind("avi", "libx264", options=GROUPS),
    "mjpeg.avi": Kind("avi", "mjpeg", "yuvj420p"),
    "divx.avi": Kind("avi", "mpeg4", options=B_FRAMES),
    "lossless.avi": Kind("avi", "ffv1"),
    "a.mkv": Kind("matroska", "libx264", options=B_FRAMES),
    "live.mkv": Kind("matroska", "libx264", options=GROUPS, muxing={"live": "1"}),
    "vp8.webm": Kind("webm", "libvpx"),
    "vp9.webm": Kind("webm", "libvpx-vp9"),
    "one.mpg": Kind("mpeg", "mpeg1video", options=GROUPS),
    "two.mpeg": Kind("svcd", "mpeg2video", options=B_FRAMES),
    "a.vob": Kind("vob", "mpeg2video", options=B_FRAMES),
    "a.wmv": Kind("asf", "wmv2", options=GROUPS),
    "a.asf": Kind("asf", "msmpeg4", options=GROUPS),
    "a.flv": Kind("flv", "libx264", options=GROUPS),
    "a.ogv": Kind("ogg", "libvpx", options=GROUPS),
    "a.ts": Kind("mpegts", "libx264", options=B_FRAMES),
    "a.m2ts": Kind("mpegts", "mpeg2video", options=GROUPS, muxing={"mpegts_m2ts_mode": "1"}),
    "a.gif": Kind("gif", "gif", "rgb8"),
    "a.apng": Kind("apng", "apng", "rgb24"),
    "a.mxf": Kind("mxf", "mpeg2video", options=GROUPS),
    "a.ivf": Kind("ivf", "libvpx-vp9"),
    "a.y4m": Kind("yuv4mpegpipe", "rawvideo"),
    "a.mjpeg": Kind("mjpeg", "mjpeg", "yuvj420p"),
}
# Nothing but pictures, without times: a file cut between two of them is a shorter file.
ELEMENTARY = {
    "a.m1v": Kind("mpeg1video", "mpeg1video", options=GROUPS),
    "a.m2v": Kind("mpeg2video", "mpeg2video", options=B_FRAMES),
    "a.h264": Kind("h264", "libx264", options=B_FRAMES),
    "a.264": Kind("h264", "libx264", options={"g": "4", "bf": "0"}),
    "a.hevc": Kind("hevc", "libx265", options={"g": "4", "x265-params": "log-level=none"}),
}


def make(path: Path, kind: Kind, frames: list[np.ndarray], rate: int = 25) -> Path:
    with av.open(str(path), "w", format=kind.muxer, options=kind.muxing) as container:
        stream = container.add_stream(kind.codec, rate=rate, options=kind.options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = kind.pixels, 2_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def bars(path: Path) -> list[int]:
    return [bar_of(frame) for frame in read_frames(path)]


# ------------------------------------------------------------------------------------------- whole


@pytest.mark.parametrize("name", [*KINDS, *ELEMENTARY])
def test_every_kind_is_read_whole_and_in_order(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, (KINDS | ELEMENTARY)[name], gray_frames(COUNT))
    notes: list[str] = []
    assert [bar_of(frame) for frame in read_frames(path, notes.append)] == list(range(COUNT))
    assert notes == []
    assert kind_of(path) == "video"


@pytest.mark.parametrize(
    ("name", "made_as"), [("a.avi", "a.mp4"), ("a.mp4", "two.mpeg"), ("a.mov", "mjpeg.avi"),
                          ("a.mpg", "a.wmv"), ("a.gif", "vp9.webm"), ("a.mkv", "a.ts")]
)  # fmt: skip
def test_a_suffix_that_lies_does_not_matter(tmp_path: Path, name: str, made_as: str) -> None:
    assert bars(make(tmp_path / name, KINDS[made_as], gray_frames(COUNT))) == list(range(COUNT))


@pytest.mark.parametrize("suffix", OTHER_SUFFIXES)
def test_a_kind_that_is_not_read_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"video")
    with pytest.raises(LusError, match=r"in a format that lus does not read: convert it to .mp4"):
        kind_of(path)


def test_a_number_at_the_end_of_a_dicom_name_is_no_suffix(tmp_path: Path) -> None:
    assert {".264", ".265"} <= set(VIDEO_SUFFIXES)
    path = tmp_path / "1.2.840.264"
    path.write_bytes(bytes(128) + b"DICM")
    assert kind_of(path) == "dicom"


# --------------------------------------------------------------------------------------------- cut


def ends(size: int) -> list[int]:
    """Some 30 places to cut a file at, and all of its last bytes."""
    return sorted({*range(1, size, max(1, size // 30)), *range(max(1, size - 12), size)})


@pytest.mark.parametrize("name", [name for name in KINDS if name != "a.ivf"])
def test_a_cut_file_is_an_error_or_gives_every_frame(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, KINDS[name], gray_frames(COUNT))
    whole, content = list(read_frames(path)), path.read_bytes()
    errors = 0
    for end in ends(len(content)):
        path.write_bytes(content[:end])
        frames, complaint = frames_or_complaint(path)
        errors += bool(complaint)
        assert complaint or np.array_equal(frames, whole), f"other frames after {end} bytes"
    assert errors >= 10


NO_START = ("a.ogv", "a.ts", "a.m2ts")  # in which a second video cannot be told from damage


@pytest.mark.parametrize("name", [*KINDS, *ELEMENTARY])
def test_two_videos_in_one_file_are_all_read_or_refused(tmp_path: Path, name: str) -> None:
    kind, frames = (KINDS | ELEMENTARY)[name], gray_frames(COUNT)
    first = make(tmp_path / name, kind, frames[:7]).read_bytes()
    path = make(tmp_path / name, kind, frames)
    path.write_bytes(first + path.read_bytes())
    got, complaint = frames_or_complaint(path)
    if complaint:
        two = f"{path} holds two videos, one after the other: export each to its own file"
        assert complaint == two or name in NO_START
    else:
        assert [bar_of(frame) for frame in got] == [*range(7), *range(COUNT)]


def without_box(content: bytes, kind: bytes) -> bytes:
    """An MP4 without its boxes of a kind."""
    at, kept = 0, b""
    while at < len(content):
        length, name = struct.unpack(">I4s", content[at : at + 8])
        kept += content[at : at + length] if name != kind else b""
        at += length
    return kept


@pytest.mark.parametrize("name", ["a.mp4", "a.3gp", "animation.mov"])
@pytest.mark.parametrize("ending", ["whole", "cut", "length 0"])
def test_a_recording_without_its_index_says_so(tmp_path: Path, name: str, ending: str) -> None:
    path = make(tmp_path / name, KINDS[name], gray_frames(COUNT))
    content = without_box(path.read_bytes(), b"moov")
    assert len(content) < path.stat().st_size
    if ending == "cut":
        content = content[:-200]
    elif ending == "length 0":  # as written before the recording ends
        at = content.index(b"mdat") - 4
        content = content[:at] + bytes(4) + content[at + 4 :]
    path.write_bytes(content)
    with pytest.raises(
        LusError, match=r"its index \(moov\) is missing: the recording was not"
    ) as e:
        list(read_frames(path))
    assert "recover it with the device's software or untrunc" in e.value.remedy


@pytest.mark.parametrize("name", ["a.mkv", "a.wmv", "a.flv", "a.apng", "a.mp4"])
def test_a_file_without_its_first_bytes_says_so(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, KINDS[name], gray_frames(COUNT))
    path.write_bytes(bytes(400) + path.read_bytes()[400:])
    with pytest.raises(LusError, match="its header is missing or damaged, or it is not a video"):
        list(read_frames(path))


@pytest.mark.parametrize("name", ["h264.avi", "lossless.avi", "fragments.mp4", "a.wmv"])
def test_a_file_of_which_little_is_left_is_cut_short(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, KINDS[name], gray_frames(COUNT))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(LusError, match="is cut short after 0 frames: copy it again"):
        list(read_frames(path))


@pytest.mark.parametrize("name", ["a.m1v", "a.m2v"])
def test_a_partial_picture_at_the_end_of_a_bare_stream_is_noticed(
    tmp_path: Path, name: str
) -> None:
    path = make(tmp_path / name, ELEMENTARY[name], gray_frames(COUNT))
    content = path.read_bytes()
    last = content.rindex(b"\0\0\1\0")  # the start of a picture
    for end in range(last + 8, len(content) - 8, 9):
        path.write_bytes(content[:end])
        notes: list[str] = []
        try:
            frames = list(read_frames(path, notes.append))
        except LusError:
            continue
        assert len(frames) < COUNT
        assert "cannot be decoded" in notes[0], f"nothing message after {end} bytes"


def test_an_mp4_whose_index_lists_samples_behind_its_end_is_cut_short(tmp_path: Path) -> None:
    kind = Kind("mp4", "mjpeg", "yuvj420p", muxing={"movflags": "faststart"})
    path = make(tmp_path / "a.mp4", kind, gray_frames(COUNT))
    with av.open(str(path)) as container:
        sixth = list(container.demux(video=0))[6].pos
    path.write_bytes(path.read_bytes()[:sixth])
    with pytest.raises(LusError, match=r"a.mp4 is cut short after 6 frames: copy it again"):
        list(read_frames(path))


def test_an_avi_that_lacks_only_its_index_is_whole(tmp_path: Path) -> None:
    path = make(tmp_path / "a.avi", KINDS["mjpeg.avi"], gray_frames(COUNT))
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"idx1") + 20])
    assert bars(path) == list(range(COUNT))


def test_an_avi_of_a_recorder_that_crashed_gives_what_it_has(tmp_path: Path) -> None:
    path = make(tmp_path / "a.avi", KINDS["mjpeg.avi"], gray_frames(COUNT))
    content = bytearray(path.read_bytes())
    content[4:8] = bytes(4)  # lengths that are written last
    content[content.index(b"movi") - 4 : content.index(b"movi")] = bytes(4)
    content[content.index(b"strh") + 40 : content.index(b"strh") + 44] = bytes(4)
    path.write_bytes(content[: content.rindex(b"idx1")])
    assert bars(path) == list(range(COUNT))


@pytest.mark.parametrize("name", ["two.mpeg", "a.ts", "mjpeg.avi", "a.vob", "a.mp4"])
def test_damage_that_a_decoder_would_conceal_is_an_error(tmp_path: Path, name: str) -> None:
    frames = [
        np.random.default_rng(n).integers(0, 255, (SIDE, SIDE, 3), np.uint8) for n in range(6)
    ]
    path = make(tmp_path / name, KINDS[name], frames)
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 2, len(content) // 2 + 90, 3):
        content[at] ^= 0x5A
    path.write_bytes(content)
    with pytest.raises(LusError, match=r"damaged|cannot be decoded|cut short"):
        list(read_frames(path))


# ---------------------------------------------------------------------------------------- stated lengths


def with_sound(path: Path, seconds: float, rate: int = 60, frames: int = 30) -> Path:
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=rate)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", rate=48000, layout="mono")
        for frame in gray_frames(12) * (frames // 12 + 1):
            if frames:
                out.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                frames -= 1
        out.mux(video.encode(None))
        for block in range(int(seconds * 48000) // 1024):
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            wave.sample_rate, wave.pts, wave.time_base = 48000, block * 1024, Fraction(1, 48000)
            out.mux(sound.encode(wave))
        out.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "ts", "flv"])
@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_sound_longer_or_shorter_than_the_video_is_no_damage(
    tmp_path: Path, suffix: str, seconds: float
) -> None:
    path = with_sound(tmp_path / f"a.{suffix}", seconds)
    notes: list[str] = []
    assert len(list(read_frames(path, notes.append))) == 30
    assert notes == []


def test_sound_that_is_cut_off_is_no_damage_of_the_video(tmp_path: Path) -> None:
    plain = with_sound(tmp_path / "a.mp4", 4.0)
    fast = tmp_path / "b.mp4"
    with (
        av.open(str(plain)) as source,
        av.open(str(fast), "w", options={"movflags": "faststart"}) as out,
    ):
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    content = fast.read_bytes()
    with av.open(str(fast)) as container:
        after = max(p.pos + p.size for p in container.demux(video=0) if p.size)
    fast.write_bytes(content[: after + 5])
    assert len(content) > after + 100
    assert len(list(read_frames(fast))) == 30


@pytest.mark.parametrize("stated", [13, 20, 5])
def test_an_avi_header_that_states_other_frames_is_noted(tmp_path: Path, stated: int) -> None:
    path = make(tmp_path / "a.avi", KINDS["mjpeg.avi"], gray_frames(COUNT))
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 40
    content[at : at + 4] = struct.pack("<I", stated)
    path.write_bytes(content)
    notes: list[str] = []
    assert [bar_of(frame) for frame in read_frames(path, notes.append)] == list(range(COUNT))
    message = f"its header states {stated} frames, but it holds 12: all 12 are read"
    assert notes == ([message] if stated > COUNT else [])


def test_a_matroska_duration_that_states_more_is_noted(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv", KINDS["a.mkv"], gray_frames(COUNT))
    content = bytearray(path.read_bytes())
    at = content.index(b"\x44\x89\x88") + 3  # Duration, a float of 8 bytes, in ms
    assert struct.unpack(">d", content[at : at + 8])[0] == pytest.approx(1000 * COUNT / 25, abs=90)
    content[at : at + 8] = struct.pack(">d", 2000.0)
    path.write_bytes(content)
    notes: list[str] = []
    assert len(list(read_frames(path, notes.append))) == COUNT
    assert len(notes) == 1
    assert notes[0].startswith("its header states 2.00 s, but its frames end after 0.")


def test_what_an_edit_list_hides_is_noted(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", Kind("mp4", "libx264", options={"bf": "0"}), gray_frames(COUNT))
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    content[at : at + 8] = struct.pack(">Ii", 200, 3 * 512)  # 200 ms from the fourth frame on
    path.write_bytes(content)
    notes: list[str] = []
    assert [bar_of(frame) for frame in read_frames(path, notes.append)] == [3, 4, 5, 6, 7]
    assert notes == ["its edit list hides 7 of its 12 frames: 5 are read"]


# ----------------------------------------------------------------------------------------- streams


def two_streams(path: Path, frames: tuple[int, int], codec: str = "mjpeg") -> Path:
    with av.open(str(path), "w") as out:
        streams = [out.add_stream(codec, rate=25), out.add_stream(codec, rate=25)]
        for index, stream in enumerate(streams):
            stream.width = stream.height = SIDE * (index + 1)
            stream.pix_fmt = "yuvj420p"
        for index, stream in enumerate(streams):
            for frame in gray_frames(frames[index]):
                large = np.kron(frame, np.ones((index + 1, index + 1, 1), np.uint8))
                out.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_file_with_two_videos_is_refused_and_names_them(tmp_path: Path, suffix: str) -> None:
    path = two_streams(tmp_path / f"a.{suffix}", (6, 8))
    with pytest.raises(
        LusError, match=r"holds 2 videos \(64x64, 128x128\): export each to its own file"
    ):
        list(read_frames(path))


@pytest.mark.parametrize("order", [(1, 8), (8, 1)])
def test_a_single_picture_next_to_a_video_is_not_the_video(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    assert bars_of_any(two_streams(tmp_path / "a.mp4", order)) == 8


def bars_of_any(path: Path) -> int:
    return len(list(read_frames(path)))


@pytest.mark.parametrize("only_cover", [False, True])
def test_a_cover_picture_is_not_the_video(tmp_path: Path, only_cover: bool) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        if not only_cover:
            video = out.add_stream("libx264", rate=25)
            video.width = video.height = SIDE
            video.pix_fmt = "yuv420p"
        cover = out.add_stream("mjpeg", rate=25)
        cover.width = cover.height = 4 * SIDE
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = np.full((4 * SIDE, 4 * SIDE, 3), 99, np.uint8)
        out.mux(cover.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(cover.encode(None))
        for frame in [] if only_cover else gray_frames(COUNT):
            out.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if not only_cover:
            out.mux(video.encode(None))
    if only_cover:
        with pytest.raises(LusError, match="contains only a cover picture"):
            list(read_frames(path))
    else:
        assert bars(path) == list(range(COUNT))


# -------------------------------------------------------------------------------------- real files


def plainly_decoded(path: Path) -> int:
    """How many frames FFmpeg gives, without anything of the code under test."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_every_frame_of_every_pocus_video_is_read() -> None:
    if not POCUS.is_dir():
        pytest.skip(f"the POCUS videos are not at {POCUS}")
    paths = sorted(POCUS.iterdir())
    assert len(paths) == 42
    for path in paths:
        notes: list[str] = []
        count = sum(1 for _ in read_frames(path, notes.append))
        assert (path.name, count, notes) == (path.name, plainly_decoded(path), [])


def test_every_frame_of_some_covid_blues_videos_is_read(covid_blues: Path) -> None:
    """All 287 are compared by `python -m tests.stress.containers`."""
    paths = sorted((covid_blues / "lus_videos").iterdir())
    for path in random.Random(14).sample(paths, 12):
        notes: list[str] = []
        count = sum(1 for _ in read_frames(path, notes.append))
        assert (path.name, count, notes) == (path.name, plainly_decoded(path), [])
