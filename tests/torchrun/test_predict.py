"""Three processes predict as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lus_cli.config import PredictConfig
from lus_cli.prediction import shares
from lus_cli.progress import silent
from lus_cli.steps import predict, train
from tests.conftest import tiny
from tests.torchrun.launching import contents, torchrun


def test_three_processes_write_the_files_of_one(
    exams: Path, prepared: Path, tmp_path: Path
) -> None:
    study = tmp_path / "new"
    for name in sorted(path.name for path in exams.iterdir() if path.is_dir())[:2]:
        shutil.copytree(exams / name, study / name)
    damaged = next(study.glob("*/*/*/*.jpg"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, tmp_path / name)
    train.run(tiny(tmp_path, run="one", epochs=1), silent)
    made = {"paths": (study,), "cache": tmp_path, "device": "cpu", "threads": 1}
    alone = predict.run(PredictConfig(output=tmp_path / "alone", **made), silent)
    assert len(alone.problems) == 1
    done = torchrun(
        3, "predict", str(study), "--cache", str(tmp_path), "--output", str(tmp_path / "together"),
        "--device", "cpu", "--threads", "1", "--json",
    )  # fmt: skip
    videos = len(alone.numbers["videos"])
    assert videos > 3  # each process has some
    assert f"predict {videos + 1}/{videos + 1}" in done.stderr
    assert json.loads(done.stdout)["problems"] == alone.problems
    assert done.returncode != 0  # as alone, because of the damaged frame
    assert "Traceback" not in done.stderr.partition("torch/distributed")[0]
    one, three = (dict(contents(tmp_path / name)) for name in ("alone", "together"))
    assert one.keys() == three.keys() >= {"predictions.csv", "predictions.html"}
    assert [name for name in one if one[name] != three[name]] == []


def test_the_page_has_the_clips_of_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip is shown if those before it, of all processes, do not fill the page."""
    monkeypatch.setattr(shares, "MOST_PAGE_BYTES", 100)
    assert shares.clip_bytes_before([60, 0, 40, 1, 50, 50]) == [0, 60, 60, 100, 101, 101]
