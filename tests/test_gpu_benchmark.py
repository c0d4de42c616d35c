"""The command for CUDA machines, rehearsed on the CPU with tiny numbers and few packages."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.benchmarks.gpu import __main__ as gpu
from tests.benchmarks.gpu import checks
from tests.benchmarks.gpu.machine import TINY, Machine, make_study

ROOT = Path(__file__).parents[1]
# Hides the packages that are not named, as if they were not installed.
HIDE = """
from importlib.machinery import PathFinder
HIDDEN = {hidden!r}
find_spec = PathFinder.find_spec
def found(name, path=None, target=None):
    return None if name.partition(".")[0] in HIDDEN else find_spec(name, path, target)
PathFinder.find_spec = found
"""


@functools.cache
def needed(*names: str) -> frozenset[str]:
    """Packages and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        wanted = map(Requirement, importlib.metadata.requires(name) or [])
        waiting += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return frozenset(found)


PRESENT = needed("torch", "torchvision", "numpy")


def rehearse(
    folder: Path, packages: Collection[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command where no package is installed but PyTorch's and `packages`."""
    allowed = PRESENT | set(packages)
    hidden = {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & allowed
    } - {"tests", "lus_cli"}
    assert "pytest" in hidden
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=sorted(hidden)))
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--device", "cpu", "--tiny"]
    command += ["--minutes", "60", "--out", str(folder / "gpu.json"), *arguments]
    paths = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )


def results_in(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "gpu.json").read_text())["parts"]
    return results


def test_every_part_runs_with_the_packages_that_it_names(tmp_path: Path) -> None:
    done = rehearse(tmp_path, gpu.WHEELS)
    parts = results_in(tmp_path)
    failed = {
        t: row for part in parts.values() for t, row in part.items() if row["status"] != "done"
    }
    assert not failed
    assert done.returncode == 0, done.stderr
    assert "".join(parts) == "abcdef"
    for name, rows in parts.items():
        assert list(rows) == list(gpu.tasks_of(name))
    assert parts["b"]["resume"]["bit_equal"] is True  # on the CPU
    assert parts["c"]["alexnet bf16"]["of_bare"] > 0
    assert parts["d"]["batches of 4"]["epochs_trained"] == TINY.epochs
    table = (tmp_path / "gpu.md").read_text()
    assert "| b | skipped steps | done |" in table
    assert table.strip() in done.stdout


def test_recipes_are_compared_on_two_folds_of_a_prepared_study(
    prepared: Path, tmp_path: Path
) -> None:
    done = rehearse(tmp_path, [*gpu.WHEELS, *gpu.WHEELS_OF_G], "g", "--cache", str(prepared))
    rows = results_in(tmp_path)["g"]
    assert {row["status"] for row in rows.values()} == {"done"}, rows
    assert done.returncode == 0, done.stderr
    of_standard = [row["videos"] for task, row in rows.items() if task.startswith("standard")]
    assert sum(of_standard) == 18  # each video of the study once
    assert all(0 <= row["accuracy"] <= 1 for row in rows.values())


def test_the_wheels_are_those_that_lus_imports_and_what_they_need() -> None:
    """Without a network there, one that is missing is found out too late."""
    assert {*gpu.WHEELS} == needed(*gpu.IMPORTED) - PRESENT
    of_g = needed(*gpu.IMPORTED_BY_G) - PRESENT - {*gpu.WHEELS}
    assert {*gpu.WHEELS_OF_G} == of_g


def test_a_part_without_its_packages_says_so_and_the_others_run(tmp_path: Path) -> None:
    """A process that ends is one row; exit code 1 says that something failed."""
    done = rehearse(tmp_path, {*gpu.WHEELS} - {"xxhash"}, "e")
    assert done.returncode == 1
    row = results_in(tmp_path)["e"]["start"]
    assert row["status"] == "failed"
    assert "No module named 'xxhash'" in row["error"]


def test_a_check_that_finds_something_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "bidirectional_by_reversal", lambda lstm, v, s: lstm(v, s) * 1.01)
    with pytest.raises(AssertionError):
        checks.packed_lstm(Machine(torch.device("cpu"), tmp_path, TINY))


def test_a_task_that_ends_its_process_is_noted_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kernel that hangs the device or breaks it does."""
    journal = tmp_path / "e.jsonl"
    gpu.note(journal, {"task": "one", "begun": 0})
    gpu.note_end(journal, "ended", "its time box was over")
    gpu.note_end(journal, "ended", "again")  # nothing runs: nothing to note
    monkeypatch.setattr(gpu, "tasks_of", lambda _: {"one": None, "two": None})
    assert gpu.rows_of("e", journal) == {
        "one": {"status": "ended", "error": "its time box was over"},
        "two": {"status": "not reached"},
    }


def test_the_synthetic_study_has_every_score_in_both_parts(tmp_path: Path) -> None:
    machine = Machine(torch.device("cpu"), tmp_path, TINY)
    make_study(machine.root / "videos.h5", TINY)
    videos = machine.videos()
    for part in checks.parts_of(videos):
        assert {*videos.scores[part].tolist()} == {0, 1, 2, 3}
    assert not (videos.read(0) == videos.read(1)).all()
