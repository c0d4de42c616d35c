"""Video files: every frame in order or an error, and written so that others can play them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lus_cli.errors import LusError
from lus_cli.study import video_files
from lus_cli.study.video_files import frame_rate, read_frames
from lus_cli.study.video_pictures import GRAY_SPREAD
from lus_cli.study.video_writing import write_video

SIDE = 64
# Container, codec and pixel format, as ultrasound devices and frame grabbers write them.
FORMATS = {
    "h264.mp4": ("libx264", "yuv420p"),
    "h264.mov": ("libx264", "yuv420p"),
    "h264.mkv": ("libx264", "yuv420p"),
    "mjpeg.avi": ("mjpeg", "yuvj420p"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "raw.avi": ("rawvideo", "bgr24"),
    "colors.gif": ("gif", "rgb8"),
}


def gray_frames(count: int = 8) -> list[np.ndarray]:
    """(row, column, 3) frames with a bar that moves and brightens, so that all frames differ."""
    frames = [np.full((SIDE, SIDE, 3), 40, np.uint8) for _ in range(count)]
    for number, frame in enumerate(frames):
        frame[:, 4 * number : 4 * number + 16] = 100 + 10 * number
    return frames


def color_frames(count: int = 8) -> list[np.ndarray]:
    frames = gray_frames(count)
    for frame in frames:
        frame[40:] = (200, 40, 60)
    return frames


def encode(
    path: Path,
    codec: str,
    pixels: str,
    frames: list[np.ndarray],
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """A video file made without the code under test."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            layout = "rgb24" if frame.ndim == 3 else "gray"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=layout)))
        container.mux(stream.encode(None))
    return path


def bar_of(frame: np.ndarray) -> int:
    """Where the bar of `gray_frames` begins, in frames."""
    columns = np.flatnonzero(frame[:32].reshape(32, SIDE, -1)[..., 0].mean(axis=0) > 70)
    return round(columns[0] / 4)


@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_comes_once_and_in_order(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, *FORMATS[name], color_frames())
    frames = list(read_frames(path))
    assert [bar_of(frame) for frame in frames] == list(range(8))
    assert {(f.shape, f.dtype) for f in frames} == {((SIDE, SIDE, 3), np.dtype(np.uint8))}
    assert np.abs(frames[0][50, 50].astype(int) - (200, 40, 60)).max() < 40
    assert frame_rate(path) == 25.0


def test_frames_that_are_stored_out_of_order_are_presented_in_order(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "b.mp4", "libx264", "yuv420p", gray_frames(12), {"bf": "3", "b-adapt": "0"}
    )
    with av.open(str(path)) as container:
        stored = [p.pts for p in container.demux(video=0) if p.pts is not None]
    assert stored != sorted(stored), "the file has no B-frames to test with"
    assert [bar_of(frame) for frame in read_frames(path)] == list(range(12))


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "colors.gif"])
def test_gray_frames_have_no_channels(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, *FORMATS[name], gray_frames())
    assert {frame.shape for frame in read_frames(path)} == {(SIDE, SIDE)}


def test_a_gray_stream_is_read_exactly(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(4, 0).repeat(4, 1)
    path = encode(tmp_path / "g.avi", "rawvideo", "gray", [ramp, ramp.T.copy()])
    first, second = read_frames(path)
    assert (first == ramp).all()
    assert (second == ramp.T).all()


@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p"])
def test_the_whole_range_of_gray_is_kept(tmp_path: Path, pixels: str) -> None:
    # Limited range (16..235) and full range must both come out as 0..255.
    steps = np.array([0, 64, 128, 192, 255], np.uint8).repeat(16)[:SIDE]
    frame = np.broadcast_to(steps[None, :, None], (SIDE, SIDE, 3)).copy()
    frame[:, -8:] = 255
    path = encode(tmp_path / "range.mkv", "libx264", pixels, [frame] * 2, {"qp": "0"})
    gray = next(read_frames(path))
    assert np.abs(gray.astype(int) - frame[..., 0]).max() <= 1


def test_a_gif_of_grays_is_read_exactly(tmp_path: Path) -> None:
    frames = [Image.fromarray(f[..., 0]) for f in gray_frames()]
    path = tmp_path / "pillow.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    read = list(read_frames(path))
    assert len(read) == 8
    assert all((a == np.asarray(b)).all() for a, b in zip(read, frames, strict=True))
    assert frame_rate(path) == 20.0


def test_colour_in_a_single_pixel_is_colour(tmp_path: Path) -> None:
    frames = gray_frames(2)
    frames[1][60, 60] = (90, 90, 90 + GRAY_SPREAD + 1)
    path = encode(tmp_path / "dot.avi", "rawvideo", "bgr24", frames)
    assert [frame.ndim for frame in read_frames(path)] == [2, 3]


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        # a b c d of the QuickTime matrix: (x, y) goes to (a x + c y, b x + d y), y downwards.
        ((0, 1, -1, 0), lambda frame: frame[::-1].T),  # clockwise: a phone held upright
        ((0, -1, 1, 0), lambda frame: frame[:, ::-1].T),
        ((-1, 0, 0, -1), lambda frame: frame[::-1, ::-1]),
    ],
)
def test_frames_are_turned_as_the_file_asks(tmp_path: Path, matrix, turned) -> None:
    frames = [np.zeros((48, 80, 3), np.uint8)]
    frames[0][:16, :16] = 220  # top left
    frames[0][:16, 60:] = 120  # top right
    path = encode(tmp_path / "phone.mp4", "libx264", "yuv420p", frames)
    plain = next(read_frames(path))
    content = path.read_bytes()
    one = 1 << 16
    identity = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    a, b, c, d = (value * one for value in matrix)
    at = content.index(identity, content.index(b"tkhd"))
    path.write_bytes(
        content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :]
    )
    assert (next(read_frames(path)) == turned(plain)).all()


