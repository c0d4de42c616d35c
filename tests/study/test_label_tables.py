"""Label tables: every row and every file accounted for, every mistake named by file and line."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from lus_cli.config import ImportConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.steps.import_videos import find_labelled
from lus_cli.study.annotations import Findings
from lus_cli.study.ids import VideoId
from lus_cli.study.label_tables import LabelledFile, table_labels

HEADER = "file,patient,exam,area,score\n"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Files that are called like videos: labels are read without opening one."""
    folder = tmp_path / "videos"
    for name in ("a.mp4", "b.AVI", "sub/c.d.mov", "e.gif", "e.mkv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table(videos: Path, text: str) -> tuple[dict[VideoId, LabelledFile], list[str]]:
    labels = videos.parent / "labels.csv"
    labels.write_bytes(text.encode())
    sources, problems = find_labelled(ImportConfig(videos=videos, labels=labels))
    return {source.label.video: source for source in sources}, problems


def test_rows_find_their_files_with_and_without_suffix(videos: Path) -> None:
    sources, problems = table(
        videos, HEADER + "a.mp4,1,1,L1,0\nb,1,1,L2,1\nsub/c.d,1,2,L1,2.0\n./e.gif,2,1,L1,\n"
    )
    found = {"/".join(video): (s.name, s.label.score) for video, s in sources.items()}
    assert found == {
        "1/1/L1": ("a.mp4", 0),
        "1/1/L2": ("b.AVI", 1),
        "1/2/L1": ("sub/c.d.mov", 2),
        "2/1/L1": ("e.gif", None),
    }
    assert all(s.path == videos / s.name for s in sources.values())
    assert problems == [f"e.mkv: no row in {videos.parent / 'labels.csv'} names it"]


def test_backslashes_bom_crlf_and_blank_rows_are_harmless(videos: Path) -> None:
    text = (
        "\ufefffile,patient,exam,area,score\r\n\r\nsub\\c.d.mov , 7 ,1,L1, 3\r\n , ,,,\r\n,,,,\r\n"
    )
    sources, _ = table(videos, text)
    assert [(s.name, str(v), s.label.score) for v, s in sources.items()] == [
        ("sub/c.d.mov", "7/1/L1", 3)
    ]


def test_without_an_exam_column_there_is_one_exam(videos: Path) -> None:
    sources, _ = table(videos, "file,patient,area,score\na,p,L1,0\n")
    assert list(sources) == [VideoId("p", "1", "L1")]


def test_findings_and_comments_are_kept(videos: Path) -> None:
    sources, _ = table(
        videos,
        "file,patient,area,score,a_lines,b_lines,comment\n"
        'a,p,L1,0,yes, No ,"broken, thick"\nb,p,L2,1,,YES,\n',
    )
    labels = [s.label for s in sources.values()]
    assert [known.findings for known in labels] == [Findings(True, False), Findings(None, True)]
    assert [known.comment for known in labels] == ["broken, thick", ""]


def test_sources_come_in_the_order_of_the_study(videos: Path) -> None:
    sources, _ = table(videos, HEADER + "a,10,1,L1,0\nb,2,1,L10,0\nsub/c.d,2,1,L9,0\n")
    assert list(map(str, sources)) == ["2/1/L9", "2/1/L10", "10/1/L1"]


def test_accents_match_in_either_form(videos: Path) -> None:
    (videos / unicodedata.normalize("NFD", "Müller è.mp4")).touch()
    sources, _ = table(videos, HEADER + unicodedata.normalize("NFC", "Müller è,p,1,L1,0\n"))
    assert next(iter(sources.values())).path.is_file()


def test_clutter_is_no_video(videos: Path) -> None:
    for name in ("._a.mp4", ".hidden/x.mp4", ".DS_Store", "notes.txt"):
        (videos / name).parent.mkdir(exist_ok=True)
        (videos / name).touch()
    (videos / "folder.mp4").mkdir()
    _, problems = table(videos, HEADER + "a,p,1,L1,0\n")
    assert [problem.partition(":")[0] for problem in problems] == [
        "b.AVI",
        "e.gif",
        "e.mkv",
        "sub/c.d.mov",
    ]


def test_a_row_without_a_file_is_listed_with_its_line(videos: Path) -> None:
    sources, problems = table(videos, HEADER + "a,p,1,L1,0\nmissing,p,1,L2,0\n")
    assert len(sources) == 1
    assert (
        f"{videos.parent / 'labels.csv'}, line 3: there is no readable video file missing"
        in problems
    )


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a,p,1,L2,4", "score '4'"),
        ("a,p,1,L2,-1", "score '-1'"),
        ("a,p,1,L2,1.5", "score '1.5'"),
        ("a,p,1,L2,nan", "score 'nan'"),
        ("a,p,1,L2,two", "score 'two'"),
        ("a,p,1,L1,0", "video p/1/L1 is already in line 2"),
        ("a,P,1,l1,0", "video P/1/l1 is already in line 2"),
        ("b.AVI,p,1,L2,0", "file b.AVI is already in line 2"),
        ("./b,p,1,L2,0", "file b is already in line 2"),
        ("e,p,1,L2,0", "e can be e.gif or e.mkv"),
        ("../videos/a.mp4,p,1,L2,0", "'../videos/a.mp4' is not a file in"),
        ("sub/../../x.mp4,p,1,L2,0", "is not a file in"),
        ("..\\x.mp4,p,1,L2,0", "is not a file in"),
        ("/etc/passwd,p,1,L2,0", "'/etc/passwd' is not a file in"),
        ("C:\\x.mp4,p,1,L2,0", "is not a file in"),
        ("\\\\server\\x.mp4,p,1,L2,0", "is not a file in"),
        ("a\0.mp4,p,1,L2,0", "is not a file in"),
        (",p,1,L2,0", "'' is not a file in"),
        (".,p,1,L2,0", "'.' is not a file in"),
        ("a,..,1,L2,0", "'..' is not a valid patient"),
        ("a,.p,1,L2,0", "'.p' is not a valid patient"),
        ("a,p,x/y,L2,0", "'x/y' is not a valid exam"),
        ("a,p/1,L2,,0", "'p/1' is not a valid patient"),
        ("a,p,,L2,0", "'' is not a valid exam"),
        ("a,p,1,L;2,0", "'L;2' is not a valid area"),
        ("a,p,1,Thumbs.db,0", "'Thumbs.db' is not a valid area"),
        ("a,p,1,L2", "does not have 5 cells"),
        ("a,p,1,L2,0,more", "does not have 5 cells"),
    ],
)
def test_a_mistake_is_an_error_that_names_file_and_line(
    videos: Path, row: str, complaint: str
) -> None:
    with pytest.raises(LusError) as caught:
        table(videos, HEADER + "b,p,1,L1,0\n" + row + "\n")
    assert caught.value.message.startswith(f"{videos.parent / 'labels.csv'}, line 3: ")
    assert complaint in caught.value.message


