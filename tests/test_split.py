"""No patient in two parts, the report's patients in test, balance and seeds that matter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lus_cli.errors import LusError, UsageError
from lus_cli.split import (
    PARTS,
    draw_split,
    imbalance,
    named_test_patients,
    read_split,
    write_split,
)

SETTINGS = {"test_share": 0.2, "validation_share": 0.2, "stratify": False, "folds": 5, "seed": 5}
REPORT = ["1017", "1045", "1047", "1048", "1050", "1051", "1052", "1066", "1067", "1068", "1069"]


def study(names: list[str], videos: int = 20, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """One patient and one score per video; each patient has scores of its own."""
    random = np.random.default_rng(seed)
    patients = [name for name in names for _ in range(videos)]
    means = {name: random.uniform(0, 3) for name in names}
    noisy = [means[p] + random.normal(0, 0.8) for p in patients]
    return patients, np.clip(np.round(noisy), 0, 3).astype(int)


def test_parts_cover_all_patients_once() -> None:
    patients, scores = study(REPORT)
    for seed in range(20):
        split = draw_split(patients, scores, SETTINGS | {"seed": seed}, ())
        named = [p for part in PARTS for p in getattr(split, part)]
        assert sorted(named) == REPORT
        assert (len(split.train), len(split.validation), len(split.test)) == (6, 2, 3)


def test_the_reports_patients_are_in_test_and_the_rest_is_drawn() -> None:
    patients, scores = study(REPORT)
    drawn = set()
    for seed in range(20):
        split = draw_split(patients, scores, SETTINGS | {"seed": seed}, ("1047", "1051"))
        assert {"1047", "1051"} < set(split.test)
        drawn |= set(split.test) - {"1047", "1051"}
    assert len(drawn) > 3  # another seed, another patient


def test_one_seed_draws_one_split_whatever_the_order_of_the_videos() -> None:
    patients, scores = study(REPORT)
    shuffled = np.random.default_rng(0).permutation(len(patients))
    again = draw_split([patients[i] for i in shuffled], scores[shuffled], SETTINGS, ("1047",))
    assert again == draw_split(patients, scores, SETTINGS, ("1047",))


def test_stratified_parts_are_better_balanced() -> None:
    patients, scores = study([str(i) for i in range(40)])
    whole = np.bincount(scores, minlength=4)

    def cost(stratify: bool) -> float:
        costs = []
        for seed in range(5):
            settings = SETTINGS | {"seed": seed, "stratify": stratify}
            split = draw_split(patients, scores, settings, ())
            mine = [p in split.test for p in patients]
            costs.append(imbalance(np.bincount(scores[mine], minlength=4), whole))
        return float(np.mean(costs))

    assert cost(True) < 0.5 * cost(False)


@pytest.mark.parametrize("count", [2, 5, 11, 30])
def test_folds_hold_every_patient_once_and_none_is_empty(count: int) -> None:
    patients, scores = study(REPORT)
    folds = draw_split(patients, scores, SETTINGS | {"folds": count}, ()).folds
    assert len(folds) == min(count, 11)  # as many folds as patients: leave one patient out
    assert sorted(p for fold in folds for p in fold) == REPORT
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_folds_change_with_the_seed() -> None:
    patients, scores = study(REPORT)
    folds = {draw_split(patients, scores, SETTINGS | {"seed": s}, ()).folds for s in range(5)}
    assert len(folds) > 1


def test_too_few_patients_for_training_is_an_error() -> None:
    with pytest.raises(LusError, match="leave none for training"):
        draw_split(["a", "b"], np.array([0, 1]), SETTINGS | {"folds": 0}, ())


def test_usual_test_patients_need_not_exist_but_asked_for_ones_must() -> None:
    assert named_test_patients(None, ("1047", "1051"), ["1", "1051"]) == ("1051",)
    with pytest.raises(UsageError, match="no patient 1047"):
        named_test_patients(("1047",), (), ["1", "2"])


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[str]]:
    patients, scores = study(REPORT)
    path = tmp_path / "split.json"
    write_split(path, draw_split(patients, scores, SETTINGS, ()))
    return path, patients


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_written_split_reads_back_the_same(written: tuple[Path, list[str]]) -> None:
    path, patients = written
    split, edited = read_split(path, patients)
    assert not edited
    assert split.drawn_by["seed"] == 5


def test_an_edited_split_is_taken_and_known_as_edited(written: tuple[Path, list[str]]) -> None:
    path, patients = written
    split, _ = read_split(path, patients)
    edit(path, train=split.train + split.test[:1], test=split.test[1:])
    assert read_split(path, patients)[1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: {"train": (*s.train, s.test[0])}, "is in two parts"),
        (lambda s: {"folds": [*s.folds, s.folds[0]]}, "is in two folds"),
        (lambda s: {"test": s.test[1:]}, "none of the parts"),
        (lambda s: {"test": (*s.test, "9999")}, "no patient 9999"),
        (lambda s: {"test": 7}, "no proper"),
    ],
)
def test_a_leaking_or_broken_split_is_refused(
    written: tuple[Path, list[str]], change: object, complaint: str
) -> None:
    path, patients = written
    split, _ = read_split(path, patients)
    edit(path, **change(split))  # type: ignore[operator]
    with pytest.raises(LusError, match=complaint):
        read_split(path, patients)


def test_text_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text("{")
    with pytest.raises(LusError, match="is not JSON"):
        read_split(path, ["1"])


def test_unlabelled_videos_are_in_no_part() -> None:
    patients, scores = study(REPORT)
    scores[::2] = -1
    split = draw_split(patients, scores, SETTINGS, ())
    indices = split.indices("all", patients, scores)
    assert sorted(indices) == list(range(1, len(patients), 2))
