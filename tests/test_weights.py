"""What is computed from weights is never shown for others: a run is resumed after its evaluation."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest

from lus_cli.cache.layout import Cache, Run
from lus_cli.config import (
    AttentionConfig,
    CrossvalConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    TrainConfig,
)
from lus_cli.errors import LusError
from lus_cli.files import write_json
from lus_cli.model.checkpoint import digest_of, load_best, save_best, weights_digest
from lus_cli.prediction.scorer import fitted_temperature, required_temperature
from lus_cli.progress import silent
from lus_cli.steps import attention, crossval, evaluate, export, predict, train
from lus_cli.training.trainer import Trainer
from tests.conftest import tiny


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def gone_on(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after its first epoch, evaluated, explained, exported, and then
    went on to better weights: read it, do not change it."""
    cache = tmp_path_factory.mktemp("weights") / "cache"
    shutil.copytree(prepared, cache)

    def stop(task: str, *_arguments: object, **_facts: object) -> None:
        if task == "epoch 2":
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "validate", ever_better)
        with pytest.raises(StoppedError):
            train.run(tiny(cache, run="mine", learning_rate=0.1), stop)
        evaluate.run(evaluation(cache, run="mine"), silent)
        train.run(tiny(cache, run="mine", resume=True), silent)
    return cache


def ever_better(self: Trainer, *_arguments: Any) -> dict[str, float]:
    names = "loss", "excess", "accuracy", "kappa"
    return {f"validation_{name}": 1 / self.steps for name in names}


def evaluation(cache: Path, **changes: Any) -> EvaluateConfig:
    return EvaluateConfig(cache=cache, device="cpu", threads=1, permutations=50, **changes)


@pytest.fixture
def run(gone_on: Path, tmp_path: Path) -> Run:
    """The same, to be changed."""
    shutil.copytree(gone_on, tmp_path / "cache")
    return Cache(tmp_path / "cache").run("mine")


def test_the_digest_is_of_the_weights_alone(run: Run) -> None:
    model, card = load_best(run.best)
    before = weights_digest(run.best)
    assert before == digest_of(model.state_dict())
    save_best(run.best, model.state_dict(), dataclasses.replace(card, epoch=9))
    assert weights_digest(run.best) == before
    model.heads[0].last.bias.data[0] += 1e-3
    save_best(run.best, model.state_dict(), card)
    assert weights_digest(run.best) != before


def test_the_card_leaves_out_what_other_weights_reached(run: Run) -> None:
    text = run.model_card.read_text()
    assert "Best epoch: 2 of 2" in text
    assert "### Test patients" not in text
    assert "model-index" not in text
    assert "None: run `lus evaluate --run mine`" in text
    assert "are left out, because they used other or unrecorded weights" in text
    assert f"`{weights_digest(run.best)}`" in text
    evaluate.run(evaluation(run.root.parents[1], run="mine"), silent)
    text = run.model_card.read_text()
    assert "### Test patients" in text
    assert "other or unrecorded weights" not in text


def test_a_temperature_of_other_weights_is_refused(run: Run, exams: Path) -> None:
    cache, weights = run.root.parents[1], weights_digest(run.best)
    scores = json.loads((run.evaluation("test") / "scores.json").read_text())
    fitted = {"value": 1.03, "fitted_on": {"videos": 3, "patients": 1}}
    stale = scores | {"temperature": scores["temperature"] | fitted}
    assert stale["weights"] != weights
    write_json(run.evaluation("test") / "scores.json", stale)
    assert fitted_temperature(run, weights) is None
    video = next(path for path in sorted(exams.glob("*/*/*")) if path.is_dir())
    config = PredictConfig(paths=(video,), cache=cache, run="mine", device="cpu", threads=1)
    with pytest.raises(LusError, match="no temperature that was fitted with the weights") as caught:
        predict.run(dataclasses.replace(config, temperature=True), silent)
    assert "`lus evaluate --run mine`" in str(caught.value.remedy)
    plain = predict.run(dataclasses.replace(config, page=False), silent)
    assert plain.numbers["weights"] == weights
    assert "--temperature" not in " ".join(plain.notes)  # there is none to apply
    write_json(run.evaluation("test") / "scores.json", stale | {"weights": weights})
    assert required_temperature(run, weights).value == 1.03


