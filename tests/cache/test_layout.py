"""Artifacts are complete or absent, and errors of the disk are one line."""

from __future__ import annotations

import errno
import inspect
import os
import re
from pathlib import Path

import pytest

from lus_cli.cache.layout import Cache, Run
from lus_cli.errors import LusError, UsageError
from lus_cli.files import fingerprint, read_json, replacing, wait_for_disk, write_json
from lus_cli.folders import locked, only_writer


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "very" / "deep" / "file"
    with replacing(path) as part:
        assert part.parent == path.parent
        assert part.suffix == ".part"  # a name that no reader takes for a complete file
        part.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


# What earlier versions left, and other programs read: a name is changed only with a way to go on.
IN_A_CACHE = """
    exams/ videos.h5 split.json figures/ features/ runs/ comparisons/ crossvals/ models/ latest
    videos-README.md labels/
"""
IN_A_RUN = """
    config.toml provenance.json split.json epochs.csv last.pt best.safetensors model-card.md
    export/ evaluation/ attention/ predictions/ doubtful-labels.csv result.json
"""


@pytest.mark.parametrize(("kind", "names"), [(Cache, IN_A_CACHE), (Run, IN_A_RUN)])
def test_a_cache_made_before_is_found(
    tmp_path: Path, kind: type[Cache] | type[Run], names: str
) -> None:
    for name in names.split():
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    properties = [n for n, _ in inspect.getmembers(kind, lambda m: isinstance(m, property))]
    values = [getattr(kind(tmp_path), name) for name in properties]
    artifacts = [value for value in values if isinstance(value, Path)]
    assert sorted(artifacts) == sorted(tmp_path.iterdir())


def test_each_part_of_a_run_is_evaluated_into_a_folder_of_its_own(tmp_path: Path) -> None:
    assert Run(tmp_path).evaluation("test") == tmp_path / "evaluation" / "test"


