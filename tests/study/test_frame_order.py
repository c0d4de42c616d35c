"""The order of frames, from every kind of name that is met."""

from __future__ import annotations

from pathlib import Path

import pytest

from lus_cli.errors import LusError
from lus_cli.study.exam_tree import read_folder
from lus_cli.study.frame_order import are_counted, number_frames
from lus_cli.study.ids import VideoId

VIDEO = VideoId("1017", "1048", "11")
LARGEST = 2**31 - 1


def ordered(*stems: str) -> dict[int, str]:
    frames = number_frames(VIDEO, [Path(f"{stem}.jpg") for stem in sorted(stems)], LARGEST)
    assert list(frames) == sorted(frames)
    return {number: path.stem for number, path in frames.items()}


@pytest.mark.parametrize(
    ("stems", "numbers"),
    [
        (("Frame_0", "Frame_10", "Frame_2"), [0, 10, 2]),
        (("0086", "0007"), [86, 7]),
        (("P3_2024_Frame_9", "P3_2024_Frame_10"), [9, 10]),
        (("scan1.9", "scan1.10"), [9, 10]),
        (("1.2.840.10008.9", "1.2.840.10008.12"), [9, 12]),
        (("scan_9_of_10", "scan_10_of_10"), [9, 10]),
        (("frame_2_1024x768", "frame_10_1024x768"), [2, 10]),
        (("Frame_0002_2024", "Frame_0010_2024"), [2, 10]),
        (("10-15-30.910", "10-15-30.950"), [910, 950]),
        (("10-15-30.950", "10-15-31.950"), [30, 31]),
    ],
)
def test_one_number_of_a_name_is_the_frames(stems: tuple[str, ...], numbers: list[int]) -> None:
    frames = ordered(*stems)
    assert {stem: number for number, stem in frames.items()} == dict(
        zip(stems, numbers, strict=True)
    )
    assert not are_counted({number: Path(f"{stem}.jpg") for number, stem in frames.items()})


@pytest.mark.parametrize(
    "stems",
    [
        ("10-15-30.950", "10-15-31.010", "10-15-31.070"),
        ("9-59-59.990", "10-00-00.030"),
        ("2024-05-01T10-15-30.950", "2024-05-01T10-15-31.010"),
        ("2024-05-01T23-59-59.950", "2024-05-02T00-00-00.010"),
        ("20240501_101530_950", "20240501_101531_010"),
        ("US_10_15_30_950", "US_10_15_31_010"),
        ("10-15-30", "10-15-30.5", "10-15-31.25"),
        ("0.5", "1.0", "1.25", "1.5"),
        ("t=9.96s", "t=10.04s"),
        ("1714558530950", "1714558531010"),
        ("20240501101530950", "20240501101531010"),
    ],
)
def test_times_order_frames_where_their_last_number_does_not(stems: tuple[str, ...]) -> None:
    frames = ordered(*stems)
    assert list(frames.items()) == list(enumerate(stems))
    assert are_counted({number: Path(f"{stem}.jpg") for number, stem in frames.items()})


@pytest.mark.parametrize(
    "stems",
    [
        ("clip1_frame0", "clip1_frame1", "clip2_frame0", "clip2_frame1"),
        ("2_frame1", "1_frame2"),
        ("Frame_3", "Frame_3 (20)", "Frame_10"),
        ("0.1", "0.15", "0.2"),
        ("2024-05-01_1", "2024-05-02_1", "2024-05-01_2"),
        ("a_5", "b_5"),
        ("1.2.840.113619.2.20240501.9.350", "1.2.840.113619.2.20240501.10.12"),
    ],
)
def test_names_that_do_not_say_the_order_are_refused(stems: tuple[str, ...]) -> None:
    with pytest.raises(LusError, match="rename the files") as caught:
        ordered(*stems)
    assert sum(f"{stem}.jpg" in caught.value.message for stem in stems) >= 2
    assert str(VIDEO) in caught.value.message


@pytest.mark.parametrize(
    "stems",
    [
        ("left_0", "left_1", "right_2", "right_3"),
        ("R1 sagittal 9", "R1 sagittal 10", "R1 transverse 11", "R1 transverse 12"),
        ("a1_x", "a2_x", "a3_y", "a4_y", "a5_z", "a6_z"),
    ],
)
def test_two_series_in_one_folder_are_not_one_video(stems: tuple[str, ...]) -> None:
    with pytest.raises(LusError, match=r"named as frames of two videos: move one"):
        ordered(*stems)


@pytest.mark.parametrize(
    "stems",
    [
        ("Frame_0", "frame-1", "FRAME 2", "frame3"),
        ("Frame_0", "Frame_1", "Frame_2_last"),
    ],
)
def test_frames_of_several_spellings_are_one_video(stems: tuple[str, ...]) -> None:
    assert list(ordered(*stems).values()) == list(stems)


@pytest.mark.parametrize(
    "stems",
    [
        # Made by pydicom, from UUIDs, and by a scanner.
        (
            "1.2.826.0.1.3680043.8.498.81023467352417763914056219183346172551",
            "1.2.826.0.1.3680043.8.498.12779843210059127735401120345781230098",
        ),
        (
            "2.25.329800735698586629295641978511506172918",
            "2.25.15984123401280147980124912749812735",
        ),
        (
            "1.3.12.2.1107.5.5.4.4711.300000240501101530",
            "1.3.12.2.1107.5.5.4.4711.300000240501091122",
        ),
    ],
)
def test_random_numbers_at_the_end_of_uids_are_no_times(stems: tuple[str, str]) -> None:
    with pytest.raises(LusError, match="is too large: rename the files") as caught:
        ordered(*stems)
    assert max(stem.rpartition(".")[2] for stem in stems) in caught.value.message


def test_frames_of_a_kind_not_read_are_not_left_out_in_silence(tmp_path: Path) -> None:
    for name in ("Frame_0.jpg", "Frame_1.tif", "Frame_2.BMP", "Frame_3.webp", "Frame_4.jfif"):
        (tmp_path / name).touch()
    (tmp_path / "logo.ppm").touch()
    assert [frame.number for frame in read_folder(VIDEO, tmp_path).frames] == [0, 1, 2, 3, 4]
    (tmp_path / "Frame_5.pgm").touch()
    with pytest.raises(LusError, match=r"Frame_5\.pgm cannot be read as frames: .*\.png"):
        read_folder(VIDEO, tmp_path)
