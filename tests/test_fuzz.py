"""Hostile input: read right or refused in one line. A short part of tests/stress/fuzz.py, and text
that Hypothesis makes up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from lus_cli.cache.split import load_split, read_split
from lus_cli.config import TrainConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.options import build, fields_of, read_toml
from lus_cli.recipes.recipe import Recipe
from lus_cli.study.annotations import SCORES, read_annotations, read_findings, write_annotations
from lus_cli.study.finding import find_sources
from lus_cli.study.ids import VideoId, is_name, natural_key, parse_frame_id
from lus_cli.study.label_tables import table_labels
from lus_cli.study.spellings import canonical
from tests.stress import fuzz, fuzz_sandbox
from tests.stress.fuzz_kinds import KINDS
from tests.stress.fuzz_sandbox import WrongError, run_all

ROOT = Path(__file__).parents[1]
CASES = 300
FEW = settings(max_examples=60, derandomize=True, deadline=None, database=None)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text")


def test_spoiled_files_are_read_right_or_refused(tmp_path: Path) -> None:
    # In a process of its own: a fork of one whose OpenMP threads have run would wait for them.
    command = [sys.executable, "-m", "tests.stress.fuzz", "--cases", str(CASES), "--seconds", "300"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tallies = json.loads((tmp_path / fuzz.RESULTS).read_text())["kinds"]
    assert [tally["kind"] for tally in tallies] == [kind.name for kind in KINDS]
    for tally in tallies:
        assert tally["counts"].get("read", 0) + tally["counts"].get("refused", 0) > 0, tally


def test_the_sandbox_sees_what_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_sandbox, "SECONDS", 2.0)
    most = fuzz_sandbox.resident(os.getpid())
    monkeypatch.setattr(fuzz_sandbox, "MOST_BYTES", most)

    def refuse(folder: Path) -> None:
        (folder / "inside").write_text("")
        raise LusError("it is damaged")

    def answer_wrong(folder: Path) -> None:
        raise WrongError("another frame")

    cases = {
        "read": lambda folder: None,
        "refused": refuse,
        "wrong": answer_wrong,
        "traceback": lambda folder: [][0],
        "forbidden": lambda folder: (tmp_path / "outside").write_text(""),
        "hang": lambda folder: time.sleep(60),
        "died": lambda folder: os._exit(3),
        "memory": lambda folder: bytearray(b"x") * most,
    }
    outcomes = list(run_all(list(cases.values()), tmp_path / "case"))
    assert [outcome.what for outcome in outcomes] == list(cases)
    assert [outcome.is_finding for outcome in outcomes] == [False] * 2 + [True] * 6


# ------------------------------------------------------------------------------ text, made up


def is_one_line(error: LusError) -> None:
    assert str(error).isprintable()


IDS = st.one_of(TEXT, st.lists(TEXT, min_size=3, max_size=4).map("/".join))
NAMES = TEXT.filter(
    lambda text: is_name(text) and text == text.strip() == canonical(text) and '"' not in text
)
VIDEOS = st.builds(VideoId, NAMES, NAMES, NAMES)


@FEW
@given(IDS)
def test_an_id_is_three_names_below_any_folder(text: str) -> None:
    root = Path("/cache").absolute()
    try:
        video = VideoId.parse(text)
    except UsageError as error:
        is_one_line(error)
        return
    assert root.joinpath(*video).parent.parent.parent == root
    assert VideoId.parse(str(video)) == video


@FEW
@given(IDS)
def test_a_frame_id_is_a_video_and_a_number(text: str) -> None:
    try:
        video, frame = parse_frame_id(text)
    except UsageError:
        return
    assert parse_frame_id(f"{video}/{frame}") == (video, frame)


@FEW
@given(st.dictionaries(VIDEOS, st.sampled_from(SCORES), min_size=1, max_size=5))
def test_annotations_of_any_names_read_back(folder: Path, scores: dict[VideoId, int]) -> None:
    path = folder / "Annotations.txt"
    write_annotations(path, scores.items())
    assert read_annotations(path) == scores


@FEW
@given(st.one_of(st.binary(max_size=80), TEXT.map(str.encode)), st.sampled_from(["txt", "csv"]))
def test_any_annotations_are_scores_or_one_line(folder: Path, content: bytes, suffix: str) -> None:
    path = folder / f"any.{suffix}"
    path.write_bytes(content)
    try:
        read = read_annotations(path)
    except LusError as error:
        is_one_line(error)
    else:
        assert all(score in SCORES for score in read.values())


CELLS = st.one_of(TEXT, st.sampled_from(["1017", "1", "2", "yes", "../a", "/a", "", '"', "a\0b"]))


@FEW
@given(st.lists(st.lists(CELLS, min_size=4, max_size=6), max_size=4))
def test_any_table_is_rows_or_one_line(folder: Path, rows: list[list[str]]) -> None:
    lines = "\n".join(",".join(row) for row in rows)
    for header, read in (
        ("file,patient,exam,area,score", lambda path: list(table_labels(path))),
        ("patient,exam,area,a_lines,b_lines", read_findings),
    ):
        path = folder / "table.csv"
        path.write_text(f"{header}\n{lines}", encoding="utf-8")
        try:
            found = read(path)
        except LusError as error:
            is_one_line(error)
            continue
        for _, label in found if isinstance(found, list) else ():
            assert (folder / label.file).resolve().is_relative_to(folder.resolve())
            assert all(map(is_name, label.video))


NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(10**300, 10**400))
VALUES = st.one_of(TEXT, NUMBERS, st.booleans(), st.lists(st.one_of(TEXT, NUMBERS), max_size=3))


@FEW
@given(st.dictionaries(st.sampled_from([*fields_of(TrainConfig)]), VALUES, max_size=4))
def test_any_recipe_is_in_range_or_one_line(folder: Path, values: dict[str, Any]) -> None:
    path = folder / "recipe.toml"
    path.write_text(tomlkit.dumps(values), encoding="utf-8")
    try:
        config = build(TrainConfig, read_toml(path), str(path))
    except UsageError as error:
        is_one_line(error)
        return
    assert 1 <= config.hidden <= 4096
    assert 0 <= config.learning_rate <= 10
    assert isinstance(config.weights, str)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, st.sampled_from(["a", "b", "c"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
GROUP = st.one_of(st.lists(st.sampled_from(["a", "b", "c", "d", 7]), max_size=2), JSON)
SPLITS = st.fixed_dictionaries(
    {"train": GROUP, "validation": GROUP, "test": GROUP},
    optional={"folds": st.one_of(st.lists(GROUP, max_size=3), JSON), "drawn_by": JSON},
)


@settings(FEW, max_examples=200)
@given(st.one_of(SPLITS, JSON))
def test_any_split_keeps_patients_apart_or_is_one_line(folder: Path, content: Any) -> None:
    path = folder / "split.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    patients = ["a", "b", "c"]
    try:
        load_split(path)
        split, _ = read_split(path, patients)
    except LusError as error:
        is_one_line(error)
        return
    assert sorted(split.train + split.validation + split.test) == patients


@pytest.mark.parametrize("name", ["p\x85", "p\u2028", os.fsdecode(b"p\xff"), "p\x9b31m"])
def test_a_folder_that_no_table_could_name_is_no_patient(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "1" / "a").mkdir(parents=True)
    (tmp_path / name / "1" / "a" / "1.png").write_bytes(b"")
    _, problems = find_sources(tmp_path, mask_text=False)
    assert len(problems) == 1
    assert "or control characters" in problems[0]
    assert problems[0].isprintable()


@pytest.mark.parametrize("digits", [4299, 5000, 100_000])
def test_a_patient_of_many_digits_is_sorted(digits: int) -> None:
    assert natural_key("9" * digits) < natural_key("1" + "0" * digits) < natural_key("a")


@pytest.mark.parametrize(
    "text", ["epochs = " + "9" * 5000, "x = " + "[" * 20_000, "epochs = 1" + "0" * 400]
)
def test_toml_that_python_will_not_read_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"is not TOML|from 1 to") as caught:
        build(Recipe, read_toml(path), "r.toml")
    assert len(str(caught.value)) < 3000
