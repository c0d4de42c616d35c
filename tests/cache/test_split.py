"""No patient in two parts, the report's patients in test, balance and seeds that matter."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lus_cli.cache import split_drawing
from lus_cli.cache.split import (
    PARTS,
    Split,
    load_split,
    patient_list,
    read_split,
    write_split,
)
from lus_cli.cache.split_drawing import (
    DRAWS,
    PER_PATIENT,
    TOLERANCE,
    balance_table,
    count_table,
    draw_folds,
    draw_part,
    draw_split,
    draws_of,
    fixed_test_patients,
    misfit,
    share_of,
    ways_to_deal,
)
from lus_cli.errors import LusError, UsageError

SETTINGS = {"test_share": 0.2, "validation_share": 0.2, "stratify": False, "folds": 5, "seed": 5}
REPORT = ["1017", "1045", "1047", "1048", "1050", "1051", "1052", "1066", "1067", "1068", "1069"]


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is true for the best of 2000 draws is true for the best of 100, except for its balance."""
    monkeypatch.setattr(split_drawing, "DRAWS", 100)


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


def scores_of(part: tuple[str, ...], patients: list[str], scores: np.ndarray) -> np.ndarray:
    """Videos of each score in a part: (4,) int."""
    return np.bincount(scores[np.isin(patients, part)], minlength=4)


def test_stratified_parts_are_better_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_drawing, "DRAWS", DRAWS)
    patients, scores = study([str(i) for i in range(40)])
    whole = np.bincount(scores, minlength=4)

    def cost(stratify: bool) -> float:
        settings = [SETTINGS | {"seed": seed, "stratify": stratify} for seed in range(5)]
        splits = [draw_split(patients, scores, setting, ()) for setting in settings]
        held = [scores_of(split.test, patients, scores) for split in splits]
        return float(np.mean(misfit(np.array(held), whole / 5)))

    assert cost(True) < 0.3 * cost(False)


@pytest.mark.parametrize("stratify", [False, True])
def test_another_seed_draws_another_split_even_of_few_balanced_ones(stratify: bool) -> None:
    patients, scores = study(REPORT)
    settings = [SETTINGS | {"seed": seed, "stratify": stratify} for seed in range(20)]
    splits = [draw_split(patients, scores, setting, ("1047", "1051")) for setting in settings]
    assert len({split.test for split in splits}) >= 3
    assert len({split.validation for split in splits}) >= 3
    assert len({split.folds for split in splits}) >= 3


@pytest.mark.parametrize("stratify", [False, True])
def test_a_patient_with_most_of_the_videos_is_trained_on(stratify: bool) -> None:
    """A fifth of the patients must not have most of the videos."""
    patients, scores = study([str(i) for i in range(20)], videos=10)
    patients += ["giant"] * 300
    scores = np.append(scores, np.arange(300) % 4)
    for seed in range(5):
        setting = SETTINGS | {"seed": seed, "stratify": stratify}
        assert "giant" in draw_split(patients, scores, setting, ()).train


