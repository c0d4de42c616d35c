"""The search for the report's NaN: that a fault is put in and found, and that no run is done twice."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from tests.benchmarks import stability_runs
from tests.benchmarks.lstm_defects import Case, faulty, outcome
from tests.benchmarks.stability import done, known_rows, lines_of, work_through
from tests.benchmarks.stability_runs import NoiseVideos, Run, new_trainer, trained

CPU = torch.device("cpu")
SHORT = Run(padding="packed", epochs=2, videos=3, frames=2)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_fault_spoils_unchecked_weights_and_is_named_where_steps_are_checked(
    batch_size: int,
) -> None:
    found = outcome(Case("not a number", batch_size, steps=5), CPU)
    assert found["spoiled_at_step"] == 4
    assert found["weights_finite_unchecked"] is False
    assert found["not_taken"] == 1
    assert found["weights_finite_checked"] is True
    assert found["named"] == {"heads.0.lstm (backward)": 1}


def test_vanishing_gradients_stay_finite() -> None:
    found = outcome(Case("vanished", 1, steps=2, every=1), CPU)
    assert (found["spoiled_at_step"], found["not_taken"]) == (None, 0)


def test_the_faulty_lstm_is_the_sound_one_but_for_its_fault() -> None:
    run = dataclasses.replace(SHORT, batch_size=3)
    gradients: dict[str, list[Tensor]] = {}
    for fault in ("", "none", "transposed"):
        trainer = new_trainer(run, NoiseVideos(run), CPU, [])
        if fault:
            trainer.model.heads[0].lstm = faulty(trainer.model.heads[0].lstm)
            trainer.model.heads[0].lstm.fault = fault
        trainer.gradient(trainer.loader.load([0, 1, 2]), [0, 1, 2])
        gradients[fault] = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        assert len(gradients[fault]) == len(list(trainer.model.parameters()))
    same, other = (
        [torch.equal(a, b) for a, b in zip(gradients[""], gradients[f], strict=True)]
        for f in ("none", "transposed")
    )
    assert all(same)
    assert not all(other)


def test_a_run_counts_its_steps_and_says_what_was_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = trained(dataclasses.replace(SHORT, batch_size=2), NoiseVideos(SHORT), CPU)
    assert (sound["steps"], sound["not_finite"], sound["stopped"]) == (4, 0, "")
    assert 0 < sound["first_layer_gradient"] <= sound["largest_gradient_norm"] < math.inf
    build = stability_runs.new_model

    def broken(recipe: Any) -> Any:
        model = build(recipe)
        model.heads[0].last.register_forward_hook(lambda _m, _i, logits: logits * math.nan)
        return model

    monkeypatch.setattr(stability_runs, "new_model", broken)
    found = trained(dataclasses.replace(SHORT, batch_size=1), NoiseVideos(SHORT), CPU)
    assert found["not_finite"] == 3
    assert "3 steps in a row" in found["stopped"]
    assert found["weights_finite"] is True
    assert "| 3 heads.0.last (forward) |" in lines_of("noise", [found])[-1]


def test_a_run_is_kept_as_soon_as_it_is_there_and_known_by_its_settings(tmp_path: Path) -> None:
    path, first, second = tmp_path / "rows.json", Case("none", 1), Case("none", 2)

    def work(case: Case) -> dict[str, Any]:
        assert len(known_rows(path)) == case.batch_size - 1
        return {**dataclasses.asdict(case), "not_taken": 0}

    work_through(path, [first], work, Console(quiet=True))
    assert (done(first, known_rows(path)), done(second, known_rows(path))) == (True, False)
    work_through(path, [second], work, Console(quiet=True))
    assert done(second, known_rows(path))


def test_the_recipe_is_the_papers_but_for_what_a_run_changes() -> None:
    recipe = Run(batch_size=1, rates=10.0).recipe
    assert (recipe.learning_rate_cnn, recipe.learning_rate) == pytest.approx((0.01, 0.1))
    assert (recipe.padding, recipe.clip_norm, recipe.loss) == ("zeros", 0.0, "sord")
