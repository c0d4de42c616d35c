"""Finding videos: every file that may be one is read or reported."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lus_cli.config import ImportConfig
from lus_cli.errors import LusError
from lus_cli.prediction.new_videos import find_videos
from lus_cli.steps.import_videos import find_labelled
from lus_cli.study.finding import find_files, find_sources
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import Source
from lus_cli.study.study import StudyFiles, read_study
from lus_cli.study.video_writing import write_video

NFC, NFD = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))


def frames(folder: Path, count: int = 3, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(folder / f"Frame_{number}{suffix}")


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(path)


def clip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, iter([np.zeros((16, 16, 3), np.uint8)] * 2), 10)


def found(root: Path) -> tuple[dict[str, Source], list[str]]:
    sources, problems = find_sources(root, mask_text=False)
    return {str(source.id): source for source in sources}, problems


# ------------------------------------------------------------------------------------- previews


@pytest.mark.parametrize(
    "pictures",
    [
        ["P1/1/L1/thumb_1.jpg"],
        ["P1/1/L1/thumb.jpg", "P1/1/L1/thumb_1.jpg", "P1/1/L1/thumb_2.png"],
        [f"P1/1/L1/Frame_{number}.png" for number in range(20)],
        ["P1/1/L1/thumbs/1.jpg"],
        ["P1/1/L1/a/b/1.bmp"],
    ],
)
def test_a_clip_is_read_and_the_pictures_next_to_it_are_named(
    tmp_path: Path, pictures: list[str]
) -> None:
    clip(tmp_path / "P1/1/L1/clip.mp4")
    for name in pictures:
        picture(tmp_path / name)
    sources, problems = found(tmp_path)
    assert sources["P1/1/L1"].path == "P1/1/L1/clip.mp4"
    assert len(problems) == 1
    name = Path(pictures[0])
    assert (name.name if name.parent.name == "L1" else str(name.parent)) in problems[0]
    assert "not read" in problems[0]


def test_a_picture_of_a_clip_in_an_exam_is_named(tmp_path: Path) -> None:
    clip(tmp_path / "P1/1/L1.mp4")
    picture(tmp_path / "P1/1/L1.jpg")
    sources, problems = found(tmp_path)
    assert sources["P1/1/L1"].path == "P1/1/L1.mp4"
    assert problems == [f"{tmp_path / 'P1/1'}: L1.jpg: treated as previews and not read"]


def test_a_preview_is_no_video_of_its_own_where_a_table_names_videos(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    clip(root / "a/clip.mp4")
    picture(root / "a/thumb_1.jpg")
    clip(root / "b.mp4")
    picture(root / "thumbs/b1.jpg")
    frames(root / "c")
    problems: list[str] = []
    remarks: list[str] = []
    videos = find_files(root, problems, remarks)
    assert {path.relative_to(root).as_posix() for path in videos} == {"a/clip.mp4", "b.mp4", "c"}
    assert problems == []
    assert ["thumb_1.jpg" in line or "b1.jpg" in line for line in remarks] == [True, True]
    labels = tmp_path / "labels.csv"
    labels.write_text("file,patient,area,score\na,1,L1,0\nb,2,L1,1\nc,3,L1,2\n")
    study = read_study(StudyFiles(root, labels=labels))
    assert [str(video) for video in study.sources] == ["2/1/L1", "3/1/L1"]
    assert any("thumb_1.jpg" in line and "clip.mp4" in line for line in study.problems)


def test_predict_scores_the_clip_and_says_what_it_left_out(tmp_path: Path) -> None:
    clip(tmp_path / "a/clip.mp4")
    picture(tmp_path / "a/thumb_1.jpg")
    search = find_videos([tmp_path])
    assert [video.name for video in search.videos] == ["a/clip.mp4"]
    assert search.problems == []
    assert "thumb_1.jpg is not read, but clip.mp4" in search.remarks[0]


def test_archives_next_to_videos_are_not_left_out_in_silence(tmp_path: Path) -> None:
    clip(tmp_path / "a/clip.mp4")
    (tmp_path / "a/P2.ZIP").write_bytes(b"PK\x03\x04")
    search = find_videos([tmp_path])
    assert [video.name for video in search.videos] == ["a/clip.mp4"]
    assert search.problems == []
    assert search.remarks == [f"{tmp_path}: P2.ZIP is not opened: unpack what holds videos"]
    (tmp_path / "b.dcm.gz").write_bytes(b"\x1f\x8b")
    assert "2 files (b.dcm.gz, P2.ZIP) are not opened" in find_videos([tmp_path]).remarks[0]


def test_import_says_that_pictures_are_not_imported(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4")
    picture(tmp_path / "a.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,patient,area,score\na,1,L1,0\n")
    _, problems = find_labelled(ImportConfig(videos=tmp_path, labels=labels))
    assert len(problems) == 1
    assert "a.jpg" in problems[0]
    assert "not imported" in problems[0]


# --------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("P1/2024-05-01/1/L1", "one folder too deep, in {root}/P1/2024-05-01/1/L1:"),
        ("export/P1/1/L1", "run `lus prepare {root}/export`"),
        ("a/b/P1/1/L1", "2 folders too deep, in {root}/a/b/P1/1/L1:"),
        ("P1/1", "P1/1 holds 3 files (Frame_0.png, Frame_1.png, Frame_2.png), in an exam: a video"),
        ("P1", "P1 holds 3 files (Frame_0.png, Frame_1.png, Frame_2.png), in a patient: a video"),
        (".", "holds 3 files (Frame_0.png, Frame_1.png, Frame_2.png), in the folder of patients"),
    ],
)
def test_frames_at_another_level_are_named_with_the_layout(
    tmp_path: Path, place: str, message: str
) -> None:
    root = tmp_path / "exams"
    frames(root / place)
    (root / "Annotations.txt").write_text("P1/1/L1;2\n")
    with pytest.raises(LusError) as caught:
        read_study(StudyFiles(root))
    text = " ".join([str(caught.value), *caught.value.left_out])
    assert message.format(root=root) in text
    assert "a video is patient/exam/area" in text
    assert "remove" not in text


def test_both_sides_in_an_area_are_named(tmp_path: Path) -> None:
    frames(tmp_path / "P1/1/L1/Left")
    frames(tmp_path / "P1/1/L1/Right")
    _, problems = found(tmp_path)
    assert "L1/Left and" in problems[0]
    assert "L1/Right" in problems[0]


def test_frames_below_an_areas_own_are_not_left_out_in_silence(tmp_path: Path) -> None:
    frames(tmp_path / "P1/1/L1")
    frames(tmp_path / "P1/1/L1/more")
    sources, problems = found(tmp_path)
    assert sources["P1/1/L1"].length == 3
    assert [f"{tmp_path / 'P1/1/L1/more'} is not read" in line for line in problems] == [True]


def test_clips_at_another_level_are_named(tmp_path: Path) -> None:
    clip(tmp_path / "P1/1/L1/deep/a.mp4")
    clip(tmp_path / "P1/b.mp4")
    clip(tmp_path / "c.mp4")
    _, problems = found(tmp_path)
    assert [any(name in line for line in problems) for name in ("deep", "b.mp4", "c.mp4")] == [
        True
    ] * 3


# ------------------------------------------------------------------------------------ spellings


@pytest.mark.parametrize(("folder", "annotated"), [(NFC, NFD), (NFD, NFC), ("P1 ", "P\u200b1")])
def test_a_folder_and_its_annotation_meet_in_any_spelling(
    tmp_path: Path, folder: str, annotated: str
) -> None:
    frames(tmp_path / folder / "1" / "L1")
    (tmp_path / "Annotations.txt").write_text(f"{annotated}/1/L1;2\n", encoding="utf-8")
    study = read_study(StudyFiles(tmp_path))
    assert study.problems == []
    [(video, source)] = study.sources.items()
    assert study.scores == {video: 2}
    assert len(list(source.frames("L"))) == 3


def test_two_folders_of_one_patient_are_one_patient(tmp_path: Path) -> None:
    frames(tmp_path / NFC / "1" / "L1")
    frames(tmp_path / NFD / "1" / "L2")
    assert set(found(tmp_path)[0]) == {f"{NFC}/1/L1", f"{NFC}/1/L2"}
    frames(tmp_path / NFD / "1" / "L1")
    sources, problems = found(tmp_path)
    assert set(sources) == {f"{NFC}/1/L2"}
    assert "exists 2 times" in problems[0]


@pytest.mark.parametrize(
    ("folder", "annotated", "message"),
    [
        ("007", "7", "007/1/L1 exists: write both the same way (spreadsheets drop leading zeros"),
        ("1017", "1017.0", "1017/1/L1 exists: write both the same way"),
        ("p01", "P01", "p01/1/L1 exists"),
        ("1-2", "01. Feb", "'01. Feb' looks like a date into which a spreadsheet turned"),
    ],
)
def test_an_id_that_a_spreadsheet_changed_is_hinted_at(
    tmp_path: Path, folder: str, annotated: str, message: str
) -> None:
    frames(tmp_path / folder / "1" / "L1")
    frames(tmp_path / "other" / "1" / "L1")
    (tmp_path / "Annotations.txt").write_text(f"{annotated}/1/L1;2\nother/1/L1;1\n")
    study = read_study(StudyFiles(tmp_path))
    assert list(study.sources) == [VideoId("other", "1", "L1")]
    assert any(message in line for line in study.problems)


def test_a_file_that_a_spreadsheet_renamed_is_hinted_at(tmp_path: Path) -> None:
    clip(tmp_path / "007.mp4")
    clip(tmp_path / "b.mp4")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,patient,area,score\n7,1,L1,0\nb,2,L1,0\n")
    _, problems = find_labelled(ImportConfig(videos=tmp_path, labels=labels))
    assert any("there is no readable video file 7; 007.mp4 exists" in line for line in problems)


def test_two_files_in_one_spelling_are_both_left_out(tmp_path: Path) -> None:
    clip(tmp_path / f"{NFC}.mp4")
    clip(tmp_path / f"{NFD}.mp4")
    clip(tmp_path / "b.mp4")
    labels = tmp_path / "labels.csv"
    labels.write_text(f"file,patient,area,score\n{NFC},1,L1,0\nb,2,L1,0\n", encoding="utf-8")
    sources, problems = find_labelled(ImportConfig(videos=tmp_path, labels=labels))
    assert [source.name for source in sources] == ["b.mp4"]
    assert any(f"2 files have names that look the same, {NFC}.mp4" in line for line in problems)


# ------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("place", ["loop", "P1/loop", "P1/1/loop", "P1/1/L1/loop"])
@pytest.mark.parametrize("target", ["root", "parent"])
def test_a_link_to_a_folder_around_it_is_one_line_wherever_it_is(
    tmp_path: Path, place: str, target: str
) -> None:
    root = tmp_path / "exams"
    frames(root / "P1/1/L1")
    link = root / place
    link.symlink_to(root if target == "root" else link.parent)
    sources, problems = found(root)
    assert set(sources) == {"P1/1/L1"}
    assert problems == [f"{link} is a link to {link.resolve()}, which contains it: remove the link"]


def test_a_link_to_another_patients_area_is_still_followed(tmp_path: Path) -> None:
    frames(tmp_path / "elsewhere/L1")
    frames(tmp_path / "exams/P2/1/L1")
    (tmp_path / "exams/P1/1").mkdir(parents=True)
    (tmp_path / "exams/P1/1/L1").symlink_to(tmp_path / "elsewhere/L1")
    sources, problems = found(tmp_path / "exams")
    assert set(sources) == {"P1/1/L1", "P2/1/L1"}
    assert problems == []
