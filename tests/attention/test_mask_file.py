"""masks.h5: videos and frames are added, replaced, and merged from parts."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lus_cli.attention.mask_file import merge_files, read_maps, stored_videos, write_masks
from lus_cli.errors import CannotReadError, LusError
from lus_cli.study.ids import VideoId
from tests.conftest import held

ONE, TWO = VideoId("p", "1", "0"), VideoId("p", "1", "1")


def maps(numbers: list[int], level: float) -> dict[str, np.ndarray]:
    masks = np.full((len(numbers), 2, 2), level)
    return {"frame_number": np.array(numbers), "mask": masks}


def test_masks_are_added(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    write_masks(path, {ONE: maps([4], 1)})
    write_masks(path, {TWO: maps([1, 2], 0)})
    with h5py.File(path) as file:
        assert file["p/1/0/frame_number"][:].tolist() == [4]
        assert file["p/1/1/mask"].shape == (2, 2, 2)
        assert file["p/1/1/mask"].dtype == np.float32
        assert file["p/1/1/frame_number"].dtype == np.int32


def test_frames_of_a_video_are_added_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    for numbers, level in (([4, 8], 1.0), ([2], 0.5), ([9, 4], 0.25)):
        write_masks(path, {ONE: maps(numbers, level)})
    read = read_maps(path, ONE)
    assert read["frame_number"].tolist() == [2, 4, 8, 9]
    assert read["mask"].mean(axis=(1, 2)).tolist() == [0.5, 0.25, 1, 0.25]
    full = {**maps([4], 1), "scored": np.array([4]), "probability": np.full(4, 0.25)}
    write_masks(path, {ONE: full})
    assert {name: values.shape for name, values in read_maps(path, ONE).items()} == {
        "frame_number": (1,),
        "mask": (1, 2, 2),
        "scored": (1,),
        "probability": (4,),
    }


def test_masks_written_again_take_no_more_space(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    sizes = set()
    for _ in range(5):
        for video in (ONE, TWO):
            write_masks(path, {video: maps(list(range(50)), 0.5)})
        sizes.add(path.stat().st_size)
    assert len(sizes) == 1


def test_parts_are_merged_with_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    assert stored_videos(path, [ONE, TWO]) == set()
    write_masks(path, {ONE: maps([4], 1)})
    write_masks(tmp_path / "part.h5", {TWO: maps([7, 8], 0.25)})
    merge_files(path, {TWO: tmp_path / "part.h5"})
    assert stored_videos(path, [ONE, TWO, VideoId("q", "1", "0")]) == {ONE, TWO}
    assert read_maps(path, ONE)["frame_number"].tolist() == [4]
    assert read_maps(path, TWO)["mask"].mean() == 0.25
    with pytest.raises(LusError, match="is damaged"):
        read_maps(path, VideoId("q", "1", "0"))


def test_a_truncated_part_is_named_in_the_error(tmp_path: Path) -> None:
    path, part = tmp_path / "masks.h5", tmp_path / "part.h5"
    write_masks(path, {ONE: maps([4], 1)})
    part.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(LusError, match=r"part\.h5 is damaged: delete it and run"):
        merge_files(path, {TWO: part})
    assert stored_videos(path, [ONE, TWO]) == {ONE}


def test_a_truncated_file_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    path.write_bytes(b"\x89HDF")
    with pytest.raises(LusError, match=r"masks\.h5 is damaged: delete it"):
        stored_videos(path, [ONE])


def test_a_file_locked_by_another_program_is_not_reported_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    write_masks(path, {ONE: maps([4], 1)})
    for use in (
        lambda: stored_videos(path, [ONE]),
        lambda: read_maps(path, ONE),
        lambda: write_masks(path, {TWO: maps([1], 0)}),
        lambda: merge_files(tmp_path / "all.h5", {ONE: path}),
    ):
        with (
            held(path),
            pytest.raises(CannotReadError, match=r"masks\.h5 cannot be read .*: close"),
        ):
            use()
    assert stored_videos(path, [ONE, TWO]) == {ONE}


def test_an_error_inside_hdf5_is_one_line(tmp_path: Path) -> None:
    """A file that opens but is damaged inside."""
    path = tmp_path / "masks.h5"
    write_masks(path, {ONE: maps([4], 1)})
    content = path.read_bytes()
    place = content.index(b"HEAP")  # the names of a group
    path.write_bytes(content[:place] + b"PAEH" + content[place + 4 :])
    for use in (
        lambda: stored_videos(path, [ONE]),
        lambda: read_maps(path, ONE),
        lambda: write_masks(path, {TWO: maps([1], 0)}),
    ):
        with pytest.raises(LusError, match=r"masks\.h5 is damaged: delete it"):
            use()


def test_more_masks_than_frame_numbers_are_reported_as_damage(tmp_path: Path) -> None:
    """Frames cannot be added to a video whose datasets differ in length."""
    path = tmp_path / "masks.h5"
    write_masks(path, {ONE: maps([4, 5], 1)})
    with h5py.File(path, "r+") as file:
        video = file[str(ONE)]
        numbers = video["frame_number"][:1]
        del video["frame_number"]
        video["frame_number"] = numbers
    before = path.read_bytes()
    with pytest.raises(LusError, match=r"masks\.h5 is damaged: delete it"):
        write_masks(path, {ONE: maps([7], 0)})
    assert path.read_bytes() == before