@st.composite
def studies(draw: st.DrawFn) -> tuple[list[str], np.ndarray]:
    """Any study of 4 patients or more, some with a single video, some with a thousand."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 14, 1000]), min_size=4, max_size=30))
    patients = [f"{n}" for n, size in enumerate(sizes) for _ in range(size)]
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return patients, random.choice(draw(st.sampled_from([(0, 1, 2, 3), (2,)])), len(patients))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    studies(),
    st.floats(0.0, 0.5),
    st.floats(0.0, 0.4),
    st.booleans(),
    st.sampled_from([0, 2, 3, 4, PER_PATIENT]),
    st.integers(0, 3),
)
def test_any_split_is_whole(
    a_study: tuple[list[str], np.ndarray],
    test_share: float,
    validation_share: float,
    stratify: bool,
    folds: int | str,
    named: int,
) -> None:
    patients, scores = a_study
    names = sorted(set(patients), key=int)
    setting = {"test_share": test_share, "validation_share": validation_share, "seed": 1}
    setting |= {"stratify": stratify, "folds": folds}
    rest = len(names) - max(named, share_of(len(names), test_share))
    if rest == share_of(rest, validation_share):
        with pytest.raises(LusError, match="leave none for training"):
            draw_split(patients, scores, setting, names[:named])
        return
    split = draw_split(patients, scores, setting, names[:named])
    assert sorted(split.train + split.validation + split.test, key=int) == names
    assert set(names[:named]) <= set(split.test)
    size = len(names) * test_share
    assert named == len(split.test) or size <= len(split.test) + 1e-6 < size + 1 + 1e-5
    dealt = [len(fold) for fold in split.folds]
    assert len(dealt) == (len(names) if folds == PER_PATIENT else folds)
    if dealt:
        assert sorted((p for fold in split.folds for p in fold), key=int) == names
        assert 1 <= min(dealt) <= max(dealt) <= min(dealt) + 1


@pytest.mark.parametrize("patients", [4, 11, 50, 300])
def test_folds_hold_about_as_many_videos_of_each_score(patients: int) -> None:
    """Compared with assigning the patients in their order."""
    names, scores = study([str(i) for i in range(patients)])
    folds = draw_split(names, scores, SETTINGS | {"folds": 4}, ()).folds
    dealt = [tuple(str(i) for i in range(first, patients, 4)) for first in range(4)]

    def cost(groups: list[tuple[str, ...]]) -> float:
        held = np.array([scores_of(group, names, scores) for group in groups])
        return float(np.mean(misfit(held, held.sum(axis=0) / 4)))

    assert cost(list(folds)) <= cost(dealt)
    assert patients == 4 or cost(list(folds)) < 0.8 * cost(dealt)


def test_a_table_counts_the_labelled_videos_of_each_score() -> None:
    patients = ["10", "9", "10", "a", "9", "9"]
    table = count_table(patients, np.array([0, 3, 0, -1, 2, 3]))
    assert list(table) == ["9", "10", "a"]  # in natural order, including patients without a label
    assert {name: row.tolist() for name, row in table.items()} == {
        "9": [0, 0, 1, 2],
        "10": [2, 0, 0, 0],
        "a": [0, 0, 0, 0],
    }
    assert balance_table(table, by_score=False).tolist() == [[3], [2], [0]]
    assert balance_table(table, by_score=True).tolist() == [
        [3, 0, 0, 1, 2],
        [2, 2, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    with pytest.raises(ValueError, match="shorter"):
        count_table(patients, np.array([0]))


def test_a_misfit_is_the_share_that_is_too_much_or_too_little() -> None:
    wanted = np.array([4.0, 4.0])
    assert misfit(np.array([[4, 4], [5, 3], [0, 0], [8, 8]]), wanted).tolist() == [0, 0.25, 1, 1]
    assert misfit(np.array([0, 0]), np.array([0, 0])) == 0  # nothing wanted, nothing there
    assert misfit(np.array([[1, 0], [0, 0]]), np.array([0.25, 0.25])).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(11, 0.2, 3), (10, 0.2, 2), (10, 0.0, 0), (1, 0.01, 1), (3, 1.0, 3), (110, 0.1, 11)],
)
def test_a_share_of_patients_is_rounded_up(count: int, share: float, expected: int) -> None:
    """But not because of binary fractions: 110 * 0.1 is 11.000000000000002."""
    assert share_of(count, share) == expected


def test_half_of_the_possible_draws_are_looked_at_and_never_too_many() -> None:
    assert [draws_of(possible) for possible in (1, 2, 3, 100)] == [1, 1, 2, 50]
    assert draws_of(10**30) == split_drawing.DRAWS


def test_a_thousand_patients_are_dealt_though_no_float_holds_the_number_of_ways() -> None:
    patients, scores = study([str(number) for number in range(1000)], videos=2)
    table = split_drawing.count_table(patients, scores)
    folds = split_drawing.draw_folds(table, 5, np.random.default_rng(0))
    assert [len(fold) for fold in folds] == [200] * 5
    part = split_drawing.draw_part(table, list(table), 200, np.random.default_rng(0), True)
    assert len(part) == 200


def uneven(patients: int) -> dict[str, np.ndarray]:
    """Videos per score of patients, chosen so that no two groups have the same numbers."""
    random = np.random.default_rng(patients)
    return {str(n): random.integers(0, 40, 4) for n in range(patients)}


@pytest.mark.parametrize("named", [(), ("3",)])
def test_with_enough_draws_a_stratified_part_is_the_best_there_is(
    monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    monkeypatch.setattr(split_drawing, "draws_of", lambda _: 600)
    table = uneven(7)
    whole = np.array(list(table.values()))
    whole = np.column_stack([whole.sum(axis=1), whole])

    def cost(group: tuple[str, ...]) -> float:
        held = whole[[int(name) for name in group]].sum(axis=0)
        return float(np.abs(held - whole.sum(axis=0) * 3 / 7).sum())

    groups = itertools.combinations(table, 3)
    best = min((group for group in groups if set(named) <= set(group)), key=cost)
    drawn = draw_part(table, list(table), 3, np.random.default_rng(0), True, named)
    assert drawn == list(best)


def test_any_part_that_holds_about_its_share_of_the_videos_may_be_drawn() -> None:
    """Takes the first draw within the tolerance, not always the closest one."""
    table = {str(n): np.full(4, 5 + n) for n in range(8)}
    videos = np.array([20 + 4 * n for n in range(8)])
    held = []
    for seed in range(40):
        part = draw_part(table, list(table), 2, np.random.default_rng(seed), False)
        held.append(videos[[int(name) for name in part]].sum() / (videos.sum() / 4))
    assert max(abs(share - 1) for share in held) <= TOLERANCE
    assert max(held) > 1.2
    assert min(held) < 0.8
    assert draw_part(table, list(table), 0, np.random.default_rng(0), False) == []


def test_where_no_part_holds_its_share_the_nearest_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the videos are of one patient: without it there is too little, with it too much."""
    monkeypatch.setattr(split_drawing, "draws_of", lambda _: 200)
    table = {str(n): np.array([0, 0, 0, 10 + n]) for n in range(5)} | {"5": np.array([0, 0, 0, 60])}
    drawn = draw_part(table, list(table), 1, np.random.default_rng(0), False)
    assert drawn == ["4"]  # 14 of 20 wanted


