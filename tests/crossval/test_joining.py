"""A cross-validation of jobs, one fold each, and the comparison of cross-validations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lus_cli.cache.layout import Cache
from lus_cli.cli import app
from lus_cli.config import EvaluateConfig
from lus_cli.crossval.fold_files import read_predictions
from lus_cli.errors import LusError, UsageError
from lus_cli.progress import silent
from lus_cli.steps import crossval, evaluate
from tests.conftest import crossval_config, folded_study


@pytest.fixture(scope="module")
def cache(exams: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished cross-validations of three folds: `whole`, and `jobs`, fold by fold."""
    folder = folded_study(exams, tmp_path_factory.mktemp("joining"))
    crossval.run(crossval_config(folder, run="whole"), silent)
    missing = []
    for number in (2, 3, 1, 1):
        done = crossval.run(crossval_config(folder, run="jobs", fold=number), silent)
        missing.append(done.numbers["missing"])
    assert missing == [["r1-f1", "r1-f3"], ["r1-f1"], [], []]
    assert "`lus crossval --resume --run jobs` pools them" in done.notes[0]
    return folder


def test_folds_of_jobs_are_those_of_one_command(cache: Path) -> None:
    crossvals = Cache(cache).crossvals
    gathered = crossval.run(crossval_config(cache, run="jobs", resume=True), silent)
    assert "nothing was trained" in gathered.notes[0]
    whole = json.loads((crossvals / "whole" / "scores.json").read_text())
    assert gathered.numbers["metrics"] == whole["metrics"]
    for fold in ("r1-f1", "r1-f2", "r1-f3"):
        one, other = (read_predictions(crossvals / name, fold) for name in ("whole", "jobs"))
        assert one.weights == other.weights
        for video, row in one.probabilities.items():
            np.testing.assert_array_equal(row, other.probabilities[video])


def test_a_job_that_does_not_fit_is_refused(cache: Path) -> None:
    for changes, error, said in (
        ({"fold": 1}, UsageError, "name it with --run"),
        ({"fold": 4, "run": "jobs"}, UsageError, "folds 1 to 3"),
        ({"fold": 1, "run": "jobs", "seed": 99}, LusError, "a different recipe"),
        ({"fold": 1, "run": "jobs", "repeats": 2}, LusError, "number of repetitions"),
    ):
        with pytest.raises(error, match=said):
            crossval.run(crossval_config(cache, **changes), silent)


def test_job_number_0_is_refused_instead_of_training_every_fold(tmp_path: Path) -> None:
    words = ["crossval", "--fold", "0", "--run", "jobs", "--cache", str(tmp_path)]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 2
    assert "--fold" in outcome.output


def compared(cache: Path, *names: str) -> Any:
    config = EvaluateConfig(runs=names, cache=cache, device="cpu", threads=1)
    return evaluate.run(config, silent)


def test_cross_validations_are_compared_patient_by_patient(cache: Path) -> None:
    result = compared(cache, "whole", "jobs")
    rows = {row["name"]: row["metrics"]["accuracy"] for row in result.numbers["candidates"]}
    assert rows["jobs"]["difference"]["value"] == 0
    assert rows["jobs"]["value"] == rows["whole"]["value"]
    assert result.numbers["same_folds"]
    assert "looks better than it is" in result.notes[-1]
    assert "not those of" not in " ".join(result.notes)
    assert result.files["comparison"].is_file()

    path = Cache(cache).crossvals / "jobs" / "folds" / "r1-f1.json"
    content = json.loads(path.read_text())
    before = path.read_bytes()
    content["probabilities"] = [[0.0, 0.0, 0.0, 1.0] for _ in content["probabilities"]]
    path.write_text(json.dumps(content))
    changed = compared(cache, "crossvals/whole", "crossvals/jobs")
    row = next(row for row in changed.numbers["candidates"] if row["name"] == "jobs")
    values = [entry["difference"]["value"] for entry in row["metrics"].values()]
    assert any(values)
    path.unlink()
    with pytest.raises(LusError, match=r"jobs is unfinished: 1 fold of 3 not trained"):
        compared(cache, "whole", "jobs")
    path.write_bytes(before)


def test_other_folds_are_said(cache: Path) -> None:
    path = Cache(cache).crossvals / "jobs" / "plan.json"
    before = path.read_bytes()
    plan = json.loads(before)
    first, second = plan["repeats"][0][:2]
    first[0], second[0] = second[0], first[0]
    path.write_text(json.dumps(plan))
    result = compared(cache, "whole", "jobs")
    path.write_bytes(before)
    assert not result.numbers["same_folds"]
    assert "The folds of jobs are not those of whole" in " ".join(result.notes)


def test_a_run_and_a_cross_validation_are_not_compared(cache: Path) -> None:
    with pytest.raises(UsageError, match="compare runs with runs, or cross-validations with cross"):
        compared(cache, "jobs-r1-f1", "whole")
    with pytest.raises(UsageError, match="a run is given twice"):
        compared(cache, "whole", "crossvals/whole")


def test_recipes_are_cross_validated_on_the_same_folds_and_compared(
    exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = folded_study(exams, tmp_path / "several")
    tiny_options = ["--weights", "none", "--epochs", "1", "--frames-per-video", "3"]
    tiny_options += ["--feature-stride", "16", "--no-baselines", "--permutations", "0"]
    where = ["--cache", str(cache), "--device", "cpu", "--threads", "1", "--run", "both"]
    recipes = ["--recipe", "paper", "--recipe", "finetune"]
    asked: list[Any] = []
    real = crossval.run
    monkeypatch.setattr(crossval, "run", lambda config, _: asked.append(config) or real(
        crossval_config(cache, run=config.run, name=config.name, seed=len(asked)), silent
    ))  # fmt: skip
    done = CliRunner().invoke(app, ["crossval", *recipes, *tiny_options, *where, "--json"])
    assert done.exit_code == 0, done.stderr
    assert [(config.name, config.run) for config in asked] == [
        ("paper", "both-paper"),
        ("finetune", "both-finetune"),
    ]
    numbers = json.loads(done.stdout)
    assert [row["name"] for row in numbers["candidates"]][:2] == ["both-paper", "both-finetune"]
    assert numbers["same_folds"]
    assert {*numbers["crossvals"]} == {"both-paper", "both-finetune"}
    for wrong in (["--fold", "1"], ["--recipe", "paper"], ["--resume"]):
        done = CliRunner().invoke(app, ["crossval", *recipes, *where, *wrong])
        assert done.exit_code == 2, done.output
