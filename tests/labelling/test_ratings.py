"""What is pressed stays: files of ratings, cut off at any byte, on a full disk, in two processes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lus_cli.errors import LusError, UsageError
from lus_cli.labelling.ratings import Rated, Rating, ratings_path, read_ratings, writing
from lus_cli.study.ids import VideoId


def rated(number: int, **rating: Any) -> Rated:
    return Rated(f"p/1/{number}", VideoId("p", "1", str(number)), 10, Rating(**rating))


def write(path: Path, *ratings: Rated) -> None:
    with writing(path, {"videos": "/study"}) as (log, _):
        for one in ratings:
            log.add(one)


def test_the_last_rating_of_a_video_counts_and_no_line_is_ever_changed(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    write(path, rated(1, score=1), rated(2, assessable=False, comment='ü, "x"\n'))
    before = path.read_bytes()
    write(path, rated(1, score=3, a_lines=True))
    assert path.read_bytes().startswith(before)
    read = read_ratings(path)
    assert read.by_file["p/1/1"] == rated(1, score=3, a_lines=True)
    assert read.by_file["p/1/2"].rating.comment == 'ü, "x"\n'
    assert read.session["videos"] == "/study"
    assert not read.notes


def test_a_file_cut_off_at_any_byte_keeps_every_complete_line(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    write(path, rated(1, score=1), rated(2, score=2, comment="größer"))
    whole = path.read_bytes()
    ends = [k for k, byte in enumerate(whole) if byte == 10]
    for length in range(ends[1] + 1, len(whole)):
        path.write_bytes(whole[:length])
        read = read_ratings(path)
        assert read.by_file["p/1/1"].rating.score == 1
        complete = length >= len(whole) - 1  # only the end of the line is missing
        assert ("p/1/2" in read.by_file) == complete
        assert bool(read.notes) == (not complete and length > ends[1] + 1)
        write(path, rated(3, score=0))
        after = read_ratings(path)
        assert after.by_file["p/1/3"].rating.score == 0
        assert ("p/1/2" in after.by_file) == complete
    assert "line 3 was cut off" in after.notes[0] if after.notes else True


def test_a_line_that_is_no_rating_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    write(path, rated(1, score=1))
    good = path.read_text()
    for change in ('"score": 7', '"score": "1"', '"score": true', '"score": 1, "assessable": 3'):
        path.write_text(good.replace('"score": 1, "assessable": true', change))
        with pytest.raises(LusError, match=r"anna\.jsonl, line 2 is not a rating"):
            read_ratings(path)


def test_a_press_is_synced_to_the_disk_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "anna.jsonl"
    synced: list[int] = []
    sync = os.fsync

    def watched(number: int) -> None:
        sync(number)
        synced.append(os.fstat(number).st_size)

    with writing(path, {}) as (log, _):
        monkeypatch.setattr(os, "fsync", watched)
        log.add(rated(1, score=1))
        assert synced == [path.stat().st_size]


def test_a_full_disk_is_an_error_and_the_next_press_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "anna.jsonl", os.write
    with writing(path, {}) as (log, _):
        log.add(rated(1, score=1))

        def half(number: int, content: bytes) -> int:
            real(number, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(LusError, match="cannot be written"):
            log.add(rated(2, score=2))
        monkeypatch.setattr(os, "write", real)
        log.add(rated(3, score=3))
    read = read_ratings(path)
    assert {file: r.rating.score for file, r in read.by_file.items()} == {"p/1/1": 1, "p/1/3": 3}
    assert len(read.notes) == 1


def test_a_second_process_may_not_write_to_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "anna.jsonl"
    with (
        writing(path, {}),
        pytest.raises(LusError, match=rf"process {os.getpid()} is writing to .*anna\.jsonl"),
        writing(path, {}),
    ):
        pass
    with writing(tmp_path / "ben.jsonl", {}), writing(path, {}):
        pass


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a b", "x" * 61])
def test_a_rater_is_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid rater"):
        ratings_path(tmp_path, name)


def test_other_values_are_no_rating() -> None:
    for values in ({"score": 4}, {"score": 1.0}, {"score": 1, "assessable": False}, {"a_lines": 1},
                   {"comment": None}, {"comment": "x" * 3000}, {"comment": "\ud800"}):  # fmt: skip
        with pytest.raises(ValueError, match="is"):
            Rating.of(values)
    assert Rating.of(json.loads('{"score": 0, "more": 1}')) == Rating(0)