def test_a_recording_that_was_trimmed_is_read_as_trimmed(tmp_path: Path) -> None:
    path = encode(tmp_path / "trimmed.mp4", "libx264", "yuv420p", gray_frames(12))
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    _, start = struct.unpack(">Ii", content[at : at + 8])
    three_frames = 3 * 512  # of 1/12800 s
    content[at : at + 8] = struct.pack(">Ii", 200, start + three_frames)  # 200 ms from there on
    path.write_bytes(content)
    assert [bar_of(frame) for frame in read_frames(path)] == [3, 4, 5, 6, 7]


# ----------------------------------------------------------------------------------------- damage


def cuts(content: bytes) -> Iterator[bytes]:
    """The content cut short at some 40 places."""
    for end in range(1, len(content), max(1, len(content) // 40)):
        yield content[:end]


def frames_or_complaint(path: Path) -> tuple[list[np.ndarray], str]:
    try:
        return list(read_frames(path)), ""
    except LusError as error:
        return [], str(error)


@pytest.mark.parametrize("name", [*FORMATS, "faststart.mp4"])
def test_a_cut_file_gives_an_error_or_every_frame(tmp_path: Path, name: str) -> None:
    codec, pixels = FORMATS.get(name, FORMATS["h264.mp4"])
    # With its index in front, an MP4 opens however little of it is left.
    muxer = {"movflags": "faststart"} if name == "faststart.mp4" else {}
    whole = encode(tmp_path / name, codec, pixels, color_frames(), muxer=muxer)
    frames = list(read_frames(whole))
    cut = tmp_path / f"cut{whole.suffix}"
    errors = 0
    for content in cuts(whole.read_bytes()):
        cut.write_bytes(content)
        read, complaint = frames_or_complaint(cut)
        if complaint:
            errors += 1
            assert str(cut) in complaint
            assert "\n" not in complaint
        else:
            assert np.array_equal(read, frames), f"silently other frames after {len(content)} bytes"
    assert errors > 20


@pytest.mark.parametrize("name", ["faststart.mp4", "mjpeg.avi", "h264.mkv", "colors.gif"])
def test_a_file_cut_between_two_frames_is_an_error(tmp_path: Path, name: str) -> None:
    codec, pixels = FORMATS.get(name, FORMATS["h264.mp4"])
    muxer = {"movflags": "faststart"} if name == "faststart.mp4" else {}
    path = encode(tmp_path / name, codec, pixels, color_frames(), muxer=muxer)
    with av.open(str(path)) as container:
        at = [p.pos for p in container.demux(video=0) if p.pos is not None]
    header = 8 if name == "mjpeg.avi" else 0  # a chunk's name and size stand before its position
    path.write_bytes(path.read_bytes()[: sorted(at)[6] - header])
    with pytest.raises(LusError, match="cut short"):
        list(read_frames(path))


@pytest.mark.parametrize("name", ["m.mkv", "mjpeg.avi", "mpeg4.avi"])
def test_damage_in_the_middle_is_an_error(tmp_path: Path, name: str) -> None:
    codec, pixels = FORMATS.get(name, FORMATS["h264.mkv"])
    path = encode(tmp_path / name, codec, pixels, color_frames(), {"g": "1"})
    with av.open(str(path)) as container:
        packet = list(container.demux(video=0))[4]
    content = bytearray(path.read_bytes())
    start = content.index(bytes(packet))
    for at in range(start + packet.size * 2 // 3, start + packet.size - 4):
        content[at] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(LusError, match=f"{name} cannot be decoded"):
        list(read_frames(path))


def test_a_last_frame_that_is_cut_is_an_error(tmp_path: Path) -> None:
    # All frames are there, and the decoder fills in what is missing of the last.
    path = encode(tmp_path / "last.avi", *FORMATS["mjpeg.avi"], color_frames())
    with av.open(str(path)) as container:
        last = [p for p in container.demux(video=0) if p.size][-1]
    path.write_bytes(path.read_bytes()[: last.pos + last.size - 2])
    with pytest.raises(LusError, match="cut short after 7 frames"):
        list(read_frames(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"a label table, really\n" * 99, "cannot be decoded"),
        (b"ffconcat version 1.0\nfile secret.mp4\n", "cannot be decoded"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n",
            "cannot be",
        ),
    ],
    ids=["empty", "text", "concat", "playlist"],
)
def test_what_is_no_video_is_an_error(tmp_path: Path, content: bytes, reason: str) -> None:
    encode(tmp_path / "secret.mp4", *FORMATS["h264.mp4"], gray_frames())
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(LusError, match=reason):
        list(read_frames(path))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="there is no file"):
        list(read_frames(tmp_path / "none.mp4"))


def test_a_sound_recording_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 4096), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(LusError, match="contains no video stream"):
        list(read_frames(path))