def test_what_is_moved_into_place_is_on_the_disk_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut may leave an empty file."""
    path = tmp_path / "file"
    synced = []
    monkeypatch.setattr(os, "fsync", lambda n: synced.append((os.fstat(n).st_ino, path.exists())))
    with replacing(path) as part:
        part.write_text("content")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]
    with replacing(path, lasting=False) as part:
        part.write_text("content")
    assert len(synced) == 2


def failing_to_sync(code: int) -> object:
    def fsync(number: int) -> None:
        raise OSError(code, os.strerror(code))

    return fsync


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EROFS])
def test_a_disk_that_cannot_be_waited_for_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing_to_sync(code))
    write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(tmp_path / "x.json", "") == {"a": 1}


def test_a_disk_that_fails_while_it_is_waited_for_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = []

    def fsync(number: int) -> None:
        numbers.append(number)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LusError, match="the disk is failing"):
        write_json(tmp_path / "x.json", {"a": 1})
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(numbers[0])


def test_where_folders_cannot_be_synced_nothing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        wait_for_disk(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        wait_for_disk(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "--cache"),
        (errno.EIO, "--cache"),
        (errno.EACCES, "--cache you may write to"),
        (errno.EPERM, "--cache you may write to"),
        (errno.EROFS, "--cache"),
        (errno.ENOTDIR, "a file is where a folder should be"),
        (errno.EEXIST, "a file is where a folder should be"),
        (errno.EISDIR, "a folder is where a file should be"),
        (errno.ENAMETOOLONG, "shorter"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_what_a_disk_does_is_one_line_with_a_remedy(tmp_path: Path, code: int, remedy: str) -> None:
    with pytest.raises(LusError) as caught, replacing(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert caught.value.message == f"{tmp_path / 'x'} cannot be written ({os.strerror(code)})"
    assert remedy in caught.value.remedy


def test_what_the_user_cannot_put_right_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a bug") as caught, replacing(tmp_path / "x"):
        raise OSError(errno.EBADF, "a bug")
    assert not isinstance(caught.value, LusError)


def test_a_file_or_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(LusError) as caught, only_writer(tmp_path / "file"):
        pass
    assert caught.value.message.startswith(f"{tmp_path / 'file'} cannot be written")
    assert caught.value.remedy == "a file is where a folder should be"
    with pytest.raises(LusError, match="a file is where a folder"):
        write_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(LusError, match="a folder is where a file"):
        write_json(tmp_path / "folder", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_second_writer_is_told_of_the_first(tmp_path: Path) -> None:
    root = tmp_path / "not yet" / "there"
    with only_writer(root):
        with pytest.raises(LusError) as caught, only_writer(root):
            pass
        assert caught.value.message == f"process {os.getpid()} is writing to {root}"
        assert caught.value.remedy
        (root / ".lock-holder").unlink()  # as if it had the lock but had not yet written its number
        with pytest.raises(LusError, match="another lus is writing to"), only_writer(root):
            pass
    with only_writer(root):
        assert (root / ".lock-holder").read_text() == f"process {os.getpid()}"
    assert [path.name for path in root.iterdir()] == [".lock"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_lock_is_given_back_by_a_writer_that_fails(tmp_path: Path, keep: bool) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError), locked(tmp_path / "lock", tmp_path, keep):
            assert (tmp_path / "lock").is_file()
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == (["lock"] if keep else [])


def test_a_lock_stays_unless_it_is_not_to_be_kept(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", tmp_path):
        pass
    assert (tmp_path / "lock").is_file()


def test_a_lock_where_no_file_can_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(LusError) as caught, locked(tmp_path / "lock", tmp_path):
        pass
    assert caught.value.message.startswith(f"{tmp_path / 'lock'} cannot be written")


def test_a_lock_that_cannot_say_who_holds_it_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "lock-holder").mkdir()
    with pytest.raises(LusError) as caught, locked(tmp_path / "lock", tmp_path):
        pass
    assert caught.value.message.startswith(f"{tmp_path / 'lock'} cannot be written")


def test_a_lock_that_is_removed_while_it_is_held_is_no_error(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", tmp_path, keep=False):
        (tmp_path / "lock").unlink()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a\x00b"])
def test_a_runs_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid run name") as caught:
        Cache(tmp_path).new_run(name)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["x", "x" * 100, "4", "_", "a-b.c", "Ünïcode"])
def test_a_run_may_have_any_other_name(tmp_path: Path, name: str) -> None:
    assert Cache(tmp_path).new_run(name).root == tmp_path / "runs" / name


def test_an_unknown_run_names_those_there_are(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(LusError, match=r"there is no trained run in .*run `lus train` first"):
        cache.run(None)
    for name in ("paper-2", "paper-10", "paper-1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "notes.txt").touch()  # a file is not a run
    with pytest.raises(
        LusError, match=r"no run 'paper-3' in .*runs: paper-1, paper-10, paper-2 \(`lus runs`"
    ):
        cache.run("paper-3")
    with pytest.raises(LusError, match="latest run is unknown: name one with --run; runs: paper-1"):
        cache.run(None)
    cache.latest.write_text("paper-2\n")
    assert cache.run(None) == cache.run("paper-2") == cache.new_run("paper-2")
    assert cache.run("paper-1").name == "paper-1"
    cache.latest.write_text("paper-3\n")
    with pytest.raises(LusError, match="no run 'paper-3'"):
        cache.run(None)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\n", "the latest run is unknown"),
        (b"../x", "is not a valid run name"),
        (b"\xff", "is not a valid run name"),
    ],
)
def test_a_spoilt_note_of_the_latest_run_is_one_line(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / "runs" / "paper-1").mkdir(parents=True)
    (tmp_path / "latest").write_bytes(content)
    with pytest.raises(LusError, match=complaint):
        Cache(tmp_path).run(None)


def test_json_is_readable_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(tmp_path / "x.json", "") == {"a": 1}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json", "") == {"a": 1}


def test_json_is_written_for_people_and_for_git(tmp_path: Path) -> None:
    """One value per line, text of any language unescaped, the same bytes on every system."""
    write_json(tmp_path / "x.json", {"patient": "Müller"})
    assert (tmp_path / "x.json").read_bytes() == '{\n  "patient": "Müller"\n}\n'.encode()


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"Fr\xe9me.png")
    write_json(tmp_path / "x.json", {name: 1})
    assert read_json(tmp_path / "x.json", "") == {name: 1}
    assert fingerprint(name) != fingerprint(os.fsdecode(b"Fr\xe8me.png"))
    with pytest.raises(UsageError, match=r"--cache .*Fr\?me.png: its name is not valid UTF-8: use"):
        Cache(tmp_path / name)


def test_json_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"patient": "Müller"}', encoding="utf-8-sig")
    assert read_json(tmp_path / "x.json", "") == {"patient": "Müller"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "is not JSON (Expecting value: line 1"),
        (b"[1]", "does not contain a JSON object"),
        (b"{", "is not JSON (Expecting property name"),
        (b"\x00", "is not JSON (Expecting value"),
        (b"\xff", "is not JSON ('utf-8' codec can't decode"),
        (b"[" * 10**6, "is not JSON (maximum recursion depth exceeded"),
    ],
    ids=["empty", "list", "cut", "zero", "no text", "deep"],
)
def test_what_is_no_json_object_is_one_line(tmp_path: Path, text: bytes, complaint: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text)
    with pytest.raises(LusError, match=re.escape(f"{path} {complaint}")) as caught:
        read_json(path, "do this")
    assert caught.value.remedy == "do this"


def test_json_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LusError, match=f"there is no {tmp_path / 'x.json'}: do this"):
        read_json(tmp_path / "x.json", "do this")
    with pytest.raises(LusError, match="cannot be read: Is a directory"):
        read_json(tmp_path, "do this")

    def refuse(*_: object, **__: object) -> str:
        raise OSError("the share is gone")  # without a number, as some file systems have it

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(LusError, match="cannot be read: the share is gone"):
        read_json(tmp_path, "do this")


def test_fingerprints_are_of_values_not_of_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_fingerprints_are_those_that_earlier_versions_wrote_down() -> None:
    """In every split.json and every videos.h5: with another, all would count as edited."""
    assert fingerprint({"b": "ä", "a": [1, 2.5]}) == "ebe3c4326823e93c"
    with pytest.raises(ValueError, match="Out of range"):
        fingerprint([float("nan")])


def test_json_too_large_to_be_ours_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    with path.open("wb") as file:
        file.truncate((256 << 20) + 1)  # a hole: no disk is taken
    with pytest.raises(LusError, match="is larger than 256 MB: correct it"):
        read_json(path, "correct it")


def test_an_unknown_cross_validation_names_those_there_are(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for name in ("standard-1", "demo-1", "standard-cv-1-r1-f1", "standard-cv-1-r1-f2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    crossval = cache.crossval("standard-cv-1")
    crossval.root.mkdir(parents=True)
    (crossval.root / "plan.json").touch()
    with pytest.raises(LusError) as caught:
        cache.trained("standard-cv-9")
    assert caught.value.remedy == (
        "did you mean 'standard-cv-1'? cross-validations: standard-cv-1; runs: demo-1, standard-1 "
        "(`lus runs --folds` lists the folds)"
    )
    with pytest.raises(LusError) as caught:
        cache.run("standard-2")  # of a command that takes no cross-validation
    assert caught.value.remedy == (
        "did you mean 'standard-1'? runs: demo-1, standard-1 (`lus runs --folds` lists the folds)"
    )
    for name in ("standard-cv-1", "crossvals/standard-cv-1", "crossvals/standard-cv-1/"):
        assert cache.trained(name) == cache.crossval(name) == crossval
    with pytest.raises(LusError, match="standard-cv-1 is a cross-validation, not a run"):
        cache.run("crossvals/standard-cv-1")
    with pytest.raises(LusError, match="there is no run 'standard-cv-9'"):
        cache.trained("crossvals/standard-cv-9")
    with pytest.raises(LusError, match=r"there is no run at crossvals/\.\./x"):
        cache.trained("crossvals/../x")
