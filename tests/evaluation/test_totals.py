"""Sums of exams and patients, and single areas, by hand and against a second implementation."""

from __future__ import annotations

import numpy as np
import pytest

from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.intervals import POSITIVE, Jackknife
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.terminal_tables import total_table
from lus_cli.evaluation.totals import VS_CONSTANT, agreement, areas, sums
from lus_cli.progress import GAP
from tests.predicted import predicting

TWO = Jackknife(2)


def once(true, predicted) -> dict[str, float]:
    counts = np.ones((1, len(true)))
    found = agreement(np.array(true, float), np.array(predicted, float), counts)
    return {name: value[0] for name, value in found.items()}


def icc_by_variance_table(ratings: np.ndarray) -> float:
    """ICC(2,1) as Shrout and Fleiss 1979 define it, from sums of squares, for any number of judges."""
    units, judges = ratings.shape
    grand = ratings.mean()
    rows = judges * ((ratings.mean(axis=1) - grand) ** 2).sum()
    columns = units * ((ratings.mean(axis=0) - grand) ** 2).sum()
    rest = ((ratings - grand) ** 2).sum() - rows - columns
    between, judge = rows / (units - 1), columns / (judges - 1)
    error = rest / (units - 1) / (judges - 1)
    return (between - error) / (between + (judges - 1) * error + judges * (judge - error) / units)


def test_the_second_implementation_gives_the_published_example():
    # Shrout and Fleiss 1979, table 2: six targets, four judges; table 4: ICC(2,1) = .29.
    table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc_by_variance_table(np.array(table, float)) == pytest.approx(0.29, abs=5e-3)


def test_icc_is_that_of_the_variance_table():
    rng = np.random.default_rng(0)
    for units in (2, 3, 20):
        true = rng.integers(0, 40, units).astype(float)
        predicted = true + rng.normal(1, 4, units)
        expected = icc_by_variance_table(np.stack([true, predicted], axis=1))
        assert once(true, predicted)["icc"] == pytest.approx(expected)


def test_agreement_by_hand():
    # Differences 1, 1, -2, 4: mean 1, squares around it 0 + 0 + 9 + 9 = 18, variance 6.
    found = once([10, 12, 14, 16], [11, 13, 12, 20])
    assert found["bias"] == pytest.approx(1)
    assert found["mae"] == pytest.approx(2)
    assert found["low_limit"] == pytest.approx(1 - 1.96 * 6**0.5)
    assert found["high_limit"] == pytest.approx(1 + 1.96 * 6**0.5)


def test_a_constant_error_lowers_absolute_agreement():
    assert once([1, 5, 9], [1, 5, 9])["icc"] == pytest.approx(1)
    assert once([2, 4, 6], [4, 6, 8])["icc"] == pytest.approx(2 / 3)  # McGraw and Wong 1996


def test_agreement_of_weighted_units_is_that_of_repeated_units():
    rng = np.random.default_rng(1)
    true, predicted = rng.normal(20, 5, 6), rng.normal(20, 5, 6)
    counts = np.array([[2, 0, 1, 1, 0, 2], [0, 3, 0, 0, 1, 0]])
    found = agreement(true, predicted, counts.astype(float))
    for index, count in enumerate(counts):
        units = np.repeat(np.arange(6), count)
        for name, value in once(true[units], predicted[units]).items():
            assert found[name][index] == pytest.approx(value), name


@pytest.mark.parametrize(("true", "predicted"), [([7], [9]), ([7, 7, 7], [7, 7, 7])])
def test_agreement_is_undefined_where_nothing_differs(true, predicted):
    found = once(true, predicted)
    assert np.isnan(found["icc"])
    assert found["mae"] == abs(true[0] - predicted[0])


# Patient a: exams 1 (areas 1, 2, 10) and 2 (area 1 only); patient b: exam 1 (areas 1, 2).
VIDEOS = [
    ("a", "1", "1"),
    ("a", "2", "1"),
    ("b", "1", "2"),
    ("a", "1", "10"),
    ("b", "1", "1"),
    ("a", "1", "2"),
]
SCORES, ANSWERS = [3, 1, 0, 2, 2, 1], [2, 1, 1, 2, 3, 3]


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(VIDEOS, np.array(SCORES), predicting(ANSWERS, 0.7))


