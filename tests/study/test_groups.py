"""The column `group` of label tables and annotations: what is read, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lus_cli
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import ImportConfig, PrepareConfig
from lus_cli.errors import LusError
from lus_cli.progress import silent
from lus_cli.steps import import_videos, prepare
from lus_cli.study.annotations import read_annotations, read_groups, write_annotations
from lus_cli.study.groups import check_groups
from lus_cli.study.ids import VideoId
from lus_cli.study.label_tables import table_labels
from tests.study.test_video_files import encode, gray_frames

TABLE = Path("labels.csv")
ONE, TWO, OTHER = VideoId("p1", "1", "a"), VideoId("p1", "1", "b"), VideoId("p2", "1", "a")


def test_every_video_has_a_group_or_none_has() -> None:
    assert check_groups({ONE: "", OTHER: ""}, TABLE) == {}
    groups = {ONE: "north", TWO: "north", OTHER: "south"}
    assert check_groups(groups, TABLE) == groups


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        ({ONE: "north", OTHER: ""}, r"labels.csv: video p2/1/a has no group, .*: fill in"),
        (
            {ONE: "north", TWO: "south"},
            r"patient p1 is in the groups north and south: if these are two patients, give them",
        ),
        ({ONE: "Site_1", OTHER: "site 1"}, r"the groups Site_1 and site 1 differ only in spelling"),
    ],
)
def test_what_is_no_partition_of_the_patients_is_refused(
    groups: dict[VideoId, str], complaint: str
) -> None:
    with pytest.raises(LusError, match=complaint) as caught:
        check_groups(groups, TABLE)
    assert "\n" not in str(caught.value)


def test_annotations_have_groups_only_in_a_csv_with_that_column(tmp_path: Path) -> None:
    path = tmp_path / "Annotations.csv"
    path.write_text("Patient;Exam;Area;Score;GROUP\np1;1;a;2; north \np1;1;b;;north\np2;1;a;0;\n")
    assert read_annotations(path) == {ONE: 2, OTHER: 0}
    assert read_groups(path) == {ONE: "north", TWO: "north"}
    path.write_text("patient,exam,area,score\np1,1,a,2\n")
    assert read_groups(path) == {}
    lines = tmp_path / "Annotations.txt"
    lines.write_text("p1/1/a;2\n")
    assert read_groups(lines) == {}


@pytest.mark.parametrize("name", ["a/b", "a,b", ".hidden"])
def test_a_group_that_an_option_could_not_name_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "Annotations.csv"
    path.write_text(f'patient,exam,area,score,group\np1,1,a,2,"{name}"\n')
    with pytest.raises(LusError, match=r"Annotations.csv, line 2: .* is not a valid group: names"):
        read_groups(path)


def test_annotations_with_groups_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "Annotations.txt"
    scores, groups = {ONE: 3, OTHER: 0}, {ONE: "north", OTHER: "south"}
    write_annotations(path, scores.items(), groups)
    assert (read_annotations(path), read_groups(path)) == (scores, groups)
    write_annotations(path, scores.items(), {})
    assert path.read_text() == "p1/1/a;3\np2/1/a;0\n"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Four videos of four patients in two folders, and a label table over both with their groups."""
    rows = ["file,patient,exam,area,score,group"]
    for number in range(4):
        group = ("north", "south")[number % 2]
        folder = tmp_path / "videos" / group
        folder.mkdir(parents=True, exist_ok=True)
        encode(folder / f"{number}.avi", "mjpeg", "yuvj420p", gray_frames(3 + number))
        rows.append(f"{group}/{number}.avi,P{number},1,L1,{number},{group}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def test_groups_of_a_label_table_are_in_the_cache_and_in_an_imported_tree(labelled: Path) -> None:
    def prepared(cache: str, exams: Path, labels: Path | None) -> tuple[list[str], object]:
        config = PrepareConfig(
            exams=exams, labels=labels, cache=labelled / cache, size=16, workers=1, folds="group"
        )
        result = prepare.run(config, silent)
        videos = VideoCache(labelled / cache / "videos.h5")
        assert [table.columns[0] for table in result.tables] == ["part", "group"]
        assert result.tables[1].rows == [("north", 1, 0, 1, 0, 2, 2), ("south", 0, 1, 0, 1, 2, 2)]
        return videos.groups, result.numbers["groups"]

    table = labelled / "labels.csv"
    from_table = prepared("one", labelled / "videos", table)
    assert from_table == (
        ["north", "south", "north", "south"],
        {
            "north": {"patients": 2, "videos": 2, "scores": [1, 0, 1, 0]},
            "south": {"patients": 2, "videos": 2, "scores": [0, 1, 0, 1]},
        },
    )
    tree = labelled / "tree"
    import_videos.run(
        ImportConfig(videos=labelled / "videos", root=tree, labels=table, workers=1), silent
    )
    assert prepared("two", tree, None) == from_table


def test_one_id_for_the_patients_of_two_sources_is_refused(labelled: Path) -> None:
    table = labelled / "labels.csv"
    config = PrepareConfig(
        exams=labelled / "videos", labels=table, cache=labelled / "cache", size=16, workers=1
    )
    table.write_text(table.read_text().replace("P1,1,L1", "P0,1,L2"))
    with pytest.raises(LusError, match="patient P0 is in the groups north and south"):
        prepare.run(config, silent)
    table.write_text(table.read_text().replace("P0,1,L2", "P0,1,L1"))
    with pytest.raises(LusError, match="already in line 2: keep one line; two patients need two"):
        prepare.run(config, silent)
    assert not (labelled / "cache").exists()


def test_the_example_of_the_readme_writes_one_table_over_two_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(lus_cli.__file__).with_name("study").joinpath("README.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    blues, pocus = (tmp_path / "shared" / name for name in ("covid-blues", "pocus-cc-by"))
    for folder in (blues, pocus, tmp_path / "here"):
        folder.mkdir(parents=True)
    (blues / "severity.csv").write_text(
        'video_file,Severity Score,A-lines,B-lines,comments\npatient_2_L2_2,2.0,no,yes,"a, b"\n'
    )
    (pocus / "labels.csv").write_text(
        "file,patient,exam,area,score,licence,source\nReg.mpeg,pocus2,1,v77,0,CC BY 4.0,charlotte\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    exec(compile(example, "README", "exec"), {})
    rows = [
        (label.file, str(label.video), label.score, label.group)
        for _, label in table_labels(Path("both.csv"))
    ]
    assert rows == [
        ("covid-blues/patient_2_L2_2", "blues2/1/L2_2", 2, "covid-blues"),
        ("pocus-cc-by/Reg.mpeg", "pocus2/1/v77", 0, "pocus-cc-by"),
    ]
