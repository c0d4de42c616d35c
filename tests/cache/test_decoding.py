"""Bad frames: each has one defined outcome, and none is ever replaced."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lus_cli.cache.chunks import FrameFormat, StoredVideo
from lus_cli.cache.decoding import DecodeTask, decode_all, decode_video, source_key
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import PrepareConfig
from lus_cli.errors import LusError
from lus_cli.progress import silent
from lus_cli.steps import prepare
from lus_cli.study.finding import find_sources
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import Source

WIDTH, HEIGHT, FRAMES = 60, 40, 4
BAD = VideoId("p0", "1", "bad")


def picture() -> Image.Image:
    """Bright on the left, dark on the right and below, so that a flip or a rotation changes it."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray((250 - 2 * columns - 3 * rows).astype(np.uint8))


def write_video(folder: Path) -> Path:
    """Four equal frames; returns the path of the third."""
    folder.mkdir(parents=True)
    for number in range(FRAMES):
        picture().save(folder / f"Frame_{number}.jpg", quality=100)
    return folder / "Frame_2.jpg"


def png_without_pixels(width: int, height: int) -> bytes:
    """A PNG whose header states a wrong size."""
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for chunk in (b"IHDR" + header, b"IDAT" + zlib.compress(b"\0" * 1000), b"IEND"):
        content += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content


# -------------------------------------------------------------------------------------- the bad frames


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def truncated_early(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def text_called_jpg(path: Path) -> None:
    path.write_text("to be exported")


def png_called_jpg(path: Path) -> None:
    picture().save(path, "PNG")


def cmyk(path: Path) -> None:
    picture().convert("CMYK").save(path, "JPEG", quality=100)


def coloured(path: Path) -> None:
    picture().convert("RGB").save(path, quality=100)


def sixteen_bits(path: Path) -> None:
    path.unlink()
    wide = np.asarray(picture()).astype(np.uint16) * 257
    Image.fromarray(wide).save(path.with_suffix(".png"))


def with_transparency(path: Path) -> None:
    path.unlink()
    image = picture().convert("RGBA")
    image.putalpha(255)
    image.save(path.with_suffix(".png"))


def exif_rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    picture().transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100)


def broken_exif(path: Path) -> None:
    picture().save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\0", quality=100)


def bomb(path: Path) -> None:
    path.write_bytes(png_without_pixels(10_000, 10_000))


def greater_bomb(path: Path) -> None:
    path.write_bytes(png_without_pixels(60_000, 60_000))


def another_size(path: Path) -> None:
    picture().resize((WIDTH, HEIGHT + 1)).save(path)


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere.jpg"))


def link_to_a_frame(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("Frame_1.jpg"))


def without_number(path: Path) -> None:
    path.rename(path.with_name("last.jpg"))


def number_twice(path: Path) -> None:
    path.with_name("2.jpeg").write_bytes(path.read_bytes())


def folder_called_jpg(path: Path) -> None:
    path.unlink()
    path.mkdir()


def what_systems_leave_behind(path: Path) -> None:
    path.with_name("._Frame_2.jpg").write_bytes(b"\0\5\x16\7")
    path.with_name("Thumbs.db").write_bytes(b"\xd0\xcf")


@dataclass(frozen=True)
class Case:
    """A change to a frame, and the outcome for its video: kept, or left out with this line."""

    spoil: Callable[[Path], None]
    complaint: str | None = None
    largest_error: int = 3  # JPEG at its best, and a change of colours

    def __str__(self) -> str:
        return self.spoil.__name__


