"""Artifacts are whole or not there, and errors of the disk are one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lus_cli.cache import Cache, fingerprint, read_json, replacing, write_json
from lus_cli.errors import LusError, UsageError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with replacing(path) as part:
        part.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_a_disk_does_is_one_line_with_a_remedy(tmp_path: Path, code: int) -> None:
    with pytest.raises(LusError, match="cannot be written") as caught, replacing(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert "--cache" in caught.value.remedy


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a\x00b"])
def test_a_runs_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a run"):
        Cache(tmp_path).new_run(name)


def test_an_unknown_run_names_those_there_are(tmp_path: Path) -> None:
    for name in ("paper-1", "paper-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    with pytest.raises(LusError, match="runs are paper-1, paper-2"):
        Cache(tmp_path).run("paper-3")
    with pytest.raises(LusError, match="no run is the latest"):
        Cache(tmp_path).run(None)
    (tmp_path / "latest").write_text("paper-2\n")
    assert Cache(tmp_path).run(None).name == "paper-2"


def test_json_is_readable_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(tmp_path / "x.json", "") == {"a": 1}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json", "") == {"a": 1}


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_what_is_no_json_object_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(LusError, match="do this"):
        read_json(tmp_path / "x.json", "do this")


def test_fingerprints_are_of_values_not_of_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