def test_with_enough_draws_folds_are_the_most_even_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(split_drawing, "draws_of", lambda _: 600)
    table = uneven(6)
    whole = np.array(list(table.values()))
    whole = np.column_stack([whole.sum(axis=1), whole])
    wanted = whole.sum(axis=0) / 3

    def cost(folds: tuple[tuple[str, ...], ...]) -> float:
        held = (whole[[int(name) for name in fold]].sum(axis=0) for fold in folds)
        return sum(float(np.abs(h - wanted).sum() / wanted.sum()) ** 2 for h in held)

    deals = {
        tuple(sorted((order[:2], order[2:4], order[4:]), key=min))
        for order in itertools.permutations(table)
        if order[0] < order[1] and order[2] < order[3] and order[4] < order[5]
    }
    assert draw_folds(table, 3, np.random.default_rng(0)) == min(deals, key=cost)


class Dealing:
    """Deals patients in given orders instead of random ones."""

    def __init__(self, *orders: Sequence[int]) -> None:
        self.orders = iter(orders)

    def permutation(self, count: int) -> np.ndarray:
        order = next(self.orders)
        assert sorted(order) == list(range(count))
        return np.array(order)


# Videos of eight patients, of one score, dealt into four folds: as many as wanted are five.
VIDEOS = (4, 3, 1, 2, 4, 1, 3, 2)
TWO_WRONG = (0, 2, 4, 6, 1, 3, 5, 7)  # 7, 3, 5 and 5 videos
ALL_A_LITTLE = (0, 1, 4, 6, 3, 2, 7, 5)  # 6, 4, 6 and 4
LIKEWISE = (0, 2, 4, 6, 7, 1, 3, 5)  # the same with others