def test_an_empty_cell_and_an_empty_table_are_called_empty(videos: Path) -> None:
    with pytest.raises(
        LusError, match="line 2: '' is not a valid patient: the cell is empty: fill"
    ):
        table(videos, HEADER + "a,,1,L1,0\n")
    for empty in ("", "\n", ",,\n"):
        with pytest.raises(LusError, match="is empty: it names the columns: file, patient, area"):
            table(videos, empty)


def test_findings_that_are_no_word_are_an_error(videos: Path) -> None:
    with pytest.raises(LusError, match="line 2: invalid finding 'maybe': write yes, no or nothing"):
        table(videos, "file,patient,area,score,a_lines\na,p,L1,0,maybe\n")


def test_columns_that_are_missing_are_named(videos: Path) -> None:
    with pytest.raises(LusError, match=r"no column patient, score: it has file, area"):
        table(videos, "file,area\na,L1\n")


def test_a_table_and_a_folder_that_do_not_meet(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(LusError, match="has a known patient and area"):
        table(videos, HEADER + "x,p,1,L1,0\n")
    (tmp_path / "none").mkdir()
    with pytest.raises(LusError, match=r"contains no video: videos are \.mp4"):
        find_labelled(ImportConfig(videos=tmp_path / "none", labels=tmp_path / "labels.csv"))
    with pytest.raises(LusError, match="there is no folder"):
        find_labelled(ImportConfig(videos=tmp_path / "nowhere", labels=tmp_path / "labels.csv"))
    with pytest.raises(LusError, match=r"there is no file .*gone\.csv"):
        find_labelled(ImportConfig(videos=videos, labels=tmp_path / "gone.csv"))
    with pytest.raises(UsageError, match="--labels is missing"):
        find_labelled(ImportConfig(videos=videos))


# ------------------------------------------------------------------------------------ COVID-BLUES


def covid(
    tmp_path: Path, files: list[str], rows: str
) -> tuple[list[tuple[str, str, int | None]], list[str]]:
    (tmp_path / "lus_videos").mkdir()
    for name in files:
        (tmp_path / "lus_videos" / name).touch()
    header = "video_file,Severity Score,A-lines,B-lines,comments\n"
    (tmp_path / "severity.csv").write_text(header + rows)
    sources, problems = find_labelled(ImportConfig(videos=tmp_path, format="covid-blues"))
    return [(s.name, str(s.label.video), s.label.score) for s in sources], problems


def test_covid_blues_names_hold_the_ids(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.mp4").touch()  # next to the folder of videos of the data set
    sources, problems = covid(
        tmp_path,
        ["patient_15_L2_2.mp4", "patient_15_L2.mp4", "patient_2_R3.mp4"],
        'patient_15_L2_2,2.0,yes ,no,"a, b"\npatient_15_L2.mp4,0.0, no,,\npatient_2_R3,,,,\n',
    )
    assert sources == [
        ("lus_videos/patient_2_R3.mp4", "2/1/R3", None),
        ("lus_videos/patient_15_L2.mp4", "15/1/L2", 0),
        ("lus_videos/patient_15_L2_2.mp4", "15/1/L2_2", 2),
    ]
    assert problems == []


def test_covid_blues_files_without_a_row_come_without_a_score(tmp_path: Path) -> None:
    sources, problems = covid(
        tmp_path, ["patient_1_L1.mp4", "patient_1_L2.mp4", "holiday.mp4"], "patient_1_L1,1.0,,,\n"
    )
    assert sources[1] == ("lus_videos/patient_1_L2.mp4", "1/1/L2", None)
    assert len(sources) == 2
    assert problems == ["lus_videos/holiday.mp4: its name is not patient_<patient>_<area>"]


def test_covid_blues_files_of_one_video_are_not_mixed(tmp_path: Path) -> None:
    sources, problems = covid(
        tmp_path, ["patient_1_L1.mp4", "patient_1_L1.avi"], "patient_1_L1.mp4,1.0,,,\n"
    )
    assert [name for name, *_ in sources] == ["lus_videos/patient_1_L1.mp4"]
    assert problems == ["lus_videos/patient_1_L1.avi: another file is also video 1/1/L1"]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("../patient_1_L1,1.0,,,\n", "does not name a patient and an area"),
        ("patient_1_../../x,1.0,,,\n", "does not name a patient and an area"),
        ("nobody,1.0,,,\n", "does not name a patient and an area"),
        ("patient_1_L1,5.0,,,\n", "score '5.0'"),
        ("patient_1_L1,1.0,perhaps,,\n", "'perhaps'"),
    ],
)
def test_covid_blues_mistakes_name_file_and_line(tmp_path: Path, rows: str, complaint: str) -> None:
    with pytest.raises(LusError) as caught:
        covid(tmp_path, ["patient_1_L1.mp4"], rows)
    assert caught.value.message.startswith(f"{tmp_path / 'severity.csv'}, line 2: ")
    assert complaint in caught.value.message


def test_the_covid_blues_folder_is_found_whole(covid_blues: Path) -> None:
    sources, problems = find_labelled(ImportConfig(videos=covid_blues, format="covid-blues"))
    assert problems == []
    scores = [source.label.score for source in sources]
    assert [scores.count(score) for score in range(4)] == [95, 88, 66, 38]
    assert len({source.label.video.patient for source in sources}) == 50
    assert all(None not in (s.label.findings.a_lines, s.label.findings.b_lines) for s in sources)


def test_a_table_without_rows_says_so(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,patient,area,score\n")
    with pytest.raises(LusError, match="has a header but no rows"):
        list(table_labels(tmp_path / "labels.csv"))
