"""Three processes evaluate as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lus_cli.config import EvaluateConfig
from lus_cli.progress import silent
from lus_cli.steps import evaluate, train
from tests.conftest import tiny
from tests.torchrun.launching import contents, lines_of_lus, torchrun


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one run whose batches have two videos: read it, do not change it."""
    cache = tmp_path_factory.mktemp("trained")
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, cache / name)
    train.run(tiny(cache, run="one", epochs=1, batch_size=2), silent)
    return cache


def test_three_processes_write_the_files_of_one(trained: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for cache in (alone, together):
        shutil.copytree(trained, cache)
    config = EvaluateConfig(cache=alone, split="all", bootstrap=50, device="cpu", threads=1)
    evaluate.run(config, silent)
    done = torchrun(
        3, "evaluate", "--cache", str(together), "--split", "all", "--bootstrap", "50",
        "--device", "cpu", "--threads", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["videos"] == 18  # one document
    assert "score all 18/18" in done.stderr
    folders = [cache / "runs" / "one" / "evaluation" / "all" for cache in (alone, together)]
    one, three = (dict(contents(folder)) for folder in folders)
    assert "report.html" in one
    assert one.keys() == three.keys()
    assert [name for name in one if one[name] != three[name]] == []


def test_a_wrong_run_is_named_once(trained: Path) -> None:
    done = torchrun(3, "evaluate", "--cache", str(trained), "--run", "two", "--json")
    [line] = lines_of_lus(done)
    assert "there is no run two" in line or "no run 'two'" in line
    assert json.loads(done.stdout)["error"] in line
    assert done.returncode != 0
    assert done.stderr.count("exitcode  : 1 ") == 3  # torchrun's table of its processes
