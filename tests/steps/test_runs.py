"""lus runs: what it lists comes from the files of the runs, and what it removes is gone as a whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lus_cli.cache.layout import Cache
from lus_cli.config import EvaluateConfig, RunsConfig
from lus_cli.errors import InUseError, LusError, UsageError
from lus_cli.folders import locked
from lus_cli.progress import Result, silent
from lus_cli.steps import evaluate, runs, train
from lus_cli.training.run_list import size_of
from tests.conftest import tiny
from tests.test_cli import lus


@pytest.fixture(scope="module")
def made(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with two runs, the first of which was evaluated. Tests must not change it."""
    cache = tmp_path_factory.mktemp("runs") / "cache"
    shutil.copytree(prepared, cache)
    train.run(tiny(cache, epochs=1), silent)
    evaluate.run(EvaluateConfig(cache=cache, threads=1, permutations=10, device="cpu"), silent)
    train.run(tiny(cache, epochs=2, flip=True), silent)
    return cache


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "cache")


def rows(cache: Path, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = runs.run(RunsConfig(cache=cache, **options), silent).numbers[
        "runs"
    ]
    return found


def names(cache: Path, **options: Any) -> list[str]:
    return [row["name"] for row in rows(cache, **options)]


def test_a_row_says_what_the_files_of_the_run_say(made: Path) -> None:
    newest, oldest = rows(made)
    assert (newest["name"], newest["latest"]) == ("paper-2", True)
    assert (oldest["name"], oldest["latest"]) == ("paper-1", False)
    run = Cache(made).run("paper-1")
    scores = json.loads((run.evaluation("test") / "scores.json").read_text())
    assert oldest["test_kappa"] == scores["metrics"]["kappa_quadratic"]["value"]
    assert oldest["test_f1_macro"] == scores["metrics"]["f1_macro"]["value"]
    assert oldest["patients"] == 6
    assert oldest["started"] == json.loads(run.provenance.read_text())["started"]
    assert (oldest["epochs"], oldest["planned"], oldest["best_epoch"]) == (1, 1, 1)
    assert oldest["recipe"] == "paper"
    assert oldest["changed"]["epochs"] == 1
    assert oldest["size"] == sum(p.stat().st_size for p in run.root.rglob("*") if p.is_file())
    assert oldest["state"] == "finished"


def test_a_run_that_was_not_evaluated_has_the_test_metrics_of_its_end(made: Path) -> None:
    result = json.loads(Cache(made).run("paper-2").result.read_text())
    newest = rows(made)[0]
    assert newest["test_kappa"] == result["test"]["kappa"]
    assert newest["test_accuracy"] == result["test"]["accuracy"]
    assert newest["test_f1_macro"] is None
    by_hand = Cache(made).run("paper-2").epochs.read_text().splitlines()[newest["best_epoch"]]
    assert str(newest["validation_loss"]) in by_hand


def test_metrics_of_other_weights_are_not_shown(cache: Path) -> None:
    run = Cache(cache).run("paper-1")
    result = json.loads(run.result.read_text())
    run.result.write_text(json.dumps(result | {"weights": "0" * 32, "test": None}))
    assert rows(cache)[1]["test_kappa"] is None
    run.result.unlink()  # a run of an earlier version: its card has the digest
    assert rows(cache)[1]["test_kappa"] is not None


def test_an_unfinished_a_running_and_a_damaged_run(cache: Path) -> None:
    run = Cache(cache).run("paper-2")
    run.model_card.unlink()
    assert rows(cache)[0]["state"] == "unfinished"
    assert rows(cache)[0]["test_kappa"] is None
    with locked(run.root / ".lock", run.root, keep=False):
        assert rows(cache)[0]["state"] == "running"
    run.config.write_text("epochs = ")
    assert [(row["name"], row["state"]) for row in rows(cache)] == [
        ("paper-1", "finished"),
        ("paper-2", "damaged"),
    ]


def test_sorting_and_filtering(made: Path) -> None:
    assert names(made, sort="name") == ["paper-1", "paper-2"]
    assert names(made, sort="-name") == ["paper-2", "paper-1"]
    assert names(made, sort="epochs") == ["paper-2", "paper-1"]
    assert names(made, sort="-started") == ["paper-1", "paper-2"]
    assert names(made, sort="test_f1_macro") == ["paper-1", "paper-2"], "missing values last"
    assert names(made, sort="-test_f1_macro") == ["paper-1", "paper-2"], "missing values last"
    assert names(made, filter=("epochs>1",)) == ["paper-2"]
    assert names(made, filter=("epochs <= 1", "recipe=pap*")) == ["paper-1"]
    assert names(made, filter=("recipe!=paper",)) == []
    assert names(made, filter=("FLIP",)) == ["paper-2"]
    assert names(made, filter=("test_f1_macro<2",)) == ["paper-1"], (
        "a missing value fulfils nothing"
    )
    assert names(made, filter=("changed>a",)) == ["paper-2", "paper-1"], "compared as text"
    assert names(made, runs=("*-2",)) == ["paper-2"]
    with pytest.raises(UsageError, match="no column 'test_kapa': did you mean 'test_kappa'"):
        rows(made, sort="test_kapa")
    with pytest.raises(UsageError, match="'two' is not a number"):
        rows(made, filter=("epochs>two",))
    with pytest.raises(LusError, match=r"no run 'papr-1': did you mean 'paper-1'"):
        rows(made, runs=("papr-1",))


def test_the_table_has_a_row_for_each_run(made: Path) -> None:
    done = lus("runs", "--cache", made)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"2 runs in {made}, of ")
    assert lines[0].endswith("; the latest run is paper-2")
    assert "2 of 2" in lines[3]
    assert "1 of 1" in lines[4]


