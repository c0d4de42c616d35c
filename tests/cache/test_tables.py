"""Tables of videos.h5: what is read of a large study, asserted as datasets and rows, not as time."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest

from lus_cli.cache import tables, video_writer
from lus_cli.cache.chunks import FrameFormat, StoredVideo
from lus_cli.cache.tables import LONGEST_TEXT, NUMBER_ROWS, ROWS, as_texts, from_texts
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.study.ids import VideoId

VIDEOS = 20_000
START = {"patient", "exam", "area", "length", "score"}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 videos of 0 to 99 frames, whose pixels were never written."""
    path = tmp_path_factory.mktemp("large") / "videos.h5"
    entries = [
        Entry(VideoId(f"p{i // 10}", "1", str(i % 10)), i % 4, -1, -1, f"{i:016x}", "video", f"{i}.mp4")
        for i in range(VIDEOS)
    ]  # fmt: skip

    def video_of(entry: Entry) -> StoredVideo:
        i = int(entry.source_key, 16)
        return StoredVideo(np.arange(i, i + i % 100, dtype=np.int32), f"{i:032x}", (48, 64), ())

    with mock.patch.object(video_writer, "read_ahead", map):
        video_writer.write_video_cache(path, entries, video_of, FrameFormat(32, False, False), {})
    return path


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The number of rows read from each dataset."""
    rows: dict[str, int] = {}
    read = h5py.Dataset.__getitem__

    def counting(dataset: h5py.Dataset, key: object) -> object:
        values = read(dataset, key)
        name = dataset.name.strip("/")
        rows[name] = rows.get(name, 0) + len(values)
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counting)
    return rows


def test_opening_reads_ids_scores_and_lengths_once(large: Path, rows_read: dict[str, int]) -> None:
    videos = VideoCache(large)
    assert len(videos) == VIDEOS
    assert videos.ids[12_345] == VideoId("p1234", "1", "5")
    assert (videos.patients[-1], videos.scores[7], videos.lengths[199]) == ("p1999", 3, 99)
    assert videos.labels
    assert rows_read == dict.fromkeys(START, VIDEOS)


def test_frame_numbers_of_other_videos_are_not_read(large: Path, rows_read: dict[str, int]) -> None:
    videos = VideoCache(large)
    assert videos.frame_numbers(12_345).tolist() == list(range(12_345, 12_390))
    assert videos.frame_numbers(12_344).tolist() == list(range(12_344, 12_388))
    assert rows_read["frame_number"] == NUMBER_ROWS
    assert videos.frame_numbers(VIDEOS - 1).tolist() == list(range(19_999, 20_098))
    assert rows_read["frame_number"] == NUMBER_ROWS + VIDEOS % NUMBER_ROWS
    assert set(rows_read) == {*START, "frame_number"}


def test_the_source_of_one_video_costs_one_block(large: Path, rows_read: dict[str, int]) -> None:
    assert VideoCache(large).source(12_345) == ("video", "12345.mp4")
    assert rows_read["source_path"] == rows_read["source_kind"] == ROWS
    assert set(rows_read) == {*START, "source_kind", "source_path"}


def test_a_pickled_reader_carries_no_tables_that_can_be_read_again(large: Path) -> None:
    videos = VideoCache(large)
    bare = len(pickle.dumps(videos))
    assert (len(videos.ids), len(videos.checksums), len(videos.entries)) == (VIDEOS,) * 3
    assert len(pickle.dumps(videos)) == bare
    assert pickle.loads(pickle.dumps(videos)).ids == videos.ids


def test_every_block_has_its_own_checksum(large: Path, tmp_path: Path) -> None:
    """Damage in one block does not keep the others from being read."""
    path = tmp_path / "videos.h5"
    path.write_bytes(large.read_bytes())
    with h5py.File(path, "r+") as file:
        file["source_path"][ROWS] = b"other"
    with h5py.File(path) as file:
        assert tables.read_row(file, "source_path", ROWS - 1) == f"{ROWS - 1}.mp4".encode()
        for row in (ROWS, 2 * ROWS - 1):
            with pytest.raises(ValueError, match="table source_path does not match"):
                tables.read_row(file, "source_path", row)


@pytest.mark.parametrize("longest", [1, LONGEST_TEXT, LONGEST_TEXT + 1])
def test_texts_come_back(tmp_path: Path, longest: int) -> None:
    texts = ["", "é", "x" * longest, "é"]
    with h5py.File(tmp_path / "t.h5", "w") as file:
        tables.write_table(file, "t", as_texts(texts))
        assert from_texts(tables.read_table(file, "t")) == texts
        assert file["t"].asstr()[:].tolist() == texts
        fixed = h5py.check_string_dtype(file["t"].dtype).length is not None
    assert fixed == (longest <= LONGEST_TEXT)