@pytest.mark.parametrize(
    ("orders", "chosen"),
    [
        ((TWO_WRONG, ALL_A_LITTLE), ALL_A_LITTLE),
        ((ALL_A_LITTLE, LIKEWISE), ALL_A_LITTLE),
        ((LIKEWISE, ALL_A_LITTLE), LIKEWISE),
    ],
)
def test_many_folds_a_little_uneven_are_better_than_few_very_and_the_first_of_equals_is_kept(
    monkeypatch: pytest.MonkeyPatch, orders: tuple[Sequence[int], ...], chosen: Sequence[int]
) -> None:
    monkeypatch.setattr(split_drawing, "draws_of", lambda _: len(orders))
    table = {str(n): np.array([videos, 0, 0, 0]) for n, videos in enumerate(VIDEOS)}
    dealt = draw_folds(table, 4, Dealing(*orders))  # type: ignore[arg-type]
    pairs = {frozenset(map(str, (chosen[fold], chosen[fold + 4]))) for fold in range(4)}
    assert {frozenset(fold) for fold in dealt} == pairs


def test_a_part_is_the_first_of_equally_good_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_drawing, "draws_of", lambda _: 2)
    table = {name: np.array([3, 0, 0, 0]) for name in "abcd"}
    dealing = Dealing((1, 0, 2, 3), (2, 0, 1, 3))
    assert draw_part(table, list(table), 1, dealing, True) == ["b"]  # type: ignore[arg-type]


def test_a_part_that_is_just_within_the_tolerance_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_drawing, "draws_of", lambda _: 2)
    table = {name: np.array([videos, 0, 0, 0]) for name, videos in zip("abcd", (3, 4, 3, 2))}  # noqa: B905
    dealing = Dealing((1, 0, 2, 3), (0, 1, 2, 3))
    drawn = draw_part(table, list(table), 1, dealing, False)  # type: ignore[arg-type]
    assert drawn == ["b"]  # four videos where three are wanted


def test_folds_are_in_the_natural_order_of_their_first_patients() -> None:
    table = {str(n): np.array([n, 1, 0, 2]) for n in range(1, 25)}
    folds = draw_folds(table, 12, np.random.default_rng(3))
    first = [int(fold[0]) for fold in folds]
    assert first == sorted(first)
    assert first != sorted(first, key=str)


@pytest.mark.parametrize("stratify", [True, False])
def test_validation_is_drawn_by_the_same_rule_as_test(
    monkeypatch: pytest.MonkeyPatch, stratify: bool
) -> None:
    rules = []

    def spy(table: Any, names: Any, size: int, random: Any, rule: Any, named: Any = ()) -> Any:
        rules.append(rule)
        return draw_part(table, names, size, random, rule, named)

    monkeypatch.setattr(split_drawing, "draw_part", spy)
    draw_split(*study(REPORT), SETTINGS | {"stratify": stratify}, ())
    assert rules == [stratify, stratify]


def test_fewer_than_two_folds_are_none() -> None:
    random = np.random.default_rng(0)
    assert draw_folds(uneven(4), 0, random) == draw_folds(uneven(4), 1, random) == ()
    assert len(draw_folds(uneven(4), 2, random)) == 2


def test_a_part_without_patients_cannot_be_asked_for() -> None:
    split = Split(("1", "2"), (), ("3",))
    assert split.patients("train") == ("1", "2")
    assert split.patients("all") == ("1", "2", "3")
    with pytest.raises(LusError, match="the split has no validation patients: correct it"):
        split.patients("validation")


def test_videos_are_counted_in_whole_numbers() -> None:
    assert all(row.dtype.kind == "i" for row in count_table(*study(REPORT)).values())


@pytest.mark.parametrize("drawn_by", [3, "tuned", ["seed"]])
def test_settings_that_are_no_table_are_none(
    written: tuple[Path, list[str]], drawn_by: object
) -> None:
    path, _ = written
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"drawn_by": drawn_by}))
    assert load_split(path)[0].drawn_by == {}


def test_the_signature_changes_with_what_is_in_a_part_not_with_the_order() -> None:
    split = Split(("1", "2"), (), ("3",), (("1", "2"), ("3",)))
    same = Split(("2", "1"), (), ("3",), (("2", "1"), ("3",)), {"seed": 1})
    assert split.signature == same.signature
    others = [
        Split(("1",), ("2",), ("3",), split.folds),
        Split(("1", "2"), ("3",), (), split.folds),
        Split(split.train, (), split.test, (("1", "3"), ("2",))),
        Split(split.train, (), split.test),
    ]
    assert len({split.signature, *(other.signature for other in others)}) == 5