def test_a_crossval_is_one_row(crossvalidated: tuple[Path, Result]) -> None:
    cache, result = crossvalidated
    [row] = rows(cache)
    assert (row["name"], row["kind"], row["state"]) == ("paper-cv-1", "crossval", "finished")
    assert (row["epochs"], row["planned"], row["patients"]) == (6, 6, 6)
    means = result.numbers["comparison"]["candidates"][0]["metrics"]
    assert row["test_kappa"] == means["kappa_quadratic"]["value"]
    assert row["test_accuracy"] == means["accuracy"]["value"]
    # Not those of the first of the two repetitions, which differ.
    assert row["test_accuracy"] != result.numbers["metrics"]["accuracy"]["value"]
    folds = rows(cache, folds=True)
    assert len(folds) == 7
    assert {fold["kind"] for fold in folds} == {"crossval", "fold"}
    assert row["size"] == size_of(cache / "runs") + size_of(cache / "crossvals" / "paper-cv-1")
    assert names(cache, runs=("crossvals/paper-cv-1",)) == ["paper-cv-1"]


def test_a_fold_is_finished_when_its_cross_validation_counts_it(
    crossvalidated: tuple[Path, Result], tmp_path: Path
) -> None:
    cache = shutil.copytree(crossvalidated[0], tmp_path / "cache")
    (cache / "crossvals" / "paper-cv-1" / "folds" / "r2-f1.json").unlink()
    by_name = {row["name"]: row for row in rows(cache, folds=True)}
    assert by_name["paper-cv-1"]["epochs"] == 5
    assert by_name["paper-cv-1-r2-f1"]["state"] == "unfinished"
    assert [row["state"] for row in by_name.values()].count("finished") == 5


# --------------------------------------------------------------------------------------- removing


def test_removing_asks_first_and_then_repairs_latest(cache: Path) -> None:
    asked = runs.run(RunsConfig(cache=cache, remove=True, runs=("paper-2",)), silent)
    assert asked.question.startswith("Remove paper-2 (")
    assert names(cache) == ["paper-2", "paper-1"], "nothing was removed so far"
    done = runs.run(RunsConfig(cache=cache, remove=True, yes=True, runs=("paper-2",)), silent)
    assert done.numbers["latest"] == "paper-1"
    assert [path.name for path in (cache / "runs").iterdir()] == ["paper-1"]
    assert Cache(cache).run(None).name == "paper-1"
    runs.run(RunsConfig(cache=cache, remove=True, yes=True, runs=("*",)), silent)
    assert not list((cache / "runs").iterdir())
    assert not Cache(cache).latest.exists()
    assert not list(cache.glob(".run-*"))


def test_another_run_is_not_made_the_latest(cache: Path) -> None:
    runs.run(RunsConfig(cache=cache, remove=True, yes=True, runs=("paper-1",)), silent)
    assert Cache(cache).run(None).name == "paper-2"


def test_a_script_must_say_yes(cache: Path) -> None:
    done = lus("runs", "--remove", "paper-1", "--cache", cache)
    assert done.exit_code == 2
    assert "give --yes" in done.output
    assert len(names(cache)) == 2
    assert lus("runs", "--remove", "--yes", "paper-1", "--cache", cache).exit_code == 0
    assert names(cache) == ["paper-2"]


@pytest.mark.parametrize(("answer", "left"), [("n", 2), ("y", 1)])
def test_the_answer_decides(
    cache: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    monkeypatch.setattr("typer.confirm", lambda question, err: answer == "y")
    monkeypatch.setattr("lus_cli.terminal.can_answer", lambda: True)
    assert lus("runs", "--remove", "paper-1", "--cache", cache).exit_code == 0
    assert len(names(cache)) == left


def test_a_run_that_another_process_writes_is_not_removed(cache: Path) -> None:
    run = Cache(cache).run("paper-2")
    hold = (
        "import sys; from pathlib import Path; from lus_cli.folders import locked\n"
        "path = Path(sys.argv[1])\n"
        "with locked(path, path, keep=False): print('held', flush=True); sys.stdin.read()"
    )
    lock = run.evaluations / ".test.lock"  # as `lus evaluate` takes it
    lock.parent.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    everything = RunsConfig(cache=cache, remove=True, yes=True, runs=("paper-1", "paper-2"))
    with pytest.raises(InUseError, match=f"process {holder.pid} is writing to"):
        runs.run(everything, silent)
    assert len(names(cache)) == 2, "none of them"
    holder.communicate(b"")
    runs.run(everything, silent)
    assert names(cache) == []


def test_a_crossval_goes_with_its_folds_and_no_fold_alone(
    crossvalidated: tuple[Path, Result], tmp_path: Path
) -> None:
    cache = shutil.copytree(crossvalidated[0], tmp_path / "cache")
    with pytest.raises(LusError, match="is a fold of the cross-validation paper-cv-1"):
        runs.run(RunsConfig(cache=cache, remove=True, yes=True, runs=("paper-cv-1-r1-f1",)), silent)
    runs.run(RunsConfig(cache=cache, remove=True, yes=True, runs=("paper-cv-1",)), silent)
    assert not list((cache / "runs").iterdir())
    assert not list((cache / "crossvals").iterdir())


def test_listing_imports_neither_torch_nor_numpy() -> None:
    script = "import sys, lus_cli.steps.runs, lus_cli.steps.recipes; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "h5py"} & set(done.stdout.split())
