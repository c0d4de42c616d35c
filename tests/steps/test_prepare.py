"""lus prepare: frames in order, nothing decoded twice, nothing lost, no damage unnoticed."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.decoding import source_key
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli import app
from lus_cli.config import PrepareConfig
from lus_cli.errors import CannotReadError, LusError
from lus_cli.progress import Result, silent
from lus_cli.steps import prepare
from lus_cli.study.finding import find_sources
from lus_cli.study.ids import VideoId
from tests.conftest import dead_part, held

SIDE = 40


class Watch:
    """A progress callback that remembers how many frames were decoded."""

    def __init__(self) -> None:
        self.decoded = 0

    def __call__(self, task: str, done: int, total: int | None = None, **_facts: object) -> None:
        if task == "decode":
            self.decoded = done


def gray(value: int, side: int = SIDE) -> Image.Image:
    return Image.new("L", (side, side), value)


def make_tree(root: Path, patients: int = 5, frames: int = 12) -> Path:
    """Videos whose frame n has brightness 10 n, written in another order."""
    lines = []
    for patient in range(patients):
        for area in (1, 2):
            folder = root / f"p{patient}" / "1" / str(area)
            folder.mkdir(parents=True)
            for number in np.random.default_rng(patient).permutation(frames + area):
                gray(10 * int(number)).save(folder / f"Frame_{number}.jpg", quality=100)
            lines.append(f"p{patient}/1/{area};{(patient + area) % 4}")
    (root / "Annotations.txt").write_text("\n".join(lines))
    return root


def run(root: Path, cache: Path, watch: Watch | None = None, **changes: object) -> Result:
    settings = {"size": 32, "workers": 1, "folds": 2} | changes
    config = PrepareConfig(exams=root, cache=cache, **settings)  # type: ignore[arg-type]
    return prepare.run(config, watch or silent)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "exams")


def brightness(videos: VideoCache, index: int) -> list[int]:
    return videos.read(index).mean(axis=(1, 2)).round().astype(int).tolist()


def test_frames_are_in_the_order_of_their_numbers(tree: Path, tmp_path: Path) -> None:
    """The report read Frame_10 before Frame_2."""
    run(tree, tmp_path)
    videos = VideoCache(tmp_path / "videos.h5")
    assert videos.ids[:3] == [
        VideoId("p0", "1", "1"),
        VideoId("p0", "1", "2"),
        VideoId("p1", "1", "1"),
    ]
    for index, length in enumerate(videos.lengths):
        assert brightness(videos, index) == [10 * n for n in range(length)]
        assert videos.frame_numbers(index).tolist() == list(range(length))


def test_gaps_in_the_numbers_are_kept(tree: Path, tmp_path: Path) -> None:
    (tree / "p0/1/1/Frame_4.jpg").unlink()
    run(tree, tmp_path)
    videos = VideoCache(tmp_path / "videos.h5")
    assert videos.frame_numbers(0).tolist() == [n for n in range(13) if n != 4]


def test_processes_and_one_process_store_the_same(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path / "one", workers=1)
    run(tree, tmp_path / "two", workers=2)
    one, two = (VideoCache(tmp_path / name / "videos.h5") for name in ("one", "two"))
    assert one.checksums == two.checksums
    assert one.fingerprint == two.fingerprint


def test_run_again_it_decodes_nothing(tree: Path, tmp_path: Path) -> None:
    first, second = Watch(), Watch()
    run(tree, tmp_path, first)
    before = (tmp_path / "videos.h5").read_bytes()
    run(tree, tmp_path, second)
    assert first.decoded == 5 * (13 + 14)
    assert second.decoded == 0
    assert (tmp_path / "videos.h5").read_bytes() == before


def test_a_new_video_costs_one_video_and_new_labels_cost_none(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    shutil.copytree(tree / "p1/1/1", tree / "p1/1/3")
    annotations = tree / "Annotations.txt"
    annotations.write_text(annotations.read_text() + "\np1/1/3;0\n")
    watch = Watch()
    run(tree, tmp_path, watch)
    assert watch.decoded == 13
    annotations.write_text(annotations.read_text().replace("p1/1/3;0", "p1/1/3;3"))
    watch = Watch()
    run(tree, tmp_path, watch)
    assert watch.decoded == 0
    videos = VideoCache(tmp_path / "videos.h5")
    assert videos.scores[videos.index(VideoId("p1", "1", "3"))] == 3


def test_a_changed_frame_is_decoded_again_with_its_video(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    gray(255).save(tree / "p2/1/1/Frame_0.jpg", quality=100)
    watch = Watch()
    run(tree, tmp_path, watch)
    assert watch.decoded == 13
    videos = VideoCache(tmp_path / "videos.h5")
    assert brightness(videos, videos.index(VideoId("p2", "1", "1")))[0] == 255


def test_changed_settings_rebuild(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    run(tree, tmp_path, size=16)
    videos = VideoCache(tmp_path / "videos.h5")
    assert videos.frame_format.size == 16
    assert videos.read(0).shape == (13, 16, 16)


def test_incremental_equals_from_scratch(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path / "a")
    shutil.copytree(tree / "p1/1/1", tree / "p0/1/0")
    with (tree / "Annotations.txt").open("a") as file:
        file.write("\np0/1/0;1\n")
    run(tree, tmp_path / "a")
    run(tree, tmp_path / "b")
    a, b = (VideoCache(tmp_path / name / "videos.h5") for name in "ab")
    assert a.ids == b.ids
    assert a.checksums == b.checksums
    assert a.scores.tolist() == b.scores.tolist()


def test_interrupted_it_keeps_what_was_decoded(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tree, tmp_path / "whole")

    class StoppedError(Exception):
        pass

    def stop_midway(task: str, done: int, total: int | None = None, **_facts: object) -> None:
        if done > 60:
            raise StoppedError

    cache = tmp_path / "cache"
    with pytest.raises(StoppedError):
        prepare.run(
            PrepareConfig(exams=tree, cache=cache, size=32, workers=1, folds=2), stop_midway
        )
    assert not (cache / "videos.h5").exists()
    watch = Watch()
    run(tree, cache, watch)
    assert 0 < watch.decoded < 5 * 27 - 60
    whole, resumed = VideoCache(tmp_path / "whole" / "videos.h5"), VideoCache(cache / "videos.h5")
    assert whole.fingerprint == resumed.fingerprint
    assert not (cache / "videos.parts").exists()


def test_a_video_that_cannot_be_decoded_is_left_out_and_named(tree: Path, tmp_path: Path) -> None:
    path = tree / "p3/1/2/Frame_5.jpg"
    path.write_bytes(path.read_bytes()[:200])
    result = run(tree, tmp_path)
    assert len(result.problems) == 1
    assert "p3/1/2" in result.problems[0]
    assert "Frame_5.jpg" in result.problems[0]
    videos = VideoCache(tmp_path / "videos.h5")
    assert VideoId("p3", "1", "2") not in videos.ids
    assert len(videos) == 9
    with pytest.raises(LusError, match="--strict"):
        run(tree, tmp_path / "strict", strict=True)


def test_frames_of_two_sizes_are_no_video(tree: Path, tmp_path: Path) -> None:
    gray(0, side=50).save(tree / "p3/1/2/Frame_5.jpg")
    result = run(tree, tmp_path)
    assert "different size (40x40 and 50x50)" in result.problems[0]


def test_annotations_and_folders_that_do_not_meet_are_listed(tree: Path, tmp_path: Path) -> None:
    annotations = tree / "Annotations.txt"
    annotations.write_text(annotations.read_text().replace("p0/1/1;1", "p9/1/1;1"))
    result = run(tree, tmp_path)
    assert [line.split(":")[0] for line in result.problems] == ["video p0/1/1", "video p9/1/1"]
    with pytest.raises(LusError, match="2 problems"):
        run(tree, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_dry_run_writes_nothing(tree: Path, tmp_path: Path) -> None:
    result = run(tree, tmp_path / "cache", dry_run=True)
    assert result.numbers["to_decode"] == 10
    assert not (tmp_path / "cache").exists()


def test_letterbox_keeps_the_aspect(tmp_path: Path) -> None:
    folder = tmp_path / "exams" / "p0" / "1" / "1"
    folder.mkdir(parents=True)
    for patient in ("p0", "p1", "p2", "p3", "p4"):
        shutil.copytree(folder, tmp_path / "exams" / patient / "1" / "1", dirs_exist_ok=True)
        Image.new("L", (80, 40), 200).save(tmp_path / "exams" / patient / "1" / "1" / "0.png")
    lines = "".join(f"p{i}/1/1;{i % 4}\n" for i in range(5))
    (tmp_path / "exams" / "Annotations.txt").write_text(lines)
    run(tmp_path / "exams", tmp_path, letterbox=True)
    frame = VideoCache(tmp_path / "videos.h5").read(0)[0]
    assert frame[8:24].min() == 200
    assert frame[:8].max() == frame[24:].max() == 0


def test_color_is_kept_on_request(tree: Path, tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE), (200, 0, 0)).save(tree / "p0/1/1/Frame_0.jpg", quality=100)
    run(tree, tmp_path, color=True)
    frame = VideoCache(tmp_path / "videos.h5").read(0)[0]
    assert frame.shape == (32, 32, 3)
    assert frame[..., 0].mean() > 180 > 60 > frame[..., 1].mean()


def test_an_edited_split_is_kept_and_a_leaking_one_refused(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    path = tmp_path / "split.json"
    split = json.loads(path.read_text())
    split["train"], split["test"] = split["test"], split["train"]
    path.write_text(json.dumps(split))
    run(tree, tmp_path, seed=99)
    assert json.loads(path.read_text())["train"] == split["train"]
    split["train"] += split["test"]
    path.write_text(json.dumps(split))
    with pytest.raises(LusError, match="is in train and in test"):
        run(tree, tmp_path)
    run(tree, tmp_path, force=True)
    read_split(path, [f"p{i}" for i in range(5)])


def test_new_split_settings_draw_a_new_split(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    run(tree, tmp_path, test_patients=("p2",), seed=7)
    split, _ = read_split(tmp_path / "split.json", [f"p{i}" for i in range(5)])
    assert split.test == ("p2",)


def add_patient(tree: Path) -> None:
    shutil.copytree(tree / "p1", tree / "p7")
    with (tree / "Annotations.txt").open("a") as file:
        file.write("\np7/1/1;0\np7/1/2;3\n")


def test_new_patients_draw_a_new_split_and_say_so(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tree, tmp_path)
    add_patient(tree)
    run(tree, tmp_path)
    assert "the patients of the study have changed" in caplog.text
    read_split(tmp_path / "split.json", [*(f"p{i}" for i in range(5)), "p7"])


def test_an_edited_split_is_never_drawn_anew_without_being_asked(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tree, tmp_path)
    path = tmp_path / "split.json"
    split = json.loads(path.read_text())
    split["train"], split["test"] = split["test"], split["train"]
    path.write_text(json.dumps(split))
    run(tree, tmp_path, seed=7)
    assert "the split settings have no effect on it" in caplog.text
    add_patient(tree)
    with pytest.raises(LusError, match="patient p7 is in no part") as caught:
        run(tree, tmp_path)
    assert "add it to a part" in caught.value.remedy
    assert json.loads(path.read_text()) == split
    run(tree, tmp_path, force=True)
    assert "p7" in str(json.loads(path.read_text()))


def test_a_second_prepare_is_told_who_is_at_work(tree: Path, tmp_path: Path) -> None:
    from lus_cli.folders import only_writer

    with only_writer(tmp_path), pytest.raises(LusError, match=r"process \d+ is writing"):
        run(tree, tmp_path)
    run(tree, tmp_path)


FIGURES = ("lengths_by_score", "lengths_by_patient", "scores_by_part", "contact_sheet")


def drawn_since(result: Result, files: dict[str, int]) -> set[str]:
    """The figures written later than `files` says, which this brings up to date: nanoseconds."""
    now = {name: result.files[name].stat().st_mtime_ns for name in FIGURES}
    new = {name for name in FIGURES if files.get(name) != now[name]}
    files |= now
    return new


def test_figures_are_drawn_when_they_show_something_new(tree: Path, tmp_path: Path) -> None:
    files: dict[str, int] = {}
    result = run(tree, tmp_path)
    assert drawn_since(result, files) == set(FIGURES)
    for name in FIGURES:
        with Image.open(result.files[name]) as image:
            assert image.width > 200
    assert not drawn_since(run(tree, tmp_path), files)
    annotations = tree / "Annotations.txt"
    annotations.write_text(annotations.read_text().replace("p0/1/1;1", "p0/1/1;3"))
    scores = {"lengths_by_score", "scores_by_part", "contact_sheet"}
    assert drawn_since(run(tree, tmp_path), files) == scores
    split = json.loads((tmp_path / "split.json").read_text())
    split["train"], split["test"] = split["test"], split["train"]
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert drawn_since(run(tree, tmp_path), files) == {"scores_by_part"}
    result.files["contact_sheet"].unlink()
    assert drawn_since(run(tree, tmp_path), files) == {"contact_sheet"}


def test_an_old_cache_that_cannot_be_read_is_built_anew(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    path = tmp_path / "videos.h5"
    path.write_bytes(path.read_bytes()[:1000])
    watch = Watch()
    run(tree, tmp_path, watch)
    assert watch.decoded == 5 * 27
    assert len(VideoCache(path)) == 10


def test_findings_are_stored(tree: Path, tmp_path: Path) -> None:
    (tree / "Findings.csv").write_text(
        "patient,exam,area,a_lines,b_lines\np0,1,1,yes,no\np0,1,2,,yes\n"
    )
    run(tree, tmp_path)
    videos = VideoCache(tmp_path / "videos.h5")
    assert videos.a_lines[:3].tolist() == [1, -1, -1]
    assert videos.b_lines[:3].tolist() == [0, 1, -1]


# ---------------------------------------------------------------- changed files are decoded again


def age(path: Path, seconds: float = 1000) -> None:
    """Makes a file older."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(seconds * 1e9)))