def test_leaving_one_patient_out_has_a_fold_a_patient(caplog: pytest.LogCaptureFixture) -> None:
    patients, scores = study(REPORT)
    folds = draw_split(patients, scores, SETTINGS | {"folds": PER_PATIENT}, ()).folds
    assert folds == tuple((name,) for name in REPORT)
    assert not caplog.text


def test_more_folds_than_patients_are_not_made_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    patients, scores = study(REPORT)
    draw_split(patients, scores, SETTINGS | {"folds": 12}, ())
    assert "12 folds requested for 11 patients" in caplog.text


def test_a_single_fold_is_refused() -> None:
    patients, scores = study(REPORT)
    with pytest.raises(
        UsageError, match="--folds 1 leaves no patients for training: use at least 2, or 0 for none"
    ):
        draw_split(patients, scores, SETTINGS | {"folds": 1}, ())


def test_ways_to_deal_are_those_one_can_count() -> None:
    def count(patients: int, folds: int) -> int:
        sizes = [len(range(first, patients, folds)) for first in range(folds)]
        deals = itertools.product(range(folds), repeat=patients)
        fits = [d for d in deals if sorted(map(d.count, range(folds))) == sorted(sizes)]
        return len(
            {
                frozenset(frozenset(np.flatnonzero(np.equal(d, f)).tolist()) for f in range(folds))
                for d in fits
            }
        )

    for patients, folds in ((2, 2), (4, 2), (5, 2), (5, 3), (6, 3), (7, 3), (4, 4)):
        assert ways_to_deal(patients, folds) == count(patients, folds)


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
    with pytest.raises(LusError, match=r"leave none for training: lower --test-share or"):
        draw_split(["a", "b"], np.array([0, 1]), SETTINGS | {"folds": 0}, ())
    with pytest.raises(LusError, match="leave none for training"):
        draw_split(["a", "b"], np.array([0, 1]), SETTINGS | {"test_share": 0.9}, ())


def test_usual_test_patients_need_not_exist_but_asked_for_ones_must() -> None:
    assert fixed_test_patients(None, ("1047", "1051"), ["1", "1051"]) == ("1051",)
    assert fixed_test_patients((), ("1051",), ["1", "1051"]) == ()  # asked for: none in particular
    assert fixed_test_patients(["2"], ("1",), ["1", "2"]) == ("2",)
    assert fixed_test_patients(["2", "1", "2"], (), ["1", "2"]) == ("2", "1")  # each counts once
    with pytest.raises(UsageError, match=r"no patient 1047, 9: its patients are 1, 2$"):
        fixed_test_patients(("1047", "1", "9"), (), ["1", "2"])
    with pytest.raises(UsageError, match=r" 19 and 1 more$"):
        fixed_test_patients(("1047",), (), [str(n) for n in range(21)])


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
    patients_, scores = study(REPORT)
    assert read_split(path, patients) == (draw_split(patients_, scores, SETTINGS, ()), False)
    assert load_split(path)[0].drawn_by == SETTINGS


def test_a_split_that_is_not_there_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(LusError, match=r"there is no .*: run `lus prepare` first"):
        read_split(tmp_path / "split.json", ["1"])
    (tmp_path / "split.json").write_text("[]")
    with pytest.raises(LusError, match="does not contain a JSON object: correct it"):
        read_split(tmp_path / "split.json", ["1"])


def test_names_are_listed_in_natural_order_up_to_a_number() -> None:
    assert patient_list(["10", "9"]) == "9, 10"
    assert patient_list({str(n) for n in range(6)}) == "0, 1, 2, 3, 4, 5"
    assert patient_list({str(n) for n in range(7)}) == "0, 1, 2, 3, 4, 5 and 1 more"
    assert patient_list(["b", "c", "a"], 1) == "a and 2 more"


