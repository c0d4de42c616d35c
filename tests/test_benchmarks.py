"""The benchmarks' own arithmetic: what is merged, what a process tree holds, what a study is."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from PIL import Image

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.decoding import DecodeTask, decode_video
from lus_cli.config import PrepareConfig
from lus_cli.files import read_json, write_json
from lus_cli.progress import silent
from lus_cli.steps import prepare
from lus_cli.study.finding import find_sources
from tests.benchmarks.__main__ import PARTS, merge
from tests.benchmarks.chains import SIZE, decoded, frames_in_a_row
from tests.benchmarks.processes import held, tree
from tests.benchmarks.studies import encode, make_study
from tests.benchmarks.video_files import LENGTH, make_videos


def test_a_part_leaves_the_other_sections_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_json(path, {"train": {"frames_per_s": 1.0}, "prepare": {"old": 1}})
    merge(path, {"prepare": {"decode_ratio": 0.9}, "cache": {"frame_ms": 1.0}})
    known = read_json(path, "")
    assert known["train"] == {"frames_per_s": 1.0}
    assert known["prepare"]["decode_ratio"] == 0.9
    assert "old" not in known["prepare"]
    assert known["cache"]["conditions"]["cores"] >= 1


def test_an_unknown_part_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "speed"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 2
    assert "no part speed" in done.stderr
    assert all(part in done.stderr for part in PARTS)


def test_a_study_repeats_its_frames(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "f.jpg")
    frames = encode([tmp_path / "f.jpg"] * 3, tmp_path / "sized", (64, 48), color=True)
    assert {Image.open(frame).size for frame in frames} == {(64, 48)}
    sources, problems = find_sources(make_study(tmp_path / "study", frames, 30, 4), False)
    assert [source.length for source in sources] == [4] * 30
    assert problems == []


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells")
def test_memory_is_that_of_all_processes() -> None:
    work = "import sys; kept = bytes(range(256)) * 400_000; print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in tree(os.getpid())
        assert 100e6 < held(process.pid) < 160e6
        process.communicate()
    assert held(process.pid) == 0


def test_the_calls_in_a_row_make_what_prepare_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would be no measure of it."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8))
    image.resize((800, 780)).save(tmp_path / "frame.jpg")
    frames = [tmp_path / "frame.jpg"]
    [source], _ = find_sources(make_study(tmp_path / "study", frames, 1, 20), False)
    chunks: list[bytes] = []

    class Compressor:  # subclasses of the library's break Python's garbage collection
        def __init__(self, **options: Any) -> None:
            self.inner = inner(**options)

        def compress(self, data: bytes) -> bytes:
            chunks.append(self.inner.compress(data))
            return chunks[-1]

    inner = zstandard.ZstdCompressor
    monkeypatch.setattr(zstandard, "ZstdCompressor", Compressor)
    assert frames_in_a_row(source.files) == 20
    monkeypatch.undo()
    task = DecodeTask(source, FrameFormat(SIZE, False, False), tmp_path / "shard.video")
    stored = decode_video(task)
    assert stored.chunks[0] == chunks[0]
    assert len(stored.chunks) == len(chunks) == 2


def test_videos_of_the_benchmark_are_read_by_their_labels(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(tmp_path / "f.jpg")
    paths, labels = make_videos(tmp_path / "videos", [tmp_path / "f.jpg"], 4)
    config = PrepareConfig(exams=tmp_path / "videos", labels=labels, cache=tmp_path, size=32)
    result = prepare.run(dataclasses.replace(config, workers=1), silent)
    assert result.numbers["frames"] == decoded(paths) == 4 * LENGTH
