"""The benchmarks' own arithmetic: what is merged, what a process tree holds, what a study is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lus_cli.files import read_json, write_json
from lus_cli.study.finding import find_sources
from tests.benchmarks.__main__ import PARTS, merge
from tests.benchmarks.processes import held, tree
from tests.benchmarks.studies import encode, make_study


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