def test_an_edited_split_is_taken_and_known_as_edited(written: tuple[Path, list[str]]) -> None:
    path, patients = written
    split, _ = read_split(path, patients)
    edit(path, train=split.train + split.test[:1], test=split.test[1:])
    assert read_split(path, patients)[1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: {"train": (*s.train, s.test[0])}, "is in train and in test"),
        (lambda s: {"test": (*s.test, s.test[0])}, "is twice in test"),
        (lambda s: {"test": s.test[1:]}, "is in no part"),
        (lambda s: {"test": (*s.test, "9999")}, "the study has no patient 9999"),
        (lambda s: {"train": (), "test": s.train + s.test}, "train has no patient"),
        (lambda s: {"test": 7}, "test must be a list of patients"),
        (lambda s: {"test": s.test[0]}, "test must be a list of patients"),
        (lambda s: {"test": [None]}, "test must be a list of patients"),
        (lambda s: {"tets": []}, "unknown field 'tets'"),
        (lambda s: {"folds": [*s.folds, s.folds[0]]}, "is in fold 1 and in fold 6"),
        (lambda s: {"folds": s.folds[1:]}, "is in no fold"),
        (lambda s: {"folds": [*s.folds, []]}, "fold 6 has no patient"),
        (lambda s: {"folds": [[*s.folds[0], "9999"], *s.folds[1:]]}, "no patient 9999"),
        (lambda s: {"folds": [REPORT]}, "the only fold holds all patients"),
        (lambda s: {"folds": REPORT}, "fold 1 must be a list of patients"),
        (lambda s: {"folds": 5}, "folds must be a list of lists"),
    ],
)
def test_a_leaking_or_broken_split_is_refused(
    written: tuple[Path, list[str]], change: object, complaint: str
) -> None:
    path, patients = written
    split, _ = read_split(path, patients)
    edit(path, **change(split))  # type: ignore[operator]
    with pytest.raises(LusError, match=complaint) as caught:
        read_split(path, patients)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_part_that_is_missing_is_named(written: tuple[Path, list[str]]) -> None:
    path, patients = written
    content = json.loads(path.read_text())
    del content["validation"]
    path.write_text(json.dumps(content))
    with pytest.raises(LusError, match="has no 'validation': correct it, or draw it again"):
        read_split(path, patients)


def test_hundreds_of_new_patients_are_not_all_written_out(
    written: tuple[Path, list[str]],
) -> None:
    path, patients = written
    grown = patients + [str(n) for n in range(2000, 2300)]
    with pytest.raises(LusError, match=r"2000, 2001, .* 2005 and 294 more"):
        read_split(path, grown)


def test_a_split_written_by_hand_needs_only_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"train": [1017, "a"], "validation": [], "test": ["b"]}')
    split, edited = read_split(path, ["1017", "a", "b"])
    assert (split.train, split.folds, edited) == (("1017", "a"), (), True)


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


def test_patients_are_in_the_order_of_their_numbers() -> None:
    patients, scores = study([f"p{number}" for number in range(1, 13)], videos=2)
    drawn = draw_split(patients, scores, SETTINGS, ())
    for names in (drawn.train, drawn.validation, drawn.test, *drawn.folds):
        assert list(names) == sorted(names, key=lambda name: int(name[1:]))
    of_all = [*drawn.train, *drawn.validation, *drawn.test]
    assert sorted(of_all, key=lambda name: int(name[1:])) == [f"p{n}" for n in range(1, 13)]


@pytest.mark.parametrize(
    ("count", "fixed", "message", "remedy"),
    [
        (
            1,
            0,
            "1 patient leaves none",
            "lower --test-share or --validation-share, or add patients",
        ),
        (
            1,
            1,
            "1 patient leaves none",
            "lower --test-share or --validation-share, or add patients",
        ),
        (2, 2, "2 patients leave none", "name fewer test patients or test groups"),
    ],
)
def test_a_split_without_training_patients_says_why(
    count: int, fixed: int, message: str, remedy: str
) -> None:
    names = [f"p{number}" for number in range(count)]
    patients, scores = study(names, videos=2)
    shares = SETTINGS | {"test_share": 0.9, "folds": 0}
    with pytest.raises(LusError) as caught:
        draw_split(patients, scores, shares, names[:fixed])
    assert caught.value.message == f"{message} for training"
    assert caught.value.remedy == remedy