@pytest.mark.usefixtures("undrawn")
def test_a_changed_file_costs_its_video_and_is_reported(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lus")
    run(tree, tmp_path)
    gray(200).save(tree / "p2/1/1/Frame_3.jpg", quality=100)
    remark = "1 video changed: video p2/1/1 is decoded again"
    dry = run(tree, tmp_path, dry_run=True)
    assert dry.numbers["to_decode"] == 1
    assert dry.notes == [remark]
    watch = Watch()
    run(tree, tmp_path, watch)
    assert watch.decoded == 13
    assert remark in caplog.text
    run(tree, tmp_path / "fresh")
    ours, fresh = tmp_path / "videos.h5", tmp_path / "fresh" / "videos.h5"
    assert ours.read_bytes() == fresh.read_bytes()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("seconds", [1000, 1e-6, -1000])
def test_a_touched_video_is_decoded_again_and_once(
    tree: Path, tmp_path: Path, seconds: float
) -> None:
    run(tree, tmp_path)
    before = VideoCache(tmp_path / "videos.h5").checksums
    for area in (1, 2):
        age(tree / f"p2/1/{area}/Frame_3.jpg", seconds)
    notes = run(tree, tmp_path, dry_run=True).notes
    assert notes == ["2 videos changed: video p2/1/1 and 1 more are decoded again"]
    for decoded in (27, 0):
        watch = Watch()
        run(tree, tmp_path, watch)
        assert watch.decoded == decoded
    assert VideoCache(tmp_path / "videos.h5").checksums == before


@pytest.mark.usefixtures("undrawn")
def test_it_says_what_it_does_again_and_why(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lus")
    run(tree, tmp_path)
    run(tree, tmp_path)
    assert "videos.h5 is up to date: nothing to decode" in caplog.text
    assert run(tree, tmp_path, dry_run=True).notes == ["the cache is up to date"]
    shutil.rmtree(tree / "p0/1/2")
    again = "frame settings changed from 32x32 gray to letterboxed 16x16 RGB: every video is decoded again"
    changed = {"size": 16, "letterbox": True, "color": True}
    gone = "video p0/1/2 is no longer in the study"
    assert run(tree, tmp_path, dry_run=True, **changed).notes == [again, gone]
    caplog.clear()
    run(tree, tmp_path, **changed)
    assert again in caplog.text
    assert gone in caplog.text


@pytest.mark.usefixtures("undrawn")
def test_a_video_that_cannot_be_decoded_costs_no_new_cache(tree: Path, tmp_path: Path) -> None:
    (tree / "p3/1/2/Frame_5.jpg").write_bytes(b"")
    run(tree, tmp_path)
    before = (tmp_path / "videos.h5").stat().st_ino
    result = run(tree, tmp_path)
    assert (tmp_path / "videos.h5").stat().st_ino == before
    assert "video p3/1/2" in result.problems[0]


@pytest.mark.usefixtures("undrawn")
def test_a_cache_that_is_up_to_date_is_cleaned_of_what_killed_runs_left(
    tree: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    run(tree, cache)
    whole = sorted(cache.rglob("*"))
    (cache / "videos.parts").mkdir()
    left = [dead_part(cache / name) for name in ("videos.h5", "split.json")]
    for path in (cache / "videos.parts/0123.video", *left):
        path.write_bytes(b"half")
    run(tree, cache)
    assert sorted(cache.rglob("*")) == whole


@pytest.mark.usefixtures("undrawn")
@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 here")
def test_frames_may_be_called_anything(tree: Path, tmp_path: Path) -> None:
    for path in add_video(tree).iterdir():
        path.rename(path.with_name(path.name.replace("Frame", os.fsdecode(b"Fr\xe9me"))))
    assert not run(tree, tmp_path).problems
    assert VideoId("p1", "1", "3") in VideoCache(tmp_path / "videos.h5").ids


@pytest.mark.usefixtures("undrawn")
def test_damage_is_not_carried_into_a_new_cache(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tree, tmp_path)
    path = tmp_path / "videos.h5"
    content = bytearray(path.read_bytes())
    content[content.index(VideoCache(path).raw_chunk(1, 0)) + 20] ^= 1
    path.write_bytes(content)
    add_video(tree)
    run(tree, tmp_path)
    assert "is damaged; rebuilding it" in caplog.text
    assert not verify(tmp_path).failed


@pytest.mark.usefixtures("undrawn")
def test_a_cache_that_another_program_holds_is_not_built_anew(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    before = (tmp_path / "videos.h5").read_bytes()
    add_video(tree)
    for dry_run in (True, False):
        with (
            held(tmp_path / "videos.h5"),
            pytest.raises(
                CannotReadError, match=r"videos\.h5 cannot be read .*: close the program"
            ),
        ):
            run(tree, tmp_path, dry_run=dry_run)
    assert (tmp_path / "videos.h5").read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_a_reader_never_mixes_two_caches(tree: Path, tmp_path: Path) -> None:
    """A worker process opens the file again, and it may have been replaced."""
    run(tree, tmp_path)
    reader = pickle.dumps(VideoCache(tmp_path / "videos.h5"))
    run(tree, tmp_path)
    assert len(pickle.loads(reader).read(0)) == 13
    add_video(tree)
    run(tree, tmp_path)
    with pytest.raises(LusError, match="was replaced while it was in use"):
        pickle.loads(reader).read(0)


@pytest.mark.usefixtures("undrawn")
def test_one_patient_under_two_names_is_pointed_out(tree: Path, tmp_path: Path) -> None:
    for patient in range(5):  # which look alike
        gray(10 * patient + 3).save(tree / f"p{patient}/1/1/Frame_0.jpg", quality=100)
        gray(10 * patient + 7).save(tree / f"p{patient}/1/2/Frame_0.jpg", quality=100)
    assert run(tree, tmp_path).notes == []
    shutil.copytree(tree / "p1", tree / "p7")
    with (tree / "Annotations.txt").open("a") as file:
        file.write("\np7/1/1;2\np7/1/2;3\n")
    assert run(tree, tmp_path, force=True).notes == [
        "videos p1/1/1 and p7/1/1 have the same frames, and so do 1 more pairs: "
        "does one patient have two ids?"
    ]


# ------------------------------------------------------------------------- what a disk can do to it


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pictures, which take longer than all the rest."""
    monkeypatch.setattr(prepare, "draw_figures", lambda *_: {})


def add_video(tree: Path) -> Path:
    """One more annotated video in the study; returns its folder."""
    folder = shutil.copytree(tree / "p1/1/1", tree / "p1/1/3")
    with (tree / "Annotations.txt").open("a") as file:
        file.write("\np1/1/3;0\n")
    return folder


def refused(tree: Path, cache: Path, watch: Watch | None = None) -> str:
    """The one line that `lus prepare` prints when it fails; the existing cache is unchanged."""
    before = (cache / "videos.h5").read_bytes()
    with pytest.raises(LusError) as caught:
        run(tree, cache, watch)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert (cache / "videos.h5").read_bytes() == before
    assert not list(cache.glob("*.part"))
    return str(caught.value)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("loss", ["a frame", "a folder", "everything", "a frame is rewritten"])
def test_what_vanishes_midway_leaves_the_cache_as_it_was(
    tree: Path, tmp_path: Path, loss: str
) -> None:
    cache = tmp_path / "cache"
    run(tree, cache)
    folder = add_video(tree)
    lose: dict[str, Callable[[], object]] = {
        "a frame": (folder / "Frame_7.jpg").unlink,
        "a folder": lambda: shutil.rmtree(folder),
        "everything": lambda: tree.rename(tmp_path / "unplugged"),
        "a frame is rewritten": lambda: gray(0).save(folder / "Frame_7.jpg"),
    }

    class LoseWhenDecodingBegins(Watch):
        def __call__(self, task: str, done: int, total: int | None = None, **facts: object) -> None:
            if task == "decode" and done == 0:
                lose[loss]()

    line = refused(tree, cache, LoseWhenDecodingBegins())
    assert "video p1/1/3" in line
    assert "changed while it was read" in line or "No such file" in line


@contextlib.contextmanager
def full_disk_under(path: Path) -> Iterator[None]:
    """Lets every byte that is written for `path` meet a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    touch = Path.touch

    def linked(part: Path, **options: Any) -> None:
        if part.parent == path.parent and part.name.startswith(f".{path.name}."):
            part.symlink_to("/dev/full")
        else:
            touch(part, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "touch", linked)
        yield


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("victim", ["shard", "videos.h5", "split.json"])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    tree: Path, tmp_path: Path, victim: str
) -> None:
    cache = tmp_path / "cache"
    run(tree, cache)
    (cache / "split.json").unlink()
    if victim != "split.json":
        add_video(tree)
    if victim == "shard":
        new = next(s for s in find_sources(tree, mask_text=False)[0] if s.id.area == "3")
        victim = f"videos.parts/{source_key(new, FrameFormat(32, False, False))}.video"
    with full_disk_under(cache / victim):
        line = refused(tree, cache)
    assert "cannot be written (No space left on device): free some space" in line
    run(tree, cache)
    run(tree, tmp_path / "fresh")
    resumed, fresh = (VideoCache(tmp_path / name / "videos.h5") for name in ("cache", "fresh"))
    assert resumed.checksums == fresh.checksums
    assert resumed.fingerprint == fresh.fingerprint


@contextlib.contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    """Makes folders read-only; root, whom permissions do not bind, becomes another user."""
    for folder in folders:
        folder.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions are others here")
@pytest.mark.parametrize("place", ["cache", "elsewhere/cache"])
def test_a_folder_that_cannot_be_written_is_one_line(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # another user may have no access to the parent folders
    run(Path("exams"), Path("cache"))
    add_video(tree)
    Path("elsewhere").mkdir()
    before = Path("cache/videos.h5").read_bytes()
    with (
        read_only(Path("cache"), Path("elsewhere")),
        pytest.raises(LusError, match="use a --cache you may write to") as caught,
    ):
        run(Path("exams"), Path(place))
    assert "\n" not in str(caught.value)
    assert Path("cache/videos.h5").read_bytes() == before


# ------------------------------------------------------------------------------------------- --verify


def verify(cache: Path) -> Result:
    return prepare.run(PrepareConfig(cache=cache, verify=True), silent)


@pytest.mark.usefixtures("undrawn")
def test_a_whole_cache_passes_and_says_how_far_it_is(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    shutil.rmtree(tree)  # it needs no source
    seen: list[tuple[str, int, int | None]] = []
    config = PrepareConfig(cache=tmp_path, verify=True)
    result = prepare.run(
        config, lambda task, done, total=None, **_: seen.append((task, done, total))
    )
    assert not result.failed
    assert result.numbers == {"videos": 10, "damaged": []}
    assert seen == [("verify", done, 10) for done in range(1, 11)]


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_video_is_named(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    path = tmp_path / "videos.h5"
    videos = VideoCache(path)
    chunk = videos.raw_chunk(1, 0)
    videos.file.close()
    content = bytearray(path.read_bytes())
    content[content.index(chunk) + len(chunk) // 2] ^= 1
    path.write_bytes(content)
    done = CliRunner().invoke(app, ["prepare", "--verify", "--cache", str(tmp_path)])
    assert done.exit_code == 1
    assert f"video {videos.ids[1]} is damaged" in done.output
    assert done.output.count("is damaged") == 1
    assert verify(tmp_path).numbers["damaged"] == [f"video {videos.ids[1]}"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("table", ["score", "patient", "frame_number", "frame_format"])
def test_a_changed_table_is_found(tree: Path, tmp_path: Path, table: str) -> None:
    run(tree, tmp_path)
    with h5py.File(tmp_path / "videos.h5", "r+") as file:
        if table == "frame_format":
            file.attrs[table] = file.attrs[table].replace("false", "true ", 1)
        else:
            values = file[table][:]
            values[0] = b"p9" if values.dtype.kind in "SO" else values[0] ^ 1
            file[table][:] = values
    named = "of ids, scores and settings" if table == "frame_format" else table
    with pytest.raises(LusError, match=f"its table {named} does not match its checksum"):
        verify(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_cut_cache_or_none_is_one_line(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(LusError, match="run `lus prepare` first"):
        verify(tmp_path)
    run(tree, tmp_path)
    path = tmp_path / "videos.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(LusError, match="is damaged"):
        verify(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_single_flipped_bit_anywhere_is_found(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    path = tmp_path / "videos.h5"
    whole = path.read_bytes()
    draw = random.Random(1)
    # Videos are small here: the beginning and the end are HDF5 structure, tables and the seal.
    places = [*draw.sample(range(4096), 60), *draw.sample(range(4096, len(whole)), 160)]
    found = Counter[str]()
    for place in [*places, len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            result = verify(tmp_path)
        except LusError as error:
            table = "its table of ids, scores and settings" in str(error)
            found["a table" if table else str(error).partition(" (")[0]] += 1
        else:
            assert result.failed, f"a flipped bit at {place} of {len(whole)}"
            found[result.numbers["damaged"][0].partition(" p")[0]] += 1
    assert found.keys() == {
        f"{path} is damaged",
        "a table",
        "video",
        "the HDF5 structure around videos and tables",
    }
    path.write_bytes(whole)
    assert not verify(tmp_path).failed
