"""The messages of `lus prepare` on videos left out, changed scores, and similar patient ids."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lus_cli.cache.split import load_split
from lus_cli.cache.split_drawing import draw_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.cli import app
from lus_cli.config import PrepareConfig
from lus_cli.crossval.repetitions import draw_repeats, folds_of
from lus_cli.errors import LusError
from lus_cli.progress import silent
from lus_cli.steps import prepare

SETTINGS = {"test_share": 0.2, "validation_share": 0.2, "stratify": False, "folds": 3, "seed": 5}


def make_study(root: Path, patients: list[str], scores: list[int]) -> Path:
    """One video of two frames a patient, no two alike."""
    for number, patient in enumerate(patients):
        folder = root / patient / "1" / "L1"
        folder.mkdir(parents=True)
        for frame in range(2):
            shade = np.full((16, 16), 10 * number + 60 * frame, np.uint8)
            Image.fromarray(shade).save(folder / f"Frame_{frame}.png")
    annotate(root, patients, scores)
    return root


def annotate(root: Path, patients: list[str], scores: list[int]) -> None:
    lines = [f"{p}/1/L1;{score}\n" for p, score in zip(patients, scores, strict=True)]
    (root / "Annotations.txt").write_text("".join(lines), encoding="utf-8")


def config(root: Path, cache: Path, **changes: object) -> PrepareConfig:
    settings = {"size": 16, "workers": 1, "folds": 0} | changes
    return PrepareConfig(exams=root, cache=cache, **settings)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- what is left out


def test_a_part_without_patients_says_what_was_left_out(tmp_path: Path) -> None:
    root = make_study(tmp_path / "exams", ["a", "b", "c"], [0, 1, 2])
    for patient in ("a", "b"):
        (root / patient / "1" / "L1" / "Frame_1.png").write_bytes(b"")
    with pytest.raises(LusError) as caught:
        prepare.run(config(root, tmp_path / "cache"), silent)
    text = str(caught.value)
    assert "1 patient leaves none for training" in text
    assert "1 video of 1 patient can be read; 2 problems left others out" in text
    assert "video a/1/L1" in text
    assert [line.split(":")[0] for line in caught.value.left_out] == [
        "video a/1/L1",
        "video b/1/L1",
    ]


def test_a_test_patient_whose_videos_cannot_be_read_is_explained(tmp_path: Path) -> None:
    root = make_study(tmp_path / "exams", ["a", "b", "c", "d"], [0, 1, 2, 3])
    (root / "a/1/L1/Frame_1.png").write_bytes(b"")
    with pytest.raises(LusError, match=r"the study has no patient a; 3 videos of 3 .*it is empty"):
        prepare.run(config(root, tmp_path / "cache", test_patients=("a",)), silent)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_left_out_list_is_shown_when_the_split_fails(tmp_path: Path, as_json: bool) -> None:
    root = make_study(tmp_path / "exams", ["a", "b", "c"], [0, 1, 2])
    for patient in ("a", "b"):
        (root / patient / "1" / "L1" / "Frame_1.png").write_bytes(b"")
    arguments = ["prepare", str(root), "--size", "16", "--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(app, arguments + ["--json"] * as_json)
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert sum(line.startswith("left out video") for line in lines) == 2
    assert lines[-1].startswith("error 1 patient leaves none")
    if as_json:
        assert len(json.loads(done.stdout)["problems"]) == 2


# ------------------------------------------------------------------------------------ changed scores


def test_a_changed_score_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    patients = ["a", "b", "c", "d", "e"]
    root = make_study(tmp_path / "exams", patients, [0, 1, 2, 3, 3])
    cache = tmp_path / "cache"
    prepare.run(config(root, cache), silent)
    annotate(root, patients, [0, 1, 2, 3, 2])
    dry = prepare.run(config(root, cache, dry_run=True), silent)
    assert dry.notes == ["1 score changed: e/1/L1 3 -> 2"]
    assert dry.numbers["scores_changed"] == ["e/1/L1 3 -> 2"]
    with caplog.at_level(logging.INFO, "lus"):
        prepare.run(config(root, cache), silent)
    assert "1 score changed: e/1/L1 3 -> 2" in caplog.text
    assert VideoCache(cache / "videos.h5").scores.tolist() == [0, 1, 2, 3, 2]
    assert prepare.run(config(root, cache, dry_run=True), silent).notes == [
        "the cache is up to date"
    ]


def test_of_many_changed_scores_the_first_are_named_and_all_with_v(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    patients = [f"p{number}" for number in range(8)]
    root = make_study(tmp_path / "exams", patients, [0] * 8)
    prepare.run(config(root, tmp_path / "cache"), silent)
    annotate(root, patients, [1] * 8)
    with caplog.at_level(logging.DEBUG, "lus"):
        dry = prepare.run(config(root, tmp_path / "cache", dry_run=True), silent)
    assert dry.notes[0].startswith("8 scores changed: p0/1/L1 0 -> 1, p1/1/L1 0 -> 1, ")
    assert dry.notes[0].endswith("p4/1/L1 0 -> 1 and 3 more (-v)")
    assert caplog.text.count("score changed: p") == 8


# ----------------------------------------------------------------------------------- patients alike


@pytest.mark.parametrize("seed", range(8))
def test_patients_spelt_alike_are_never_apart(seed: int) -> None:
    patients = ["P01", "p01", "P1", "1017", "1017.0", "Q", "R", "S", "T", "U"]
    scores = np.arange(len(patients)) % 4
    split = draw_split(patients, scores, SETTINGS | {"seed": seed}, ["1017"])
    assert sorted(split.train + split.validation + split.test) == sorted(patients)
    assert {"1017", "1017.0"} <= set(split.test)
    places = [split.train, split.validation, split.test]
    folds = folds_of(split, draw_repeats(split, patients, scores, 2), patients, scores)
    for fold in folds:
        parts = (fold.split.train, fold.split.validation, fold.split.test)
        assert sorted(sum(parts, ())) == sorted(patients)
        places += parts
    for group in ({"P01", "p01", "P1"}, {"1017", "1017.0"}):
        assert all(len(group & set(place)) in (0, len(group)) for place in places)


def test_patients_spelt_alike_are_named(tmp_path: Path) -> None:
    patients = ["a", "b", "c", "d", "e", "A "]
    root = make_study(tmp_path / "exams", patients, [0, 1, 2, 3, 0, 1])
    dry = prepare.run(config(root, tmp_path, dry_run=True), silent)
    assert dry.notes == ["patients A and a may be the same patient: if so, give them one id"]
    result = prepare.run(config(root, tmp_path), silent)
    said = "patients A and a may be the same patient: if so, give them one id; they are kept in one part"
    assert result.notes == [said]
    path = tmp_path / "split.json"
    split = json.loads(path.read_text())
    split["train"], split["validation"], split["test"] = ["a", "b"], ["c", "d"], ["e", "A"]
    path.write_text(json.dumps(split))
    result = prepare.run(config(root, tmp_path), silent)
    assert "split.json, edited by hand, has them in different parts" in result.notes[0]


def test_a_split_from_before_that_tears_a_patient_is_drawn_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    patients = ["a", "b", "c", "d", "e", "A "]
    root = make_study(tmp_path / "exams", patients, [0, 1, 2, 3, 0, 1])
    prepare.run(config(root, tmp_path), silent)
    split, _ = load_split(tmp_path / "split.json")
    torn = prepare.Split(("a", "b"), ("c", "d"), ("e", "A"), (), split.drawn_by)
    prepare.write_split(tmp_path / "split.json", torn)
    prepare.run(config(root, tmp_path), silent)
    assert "is drawn again" in caplog.text
    again, _ = load_split(tmp_path / "split.json")
    assert again == split


# ------------------------------------------------------------------------------------ frames by time


def test_frames_named_by_times_are_stored_in_their_order_and_said(tmp_path: Path) -> None:
    root = make_study(tmp_path / "exams", ["a", "b", "c", "d", "e"], [0, 1, 2, 3, 0])
    folder = root / "a/1/L1"
    shutil.rmtree(folder)
    folder.mkdir()
    for position, name in enumerate(("10-15-30.950", "10-15-31.010", "10-15-31.070")):
        Image.new("L", (16, 16), 50 * position).save(folder / f"{name}.png")
    result = prepare.run(config(root, tmp_path), silent)
    videos = VideoCache(tmp_path / "videos.h5")
    assert videos.read(0)[:, 8, 8].tolist() == [0, 50, 100]
    assert len(result.notes) == 1
    assert "video a/1/L1: the last number" in result.notes[0]
    assert "ordered by the times" in result.notes[0]


@pytest.mark.parametrize("largest", [200, 1023, 4095])
def test_a_video_of_16_bits_that_hold_fewer_is_refused(tmp_path: Path, largest: int) -> None:
    root = make_study(tmp_path / "exams", ["a", "b", "c", "d", "e"], [0, 1, 2, 3, 0])
    for path in (root / "a/1/L1").iterdir():
        Image.fromarray(np.full((16, 16), largest, np.uint16)).save(path)
    # Their whole range is used, but in one small place.
    for path in (root / "b/1/L1").iterdir():
        values = np.full((512, 512), 200, np.uint16)
        values[:8, :8] = 65535
        Image.fromarray(values).save(path, format="PNG")
    result = prepare.run(config(root, tmp_path), silent)
    assert len(result.problems) == 1
    assert "video a/1/L1" in result.problems[0]
    assert f"16 bits per pixel, but their largest value is {largest}" in result.problems[0]


def test_a_black_video_is_left_out(tmp_path: Path) -> None:
    root = make_study(tmp_path / "exams", ["a", "b", "c", "d", "e"], [0, 1, 2, 3, 0])
    for path in (root / "a/1/L1").iterdir():
        Image.new("L", (16, 16)).save(path)
    first, *_ = (root / "b/1/L1").iterdir()
    Image.new("L", (16, 16)).save(first)  # one black frame is a frame
    result = prepare.run(config(root, tmp_path), silent)
    assert len(result.problems) == 1
    assert "video a/1/L1: all its frames are black" in result.problems[0]
