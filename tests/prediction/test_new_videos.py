"""Videos outside any cache: which are found, and that their pixels are those of lus prepare."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.layout import Cache
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import PrepareConfig
from lus_cli.errors import LusError
from lus_cli.prediction import new_videos
from lus_cli.prediction.new_videos import NewVideo, decode, find_videos, frames_at, open_video
from lus_cli.progress import silent
from lus_cli.steps import prepare
from lus_cli.study.video_writing import write_video

GRAY = FrameFormat(size=32, letterbox=False, color=False)


def movie(path: Path, frames: int = 4, shape: tuple[int, int] = (40, 56), seed: int = 0) -> Path:
    """A video file of coloured noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (frames, 5, 7, 3), np.uint8)
    large = (np.asarray(Image.fromarray(p).resize(shape[::-1])) for p in pixels)
    write_video(path, large, 10)
    return path


def folder(path: Path, frames: int = 3) -> Path:
    path.mkdir(parents=True)
    for number in range(frames):
        Image.new("L", (40, 30), 20 * number + 5).save(path / f"Frame_{number}.jpg")
    return path


def names(*paths: Path) -> list[str]:
    return [video.name for video in find_videos(paths).videos]


# ----------------------------------------------------------------------------------------- finding


def test_videos_of_every_kind_are_found_however_deep(tmp_path):
    movie(tmp_path / "b.mp4")
    movie(tmp_path / "deep/er/c.mp4")
    folder(tmp_path / "1017/1048/11")
    (tmp_path / "x.mat").touch()
    (tmp_path / "x_score.mat").touch()
    (tmp_path / "Annotations.txt").write_text("1017/1048/11;2\n")
    (tmp_path / "DICOM0001").write_bytes(b"\0" * 128 + b"DICM")
    search = find_videos([tmp_path])
    assert {video.name: video.kind for video in search.videos} == {
        "1017/1048/11": "frames",
        "DICOM0001": "dicom",
        "b.mp4": "video",
        "deep/er/c.mp4": "video",
        "x.mat": "mat",
    }
    assert not search.problems


