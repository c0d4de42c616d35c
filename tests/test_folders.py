"""Folders are replaced whole, together, and only when asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from lus_cli.errors import LusError
from lus_cli.folders import hidden, replacing_folder, replacing_folders
from tests.conftest import dead_part


def test_a_folder_is_replaced_only_by_force_and_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with replacing_folder(path, force=False) as part:
        (part / "a").touch()
    with pytest.raises(LusError, match="already exists"), replacing_folder(path, force=False):
        pass
    with pytest.raises(RuntimeError), replacing_folder(path, force=True) as part:
        (part / "b").touch()
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["a"]
    with replacing_folder(path, force=True) as part:
        (part / "b").touch()
    assert [p.name for p in path.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_nothing_with_a_name_of_ones_own_is_touched(tmp_path: Path) -> None:
    for name in ("folder", "folder.old", "folder.part", "folder.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    with replacing_folder(tmp_path / "folder", force=True) as part:
        (part / "new").touch()
    left = {p.name: [f.name for f in p.iterdir()] for p in tmp_path.iterdir()}
    assert left == {
        "folder": ["new"],
        **{f"folder.{what}": ["mine"] for what in ("old", "part", "new")},
    }


def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "disk" / "study").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "study")
    for name in ("first", "second"):
        with replacing_folder(tmp_path / "link", force=True) as part:
            (part / name).touch()
    assert (tmp_path / "link").is_symlink()
    assert [p.name for p in (tmp_path / "disk" / "study").iterdir()] == ["second"]


@pytest.mark.parametrize("existing", ["a", "b"])
def test_of_several_none_is_replaced_when_one_may_not_be(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).mkdir()
    (tmp_path / existing / "mine").touch()
    with (
        pytest.raises(LusError, match=f"{existing} already exists"),
        replacing_folders(tmp_path / "a", tmp_path / "b", force=False),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [existing]
    with replacing_folders(tmp_path / "a", tmp_path / "b", force=True) as parts:
        for part in parts:
            (part / "new").touch()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "a", "a/new", "b", "b/new"
    ]  # fmt: skip


def test_of_several_an_empty_one_leaves_nothing_in_its_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    with replacing_folders(tmp_path / "a", tmp_path / "b", force=True) as [part, _]:
        (part / "new").touch()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["a", "a/new"]


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (hidden(tmp_path / "folder", "old") / "deep").mkdir(parents=True)
    (dead_part(tmp_path / "folder") / "deep").mkdir(parents=True)
    with replacing_folder(tmp_path / "folder", force=False) as part:
        assert not any(part.iterdir())
        (part / "new").touch()
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_no_place_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(LusError, match="is a file"),
        replacing_folder(tmp_path / "file", force=True),
    ):
        pass
