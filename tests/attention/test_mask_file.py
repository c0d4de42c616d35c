"""masks.h5: added to, replaced, put together from parts."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lus_cli.attention.mask_file import joined, read_maps, write_masks, written
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
    whole = {**maps([4], 1), "scored": np.array([4]), "probability": np.full(4, 0.25)}
    write_masks(path, {ONE: whole})
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


def test_parts_are_joined_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    assert written(path, [ONE, TWO]) == set()
    write_masks(path, {ONE: maps([4], 1)})
    write_masks(tmp_path / "part.h5", {TWO: maps([7, 8], 0.25)})
    joined(path, {TWO: tmp_path / "part.h5"})
    assert written(path, [ONE, TWO, VideoId("q", "1", "0")]) == {ONE, TWO}
    assert read_maps(path, ONE)["frame_number"].tolist() == [4]
    assert read_maps(path, TWO)["mask"].mean() == 0.25
    with pytest.raises(LusError, match="is damaged"):
        read_maps(path, VideoId("q", "1", "0"))


def test_a_part_that_is_not_whole_is_named(tmp_path: Path) -> None:
    path, part = tmp_path / "masks.h5", tmp_path / "part.h5"
    write_masks(path, {ONE: maps([4], 1)})
    part.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(LusError, match=r"part\.h5 is damaged: delete it and run"):
        joined(path, {TWO: part})
    assert written(path, [ONE, TWO]) == {ONE}


def test_a_file_that_is_not_whole_is_named(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    path.write_bytes(b"\x89HDF")
    with pytest.raises(LusError, match=r"masks\.h5 is damaged: delete it"):
        written(path, [ONE])


def test_a_file_that_another_program_holds_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "masks.h5"
    write_masks(path, {ONE: maps([4], 1)})
    for use in (
        lambda: written(path, [ONE]),
        lambda: read_maps(path, ONE),
        lambda: write_masks(path, {TWO: maps([1], 0)}),
        lambda: joined(tmp_path / "all.h5", {ONE: path}),
    ):
        with held(path), pytest.raises(CannotReadError, match=r"masks\.h5 cannot be read .*: end"):
            use()
    assert written(path, [ONE, TWO]) == {ONE}


def test_what_hdf5_stumbles_over_is_one_line(tmp_path: Path) -> None:
    """A file that opens and is damaged inside, whose videos are neither found nor added to."""
    path = tmp_path / "masks.h5"
    write_masks(path, {ONE: maps([4], 1)})
    content = path.read_bytes()
    place = content.index(b"HEAP")  # the names of a group
    path.write_bytes(content[:place] + b"PAEH" + content[place + 4 :])
    for use in (
        lambda: written(path, [ONE]),
        lambda: read_maps(path, ONE),
        lambda: write_masks(path, {TWO: maps([1], 0)}),
    ):
        with pytest.raises(LusError, match=r"masks\.h5 is damaged: delete it"):
            use()


def test_more_masks_than_frame_numbers_are_damage(tmp_path: Path) -> None:
    """A dataset whose length was changed: frames of the video cannot be added to it."""
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