def test_folders_behind_links_are_looked_into_and_loops_end(tmp_path):
    movie(tmp_path / "elsewhere/deep/a.mp4")
    (tmp_path / "study").mkdir()
    (tmp_path / "study/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "study")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "elsewhere")
    search = find_videos([tmp_path / "study"])
    assert [video.name for video in search.videos] == ["link/deep/a.mp4"]
    assert not search.problems
    (tmp_path / "study/z").mkdir()
    movie(tmp_path / "study/z/b.mp4")
    (tmp_path / "study/a").symlink_to(tmp_path / "study/z")  # what is there anyway: once, as it is
    assert names(tmp_path / "study") == ["link/deep/a.mp4", "z/b.mp4"]


def test_many_links_take_no_longer_than_their_folders(tmp_path):
    """A chain of folders with two links each to the next: 2^30 ways through it."""
    for level in range(30):
        movie(tmp_path / f"{level}/a.gif") if level == 29 else (tmp_path / f"{level}").mkdir()
    for level in range(29):
        for name in "xy":
            (tmp_path / f"{level}/{name}").symlink_to(tmp_path / f"{level + 1}")
    (tmp_path / "study").mkdir()
    (tmp_path / "study/in").symlink_to(tmp_path / "0")
    assert len(names(tmp_path / "study")) == 1


def test_a_link_into_a_closed_folder_is_named(tmp_path, monkeypatch):
    movie(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "closed/b.mp4")
    honest = Path.is_file

    def closed(path):  # root may read everything
        if path.name == "b.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr(Path, "is_file", closed)
    search = find_videos([tmp_path])
    assert [video.name for video in search.videos] == ["a.mp4"]
    assert search.problems == [f"{tmp_path / 'b.mp4'} cannot be read: Permission denied"]


def test_formats_that_are_not_read_are_named(tmp_path):
    movie(tmp_path / "a.mp4")
    folder(tmp_path / "frames")
    others = ("logo.bmp", "cover1.webp", "frames/1.bmp", "frames/2.bmp", "b.rm", "scans/1.jp2")
    for name in (*others, "scans/2.jp2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"something")
    search = find_videos([tmp_path])
    assert [video.name for video in search.videos] == ["a.mp4", "frames"]
    video, frames = sorted(search.problems)
    assert video == (
        f"{tmp_path / 'b.rm'} is a video in a format that lus does not read: convert it to .mp4"
    )
    assert frames.startswith(
        f"{tmp_path / 'scans'}: lus cannot read 2 files (1.jp2, 2.jp2): convert them to"
    )


@pytest.mark.skipif(os.name == "nt", reason="no such permissions")
def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    movie(tmp_path / "a.mp4")
    movie(tmp_path / "closed/b.mp4")
    scan = os.scandir

    def closed(place):  # root may read everything
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", closed)
    search = find_videos([tmp_path])
    assert [video.name for video in search.videos] == ["a.mp4"]
    assert search.problems == [f"{tmp_path / 'closed'} cannot be read: Permission denied"]


def test_a_file_is_called_by_its_name_and_a_folder_of_frames_by_its_ids(tmp_path):
    paths = folder(tmp_path / "1017/1048/11"), movie(tmp_path / "a b,ö.mp4")
    assert names(*paths) == ["1017/1048/11", "a b,ö.mp4"]


def test_the_working_directory_can_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(folder(tmp_path / "1017/1048/11"))
    assert names(Path()) == ["1017/1048/11"]
    monkeypatch.chdir(tmp_path / "1017")
    assert names(Path()) == ["1048/11"]


def test_videos_come_in_natural_order(tmp_path):
    for area in ("10", "9", "1"):
        folder(tmp_path / area)
    assert names(tmp_path) == ["1", "9", "10"]


def test_two_files_of_one_name_are_told_apart(tmp_path):
    first, second = movie(tmp_path / "a/v.mp4"), movie(tmp_path / "b/v.mp4")
    assert names(tmp_path) == ["a/v.mp4", "b/v.mp4"]
    assert names(first, second) == [first.as_posix(), second.as_posix()]
    assert names(tmp_path / "a", tmp_path / "b") == [first.as_posix(), second.as_posix()]


def test_a_video_that_two_paths_lead_to_is_scored_once(tmp_path):
    path = movie(tmp_path / "a/v.mp4")
    (tmp_path / "link.mp4").symlink_to(path)
    search = find_videos([tmp_path, path, tmp_path / "a"])
    assert [video.name for video in search.videos] == ["a/v.mp4"]
    assert len(search.remarks) == 3
    assert f"{tmp_path / 'link.mp4'} is the same as {path}: scored once" in search.remarks
    assert f"{path} is given twice: scored once" in search.remarks


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is nothing at {}: check the path"),
        (lambda path: path.mkdir(), "{} contains no video: a video is a folder of"),
        (lambda path: path.write_text("hello"), "{} is not a video: a video is a folder of"),
        (lambda path: path.symlink_to("nowhere"), "there is nothing at {}: check the path"),
        (lambda path: os.mkfifo(path), "{} is not a video"),
    ],
)
def test_what_is_not_a_video_is_reported_and_does_not_hide_the_others(tmp_path, make, said):
    path = tmp_path / "is, no video"
    make(path)
    search = find_videos([path, movie(tmp_path / "v.mp4")])
    assert [video.name for video in search.videos] == ["v.mp4"]
    [problem] = search.problems
    assert said.format(path) in problem


def test_a_single_frame_leads_to_its_folder(tmp_path):
    search = find_videos([folder(tmp_path / "11") / "Frame_0.jpg"])
    assert "is a single frame: give the folder of its frames" in search.problems[0]


