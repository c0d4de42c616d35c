"""Three processes evaluate as one."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lus_cli.config import EvaluateConfig
from lus_cli.progress import silent
from lus_cli.steps import evaluate, train
from tests.conftest import tiny
from tests.torchrun.launching import contents, ended, lines_of_lus, torchrun

PACKAGE = Path(__file__).parents[2] / "lus_cli"


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


def test_the_job_array_of_the_manual_evaluates_once(trained: Path, tmp_path: Path) -> None:
    """Three elements of an array, here on one machine, find each other as the README says."""
    text = (PACKAGE / "training" / "README.md").read_text()
    [script] = [part for part in text.split("```") if re.match(r"sh\n.*\n#SBATCH --array", part)]
    script = script.removeprefix("sh\n").replace("29500", str(free_port()))
    script, changed = re.subn(r"(lus_cli evaluate) .*", r"\1 --json", script)
    assert changed == 1
    script = script.replace("torchrun ", f"exec {sys.executable} -m torch.distributed.run ")
    cache = tmp_path / "cache"
    shutil.copytree(trained, cache)
    same = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3", "LUS_CACHE": str(cache)}
    elements = [
        subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | same | {"SLURM_ARRAY_TASK_ID": str(number)},
        )
        for number in range(3)
    ]  # fmt: skip
    done = [ended(element) for element in elements]
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    [document] = [one.stdout for one in done if one.stdout]
    assert json.loads(document)["run"] == "one"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
