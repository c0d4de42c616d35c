"""Where times deceive, content decides; and where they do not, nothing is read."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lus_cli.cache import ledger
from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.ledger import (
    Reading,
    read_ledger,
    sizes_of,
    take_reading,
    take_readings,
    write_ledger,
)
from lus_cli.errors import LusError
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import Source, open_source

FORMAT = FrameFormat(16, False, False)
VIDEO = VideoId("p", "1", "a")


def frames(root: Path, *contents: bytes) -> Source:
    folder = root.joinpath(*VIDEO)
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number}.jpg").write_bytes(content)
    return open_source("frames", VIDEO, root, folder, mask_text=False)


def test_a_reading_is_of_names_sizes_and_content_not_of_times(tmp_path: Path) -> None:
    first = take_reading(frames(tmp_path / "a", b"one", b"two"), FORMAT)
    copied = take_reading(frames(tmp_path / "b", b"one", b"two"), FORMAT)
    assert (first.sizes, first.content) == (copied.sizes, copied.content)
    same_sizes = take_reading(frames(tmp_path / "c", b"on", b"etwo"), FORMAT)
    assert same_sizes.content != first.content, "as much, but not file by file"
    rewritten = take_reading(frames(tmp_path / "b", b"one", b"TWO"), FORMAT)
    assert rewritten.sizes == first.sizes
    assert rewritten.content != first.content
    source = frames(tmp_path / "a")
    assert take_reading(source, FrameFormat(16, True, False)).content != first.content
    assert sizes_of(source, FORMAT) == first.sizes


@pytest.mark.parametrize(("age", "racy"), [(0.0, True), (1.5, True), (10.0, False), (-5.0, True)])
def test_files_written_just_before_they_were_read_leave_a_doubt(
    tmp_path: Path, age: float, racy: bool
) -> None:
    source = frames(tmp_path, b"one", b"two")
    for path in source.files:
        os.utime(path, (time.time() - 1000,) * 2)
    os.utime(source.files[1], (time.time() - age,) * 2)
    assert take_reading(source, FORMAT).racy is racy


def test_a_file_that_is_gone_has_no_reading(tmp_path: Path) -> None:
    source = frames(tmp_path, b"one", b"two")
    sizes = sizes_of(source, FORMAT)
    source.files[1].unlink()
    assert sizes_of(source, FORMAT) != sizes
    with pytest.raises(LusError, match=r"1\.jpg cannot be decoded: No such"):
        take_reading(source, FORMAT)
    assert take_readings([source], FORMAT) == [None]


def test_large_files_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = frames(tmp_path, b"one" * 100, b"two")
    whole = take_reading(source, FORMAT)
    monkeypatch.setattr(ledger, "BLOCK", 7)
    assert take_reading(source, FORMAT).content == whole.content


def test_a_ledger_reads_back_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "sources.json"
    assert read_ledger(path) == {}
    known = {"key": Reading("sizes", "content", 1.5, 2.5)}
    write_ledger(path, known)
    assert read_ledger(path) == known
    whole = path.read_text()
    for text in ("{", "[]", '{"key": 1}', '{"key": {"sizes": ""}}', whole.replace("1.5", "NaN")):
        path.write_text(text)
        assert read_ledger(path) == {}