def test_sound_that_outlasts_the_picture_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "talk.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=44100, layout="mono")
        for frame in gray_frames():
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        for start in range(0, 44100, 1024):
            samples = np.zeros((1, 1024), np.float32)
            chunk = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = 44100, start, Fraction(1, 44100)
            container.mux(sound.encode(chunk))
        container.mux(sound.encode(None))
    assert len(list(read_frames(path))) == 8


def test_frames_that_are_too_large_are_refused(tmp_path: Path) -> None:
    # A whole GIF but for the side of its screen: decoded, a frame would take 324 MB.
    path = encode(tmp_path / "bomb.gif", *FORMATS["colors.gif"], gray_frames(2))
    content = bytearray(path.read_bytes())
    content[6:10] = struct.pack("<HH", 9000, 9000)
    path.write_bytes(content)
    with pytest.raises(LusError, match="cannot be decoded"):
        list(read_frames(path))


def test_too_many_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "long.avi", "mjpeg", "yuvj420p", gray_frames(6))
    monkeypatch.setattr(video_files, "MAX_FRAMES", 5)
    with pytest.raises(LusError, match="more than 5 frames"):
        list(read_frames(path))
    monkeypatch.setattr(video_files, "MAX_FRAMES", 6)
    assert len(list(read_frames(path))) == 6


def test_names_with_blanks_accents_and_colons_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Müller è qui"
    folder.mkdir()
    path = encode(folder / "x.avi", "mjpeg", "yuvj420p", gray_frames(2))
    path.rename(folder / "http:lung 1%d.avi")
    monkeypatch.chdir(folder)
    assert len(list(read_frames(Path("http:lung 1%d.avi")))) == 2


# ---------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_what_is_written_reads_back(tmp_path: Path, suffix: str) -> None:
    frames = color_frames(10)
    path = tmp_path / "made" / f"overlay.{suffix}"
    write_video(path, iter(frames), 20)
    read = list(read_frames(path))
    assert [bar_of(frame) for frame in read] == list(range(10))
    inside = np.abs(read[3][48:].astype(int) - frames[3][48:])
    assert inside.max() <= 8, "colours keep"
    assert frame_rate(path) == 20.0
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    frames = [np.full((33, 47, 3), 90, np.uint8)] * 3
    for frame in frames:
        frame[:, -1] = 250
    write_video(path, frames, 25)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "plays before it is all there"
    padded = next(read_frames(path))
    assert padded.shape == (34, 48), "even sides"
    assert padded[10, 47] > 200, "the edge goes on, no black line"


def test_gif_loops_at_the_rate_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "loop.gif"
    write_video(path, color_frames(15), 30)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        delays = []
        for number in range(image.n_frames):
            image.seek(number)
            delays.append(image.info["duration"])
    # Delays are hundredths of a second: 1/30 s can only be met on average.
    assert set(delays) == {30, 40}
    assert sum(delays) == pytest.approx(15 / 30 * 1000, abs=10)


def test_gif_never_asks_for_more_than_viewers_play(tmp_path: Path) -> None:
    path = tmp_path / "fast.gif"
    write_video(path, color_frames(5), 200)
    with Image.open(path) as image:
        assert image.info["duration"] == 20


def test_gif_keeps_grays_under_heat_apart(tmp_path: Path) -> None:
    # The palette must hold both: a gray ramp and a colour ramp over it.
    ramp = np.linspace(0, 255, 128).astype(np.uint8)
    frame = np.broadcast_to(ramp[None, :, None], (96, 128, 3)).copy()
    frame[:, :, 0] = np.where(np.arange(96)[:, None] > 48, 255, frame[:, :, 0])
    path = tmp_path / "heat.gif"
    write_video(path, [frame, frame[:, ::-1]], 10)
    read = next(read_frames(path)).astype(int)
    assert np.abs(read - frame).mean() < 4


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_frames_that_cannot_be_made_leave_no_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v.{suffix}"
    path.write_bytes(b"the old one")

    def frames() -> Iterator[np.ndarray]:
        yield from gray_frames(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, frames(), 25)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_needs_a_frame(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs at least one frame"):
        write_video(tmp_path / "v.mp4", [], 25)


def test_covid_blues_videos_are_read_whole_and_gray(covid_blues: Path) -> None:
    # Two of the 287: all of them take a minute.
    for name in ("patient_2_L1.mp4", "patient_15_L2_2.mp4"):
        path = covid_blues / "lus_videos" / name
        with av.open(str(path)) as container:
            promised = container.streams.video[0].frames
        frames = list(read_frames(path))
        assert len(frames) == promised
        assert {frame.shape for frame in frames} == {(350, 350)}
        assert frame_rate(path) == 25.0