def test_output_of_lus_is_not_taken_for_videos(tmp_path):
    cache = Cache(tmp_path / "cache")
    movie(cache.runs / "paper-1/attention/1-1-1.mp4")
    folder(cache.figures)
    folder(cache.exams / "1/1/1")
    assert len(find_videos([tmp_path]).videos) == 3, "runs/ and figures/ can be folders of the user"
    cache.videos.touch()
    search = find_videos([tmp_path])
    assert [video.name for video in search.videos] == ["cache/exams/1/1/1"]
    assert [line.partition(" ")[0] for line in search.remarks] == [
        str(cache.figures),
        str(cache.runs),
    ]
    assert names(cache.runs / "paper-1/attention") == ["1-1-1.mp4"], "it was asked for"


def test_names_that_are_no_text_are_shown_with_a_mark(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff\nb.mp4"))
    path.write_bytes(movie(tmp_path / "v/v.mp4").read_bytes())
    [video] = find_videos([path]).videos
    assert video.name == "a? b.mp4"
    assert decode(open_video(video, False), GRAY).length == 4


# ---------------------------------------------------------------------------------------- decoding


def prepared_with(tmp_path: Path, exams: Path, frame_format: FrameFormat) -> VideoCache:
    config = PrepareConfig(
        exams=exams,
        cache=tmp_path / "cache",
        size=frame_format.size,
        letterbox=frame_format.letterbox,
        color=frame_format.color,
        test_patients=(),
        folds=0,
        workers=1,
    )
    prepare.run(config, silent)
    return VideoCache(Cache(config.cache).videos)


@pytest.mark.parametrize(
    "frame_format",
    [GRAY, FrameFormat(48, letterbox=True, color=False), FrameFormat(32, True, color=True)],
)
def test_pixels_are_those_that_prepare_stores(tmp_path, exams, frame_format):
    tree = tmp_path / "exams"
    ids = [f"{patient}/1/{area}" for patient in range(4) for area in (1, 2)]
    frames = sorted(path.parent for path in exams.glob("*/*/*/Frame_0.jpg"))
    for number, video in enumerate(ids):
        if number % 2:
            shutil.copytree(frames[number], tree / video)
        else:
            movie(tree / f"{video}.mp4", frames=18, seed=number)
    text = "".join(f"{video};{number % 4}\n" for number, video in enumerate(ids))
    (tree / "Annotations.txt").write_text(text)
    cache = prepared_with(tmp_path, tree, frame_format)
    videos = find_videos([tree]).videos
    assert len(videos) == len(cache) == len(ids)
    for video in videos:
        stored = decode(open_video(video, False), frame_format)
        index = list(map(str, cache.ids)).index(video.name.removesuffix(".mp4"))
        assert stored.checksum == cache.checksums[index]
        assert stored.frame_numbers.tolist() == cache.frame_numbers(index).tolist()
        positions = np.arange(0, stored.length, 5)
        decoded = frames_at(stored, positions, frame_format)
        assert np.array_equal(decoded, cache.read(index, positions))


def test_a_file_too_long_for_memory_is_refused_before_it_is_all_read(tmp_path, monkeypatch):
    monkeypatch.setattr(new_videos, "MOST_FRAMES", 6)
    for path in (movie(tmp_path / "v.mp4", 7), folder(tmp_path / "11", 7)):
        [video] = find_videos([path]).videos
        with pytest.raises(LusError, match="more than 6 frames: shorten it to the seconds"):
            decode(open_video(video, False), GRAY)
    monkeypatch.setattr(new_videos, "MOST_BYTES", 5 * 32 * 32)
    [video] = find_videos([movie(tmp_path / "w.mp4", 6)]).videos
    with pytest.raises(LusError, match="more than 5 frames"):
        decode(open_video(video, False), GRAY)


def test_frames_of_two_sizes_are_refused(tmp_path):
    path = folder(tmp_path / "11")
    Image.new("L", (41, 30)).save(path / "Frame_9.jpg")
    with pytest.raises(LusError, match="frame 9 has a different size"):
        decode(open_video(NewVideo("11", path, "frames"), False), GRAY)


def test_frames_that_cannot_be_ordered_are_refused(tmp_path):
    path = folder(tmp_path / "odd; name")
    Image.new("L", (40, 30)).save(path / "Frame_02.jpg")
    with pytest.raises(LusError, match="are both frame 2"):
        open_video(NewVideo("11", path, "frames"), False)