def test_sums_use_the_available_videos(predictions):
    found = sums(predictions, TWO, {})
    rows = found["exam"]["rows"]
    assert [(r["patient"], r["exam"], r["videos"], r["true"], r["predicted"]) for r in rows] == [
        ("a", "1", 3, 6, 7),
        ("a", "2", 1, 1, 1),
        ("b", "1", 2, 2, 4),
    ]
    # 0.7 for the predicted score s and 0.1 for the others: 0.6 s + 0.1 (0 + 1 + 2 + 3) per video.
    assert [row["expected"] for row in rows] == pytest.approx([6.0, 1.2, 3.6])
    assert [(r["videos"], r["true"], r["predicted"]) for r in found["patient"]["rows"]] == [
        (4, 7, 8),
        (2, 2, 4),
    ]
    assert found["exam"]["videos"] == [1, 3]


def test_the_mean_per_video_takes_the_number_of_videos_out(predictions):
    exams = sums(predictions, TWO, {"majority": 2.0})["exam"]
    assert exams["total"]["predicted"]["mae"]["value"] == pytest.approx((1 + 0 + 2) / 3)
    assert exams["mean"]["predicted"]["mae"]["value"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    # A constant score agrees in totals, since some exams have more videos, but not in means.
    assert exams["total"]["majority"]["icc"]["value"] > 0.5
    assert exams["mean"]["majority"]["icc"]["value"] == pytest.approx(0, abs=1e-9)
    assert exams["total"]["expected"]["mae"]["value"] == pytest.approx((0 + 0.2 + 1.6) / 3)


def test_a_patients_exams_are_left_out_together(predictions):
    # Errors of a's two exams are 1 and 0, of b's one 2: without a 2, without b 1/2.
    error = sums(predictions, TWO, {})["exam"]["total"]["predicted"]["mae"]
    assert error == TWO.estimate(1.0, np.array([2.0, 0.5]), 2, POSITIVE) | {"less": {}}


def test_the_error_is_paired_with_that_of_a_constant(predictions):
    # Score 2 for all: totals 6, 2 and 4, errors 0, 1 and 2; the model's are 1, 0 and 2.
    totals = sums(predictions, TWO, {"majority": 2.0})["exam"]["total"]
    less = totals["predicted"]["mae"]["less"]["majority"]
    assert less["value"] == pytest.approx(0)
    assert totals["majority"]["mae"]["value"] == totals["predicted"]["mae"]["value"] == 1
    assert "less" in totals["expected"]["mae"]
    assert "less" not in totals["majority"]["mae"]


def test_the_terminal_compares_with_the_best_constant_in_80_columns():
    # Of the constants, the training mean, 9 / 7, has the lower error: 8.3 / 7 instead of 9 / 7.
    videos = [(f"p{number}", "1", "1") for number in range(7)]
    truth, answers = [0, 0, 0, 1, 2, 3, 3], [0, 1, 0, 1, 1, 3, 2]
    predictions = Predictions(videos, np.array(truth), predicting(answers))
    scores = assess(predictions, 0, 0, training=[3, 1, 1, 2])
    errors = scores["sums"]["exam"]["total"]
    assert errors["prior"]["mae"]["value"] < errors["majority"]["mae"]["value"]
    less = errors["predicted"]["mae"]["less"]["prior"]
    table = total_table(scores)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row[VS_CONSTANT] == f"{less['low']:.2f} to {less['high']:.2f}"
    longest = ("patient, per video", "-0.123", "-0.456 to 0.789", "9.876", "-99.99 to -99.99")
    pairs = zip(table.columns, longest, strict=True)
    assert 1 + sum(GAP + max(map(len, pair)) for pair in pairs) <= 80
    assert max(map(len, table.title.splitlines())) <= 80


def test_areas_are_in_natural_order_with_their_own_numbers(predictions):
    rows = areas(predictions, TWO)
    assert [(r["area"], r["videos"], r["patients"]) for r in rows] == [
        ("1", 3, 2),
        ("2", 2, 2),
        ("10", 1, 1),
    ]
    assert [r["accuracy"]["value"] for r in rows] == pytest.approx([1 / 3, 0, 1])
    assert [r["mean_absolute_error"]["value"] for r in rows] == pytest.approx([2 / 3, 1.5, 0])
    assert rows[0]["scores"] == [0, 1, 1, 1]
    assert rows[2]["accuracy"]["low"] is None
    assert all(row["few"] for row in rows)


def test_an_area_of_five_patients_is_not_few():
    videos = [(str(patient), "1", "R1") for patient in range(5)]
    predictions = Predictions(videos, np.arange(5) % 4, predicting(np.arange(5) % 4))
    assert not areas(predictions, Jackknife(5))[0]["few"]
