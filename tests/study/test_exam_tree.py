"""The exam tree: frames in numeric order, every annotation accounted for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lus_cli.errors import LusError, UsageError
from lus_cli.study.annotations import Findings, read_annotations, read_findings, write_annotations
from lus_cli.study.exam_tree import read_folder
from lus_cli.study.finding import find_files, find_sources
from lus_cli.study.ids import VideoId, is_name, natural_key, parse_frame_id

VIDEO = VideoId("1017", "1048", "11")


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def numbers(folder: Path) -> list[int]:
    return [frame.number for frame in read_folder(VIDEO, folder).frames]


# -------------------------------------------------------------------------------------------- ids


def test_a_video_id_reads_and_writes_the_same() -> None:
    assert VideoId.parse(" 1017/1048/11/ ") == VIDEO
    assert str(VIDEO) == "1017/1048/11"
    assert VideoId.parse("Anna è/visit 1/left à").area == "left à"


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "1017", "1017/1048", "1017/1048/11/86", "1017//11", "1017/ /11", "../1048/11",
        "1017/../11", "1017/1048/..", "./1048/11", "/1017/1048/11", "/etc/passwd/x", "//1048/11",
        "1017/1048/11//", "1017/1048\\x/11", "1017/1048/1;1", "1017/1048/1,1", "1017/1048/1\0",
        "1017/1048/a\nb", ".hidden/1048/11", "1017/1048/Thumbs.db",
    ],
)  # fmt: skip
def test_what_is_no_video_id_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="is not a video id: write patient/exam/area"):
        VideoId.parse(text)


def test_a_frame_id_is_a_video_and_a_number() -> None:
    assert parse_frame_id("1017/1048/11/86") == (VIDEO, 86)
    assert parse_frame_id(" 1017/1048/11/0086/ ") == (VIDEO, 86)
    assert parse_frame_id("1017/1048/11/2147483647") == (VIDEO, 2147483647)


@pytest.mark.parametrize(
    "text",
    [
        "", "1017/1048/11", "1017/1048/11/", "1017/1048/11/x", "1017/1048/11/-1", "1017/1048/11/1.5",
        "1017/1048/11/8/6", "../../../1", "/1017/1048/11/86", "1017/../11/86", "1017/1048/1\0/86",
        "1017/1048/11/2147483648", "1017/1048/11/99999999999", "1017/1048/11/Frame_86",
    ],
)  # fmt: skip
def test_what_is_no_frame_id_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a (frame|video) id"):
        parse_frame_id(text)


def test_names_are_one_folder_each() -> None:
    for name in ("11", "L2_2", "left lung", "Müller", "a.b", "-"):
        assert is_name(name)
    for name in (
        "",
        " ",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a;b",
        "a,b",
        "a\0",
        "a\tb",
        "._x",
        "Desktop.ini",
    ):
        assert not is_name(name)


def test_natural_order() -> None:
    names = ["L10", "L2", "10", "2", "L2_2", "L", "x²", "1²", "a"]
    assert sorted(names, key=natural_key) == ["1²", "2", "10", "L", "L2", "L2_2", "L10", "a", "x²"]


# ----------------------------------------------------------------------------------------- frames


def test_frames_are_in_numeric_order_whatever_the_disk_says(tmp_path: Path) -> None:
    names = [f"Frame_{number}.jpg" for number in range(120)]
    random.Random(1).shuffle(names)
    for name in names:
        (tmp_path / name).touch()
    assert numbers(tmp_path) == list(range(120))


def test_every_way_to_name_a_frame(tmp_path: Path) -> None:
    touch(tmp_path, "0086.jpg", "7.JPG", "Frame_10.JPEG", "scan 3 frame 2.png", "Frame_09.jpeg")
    frames = read_folder(VIDEO, tmp_path).frames
    assert [(f.number, f.path.name) for f in frames] == [
        (2, "scan 3 frame 2.png"),
        (7, "7.JPG"),
        (9, "Frame_09.jpeg"),
        (10, "Frame_10.JPEG"),
        (86, "0086.jpg"),
    ]


def test_gaps_in_the_numbers_stay(tmp_path: Path) -> None:
    assert numbers(touch(tmp_path, "Frame_3.jpg", "Frame_100.jpg", "Frame_7.jpg")) == [3, 7, 100]


@pytest.mark.parametrize(
    "names", [("Frame_1.jpg", "Frame_01.jpg"), ("1.jpg", "1.png"), ("a_5.jpg", "b_5.jpg")]
)
def test_two_files_with_one_number_are_an_error(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(LusError) as caught:
        read_folder(VIDEO, touch(tmp_path, *names))
    assert all(name in caught.value.message for name in names)
    assert "video 1017/1048/11" in caught.value.message


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("Frame.jpg", "Frame.jpg has no frame number"),
        ("Frame_99999999999.jpg", "frame number 99999999999 is too large"),
        ("notes.txt", "contains no frame: frames are .jpg"),
    ],
)
def test_frames_without_a_usable_number_are_an_error(
    tmp_path: Path, name: str, complaint: str
) -> None:
    with pytest.raises(LusError) as caught:
        read_folder(VIDEO, touch(tmp_path, name))
    assert complaint in str(caught.value)


def test_clutter_is_not_seen(tmp_path: Path) -> None:
    area = touch(
        tmp_path / "1017/1048/11", "Frame_0.jpg", "._Frame_0.jpg", ".DS_Store", "Thumbs.db",
        "desktop.ini", "._x.jpg", "notes.txt",
    )  # fmt: skip
    touch(tmp_path / ".Trash/1/1", "Frame_0.jpg")
    touch(tmp_path / "1017/.git/1", "Frame_0.jpg")
    touch(tmp_path / "__MACOSX/1017/1048", "._Frame_0.jpg")
    touch(area / "@eaDir/Frame_0.jpg", "SYNOPHOTO_THUMB_M.jpg")  # of the servers of Synology
    touch(tmp_path / "1017/1048/@eaDir/11.mp4", "SYNOVIDEO_VIDEO_SCREENSHOT.jpg")
    for place in ("#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information"):
        touch(tmp_path / place / "1/1", "Frame_0.jpg")
    touch(tmp_path, "Annotations.txt", ".DS_Store")
    touch(tmp_path / "1017", "Thumbs.db")
    videos, problems = find_sources(tmp_path, mask_text=False)
    assert problems == []
    assert [str(video.id) for video in videos] == ["1017/1048/11"]
    assert videos[0].files == [area / "Frame_0.jpg"]
    assert find_files(tmp_path, problems, problems) == {area: "frames"}
    assert problems == []


def test_videos_come_in_natural_order_and_problems_are_listed(tmp_path: Path) -> None:
    for name in ("10/1/1", "9/10/2", "9/2/11", "9/2/2", "9/2/02", "Müller è/visit 1/left à"):
        touch(tmp_path / name, "Frame_0.jpg")
    touch(tmp_path / "9/3/empty")
    touch(tmp_path / "9/3/double", "1.jpg", "01.jpg")
    touch(tmp_path / "9/3/semi;colon", "1.jpg")
    videos, problems = find_sources(tmp_path, mask_text=False)
    assert [str(video.id) for video in videos] == [
        "9/2/02", "9/2/2", "9/2/11", "9/10/2", "10/1/1", "Müller è/visit 1/left à",
    ]  # fmt: skip
    assert len(problems) == 3
    assert "01.jpg and 1.jpg are both frame 1" in problems[0]
    assert "empty contains no frame" in problems[1]
    assert "semi;colon: ids must not contain" in problems[2]


def test_no_tree_and_an_empty_tree_are_errors(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="there is no exam tree at"):
        find_sources(tmp_path / "none", mask_text=False)
    (tmp_path / "1017").mkdir()
    with pytest.raises(LusError, match="contains no video: a video is patient/exam/area/Frame"):
        find_sources(tmp_path, mask_text=False)


# ------------------------------------------------------------------------------------ annotations


def annotations(folder: Path, content: str | bytes, name: str = "Annotations.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_annotations(path)


def test_bom_crlf_blank_lines_and_blanks_are_harmless(tmp_path: Path) -> None:
    text = "\ufeff1017/1048/11;2\r\n\r\n  \r\n 1017/1048/2 ; 0 \r\nMüller è/1/a;3"
    assert annotations(tmp_path, text) == {
        VIDEO: 2,
        VideoId("1017", "1048", "2"): 0,
        VideoId("Müller è", "1", "a"): 3,
    }


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1017/1048/2", "'1017/1048/2' cannot be read"),
        ("1017/1048;1", "'1017/1048' is not a video id"),
        ("1017/1048/2/3;1", "is not a video id"),
        ("../1048/2;1", "is not a video id"),
        (";1", "'' is not a video id"),
        ("1017/1048/2;", "score ''"),
        ("1017/1048/2;4", "score '4'"),
        ("1017/1048/2;-1", "score '-1'"),
        ("1017/1048/2;1.5", "score '1.5'"),
        ("1017/1048/2;two", "score 'two'"),
        ("1017/1048/2;1;2", "'1017/1048/2;1;2' cannot be read"),
        ("1017/1048/2;²", "score '²'"),
        ("1017/1048/11;2", "video 1017/1048/11 has two annotations"),
        ("1017/1048/11;3", "video 1017/1048/11 has two annotations"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(LusError) as caught:
        annotations(tmp_path, f"1017/1048/11;2\n\n{line}\n1017/1048/3;1\n")
    assert caught.value.message.startswith(f"{tmp_path / 'Annotations.txt'}, line 3: ")
    assert complaint in caught.value.message
    assert caught.value.exit_code == 1


def test_annotations_as_csv(tmp_path: Path) -> None:
    text = (
        "\ufeffpatient, exam ,area,reader,score\r\n1017,1048,11,A,2.0\r\n\r\n,,,,\r\n  \r\n"
        '1017,1048,12,"B, C",\r\n"Müller",1,a,A, 3 \r\n'
    )
    assert annotations(tmp_path, text, "scores.CSV") == {VIDEO: 2, VideoId("Müller", "1", "a"): 3}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("1017,1048,2,9", "score '9'"),
        ("1017,1048,2", "does not have 4 cells"),
        ("1017,1048,2,1,extra", "does not have 4 cells"),
        (",,,,extra", "does not have 4 cells"),
        ("1017,,2,1", "'' is not a valid exam"),
        ("1017/1048,2,,1", "'1017/1048' is not a valid patient"),
        ("..,1048,2,1", "'..' is not a valid patient"),
        ("1017,1048,11,1", "video 1017/1048/11 has two annotations"),
    ],
)
def test_a_bad_row_is_an_error_that_names_it(tmp_path: Path, row: str, complaint: str) -> None:
    with pytest.raises(LusError) as caught:
        annotations(tmp_path, f"patient,exam,area,score\n1017,1048,11,2\n{row}\n", "s.csv")
    assert caught.value.message.startswith(f"{tmp_path / 's.csv'}, line 3: ")
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", "", "contains no annotation"),
        ("a.txt", "\n \n", "contains no annotation"),
        ("a.csv", "", "is empty: it names the columns: patient, exam, area, score"),
        ("a.csv", "patient,exam,area\n1,1,1\n", "has no column score: it has patient, exam, area"),
        ("a.csv", "patient,exam,area,score\n1,1,1,\n", "contains no annotation"),
        ("a.txt", "Müller/1/1;2\n".encode("latin-1"), "line 1: .* valid UTF-8.*`CSV UTF-8"),
        ("a.xlsx", b"PK\x03\x04", "is a spreadsheet, .*: save it as CSV"),
        ("a.csv", b"PK\x03\x04", "is a spreadsheet, .*: save it as CSV"),
        ("a.csv", b"\xd0\xcf\x11\xe0", "is a spreadsheet, .*: save it as CSV"),
    ],
)
def test_a_file_that_holds_no_annotation_is_an_error(
    tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    with pytest.raises(LusError, match=complaint):
        annotations(tmp_path, content, name)


def test_missing_annotations_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LusError, match=r"there is no file .*--annotations.*--labels"):
        read_annotations(tmp_path / "Annotations.txt")
    with pytest.raises(LusError, match="cannot be read"):
        read_annotations(tmp_path)


def test_annotations_read_back_as_written(tmp_path: Path) -> None:
    scores = {VIDEO: 0, VideoId("Müller è", "visit 1", "left à"): 3}
    write_annotations(tmp_path / "a.txt", scores.items())
    assert read_annotations(tmp_path / "a.txt") == scores
    assert b"\r" not in (tmp_path / "a.txt").read_bytes()


def test_findings_are_yes_no_or_unknown(tmp_path: Path) -> None:
    path = tmp_path / "Findings.csv"
    header = "patient,exam,area,a_lines,b_lines,comment\n"
    path.write_text(header + '1017,1048,11,Yes , no,"a, b"\n1,1,1,,YES,\n')
    assert read_findings(path) == {
        VIDEO: Findings(True, False),
        VideoId("1", "1", "1"): Findings(None, True),
    }
    path.write_text(header + "1017,1048,11,si,no,\n")
    with pytest.raises(LusError, match="line 2: invalid finding 'si': write yes, no or nothing"):
        read_findings(path)
    path.write_text(header + "1017,1048,11,yes,no,\n1017,1048,11,no,no,\n")
    with pytest.raises(LusError, match="line 3: video 1017/1048/11 is listed twice"):
        read_findings(path)


@pytest.mark.parametrize(
    ("text", "finding"),
    [("1", True), ("0", False), ("1.0", True), ("FALSE", False), ("y", True), ("nan", None)],
)
def test_findings_are_read_as_spreadsheets_write_them(
    tmp_path: Path, text: str, finding: bool | None
) -> None:
    path = tmp_path / "f.csv"
    path.write_text(f"patient,exam,area,a_lines,b_lines\n1,1,1,{text},yes \n")
    [findings] = read_findings(path).values()
    assert (findings.a_lines, findings.b_lines) == (finding, True)


def test_a_table_too_large_to_be_one_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Annotations.txt"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)  # a hole: no disk is taken
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(LusError, match="is larger than 64 MB"):
        read_annotations(path)
