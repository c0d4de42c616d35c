"""lus crossval on a small study: which model tests which patient, resuming, and no leakage."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.layout import Cache, Run
from lus_cli.cache.split import Split, load_split, read_split, write_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import EvaluateConfig, PrepareConfig
from lus_cli.crossval.plan import next_name
from lus_cli.crossval.repetitions import draw_repeats, folds_of
from lus_cli.errors import LusError
from lus_cli.model.checkpoint import Card, save_best, weights_digest
from lus_cli.options import build
from lus_cli.progress import Result, silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.steps import crossval, evaluate, prepare, train
from lus_cli.training.checks import check_weights
from tests.conftest import crossval_config as config
from tests.conftest import folded_study as study
from tests.conftest import tiny

PATIENTS = [f"p{i}" for i in range(11) for _ in range(4)]
SCORES = np.arange(len(PATIENTS)) % 4


def a_split(folds: int = 5, **rule: Any) -> Split:
    names = tuple(dict.fromkeys(PATIENTS))
    groups = tuple(names[k::folds] for k in range(folds))
    return Split(names, (), (), groups, {"seed": 5, "validation_share": 0.2} | rule)


# ------------------------------------------------------------------------------------------- folds


@pytest.mark.parametrize("folds", [2, 5, 11])
def test_every_patient_is_tested_once_by_a_model_that_never_saw_the_patient(folds: int) -> None:
    split = a_split(folds)
    repeats = draw_repeats(split, PATIENTS, SCORES, 3)
    models = folds_of(split, repeats, PATIENTS, SCORES)
    assert len(models) == 3 * folds
    for repeat in (1, 2, 3):
        splits = [m.split for m in models if m.repeat == repeat]
        tested = [name for one in splits for name in one.test]
        assert sorted(tested) == sorted(set(PATIENTS))
        for one in splits:
            groups = [set(one.train), set(one.validation), set(one.test)]
            assert sum(map(len, groups)) == len(set.union(*groups)) == 11
            assert all(groups)


def test_the_first_repetition_has_the_folds_of_the_split_the_others_do_not() -> None:
    split = a_split()
    first, second, third = draw_repeats(split, PATIENTS, SCORES, 3)
    assert tuple(first) == split.folds
    assert set(second) != set(first)
    assert set(third) != set(second)
    assert draw_repeats(split, PATIENTS, SCORES, 3) == [first, second, third]


def test_scores_of_a_fold_do_not_affect_its_validation_part() -> None:
    """With stratification too: the drawing uses only the scores of the patients it draws from."""
    split = a_split(stratify=True)
    changed = SCORES.copy()
    changed[[name in split.folds[0] for name in PATIENTS]] = 3
    before = folds_of(split, [split.folds], PATIENTS, SCORES)[0]
    after = folds_of(split, [split.folds], PATIENTS, changed)[0]
    assert before == after


def test_two_patients_leave_one_to_train_on() -> None:
    split = Split(("a", "b", "c"), (), (), (("a", "b"), ("c",)), {})
    names, scores = ["a", "b", "c"], np.array([0, 1, 2])
    with pytest.raises(LusError, match="no folds"):
        draw_repeats(dataclasses.replace(split, folds=()), names, scores, 1)
    sizes = [len(f.split.train) for f in folds_of(split, [split.folds], names, scores)]
    assert sizes == [1, 1]


# ------------------------------------------------------------------------------------- the command


@pytest.fixture
def done(crossvalidated: tuple[Path, Result]) -> tuple[Path, dict[str, Any]]:
    """A finished cross-validation with two repetitions: its cache and its numbers."""
    return crossvalidated[0], crossvalidated[1].numbers


def test_every_labelled_video_is_predicted_by_a_run_that_never_saw_its_patient(done) -> None:
    cache, numbers = done
    videos = VideoCache(cache / "videos.h5")
    assert numbers["videos"] == int((videos.scores >= 0).sum())
    folder = cache / "crossvals" / "paper-cv-1"
    files = sorted((folder / "folds").iterdir())
    assert len(files) == 2 * 3
    for path in files:
        content = json.loads(path.read_text())
        run = Cache(cache).run(content["run"])
        split, _ = read_split(run.split, videos.patients)
        tested = {patient for patient, _, _ in content["videos"]}
        assert tested <= set(split.test)
        assert not tested & {*split.train, *split.validation}
    assert not (cache / "latest").exists()  # the runs of folds are not the latest run
    written = json.loads((folder / "scores.json").read_text())
    assert written == numbers
    assert written["comparison"]["candidates"][0]["repetitions"] == 2
    for name in (
        "predictions.csv",
        "confusion.svg",
        "comparison.csv",
        "comparison_predictions.csv",
    ):
        assert (folder / name).stat().st_size


def test_repetitions_have_different_weights(done) -> None:
    cache, _ = done
    first, second = (
        load_file(Cache(cache).run(f"paper-cv-1-r{repeat}-f1").best) for repeat in (1, 2)
    )
    assert any((first[name] != second[name]).any() for name in first)


def test_the_scores_of_a_fold_do_not_affect_its_model(done, exams: Path, tmp_path: Path) -> None:
    """With other scores for the patients of fold 1, its model is the same, bit for bit."""
    cache, _ = done
    other = study(exams, tmp_path)
    fold = json.loads((other / "split.json").read_text())["folds"][0]
    notes = other / "exams" / "Annotations.txt"
    lines = [
        f"{line[:-1]}{3 - int(line[-1])}" if line.split("/")[0] in fold else line
        for line in notes.read_text().split()
    ]
    notes.write_text("\n".join(lines))
    split = (other / "split.json").read_bytes()
    prepare.run(PrepareConfig(exams=other / "exams", cache=other, size=64, workers=1), silent)
    (other / "split.json").write_bytes(split)
    videos = [VideoCache(path / "videos.h5").scores for path in (cache, other)]
    assert (videos[0] != videos[1]).any()
    numbers = crossval.run(config(other), silent).numbers
    assert numbers["confusion"] != done[1]["confusion"]
    first, second = (load_file(Cache(path).run("paper-cv-1-r1-f1").best) for path in (cache, other))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)
    third, fourth = (load_file(Cache(path).run("paper-cv-1-r1-f2").best) for path in (cache, other))
    assert any((third[name] != fourth[name]).any() for name in third)  # it was trained on fold 1


def test_an_interrupted_cross_validation_resumes_to_the_same_result(
    done, exams: Path, tmp_path: Path
) -> None:
    cache, numbers = done
    other = study(exams, tmp_path)
    shutil.copy(cache / "split.json", other / "split.json")

    def stop(task: str, finished: int, total: int | None = None, **facts: object) -> None:
        if task == "score test" and (other / "crossvals/paper-cv-1/folds/r1-f1.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crossval.run(config(other, repeats=2), stop)
    with pytest.raises(LusError, match="there is already a cross-validation paper-cv-1"):
        crossval.run(config(other, run="paper-cv-1"), silent)
    again = crossval.run(config(other, resume=True), silent).numbers
    assert again == numbers


def test_runs_of_an_earlier_cross_validation_are_not_reused(done, tmp_path: Path) -> None:
    """Their recipe, folds and seeds may differ."""
    cache = shutil.copytree(done[0], tmp_path / "cache")
    shutil.rmtree(cache / "crossvals")
    with pytest.raises(LusError, match="already a run paper-cv-1-r1-f1, from an earlier"):
        crossval.run(config(cache, run="paper-cv-1"), silent)
    assert not (cache / "crossvals").exists()
    assert next_name(Cache(cache), "paper") == "paper-cv-2"


@pytest.mark.parametrize("changed", ["recipe", "split"])
def test_a_run_that_differs_from_the_plan_is_not_resumed(
    done, tmp_path: Path, changed: str
) -> None:
    cache = shutil.copytree(done[0], tmp_path / "cache")
    folder, run = cache / "crossvals" / "paper-cv-1", Cache(cache).run("paper-cv-1-r1-f1")
    (folder / "folds" / "r1-f1.json").unlink()
    if changed == "recipe":
        text = run.config.read_text()
        run.config.write_text(text.replace("learning_rate = 0.01\n", "learning_rate = 0.02\n"))
        assert run.config.read_text() != text
    else:
        split = json.loads(run.split.read_text())
        split["test"], split["train"] = split["train"], split["test"]
        run.split.write_text(json.dumps(split))
    with pytest.raises(LusError, match="does not have the recipe or the patients"):
        crossval.run(config(cache, resume=True, run="paper-cv-1"), silent)


def test_other_scores_are_noticed(done, tmp_path: Path) -> None:
    """The folds were trained with the old scores, but would be evaluated with the new ones."""
    cache = shutil.copytree(done[0], tmp_path / "cache")
    notes = cache / "exams" / "Annotations.txt"
    lines = [f"{line[:-1]}{3 - int(line[-1])}" for line in notes.read_text().split()]
    notes.write_text("\n".join(lines))
    split = (cache / "split.json").read_bytes()
    prepare.run(PrepareConfig(exams=cache / "exams", cache=cache, size=64, workers=1), silent)
    (cache / "split.json").write_bytes(split)
    with pytest.raises(LusError, match=r"the scores in .* have changed since paper-cv-1 started"):
        crossval.run(config(cache, resume=True, run="paper-cv-1"), silent)
    name = "paper-cv-1-r1-f1"
    with pytest.raises(LusError, match=f"have changed since run {name} started"):
        train.run(dataclasses.replace(tiny(cache), run=name, resume=True), silent)
    config_ = EvaluateConfig(cache=cache, run=name, device="cpu", threads=1, permutations=0)
    assert "have changed since the run started" in evaluate.run(config_, silent).notes[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.json", "{}"),
        ("plan.json", '{"repeats": 3}'),
        ("folds/r1-f1.json", "{"),
        ("folds/r1-f1.json", "{}"),
        ("folds/r1-f1.json", '{"videos": [["a", "b", "c"]], "probabilities": [[1, 0]]}'),
        ("folds/r1-f1.json", '{"videos": [], "probabilities": []}'),
    ],
)
def test_a_damaged_file_is_one_line(done, tmp_path: Path, name: str, content: str) -> None:
    cache = shutil.copytree(done[0], tmp_path / "cache")
    if (
        name.startswith("folds") and content != "{"
    ):  # without the weights, the fold would predict again
        weights = weights_digest(Cache(cache).run("paper-cv-1-r1-f1").best)
        content = json.dumps({"weights": weights} | json.loads(content))
    (cache / "crossvals" / "paper-cv-1" / name).write_text(content)
    with pytest.raises(
        LusError, match=r"is damaged|is not JSON|no fold of paper-cv-1 has a prediction"
    ):
        crossval.run(config(cache, resume=True, run="paper-cv-1"), silent)
    if content == "{":  # the remedy helps
        (cache / "crossvals" / "paper-cv-1" / name).unlink()
        assert crossval.run(config(cache, resume=True, run="paper-cv-1"), silent).numbers == done[1]


def test_weights_trained_on_the_patients_of_a_fold_are_refused(done, tmp_path: Path) -> None:
    cache, _ = done
    best = Cache(cache).run("paper-cv-1-r1-f1").best
    with pytest.raises(LusError, match="was trained on patient"):
        crossval.run(config(cache, weights=str(best), run="knowing"), silent)
    assert not (cache / "crossvals" / "knowing").exists()
    split = tmp_path / "split.json"
    shutil.copy(best.with_name("split.json"), split)
    check_weights(
        str(best), load_split(split)[0]
    )  # with the same split, further training is allowed


def test_the_weights_that_the_run_of_the_weights_started_from_are_checked(tmp_path: Path) -> None:
    """Its CNN has seen the test patient, although that run did not train on the patient."""
    first, second = (Run(tmp_path / name) for name in ("first", "second"))
    for run, patient, changes in (
        (first, "p1", {"freeze": False, "members": 1, "leave_out": False}),
        (second, "p2", {"weights": str(first.best)}),
    ):
        run.root.mkdir()
        write_split(run.split, Split((patient,), (), ()))
        card = Card(build(Recipe, changes), FrameFormat(64, False, False), 9, 1, 1.0, "")
        save_best(run.best, {}, card)
    check_weights(str(second.best), Split(("p2",), ("p3",), ("p4",)))
    with pytest.raises(LusError, match=r"best\.safetensors was trained on patient p1"):
        check_weights(str(second.best), Split(("p2",), ("p3",), ("p1",)))
    edited = build(
        Recipe, {"weights": str(second.best)}
    )  # it started from itself: nothing to check
    save_best(second.best, {}, dataclasses.replace(card, recipe=edited))
    check_weights(str(second.best), Split(("p2",), ("p3",), ("p1",)))


def test_a_recipe_cannot_have_the_name_of_a_baseline(prepared: Path) -> None:
    with pytest.raises(LusError, match="a baseline is also called signs"):
        crossval.run(config(prepared, name="signs"), silent)


def without_any(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "crossvals"]


def test_the_cards_of_folds_describe_how_their_patients_were_chosen(done) -> None:
    card = Cache(done[0]).run("paper-cv-1-r2-f3").model_card.read_text()
    assert "The test patients are fold 3 of 3 of a cross-validation, repetition 2;" in card
    assert "drawn from the others by validation share 0.2, seed 5, stratify False" in card
    assert "started from random weights" in card
    assert "by hand" not in card


def test_what_cannot_be_resumed_is_explained(done, tmp_path: Path) -> None:
    cache, _ = done
    with pytest.raises(LusError, match="is unfinished: paper-cv-1 is finished"):
        crossval.run(config(cache, resume=True), silent)
    with pytest.raises(LusError, match="there is no cross-validation in"):
        crossval.run(
            config(shutil.copytree(cache, tmp_path / "none", ignore=without_any), resume=True),
            silent,
        )
    with pytest.raises(LusError, match="no cross-validation 'other'"):
        crossval.run(config(cache, resume=True, run="other"), silent)
    cache = shutil.copytree(cache, tmp_path / "leaky")
    folder = cache / "crossvals" / "leaky"
    shutil.copytree(cache / "crossvals" / "paper-cv-1", folder)
    plan = json.loads((folder / "plan.json").read_text())
    plan["repeats"][0][0].append(plan["repeats"][0][1][0])
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(LusError, match="is in fold 1 and in fold 2"):
        crossval.run(config(cache, resume=True, run="leaky"), silent)
