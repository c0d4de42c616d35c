"""Folders are replaced whole, together, and only when asked."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import filelock
import pytest

from lus_cli.errors import AlreadyThereError, InUseError, LusError
from lus_cli.folders import (
    hidden,
    locked,
    only_writer,
    replacing_folder,
    replacing_folders,
    writers,
)
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


def test_a_refusal_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full" / "of").mkdir(parents=True)
    for name, error, remedy in (
        ("file", LusError, "name a folder"),
        ("full", AlreadyThereError, "name another folder, or replace it with --force"),
    ):
        with pytest.raises(error) as caught, replacing_folder(tmp_path / name, force=False):
            pass
        assert caught.value.remedy == remedy


def test_folders_above_are_made(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "not" / "yet" / "there", force=False) as part:
        (part / "new").touch()
    assert (tmp_path / "not" / "yet" / "there" / "new").is_file()


def test_a_disk_error_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(LusError, match=f"{tmp_path / 'file' / 'folder'} cannot be written"),
        replacing_folder(tmp_path / "file" / "folder", force=False),
    ):
        pass


def test_what_is_left_of_others_stays_and_of_ones_own_goes(tmp_path: Path) -> None:
    """A killed process may leave the old folder, a new one that is not complete, and its part."""
    (tmp_path / "a" / "old").mkdir(parents=True)
    for left in (hidden(tmp_path / "a", "old"), hidden(tmp_path / "b", "new")):
        (left / "deep").mkdir(parents=True)
    other = dead_part(tmp_path / "other")
    (other / "deep").mkdir(parents=True)
    with replacing_folders(tmp_path / "a", tmp_path / "b", force=True) as parts:
        for part in parts:
            (part / "new").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a", "b", other.name])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]


# ----------------------------------------------------------------------------------------- locks


def test_a_folder_that_is_being_replaced_has_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with replacing_folder(folder, force=True) as part:
        (part / "first").touch()
        assert (tmp_path / ".folder.lock").is_file()
        with (
            pytest.raises(InUseError, match=f"^process {os.getpid()} is writing to {folder}: wait"),
            replacing_folder(folder, force=True),
        ):
            pass
    assert [path.name for path in folder.iterdir()] == ["first"]


@pytest.mark.timeout(120)
def test_a_patient_writer_waits_for_the_other(tmp_path: Path) -> None:
    folder, begun = tmp_path / "folder", threading.Event()

    def write_first() -> None:
        with replacing_folder(folder, force=True) as part:
            (part / "first").touch()
            begun.set()
            waiting.wait(0.3)

    waiting = threading.Event()
    first = threading.Thread(target=write_first)
    first.start()
    begun.wait()
    with replacing_folder(folder, force=True, patience=100) as part:
        assert [path.name for path in folder.iterdir()] == ["first"]
        (part / "second").touch()
    first.join()
    assert [path.name for path in folder.iterdir()] == ["second"]


def test_writers_are_found_in_a_folder_and_in_those_below(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    me = f"process {os.getpid()}"
    assert writers(tmp_path) == []
    with only_writer(tmp_path / "runs" / "a"), locked(tmp_path / "runs" / ".b.lock", tmp_path):
        (tmp_path / "runs" / "a" / ".lock-holder").write_text("process 12")
        assert writers(tmp_path) == [me, "process 12"]
        assert writers(tmp_path / "runs" / "a") == ["process 12"]
        (tmp_path / "runs" / "a" / ".lock-holder").unlink()
        assert writers(tmp_path / "runs" / "a") == ["another lus"]
    assert (tmp_path / "runs" / "a" / ".lock").is_file()  # stays, and is held by nobody
    assert writers(tmp_path) == []


def test_a_lock_that_cannot_be_tried_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".a.lock").touch()
    acquire = filelock.FileLock.acquire

    def refuse_a(lock: filelock.FileLock, *args: float, **options: float) -> object:
        if Path(lock.lock_file).name == ".a.lock":
            raise PermissionError(errno.EACCES, "not yours")
        return acquire(lock, *args, **options)  # type: ignore[arg-type]

    with locked(tmp_path / ".b.lock", tmp_path):
        monkeypatch.setattr(filelock.FileLock, "acquire", refuse_a)
        assert writers(tmp_path) == [f"process {os.getpid()}"]
        with pytest.raises(
            LusError, match="cannot be written"
        ):  # not taken for a disk without locks
            locked(tmp_path / ".a.lock", tmp_path).__enter__()
    assert not list(tmp_path.glob("*-soft"))


def test_a_disk_without_locks_gets_a_file_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    soft = tmp_path / ".lock-soft"
    with only_writer(tmp_path):
        assert soft.is_file()
        assert writers(tmp_path) == [f"process {os.getpid()}"]
        with pytest.raises(InUseError) as caught, only_writer(tmp_path):
            pass
    assert caught.value.message == f"process {os.getpid()} is writing to {tmp_path}"
    assert caught.value.remedy == (
        f"wait for it to end; if it was killed on another machine, remove {soft}"
    )
    assert not soft.exists()
    assert writers(tmp_path) == []
