"""videos.h5: frames are read as they were written, padding is free, other programs can read it."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import hdf5plugin
import numpy as np
import pytest
import zstandard

import lus_cli
from lus_cli.cache import tables
from lus_cli.cache.chunks import MAX_SIZE, FrameFormat, StoredVideo, store_video
from lus_cli.cache.tables import TABLES, as_texts, tables_checksum, write_table
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.cache.video_writer import write_video_cache
from lus_cli.errors import LusError
from lus_cli.study.annotations import UNKNOWN
from lus_cli.study.ids import VideoId

LENGTHS = (3, 40, 16, 17)


def pixels(length: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (length, *shape), np.uint8)


def write(
    path: Path, frame_format: FrameFormat, lengths: tuple[int, ...] = LENGTHS
) -> list[np.ndarray]:
    """A cache of random videos, frame numbers starting at 5 with a gap; returns the pixels."""
    videos = [pixels(n, frame_format.shape, seed) for seed, n in enumerate(lengths)]
    entries = [
        Entry(VideoId("p", "1", str(i)), i % 4, 1, UNKNOWN, f"key{i}") for i in range(len(lengths))
    ]

    def video_of(entry: Entry) -> StoredVideo:
        frames = videos[int(entry.id.area)]
        return store_video(iter(frames), [5, *range(7, 6 + len(frames))], (90, 120))

    write_video_cache(path, entries, video_of, frame_format, {"exams": "there"})
    return videos


ENTRIES = [
    Entry(VideoId("17", "1048", "11"), 3, 0, 1, "key-a", "dicom", "day 1/a.dcm"),
    Entry(VideoId("2", "7", "1"), UNKNOWN, UNKNOWN, 0, "key-b"),
]


def write_known(path: Path, entries: list[Entry], color: bool = True) -> None:
    """A cache of videos of two frames of nothing."""
    frame_format = FrameFormat(8, True, color)

    def video_of(entry: Entry) -> StoredVideo:
        black = np.zeros((2, *frame_format.shape), np.uint8)
        return store_video(iter(black), [4, 9], (90, int(entry.id.area)))

    write_video_cache(path, entries, video_of, frame_format, {"exams": "there", "seed": 5})


def test_what_is_known_of_a_video_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write_known(path, ENTRIES)
    cache = VideoCache(path)
    assert cache.entries == [ENTRIES[0], dataclasses.replace(ENTRIES[1], source_path="2/7/1")]
    assert cache.source_shapes.tolist() == [[90, 11], [90, 1]]
    assert (cache.scores.dtype, cache.scores.tolist()) == (np.int64, [3, UNKNOWN])
    assert cache.provenance == {"exams": "there", "seed": 5}
    assert cache.frame_format == cache.stored_format == FrameFormat(8, True, True)
    assert not any(damaged for _, damaged in cache.damaged())


def test_tables_have_the_types_that_are_documented(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write_known(path, ENTRIES)
    with h5py.File(path) as file:
        types = {name: values.dtype for name, values in file.items()}
        assert file["frames"].shape == (2, 2, 8, 8, 3)
        assert [d.label for d in file["frames"].dims][2:] == ["row", "column", "channel"]
        assert file["frame_number"].shape == file["source_shape"].shape == (2, 2)
        assert file["patient"].asstr()[:].tolist() == ["17", "2"]
        assert file.attrs["tool_version"] == lus_cli.__version__
        assert file.id.get_create_plist().get_version()[0] == 3  # superblock since HDF5 1.10
    texts = {name for name, kind in types.items() if h5py.check_string_dtype(kind)}
    named = {"patient", "exam", "area", "source_key", "source_kind", "source_path"}
    assert texts == {*named, "checksum", "notes"}
    assert {h5py.check_string_dtype(types[name]).encoding for name in texts} == {"utf-8"}
    small, whole = ("score", "a_lines", "b_lines"), ("frame_number", "length", "source_shape")
    assert {name: str(kind) for name, kind in types.items() if name not in texts} == {
        "frames": "uint8",
        **dict.fromkeys(small, "int8"),
        **dict.fromkeys(whole, "int32"),
    }


def write_format_4(path: Path) -> None:
    """A file as an earlier version of lus wrote it: its tables have no blocks. The frames of each video
    count up from 0; the checksums are those that the earlier version stored."""
    numbers = {
        "a_lines": np.zeros(3, np.int8),
        "b_lines": np.ones(3, np.int8),
        "score": np.arange(3, dtype=np.int8),
        "length": np.array([2, 3, 4], np.int32),
        "source_shape": np.array([[90, 120]] * 3, np.int32),
        "frame_number": np.array([[5, 9, -1, -1], [6, 9, 10, -1], [7, 9, 10, 11]], np.int32),
    }
    texts = {
        "patient": ["1017"] * 3,
        "exam": ["1048"] * 3,
        "area": ["0", "1", "2"],
        "group": ["ward"] * 3,
        "notes": ["[]", '["one remark"]', "[]"],
        "source_key": ["key0", "key1", "key2"],
        "source_kind": ["frames"] * 3,
        "source_path": ["1017/1048/0", "1017/1048/1", "1017/1048/2"],
        "checksum": [
            "14792fc3af88dc6c05321a0b64d67b41",
            "10c987dc285c756b050f429c4f52b688",
            "f1f8a93f50849ac39408a4433b952d71",
        ],
    }
    frames = np.zeros((3, 4, 8, 8), np.uint8)
    for video, length in enumerate(numbers["length"]):
        frames[video, :length] = np.arange(length * 64).reshape(length, 8, 8)
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, values in {**numbers, **texts}.items():
            file[name] = values
        file.create_dataset(
            "frames",
            data=frames,
            chunks=(1, 16, 8, 8),
            maxshape=(3, None, 8, 8),
            compression=hdf5plugin.Zstd(1),
        )
        for axis, label in enumerate(("video", "frame", "row", "column")):
            file["frames"].dims[axis].label = label
        file.attrs.update(
            format_version=4,
            tool_version="0.1.0",
            fingerprint="333f998702fb7892",
            frame_format='{"size": 8, "letterbox": false, "color": false}',
            provenance='{"exams": "there"}',
            tables_checksum="3b0babaf0407ed2d3c1ba39ba4ab8b54",
        )


def test_a_file_of_format_4_is_read_and_copied(tmp_path: Path) -> None:
    write_format_4(tmp_path / "format4.h5")
    old = VideoCache(tmp_path / "format4.h5")
    assert [str(video) for video in old.ids] == ["1017/1048/0", "1017/1048/1", "1017/1048/2"]
    assert old.lengths.tolist() == [2, 3, 4]
    assert old.frame_numbers(1).tolist() == [6, 9, 10]
    assert (old.groups, old.notes) == (["ward"] * 3, [(), ("one remark",), ()])
    assert old.source(2) == ("frames", "1017/1048/2")
    assert not any(damaged for _, damaged in old.damaged())
    path = tmp_path / "videos.h5"
    write_video_cache(
        path, old.entries, lambda e: old.stored(old.index(e.id)), old.stored_format, old.provenance
    )
    new = VideoCache(path)
    assert (new.entries, new.notes, new.labels) == (old.entries, old.notes, old.labels)
    assert (new.fingerprint, new.checksums) == (old.fingerprint, old.checksums)
    for index in range(3):
        np.testing.assert_array_equal(new.read(index), old.read(index))
        np.testing.assert_array_equal(new.frame_numbers(index), old.frame_numbers(index))


def test_a_changed_table_of_format_4_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write_format_4(path)
    with h5py.File(path, "r+") as file:
        file["frame_number"][0, 0] += 1
    with pytest.raises(LusError, match="does not match its checksum"):
        VideoCache(path)


@pytest.mark.parametrize(
    ("size", "letterbox", "color"), [(1, True, False), (MAX_SIZE, False, True)]
)
def test_a_frame_format_is_read_as_written(size: int, letterbox: bool, color: bool) -> None:
    frame_format = FrameFormat(size, letterbox, color)
    assert FrameFormat.from_json(dataclasses.asdict(frame_format)) == frame_format


@pytest.mark.parametrize(
    "changed",
    [
        *({"size": size} for size in (0, MAX_SIZE + 1, -1, "8", True)),
        {"letterbox": 1},
        {"color": None},
    ],
    ids=str,
)
def test_what_is_no_frame_format_is_named(changed: dict[str, object]) -> None:
    content = {"size": 8, "letterbox": True, "color": False} | changed
    with pytest.raises(ValueError, match=r"not a frame format: .*size"):
        FrameFormat.from_json(content)


def change(path: Path, table: str, values: list[Any]) -> None:
    """Another table, with matching checksums."""
    with h5py.File(path, "r+") as file:
        kind = file[table].dtype
        texts = h5py.check_string_dtype(kind)
        write_table(file, table, as_texts(values) if texts else np.array(values, kind))
        file.attrs[TABLES] = tables_checksum(file)


@pytest.mark.parametrize(
    ("table", "values", "reason"),
    [
        ("length", [2, 3], "a length is out of range"),
        ("length", [2, -1], "a length is out of range"),
        ("patient", ["17", ".."], "an id is not a valid name"),
        ("source_path", ["a", "../b"], "a source path leads out of its study"),
    ],
)
def test_tables_that_cannot_be_are_refused(
    tmp_path: Path, table: str, values: list[Any], reason: str
) -> None:
    path = tmp_path / "videos.h5"
    write_known(path, ENTRIES)
    change(path, table, values)
    with pytest.raises(LusError, match=rf"is damaged \({reason}\): delete it and run"):
        VideoCache(path).entries  # noqa: B018 - reads every table


def test_a_video_may_have_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write_known(path, ENTRIES)
    change(path, "length", [2, 0])
    cache = VideoCache(path)
    assert cache.read(1).shape == (0, 8, 8, 3)


def test_tables_are_limited_and_frames_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_known(tmp_path / "videos.h5", ENTRIES)
    monkeypatch.setattr(tables, "MAX_TABLE", 4)  # two numbers or two sides of two videos
    assert len(VideoCache(tmp_path / "videos.h5")) == 2
    monkeypatch.setattr(tables, "MAX_TABLE", 3)
    with pytest.raises(LusError, match="a table is too large"):
        VideoCache(tmp_path / "videos.h5")


def test_no_cache_and_one_of_another_version_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    with pytest.raises(LusError, match=r"^there is no .*videos\.h5: run `lus prepare` first$"):
        VideoCache(path)
    write_known(path, ENTRIES)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(
        LusError,
        match=r"has format 99, but this version of lus reads 4 and 5: run `lus prepare` again",
    ):
        VideoCache(path)


def test_a_cache_that_is_replaced_while_it_is_read_is_not_mixed_with_the_old(
    tmp_path: Path,
) -> None:
    path = tmp_path / "videos.h5"
    write_known(path, ENTRIES)
    cache = pickle.loads(pickle.dumps(VideoCache(path)))
    write_known(path, ENTRIES[:1])
    with pytest.raises(
        LusError, match=r"videos\.h5 was replaced while it was in use: run the comm"
    ):
        cache.file  # noqa: B018


@pytest.mark.parametrize("color", [False, True])
def test_every_frame_comes_back(tmp_path: Path, color: bool) -> None:
    videos = write(tmp_path / "videos.h5", FrameFormat(24, False, color))
    cache = VideoCache(tmp_path / "videos.h5")
    assert cache.lengths.tolist() == list(LENGTHS)
    for index, expected in enumerate(videos):
        np.testing.assert_array_equal(cache.read(index), expected)
        assert cache.frame_numbers(index).tolist() == [5, *range(7, 6 + len(expected))]
    some = np.array([39, 0, 16, 15, 16])
    np.testing.assert_array_equal(cache.read(1, some), videos[1][some])


def test_plain_h5py_reads_the_padded_tensor(tmp_path: Path) -> None:
    videos = write(tmp_path / "videos.h5", FrameFormat(24, False, False))
    with h5py.File(tmp_path / "videos.h5") as file:
        tensor = file["frames"][:]
        assert [d.label for d in file["frames"].dims] == ["video", "frame", "row", "column"]
    assert tensor.shape == (4, 40, 24, 24)
    for row, video in zip(tensor, videos, strict=True):
        np.testing.assert_array_equal(row[: len(video)], video)
        assert not row[len(video) :].any()


def test_padding_takes_no_room(tmp_path: Path) -> None:
    write(tmp_path / "even.h5", FrameFormat(32, False, False), (16, 16, 16, 16))
    write(tmp_path / "uneven.h5", FrameFormat(32, False, False), (16, 16, 16, 16 * 50))
    even, uneven = ((tmp_path / name).stat().st_size for name in ("even.h5", "uneven.h5"))
    chunk = 16 * 32 * 32  # random pixels do not compress
    assert uneven - even < 49 * chunk * 1.1 + 50_000  # one video's chunks, not four videos'


def test_a_changed_table_is_not_read(tmp_path: Path) -> None:
    """Its shape and type are right: only the checksum shows that a score was changed."""
    write(tmp_path / "videos.h5", FrameFormat(8, False, False))
    with h5py.File(tmp_path / "videos.h5", "r+") as file:
        file["score"][0] = 3
    with pytest.raises(LusError, match=r"damaged \(its table score does not match its checksum\)"):
        VideoCache(tmp_path / "videos.h5")


@pytest.mark.parametrize("name", ["checksum", "group", "notes", "source_kind", "source_path"])
def test_a_changed_table_is_not_read_later(tmp_path: Path, name: str) -> None:
    path = tmp_path / "videos.h5"
    write_known(path, [dataclasses.replace(entry, group="ward") for entry in ENTRIES])
    with h5py.File(path, "r+") as file:
        file[name][1] = b"x"
    cache = VideoCache(path)  # ids, scores and lengths are as they were
    reading: dict[str, Callable[[], object]] = {
        "checksum": lambda: cache.checksums,
        "group": lambda: cache.groups,
        "notes": lambda: cache.notes,
        "source_kind": lambda: cache.source(0),
        "source_path": lambda: cache.source(0),
    }
    with pytest.raises(LusError, match=rf"damaged \(its table {name} does not match its checksum"):
        reading[name]()
    with pytest.raises(LusError, match="does not match its checksum"):
        cache.stored(0), cache.entries


def test_a_changed_frame_number_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write_known(path, ENTRIES)
    with h5py.File(path, "r+") as file:
        file["frame_number"][1, 1] = 10
    cache = VideoCache(path)
    with pytest.raises(LusError, match="its table frame_number does not match its checksum"):
        cache.frame_numbers(0)


@pytest.mark.parametrize("name", ["score", "frame_number"])
def test_the_checksums_of_a_table_are_checked(tmp_path: Path, name: str) -> None:
    """Otherwise a value could be changed together with the checksum of its block."""
    path = tmp_path / "videos.h5"
    write_known(path, ENTRIES)
    with h5py.File(path, "r+") as file:
        file[name].attrs[tables.SUMS] = file[name].attrs[tables.SUMS] + 1
    with pytest.raises(LusError, match="table of ids, scores and settings does not match its chec"):
        VideoCache(path)


def test_frames_of_another_shape_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "videos.h5", FrameFormat(8, False, False))
    with h5py.File(tmp_path / "videos.h5", "r+") as file:
        del file["frames"]
        file["frames"] = 1
    with pytest.raises(LusError, match="is damaged"):
        VideoCache(tmp_path / "videos.h5")


def test_single_frames_of_a_damaged_chunk_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write(path, FrameFormat(24, False, False))
    chunk = VideoCache(path).raw_chunk(1, 0)
    content = bytearray(path.read_bytes())
    content[content.index(chunk) + len(chunk) // 2] ^= 1  # in frame 8 of 16
    path.write_bytes(content)
    for position in (0, 8):
        with pytest.raises(
            LusError, match=r"video p/1/1 is damaged .*: delete the file and run `lus prepare`"
        ):
            VideoCache(path).read(1, np.array([position]))


def test_a_sound_chunk_is_read_in_part(tmp_path: Path) -> None:
    videos = write(tmp_path / "videos.h5", FrameFormat(24, False, False))
    cache = VideoCache(tmp_path / "videos.h5")
    whole = mock.Mock(side_effect=zstandard.frame_content_size)
    with mock.patch.object(zstandard, "frame_content_size", whole):
        for position in (3, 0, 5, 20, 17):
            read = cache.read(1, np.array([position]))
            np.testing.assert_array_equal(read[0], videos[1][position])
            assert read.dtype == np.uint8
    assert whole.call_count == 2  # once each of two chunks


def test_a_chunk_that_was_sound_and_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write(path, FrameFormat(24, False, False))
    cache = VideoCache(path)
    cache.read(1, np.array([0]))  # it is intact and need not be read completely again
    short = zstandard.ZstdCompressor().compress(bytes(100))
    with (
        mock.patch.object(VideoCache, "raw_chunk", return_value=short),
        pytest.raises(LusError, match=r"video p/1/1 is damaged \(a chunk is too short\):"),
    ):
        cache.read(1, np.array([3]))


def test_a_chunk_that_unpacks_to_more_than_its_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write(path, FrameFormat(8, False, False))
    with h5py.File(path, "r+") as file:
        bomb = zstandard.ZstdCompressor().compress(bytes(100_000_000))
        file["frames"].id.write_direct_chunk((0, 0, 0, 0), bomb)
    with pytest.raises(LusError, match=r"video p/1/0 is damaged .a chunk has the wrong size"):
        VideoCache(path).read(0)


def test_a_chunk_that_is_missing_is_damage(tmp_path: Path) -> None:
    frame_format = FrameFormat(8, False, False)
    video = StoredVideo(np.arange(20, dtype=np.int32), "0" * 32, (8, 8), ())
    write_video_cache(tmp_path / "videos.h5", ENTRIES[:1], lambda _: video, frame_format, {})
    with pytest.raises(LusError, match=r"video 17/1048/11 is damaged \(a chunk is missing\)"):
        VideoCache(tmp_path / "videos.h5").read(0)


def test_positions_on_padding_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "videos.h5", FrameFormat(8, False, False))
    cache = VideoCache(tmp_path / "videos.h5")
    with pytest.raises(IndexError, match="video p/1/0 has 3 frames"):
        cache.read(0, np.array([3]))
    with pytest.raises(IndexError):
        cache.read(0, np.array([-1]))


def test_a_reader_survives_pickling(tmp_path: Path) -> None:
    videos = write(tmp_path / "videos.h5", FrameFormat(8, False, False))
    cache = VideoCache(tmp_path / "videos.h5")
    cache.read(0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).read(1), videos[1])


def test_copying_stored_videos_changes_nothing(tmp_path: Path) -> None:
    frame_format = FrameFormat(24, False, False)
    videos = write(tmp_path / "one.h5", frame_format)
    one = VideoCache(tmp_path / "one.h5")
    entries = [
        Entry(v, 0, UNKNOWN, UNKNOWN, k) for v, k in zip(one.ids, one.source_keys, strict=True)
    ]
    write_video_cache(
        tmp_path / "two.h5", entries[::-1], lambda e: one.stored(one.index(e.id)), frame_format, {}
    )
    two = VideoCache(tmp_path / "two.h5")
    assert two.checksums == one.checksums[::-1]
    for index, expected in enumerate(videos[::-1]):
        np.testing.assert_array_equal(two.read(index), expected)


def test_the_fingerprint_is_of_the_pixels(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", FrameFormat(8, False, False))
    write(tmp_path / "b.h5", FrameFormat(8, False, False))
    write(tmp_path / "c.h5", FrameFormat(8, False, False), (3, 41, 16, 17))
    a, b, c = (VideoCache(tmp_path / f"{name}.h5").fingerprint for name in "abc")
    assert a == b != c


def test_a_shard_comes_back_whole_or_not_at_all(tmp_path: Path) -> None:
    video = store_video(iter(pixels(20, (8, 8), 0)), list(range(20)), (8, 8))
    path = tmp_path / "shard.video"
    video.save(path)
    loaded = StoredVideo.load(path)
    assert loaded is not None
    assert loaded.chunks == video.chunks
    assert loaded.checksum == video.checksum
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        assert StoredVideo.load(path) is None


def test_a_damaged_chunk_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write(path, FrameFormat(24, False, False))
    cache = VideoCache(path)
    assert not any(bad for _, bad in cache.damaged())
    chunk = cache.raw_chunk(1, 1)
    cache.file.close()
    content = bytearray(path.read_bytes())
    where = content.index(chunk) + len(chunk) // 2
    content[where] ^= 0xFF
    path.write_bytes(content)
    again = VideoCache(path)
    assert [index for index, bad in again.damaged() if bad] == [1]


def test_a_cut_off_file_is_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write(path, FrameFormat(24, False, False))
    content = path.read_bytes()
    for cut in (0, 100, len(content) // 2):
        path.write_bytes(content[:cut])
        with pytest.raises(LusError, match="lus prepare"):
            VideoCache(path)


def test_no_cache_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="run `lus prepare` first"):
        VideoCache(tmp_path / "videos.h5")


def test_an_unknown_video_names_what_there_is(tmp_path: Path) -> None:
    write(tmp_path / "videos.h5", FrameFormat(8, False, False))
    cache = VideoCache(tmp_path / "videos.h5")
    for video, complaint in (
        (VideoId("q", "1", "0"), "no patient q: the study has patients p"),
        (VideoId("p", "2", "0"), "no exam 2: patient p has exams 1"),
        (VideoId("p", "1", "9"), "no area 9: exam p/1 has areas 0, 1, 2, 3"),
    ):
        with pytest.raises(LusError, match=complaint):
            cache.index(video)
