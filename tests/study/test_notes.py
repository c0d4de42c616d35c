"""What a reader says of a video reaches the user, every time, from prepare, predict and import."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from lus_cli.cache.chunks import FrameFormat, StoredVideo, store_video
from lus_cli.config import ImportConfig, PrepareConfig
from lus_cli.prediction.new_videos import decode
from lus_cli.progress import silent
from lus_cli.steps import import_videos, prepare
from lus_cli.study.ids import VideoId
from lus_cli.study.notes import MOST_NOTES, summary
from lus_cli.study.sources import VideoFile

from .test_video_files import encode, gray_frames

SAID = "its header states 7 frames, but it holds 6: all 6 are read"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four AVIs of six frames; the headers of the first two promise seven."""
    folder = tmp_path / "study"
    folder.mkdir()
    rows = ["file,patient,area,score"]
    for number in range(4):
        frames = [np.roll(frame, 5 * number, axis=1) for frame in gray_frames(6)]
        path = encode(folder / f"v{number}.avi", "mjpeg", "yuvj420p", frames)
        if number < 2:
            content = bytearray(path.read_bytes())
            at = content.index(b"strh") + 40
            content[at : at + 4] = struct.pack("<I", 7)
            path.write_bytes(content)
        rows.append(f"v{number}.avi,P{number},L1,{number}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def test_prepare_shows_the_notes_of_its_readers_as_often_as_it_runs(study, tmp_path):
    config = PrepareConfig(
        exams=study,
        labels=study / "labels.csv",
        cache=tmp_path / "cache",
        size=32,
        workers=1,
        folds=0,
        test_share=0,
        validation_share=0,
    )
    for _ in range(2):  # the second time, nothing is decoded
        result = prepare.run(config, silent)
        assert result.notes == [f"v0.avi and 1 more: {SAID}"]
        assert result.numbers["notes"] == {"v0.avi": (SAID,), "v1.avi": (SAID,)}
        assert result.problems == []
        json.dumps(result.numbers)


def test_import_shows_the_notes_of_its_readers(study, tmp_path):
    config = ImportConfig(
        videos=study, labels=study / "labels.csv", cache=tmp_path / "cache", workers=1
    )
    result = import_videos.run(config, silent)
    assert result.notes == [f"v0.avi and 1 more: {SAID}"]
    assert result.numbers["notes"] == {"v0.avi": (SAID,), "v1.avi": (SAID,)}


def test_a_new_video_keeps_its_notes_once_each(study):
    source = VideoFile(VideoId("p", "1", "a"), study, "v1.avi")
    assert decode(source, FrameFormat(32, False, False)).notes == (SAID,)


def test_a_shard_keeps_the_notes(tmp_path):
    frames = [np.zeros((8, 8), np.uint8)]
    stored = StoredVideo(
        *(getattr(store_video(frames, [0], (8, 8)), name) for name in
          ("frame_numbers", "checksum", "source_shape", "chunks")), notes=("one", "two"),
    )  # fmt: skip
    stored.save(tmp_path / "a.video")
    loaded = StoredVideo.load(tmp_path / "a.video")
    assert loaded is not None
    assert loaded.notes == ("one", "two")


def test_many_different_notes_are_counted():
    lines = summary((f"v{n}", [f"note {n}"]) for n in range(MOST_NOTES + 5))
    assert len(lines) == MOST_NOTES + 1
    assert lines[-1] == "5 more notes: --json lists them all"
    assert summary([("a", [])]) == []
