"""lus import: the tree it writes, its messages on what it could not import, what it never does."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from lus_cli.config import ImportConfig, PhantomConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.progress import Result, silent
from lus_cli.steps import import_videos, phantom
from lus_cli.study.annotations import Findings, read_annotations, read_findings
from lus_cli.study.finding import find_sources
from lus_cli.study.frames import decode_frame
from lus_cli.study.ids import VideoId
from lus_cli.study.video_files import read_frames

SIDE = 64


def make_video(path: Path, count: int, level: int = 60, red_from: int | None = None) -> None:
    """Motion JPEG whose frame n has gray `level` + 5 n; from frame `red_from` on with red in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=20, options={"qscale": "1"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuvj420p"
        for number in range(count):
            frame = np.full((SIDE, SIDE, 3), level + 5 * number, np.uint8)
            if red_from is not None and number >= red_from:
                frame[:16, :16] = (220, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four videos, and a table that knows all of them."""
    folder = tmp_path / "videos"
    make_video(folder / "one.avi", 12)
    make_video(folder / "two.mov", 3, red_from=1)
    make_video(folder / "deep/three.mkv", 4)
    make_video(folder / "four.avi", 2)
    (tmp_path / "labels.csv").write_text(
        "file,patient,exam,area,score,a_lines,b_lines,comment\n"
        'one,1017,1048,11,2,no,yes,"thick, broken"\n'
        "two,1017,1048,2,0,,,\n"
        "deep/three,1045,1,11,3,yes,,\n"
        "four.avi,1045,2,11,,,,\n"
    )
    return folder


def configured(study: Path, **changes: Any) -> ImportConfig:
    values = {
        "videos": study,
        "root": study.parent / "exams",
        "labels": study.parent / "labels.csv",
        "workers": 1,
    }
    return ImportConfig(**(values | changes))


def run(study: Path, **changes: Any) -> Result:
    return import_videos.run(configured(study, **changes), silent)


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_tree_is_an_exam_tree(study: Path) -> None:
    result = run(study)
    root = study.parent / "exams"
    videos, problems = find_sources(root, mask_text=False)
    assert problems == []
    lengths = {str(video.id): [frame.number for frame in video.frame_files] for video in videos}
    assert lengths == {
        "1017/1048/2": [0, 1, 2],
        "1017/1048/11": list(range(12)),
        "1045/1/11": [0, 1, 2, 3],
        "1045/2/11": [0, 1],
    }
    assert read_annotations(root / "Annotations.txt") == {
        VideoId("1017", "1048", "2"): 0,
        VideoId("1017", "1048", "11"): 2,
        VideoId("1045", "1", "11"): 3,
    }
    assert read_findings(root / "Findings.csv") == {
        VideoId("1017", "1048", "11"): Findings(False, True),
        VideoId("1045", "1", "11"): Findings(True, None),
    }
    assert table(root / "Findings.csv")[1] == [
        "1017", "1048", "11", "no", "yes", "thick, broken"
    ]  # fmt: skip
    assert table(root / "Sources.csv") == [
        ["patient", "exam", "area", "file", "frames", "fps"],
        ["1017", "1048", "2", "two.mov", "3", "20.0"],
        ["1017", "1048", "11", "one.avi", "12", "20.0"],
        ["1045", "1", "11", "deep/three.mkv", "4", "20.0"],
        ["1045", "2", "11", "four.avi", "2", "20.0"],
    ]
    assert result.numbers == {
        "videos": 4, "frames": 21, "patients": 2, "failed": 0, "notes": {}, "unlabelled": 1,
        "scores": {"0": 1, "1": 0, "2": 1, "3": 1},
    }  # fmt: skip
    assert result.tables[0].rows == [("0", 1), ("1", 0), ("2", 1), ("3", 1), ("none", 1)]
    assert (result.files, result.problems, result.failed) == ({"exams": root}, [], False)
    assert result.notes == ["four.avi was imported without a score: the labels give none"]


def test_frames_are_those_of_the_video_in_its_order(study: Path) -> None:
    run(study, quality=100)
    for number, frame in enumerate(read_frames(study / "one.avi")):
        path = study.parent / "exams/1017/1048/11" / f"Frame_{number}.jpg"
        saved = np.asarray(decode_frame(path, "L")).astype(int)
        assert np.abs(saved - frame).max() <= 2
        assert abs(saved.mean() - (60 + 5 * number)) < 3


def test_gray_videos_are_saved_gray_and_a_video_with_colour_in_colour(study: Path) -> None:
    run(study)
    modes = {}
    for path in (study.parent / "exams").rglob("*.jpg"):
        with Image.open(path) as image:
            modes.setdefault("/".join(path.parts[-4:-1]), set()).add(image.mode)
    # two.mov has colour in its second frame only: all of its frames are in colour.
    assert modes == {
        "1017/1048/2": {"RGB"}, "1017/1048/11": {"L"}, "1045/1/11": {"L"}, "1045/2/11": {"L"},
    }  # fmt: skip


def test_quality_decides_the_size(study: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (SIDE, SIDE), np.uint8)) for _ in range(2)]
    noise[0].save(study / "four.gif", save_all=True, append_images=noise[1:])
    (study.parent / "labels.csv").write_text("file,patient,area,score\nfour.gif,1,1,0\n")
    sizes = []
    for quality in (50, 95):
        run(study, quality=quality, force=True)
        sizes.append((study.parent / "exams/1/1/1/Frame_0.jpg").stat().st_size)
    assert sizes[1] > 1.5 * sizes[0]


def test_workers_make_the_same_tree(study: Path) -> None:
    run(study)
    run(study, root=study.parent / "again", workers=2)
    assert everything(study.parent / "again") == everything(study.parent / "exams")


def test_progress_counts_videos(study: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    import_videos.run(
        configured(study), lambda task, done, total=None, **facts: seen.append((task, done, total))
    )
    assert seen == [("import", done, 4) for done in range(5)]


def test_the_default_tree_lies_in_the_cache(study: Path, tmp_path: Path) -> None:
    result = run(study, root=None, cache=tmp_path / "c")
    assert result.files["exams"] == tmp_path / "c" / "exams"
    assert (tmp_path / "c" / "exams" / "Annotations.txt").is_file()


def test_a_damaged_video_is_listed_and_the_others_are_imported(study: Path) -> None:
    damaged = study / "deep/three.mkv"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    (study / "two.mov").write_bytes(b"")
    result = run(study)
    assert result.failed
    assert [p.partition(" ")[0] for p in result.problems] == [
        str(study / "two.mov"),
        str(damaged),
    ]
    assert result.numbers["videos"] == 2
    assert result.numbers["failed"] == 2
    root = study.parent / "exams"
    assert [str(v.id) for v in find_sources(root, mask_text=False)[0]] == [
        "1017/1048/11",
        "1045/2/11",
    ]
    assert not (root / "1045/1").exists(), "no empty exam"
    assert list(read_annotations(root / "Annotations.txt")) == [VideoId("1017", "1048", "11")]
    assert "three" not in (root / "Sources.csv").read_text()


def test_when_nothing_can_be_decoded_the_old_tree_stays(study: Path) -> None:
    run(study)
    before = everything(study.parent / "exams")
    for path in filter(Path.is_file, study.rglob("*")):
        path.write_bytes(b"no video")
    with pytest.raises(LusError, match="none of 4 videos can be imported"):
        run(study, force=True)
    assert everything(study.parent / "exams") == before
    assert sorted(p.name for p in study.parent.iterdir()) == ["exams", "labels.csv", "videos"]


def test_a_tree_is_replaced_only_by_force_and_as_a_whole(study: Path) -> None:
    run(study)
    with pytest.raises(LusError, match="--force"):
        run(study)
    (study.parent / "labels.csv").write_text("file,patient,area,score\none,9,1,1\n")
    result = run(study, force=True)
    root = study.parent / "exams"
    assert [str(v.id) for v in find_sources(root, mask_text=False)[0]] == ["9/1/1"]
    assert not (root / "Findings.csv").exists(), "nobody said anything"
    assert len(result.problems) == 3, "files that no row names"
    assert not result.failed


@pytest.mark.parametrize("make", [phantom.run, import_videos.run])
@pytest.mark.parametrize(
    "held", ["runs/a/best.safetensors", "thesis/notes.txt", "videos.h5", ".git/HEAD", "thesis.docx"]
)
def test_force_replaces_an_exam_tree_and_nothing_else(study: Path, make: Any, held: str) -> None:
    """The folder above the exam tree, named by mistake, may hold every trained model."""
    root = study.parent / "cache"
    (root / held).parent.mkdir(parents=True)
    (root / held).write_text("weeks of work")
    if held in ("videos.h5", "thesis.docx"):
        (root / "Annotations.txt").write_text("1/2/3;0\n")
    config = configured(study, root=root, force=True)
    if make is phantom.run:
        config = PhantomConfig(root=root, patients=4, videos=4, size=32, force=True, workers=1)
    with pytest.raises(LusError, match=f"is not an exam tree: it contains {held.split('/')[0]}"):
        make(config, silent)
    assert (root / held).read_text() == "weeks of work"


def test_folders_behind_links_and_folders_that_cannot_be_read(study: Path) -> None:
    moved = (study / "deep").rename(study.parent / "elsewhere")
    (study / "deep").symlink_to(moved)
    (moved / "back").symlink_to(study)
    (study / "five.rm").write_bytes(b"something")
    result = run(study)
    assert result.numbers["videos"] == 4
    assert any(
        "five.rm is a video in a format that lus does not read" in line for line in result.problems
    )


def test_the_masks_of_a_replaced_phantom_go_and_those_of_others_stay(study: Path) -> None:
    root, masks = study.parent / "exams", study.parent / "exams-masks"
    values: dict[str, Any] = {"patients": 4, "videos": 4, "size": 32, "max_frames": 4, "workers": 1}
    phantom.run(PhantomConfig(root=root, **values), silent)
    before = everything(root), everything(masks)
    with pytest.raises(LusError, match="--force"):
        run(study)
    assert (everything(root), everything(masks)) == before
    run(study, force=True)
    assert not masks.exists(), "they are of other videos"
    (masks / "1017").mkdir(parents=True)
    run(study, force=True)
    assert sorted(p.name for p in study.parent.iterdir()) == [
        "exams", "exams-masks", "labels.csv", "videos"
    ]  # fmt: skip


def test_a_label_mistake_is_found_before_any_video_is_decoded(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(task: object) -> None:
        raise AssertionError("a video was decoded")

    monkeypatch.setattr(import_videos, "import_video", fail)
    with (study.parent / "labels.csv").open("a") as file:
        file.write("one.avi,1,1,1,1,,,\n")
    with pytest.raises(LusError, match=r"line 6: file one\.avi is already in line 2"):
        run(study)
    assert not (study.parent / "exams").exists()


@pytest.mark.parametrize("root", ["videos", "videos/deep", ".", "videos/deep/../../videos"])
def test_the_videos_themselves_are_never_replaced(study: Path, root: str) -> None:
    before = everything(study)
    with pytest.raises(UsageError, match="which would be replaced"):
        run(study, root=study.parent / root, force=True)
    assert everything(study) == before


def test_a_disk_error_leaves_no_half_tree(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(LusError, match="free some space"):
        run(study)
    assert sorted(p.name for p in study.parent.iterdir()) == ["labels.csv", "videos"]


def test_names_with_blanks_and_accents_reach_the_tree(study: Path) -> None:
    make_video(study / "Müller è 1.avi", 2)
    (study.parent / "labels.csv").write_text(
        "file,patient,exam,area,score\nMüller è 1.avi,Müller è,visit 1,left à,1\n",
        encoding="utf-8",
    )
    run(study)
    root = study.parent / "exams"
    (video,) = find_sources(root, mask_text=False)[0]
    assert video.id == VideoId("Müller è", "visit 1", "left à")
    assert read_annotations(root / "Annotations.txt") == {video.id: 1}


def test_covid_blues_as_published(covid_blues: Path, tmp_path: Path) -> None:
    # A few of its videos, and its complete table.
    folder = tmp_path / "set"
    (folder / "lus_videos").mkdir(parents=True)
    (folder / "severity.csv").symlink_to(covid_blues / "severity.csv")
    for name in ("patient_15_L2_2", "patient_15_L2", "patient_2_L1"):
        source = covid_blues / "lus_videos" / f"{name}.mp4"
        (folder / "lus_videos" / source.name).symlink_to(source)
    result = run(folder, format="covid-blues", labels=None, root=tmp_path / "exams")
    assert result.numbers["videos"] == 3
    assert len(result.problems) == 284, "rows whose video is not here"
    rows = table(tmp_path / "exams/Sources.csv")[1:]
    assert [row[:4] + row[5:] for row in rows] == [
        ["2", "1", "L1", "lus_videos/patient_2_L1.mp4", "25.0"],
        ["15", "1", "L2", "lus_videos/patient_15_L2.mp4", "25.0"],
        ["15", "1", "L2_2", "lus_videos/patient_15_L2_2.mp4", "25.0"],
    ]
    with Image.open(tmp_path / "exams/15/1/L2_2/Frame_0.jpg") as image:
        assert (image.mode, image.size) == ("L", (350, 350))
    assert len(read_findings(tmp_path / "exams/Findings.csv")) == 3