OUTCOMES = [
    Case(png_called_jpg),
    Case(cmyk),
    Case(coloured),
    Case(sixteen_bits),
    Case(with_transparency),
    Case(exif_rotated),
    Case(broken_exif),
    Case(link_to_a_frame),
    Case(what_systems_leave_behind),
    Case(truncated, "Frame_2.jpg cannot be decoded"),
    Case(truncated_early, "Frame_2.jpg cannot be decoded"),
    Case(zero_bytes, "Frame_2.jpg cannot be decoded: it is empty"),
    Case(text_called_jpg, "Frame_2.jpg cannot be decoded"),
    Case(bomb, "Frame_2.jpg has 10000x10000 pixels"),
    Case(greater_bomb, "decompression bomb"),
    Case(another_size, "frame 2 has a different size (60x40 and 60x41)"),
    Case(link_to_itself, "Frame_2.jpg cannot be read"),
    Case(link_to_nothing, "Frame_2.jpg cannot be read"),
    Case(without_number, "last.jpg has no frame number"),
    Case(number_twice, "are both frame 2"),
    Case(folder_called_jpg, "Frame_2.jpg cannot be read"),
]


@pytest.mark.parametrize("case", OUTCOMES, ids=str)
def test_a_bad_frame_has_one_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """Stored like the other frames, or its video is left out and reported; an error with --strict."""
    monkeypatch.setattr(prepare, "draw_figures", lambda *_: {})
    root = tmp_path / "exams"
    for patient in ("p1", "p2", "p3"):
        write_video(root / patient / "1" / "good")
    case.spoil(write_video(root.joinpath(*BAD)))
    lines = [f"{p}/1/good;1\n" for p in ("p1", "p2", "p3")] + [f"{BAD};2\n"]
    (root / "Annotations.txt").write_text("".join(lines))

    def run(name: str, strict: bool) -> list[str]:
        config = PrepareConfig(
            exams=root, cache=tmp_path / name, size=WIDTH, folds=0, workers=1, strict=strict
        )
        return prepare.run(config, silent).problems

    problems = run("cache", strict=False)
    videos = VideoCache(tmp_path / "cache" / "videos.h5")
    if case.complaint is None:
        assert problems == []
        assert run("strict", strict=True) == []
        frames = videos.read(videos.index(BAD)).astype(int)
        assert frames.shape[0] == FRAMES
        assert np.abs(frames - frames[0]).max() <= case.largest_error
    else:
        assert BAD not in videos.ids
        assert case.complaint in problems[0]
        assert all(str(BAD) in line and "\n" not in line for line in problems)
        with pytest.raises(LusError, match="--strict makes this an error"):
            run("strict", strict=True)
        assert not (tmp_path / "strict" / "videos.h5").exists()
    assert len(videos) == 3 + (case.complaint is None)


# ----------------------------------------------------------------------------------- workers and shards


def tasks_of(root: Path, shards: Path) -> list[DecodeTask]:
    frame_format = FrameFormat(16, False, False)

    def task(source: Source) -> DecodeTask:
        return DecodeTask(source, frame_format, shards / source_key(source, frame_format))

    return [task(source) for source in find_sources(root, mask_text=False)[0]]


def test_a_source_that_changes_while_it_is_read_stops_everything(tmp_path: Path) -> None:
    """Not left out, since a disk that disappears would empty the cache video by video."""
    path = write_video(tmp_path / "p0" / "1" / "1")
    for spoil in (lambda: picture().save(path), path.unlink):
        [task] = tasks_of(tmp_path, tmp_path / "shards")
        spoil()
        with pytest.raises(LusError, match=r"video p0/1/1") as caught:
            decode_all([task], 1, silent)
        assert "\n" not in str(caught.value)
        assert not task.shard.exists()


def test_a_shard_holds_what_the_source_shows(tmp_path: Path) -> None:
    write_video(tmp_path / "p0" / "1" / "1")
    write_video(tmp_path / "p0" / "1" / "2")
    tasks = tasks_of(tmp_path, tmp_path / "shards")
    seen: list[tuple[int, int | None, object]] = []

    def progress(task: str, done: int, total: int | None = None, **facts: object) -> None:
        seen.append((done, total, facts.get("videos")))

    assert decode_all(tasks, 1, progress) == []
    assert seen == [(0, 8, None), (4, 8, "1/2"), (8, 8, "2/2")]
    for task in tasks:
        stored = StoredVideo.load(task.shard)
        assert stored is not None
        assert stored.checksum == decode_video(task).checksum
        assert stored.source_shape == (HEIGHT, WIDTH)
        assert stored.frame_numbers.tolist() == [0, 1, 2, 3]
