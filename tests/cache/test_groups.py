"""Groups of patients in the cache, and folds and test parts by group."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from lus_cli.cache.split import load_split
from lus_cli.cache.split_drawing import (
    draw_split,
    group_folds,
    group_members,
    patients_of_groups,
)
from lus_cli.cache.video_cache import FORMAT_VERSION, VideoCache
from lus_cli.cli import app
from lus_cli.errors import LusError, UsageError
from lus_cli.progress import silent
from lus_cli.steps import prepare
from tests.cache.test_video_cache import change
from tests.steps.test_prepare_reports import config, make_study

PATIENTS = ["b2", "a10", "c1", "a9", "b1", "a9"]
GROUPS = ["site 2", "site 10", "site 2", "site 10", "site 1", "site 10"]
SETTINGS = {"test_share": 0.2, "validation_share": 0.2, "stratify": False, "seed": 5}
NAMES = ["p1", "p2", "p3", "p4", "p5", "p6", "p7"]
SITES = ["north", "north", "north", "north", "north", "south", "south"]


# ------------------------------------------------------------------------------------------- drawing


def test_folds_by_group_are_the_groups_in_natural_order() -> None:
    folds = (("b1",), ("b2", "c1"), ("a9", "a10"))
    assert group_folds(PATIENTS, GROUPS) == folds
    assert list(group_members(PATIENTS, GROUPS)) == ["site 1", "site 2", "site 10"]
    split = draw_split(PATIENTS, np.arange(6) % 4, SETTINGS | {"folds": "group"}, (), GROUPS)
    assert split.folds == folds
    assert sorted(split.train + split.validation + split.test) == sorted(set(PATIENTS))
    numbered = draw_split(PATIENTS, np.arange(6) % 4, SETTINGS | {"folds": 0}, (), GROUPS)
    parts = (split.train, split.validation, split.test)
    assert parts == (numbered.train, numbered.validation, numbered.test)


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        (["", "", ""], "--folds group: the videos have no groups: add a column group"),
        (["x", "x", "x"], "--folds group: all videos are of group x: give a number of folds"),
    ],
)
def test_fewer_than_two_groups_are_no_folds(groups: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        group_folds(["1", "2", "3"], groups)


def test_a_patient_who_may_be_in_two_groups_is_named() -> None:
    with pytest.raises(LusError, match="patients P1 of group x and p01 of group y may be the same"):
        group_folds(["P1", "p01", "Q"], ["x", "y", "y"])
    assert group_folds(["P1", "p01", "Q"], ["x", "x", "y"]) == (("P1", "p01"), ("Q",))


def test_patients_of_test_groups() -> None:
    assert patients_of_groups(["site 10", "site 1"], PATIENTS, GROUPS) == ("a9", "a10", "b1")
    with pytest.raises(
        UsageError, match=r"no group site 3: its groups are site 1, site 2, site 10"
    ):
        patients_of_groups(["site 3", "site 1"], PATIENTS, GROUPS)
    with pytest.raises(UsageError, match="--test-groups: the videos have no groups: add a column"):
        patients_of_groups(["site 3"], ["1"], [""])


def test_no_patients_left_for_training_names_a_remedy_that_helps() -> None:
    with pytest.raises(
        LusError, match="none for training: name fewer test patients or test groups"
    ):
        draw_split(PATIENTS, np.zeros(6, int), SETTINGS | {"folds": 0}, PATIENTS)


# ------------------------------------------------------------------------------------------- prepare


def grouped_study(root: Path, sites: list[str], patients: list[str] = NAMES) -> Path:
    if not root.is_dir():
        make_study(root, patients, [n % 4 for n in range(len(patients))])
    rows = [f"{p},1,L1,{n % 4},{s}" for n, (p, s) in enumerate(zip(patients, sites, strict=True))]
    (root / "Annotations.txt").write_text("\n".join(["patient,exam,area,score,group", *rows]))
    return root


def test_prepare_draws_folds_by_group_and_draws_them_again_if_a_group_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, cache = grouped_study(tmp_path / "exams", SITES), tmp_path / "cache"
    prepare.run(config(root, cache, folds="group"), silent)
    split, edited = load_split(cache / "split.json")
    assert (split.folds, edited) == ((tuple(NAMES[:5]), tuple(NAMES[5:])), False)
    before = (cache / "split.json").read_bytes()
    prepare.run(config(root, cache, folds="group"), silent)
    assert (cache / "split.json").read_bytes() == before
    grouped_study(root, [*SITES[:4], "south", "south", "south"])
    with caplog.at_level(logging.INFO, "lus"):
        prepare.run(config(root, cache, folds="group"), silent)
    assert "the groups of the patients changed: " in caplog.text
    assert load_split(cache / "split.json")[0].folds == (tuple(NAMES[:4]), tuple(NAMES[4:]))
    assert VideoCache(cache / "videos.h5").groups == ["north"] * 4 + ["south"] * 3
    prepare.run(config(root, cache, folds=2), silent)
    folds = load_split(cache / "split.json")[0].folds
    assert sorted(map(len, folds)) == [3, 4]


@pytest.mark.parametrize("named", [(), ("p1",)])
def test_test_groups_are_in_test_and_with_share_0_nobody_else(
    tmp_path: Path, named: tuple[str, ...]
) -> None:
    root, cache = grouped_study(tmp_path / "exams", SITES), tmp_path / "cache"
    options = {"test_groups": ("south",), "test_patients": named or None}
    prepare.run(config(root, cache, test_share=0.0, **options), silent)
    assert load_split(cache / "split.json")[0].test == (*named, "p6", "p7")
    prepare.run(config(root, cache, test_share=0.5, **options), silent)
    test = load_split(cache / "split.json")[0].test
    assert len(test) == 4
    assert {*named, "p6", "p7"} < set(test)


def test_the_patients_of_the_report_are_in_test_only_if_no_group_is_named(tmp_path: Path) -> None:
    patients = ["1047", *NAMES[1:]]
    root = grouped_study(tmp_path / "exams", SITES, patients)
    prepare.run(config(root, tmp_path, test_share=0.0), silent)
    assert load_split(tmp_path / "split.json")[0].test == ("1047",)
    prepare.run(config(root, tmp_path, test_share=0.0, test_groups=("south",)), silent)
    assert load_split(tmp_path / "split.json")[0].test == ("p6", "p7")


def test_alike_patients_of_two_groups_stop_only_what_is_drawn_by_group(tmp_path: Path) -> None:
    patients = [*NAMES[:6], "P01"]
    root, cache = grouped_study(tmp_path / "exams", SITES, patients), tmp_path / "cache"
    result = prepare.run(config(root, cache), silent)
    assert "patients p1 and P01 may be the same patient" in result.notes[0].replace(
        "P01 and p1", "p1 and P01"
    )
    with pytest.raises(LusError, match=r"may be the same patient: give them one id and one group"):
        prepare.run(config(root, cache, folds="group"), silent)


def test_the_command_line_takes_group_and_says_what_else_it_takes(tmp_path: Path) -> None:
    root = grouped_study(tmp_path / "exams", SITES)
    start = ["prepare", str(root), "--size", "16", "--cache", str(tmp_path / "c"), "--json"]
    done = CliRunner().invoke(app, [*start, "--folds", "group", "--test-groups", "south, north"])
    assert done.exit_code == 1
    assert "name fewer test patients or test groups" in done.stderr
    done = CliRunner().invoke(app, [*start, "--folds", "group"])
    assert json.loads(done.stdout)["groups"]["south"] == {
        "patients": 2,
        "videos": 2,
        "scores": [0, 1, 1, 0],
    }
    done = CliRunner().invoke(app, [*start, "--folds", "groups"])
    assert done.exit_code == 2
    assert "it must be a number or patients, group" in done.stderr


# ------------------------------------------------------------------------------------------- videos.h5


def test_a_file_without_groups_opens_and_is_not_decoded_again(tmp_path: Path) -> None:
    """As every file did before lus knew groups: the table is written only if there are groups."""
    root, cache = make_study(tmp_path / "exams", NAMES, [0, 1, 2, 3, 0, 1, 2]), tmp_path / "cache"
    prepare.run(config(root, cache), silent)
    with h5py.File(cache / "videos.h5") as file:
        assert "group" not in file
        assert file.attrs["format_version"] == FORMAT_VERSION == 5
    assert VideoCache(cache / "videos.h5").groups == [""] * 7
    grouped_study(root, SITES)
    dry = prepare.run(config(root, cache, dry_run=True), silent)
    assert (dry.numbers["to_decode"], dry.numbers["up_to_date"]) == (0, False)
    prepare.run(config(root, cache), silent)
    videos = VideoCache(cache / "videos.h5")
    assert videos.groups == SITES
    assert [entry.group for entry in videos.entries] == SITES
    assert prepare.run(config(root, cache, dry_run=True), silent).numbers["up_to_date"]


@pytest.mark.parametrize("name", ["", "../other", "a\nb"])
def test_a_group_that_is_no_name_is_damage(tmp_path: Path, name: str) -> None:
    root = grouped_study(tmp_path / "exams", SITES)
    prepare.run(config(root, tmp_path), silent)
    change(tmp_path / "videos.h5", "group", [name, *SITES[1:]])
    with pytest.raises(LusError, match=r"videos.h5 is damaged \(a group is not a valid name\)"):
        VideoCache(tmp_path / "videos.h5").groups  # noqa: B018
