"""videos.h5 as a torch dataset: each video once, its pixels and score, in any number of workers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lus_cli.cache.chunks import FrameFormat, store_video
from lus_cli.cache.video_cache import Entry, VideoCache
from lus_cli.cache.video_dataset import VideoDataset, pad_videos
from lus_cli.cache.video_writer import write_video_cache
from lus_cli.errors import LusError
from lus_cli.study.annotations import UNKNOWN
from lus_cli.study.ids import VideoId


def test_an_item_is_a_video_and_its_score(prepared: Path) -> None:
    videos, dataset = VideoCache(prepared / "videos.h5"), VideoDataset(prepared / "videos.h5")
    assert len(dataset) == len(videos)
    for index, (frames, score) in enumerate(dataset):  # type: ignore[arg-type]
        assert np.array_equal(frames.numpy(), videos.read(index))
        assert score == videos.scores[index]


def test_it_holds_the_videos_of_the_patients(prepared: Path) -> None:
    videos = VideoCache(prepared / "videos.h5")
    wanted = set(videos.patients[:1])
    dataset = VideoDataset(prepared / "videos.h5", wanted)
    assert 0 < len(dataset) < len(videos)
    assert {videos.patients[index] for index in dataset.indices} == wanted
    with pytest.raises(ValueError, match="has no video of nobody"):
        VideoDataset(prepared / "videos.h5", ["nobody"])
    assert len(VideoDataset(prepared / "videos.h5", [])) == 0


def test_frames_are_chosen_as_lus_train_does(prepared: Path) -> None:
    whole, _ = VideoDataset(prepared / "videos.h5")[0]
    second, _ = VideoDataset(prepared / "videos.h5", stride=2)[0]
    few, _ = VideoDataset(prepared / "videos.h5", frames_per_video=3)[0]
    assert torch.equal(second, whole[::2])
    assert len(few) == 3
    assert torch.equal(few[[0, -1]], whole[[0, -1]])


def test_videos_without_a_score_are_there_if_wanted(tmp_path: Path) -> None:
    path, frame_format = tmp_path / "videos.h5", FrameFormat(8, False, False)
    video = store_video(iter(np.zeros((2, 8, 8), np.uint8)), [0, 1], (8, 8))
    entries = [
        Entry(VideoId("1", "1", area), score, UNKNOWN, UNKNOWN, area)
        for area, score in (("a", UNKNOWN), ("b", 2))
    ]
    write_video_cache(path, entries, lambda _: video, frame_format, {})
    assert [score for _, score in VideoDataset(path)] == [2]  # type: ignore[attr-defined]
    assert [s for _, s in VideoDataset(path, unlabelled=True)] == [UNKNOWN, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_any_number_of_workers_gives_the_same(prepared: Path, workers: int) -> None:
    dataset = VideoDataset(prepared / "videos.h5", frames_per_video=4)
    first, _ = dataset[0]  # opens the file in this process, before workers are forked
    loader = DataLoader(dataset, batch_size=5, collate_fn=pad_videos, num_workers=workers)
    batches = list(loader)
    assert torch.equal(batches[0][0][0, : len(first)], first)
    assert [len(batch) for _, _, batch in batches] == [5, 5, 5, 3]
    scores = torch.cat([batch for _, _, batch in batches])
    assert scores.tolist() == VideoCache(prepared / "videos.h5").scores.tolist()


def test_a_worker_that_is_started_anew_opens_the_file_itself(prepared: Path) -> None:
    dataset = VideoDataset(prepared / "videos.h5")
    assert "file" not in dataset.videos.__dict__  # not open before it is needed
    frames, _ = dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0][0], frames)


def test_padding_is_zero_and_lengths_say_where_it_begins() -> None:
    short, long = torch.full((2, 4, 4), 7, dtype=torch.uint8), torch.full((5, 4, 4), 9)
    frames, lengths, scores = pad_videos([(short, 1), (long.to(torch.uint8), 3)])
    assert frames.dtype == torch.uint8
    assert lengths.tolist() == [2, 5]
    assert scores.tolist() == [1, 3]
    assert not frames[0, 2:].any()
    assert torch.equal(frames[0, :2], short)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="there is no"):
        VideoDataset(tmp_path / "videos.h5")