def test_everything_made_from_weights_notes_which(run: Run, exams: Path) -> None:
    cache, weights = run.root.parents[1], weights_digest(run.best)
    same: dict[str, Any] = {"cache": cache, "device": "cpu", "threads": 1, "run": "mine"}
    evaluate.run(evaluation(cache, run="mine"), silent)
    video = sorted(exams.glob("*/*/*"))[0].relative_to(exams)
    attention.run(AttentionConfig(video=(video.as_posix(),), exams=exams, **same), silent)
    exported = export.run(ExportConfig(cache=cache, run="mine", threads=1, frames=3), silent)
    assert exported.numbers["weights"] == weights
    for path in ("evaluation/test/scores.json", "attention/made-by.json", "export/export.json"):
        assert json.loads((run.root / path).read_text())["weights"] == weights, path
    with h5py.File(run.attention / "masks.h5") as file:
        assert file.attrs["weights"] == weights
    assert weights in (run.evaluation("test") / "report.html").read_text()
    assert weights in (run.export / "README.md").read_text()


def test_maps_and_pictures_of_other_weights_are_removed(run: Run, exams: Path) -> None:
    first, second = (p.relative_to(exams).as_posix() for p in sorted(exams.glob("*/*/*"))[:2])
    same: dict[str, Any] = {"cache": run.root.parents[1], "device": "cpu", "threads": 1}
    config = AttentionConfig(video=(first,), exams=exams, format="gif", run="mine", **same)
    attention.run(config, silent)
    (run.attention / "thesis.txt").write_text("mine")
    assert len(list(run.attention.glob("*.gif"))) == 1
    model, card = load_best(run.best)
    model.heads[0].last.bias.data[0] += 1
    save_best(run.best, model.state_dict(), card)
    result = attention.run(dataclasses.replace(config, video=(second,)), silent)
    assert any("was made with other weights" in note for note in result.notes)
    assert [p.name for p in run.attention.glob("*.gif")] == [f"{second.replace('/', '-')}.gif"]
    assert (run.attention / "thesis.txt").is_file()


def test_a_fold_with_other_weights_predicts_again(
    crossvalidated: tuple[Path, Any], tmp_path: Path
) -> None:
    shutil.copytree(crossvalidated[0], tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    name = crossvalidated[1].numbers["run"]
    config = CrossvalConfig(
        **{f.name: getattr(tiny(cache.root, epochs=1), f.name) for f in dataclasses.fields(TrainConfig)
           if f.name not in ("run", "resume", "dry_run", "given")},
        run=name, resume=True, permutations=0, baselines=False,
    )  # fmt: skip
    result = crossval.run(config, silent)
    assert "nothing was trained" in result.notes[0]
    run = cache.run(f"{name}-r1-f1")
    model, card = load_best(run.best)
    model.heads[0].last.bias.data[0] += 5
    save_best(run.best, model.state_dict(), card)
    fold_file = cache.crossvals / name / "folds" / "r1-f1.json"
    before = json.loads(fold_file.read_text())
    again = crossval.run(config, silent)
    after = json.loads(fold_file.read_text())
    assert after["weights"] == weights_digest(run.best) != before["weights"]
    assert after["probabilities"] != before["probabilities"]
    assert again.numbers["weights"]["r1-f1"] == after["weights"]
    assert "nothing was trained" not in again.notes[0]


# --------------------------------------------------------------------------- a run that came alone


@pytest.fixture
def lone(gone_on: Path, tmp_path: Path) -> Path:
    """A cache that holds nothing but the weights of one run."""
    folder = tmp_path / "elsewhere" / "runs" / "mine"
    folder.mkdir(parents=True)
    shutil.copy(Cache(gone_on).run("mine").best, folder)
    return tmp_path / "elsewhere"


def test_a_run_that_came_alone_is_evaluated_on_another_study(lone: Path, prepared: Path) -> None:
    config = evaluation(lone, run="mine", videos=prepared / "videos.h5")
    scores = evaluate.run(config, silent).numbers
    assert any("was trained on are unknown" in warning for warning in scores["warnings"])
    assert scores["trained_patients"] == "unknown"
    card = Cache(lone).run("mine").model_card.read_text()
    assert "patients it was trained on may be included" in card
    assert "It is unknown which patients it was trained on" in card
    assert "Best epoch: 2, with" in card
    assert "model-index" not in card


def test_a_run_that_came_alone_is_exported(lone: Path) -> None:
    export.run(ExportConfig(cache=lone, run="mine", threads=1, frames=3), silent)
    text = (Cache(lone).run("mine").export / "README.md").read_text()
    assert "Unknown: there is no split.json next to the weights." in text
    assert "Unknown: there is neither split.json nor provenance.json" in text


def test_a_run_that_came_alone_has_no_parts_to_evaluate(lone: Path, prepared: Path) -> None:
    with pytest.raises(LusError, match="run mine has no study") as caught:
        evaluate.run(evaluation(lone, run="mine"), silent)
    assert "`lus evaluate --videos` another study" in str(caught.value.remedy)
    shutil.copy(prepared / "videos.h5", lone)
    with pytest.raises(LusError, match="run mine has no split"):
        evaluate.run(evaluation(lone, run="mine"), silent)
