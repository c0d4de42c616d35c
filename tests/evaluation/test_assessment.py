"""The results of an evaluation: numbers ready for JSON, and warnings in words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lus_cli.evaluation import metric_labels, metrics
from lus_cli.evaluation.assessment import assess
from tests.predicted import drawn, predicting, predictions_for


def test_the_constant_model_of_the_report_gets_a_warning():
    scores = [0] * 45 + [1] * 45 + [2] * 101 + [3] * 55
    patients = np.arange(len(scores)) % 11
    assessed = assess(
        predictions_for(patients, scores, predicting([2] * 246)), permutations=200, seed=0
    )
    entries = assessed["metrics"]
    assert entries["accuracy"]["value"] == pytest.approx(101 / 246)  # the report's 41.06 %
    assert entries["f1_micro"]["value"] == entries["accuracy"]["value"]
    assert entries["f1_macro"]["value"] == pytest.approx(0.1455, abs=1e-4)
    assert entries["kappa_quadratic"]["value"] == pytest.approx(0)
    for name in ("accuracy", "f1_macro", "kappa_quadratic", "mean_absolute_error"):
        assert entries[name]["value"] == pytest.approx(entries[name]["majority"])
        assert entries[name]["value"] == pytest.approx(entries[name]["chance"])
    assert entries["accuracy"]["p_value"] == entries["kappa_quadratic"]["p_value"] == 1
    assert assessed["warnings"] == [
        "The model predicts score 2 for every video: "
        "it has learned nothing but the most frequent score."
    ]
    assert assessed["errors_per_class"][3] == {"score": 3, "wrong": 55, "as": [0, 0, 55, 0]}


@pytest.mark.parametrize(
    ("patients", "scores", "predicted"),
    [
        ("a", [2], [2]),
        ("aaa", [2, 2, 2], [2, 2, 2]),
        ("abc", [0, 0, 0], [1, 1, 1]),
        ("ab", [0, 3], [3, 0]),
        ("aab", [0, 1, 2], [0, 1, 2]),
    ],
)
def test_what_is_undefined_is_none_with_a_reason(patients, scores, predicted):
    predictions = predictions_for(patients, scores, predicting(predicted))
    assessed = assess(predictions, 100, 0, training=[1, 0, 0, 2], validation=predictions)
    json.dumps(assessed, allow_nan=False)
    entries = [*assessed["metrics"].values()]
    entries += [row[name] for row in assessed["per_class"] for name in metric_labels.CLASS_METRICS]
    for entry in entries:
        undefined = entry["value"] is None or entry["low"] is None
        assert bool(entry.get("why")) == undefined
    for reference in ("majority", "prior", "chance"):
        if assessed["metrics"]["auroc_macro"]["value"] is None:
            assert assessed["metrics"]["auroc_macro"][reference] is None
    if set(scores) == set(predicted) == {2}:
        assert assessed["metrics"]["kappa_quadratic"]["value"] is None
        assert any("Kappa is undefined" in line for line in assessed["warnings"])


def test_a_missing_score_and_few_patients_give_warnings():
    predictions = predictions_for("aabb", [0, 1, 2, 0], predicting([0, 1, 1, 0]))
    assessed = assess(predictions, 50, 0)
    warnings = " | ".join(assessed["warnings"])
    assert "Only 2 patients: " in warnings
    assert "No video has score 3: " in warnings
    assert "never predicts score 2" in warnings
    assert assessed["metrics"]["f1_macro"]["value"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert assessed["per_class"][3]["recall"]["value"] is None


def test_a_model_no_better_than_the_majority_gets_a_warning():
    predictions = predictions_for(range(6), [2, 2, 2, 0, 1, 3], predicting([2, 2, 0, 0, 2, 2]))
    assert any(
        "no better than predicting score 2" in w for w in assess(predictions, 0, 0)["warnings"]
    )


def warnings_of(assessed) -> str:
    return " | ".join(assessed["warnings"])


def test_every_interval_has_the_number_of_its_patients():
    def entries(value):
        if isinstance(value, dict):
            if {"value", "low", "high"} <= set(value):
                yield value
            for inner in value.values():
                yield from entries(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from entries(inner)

    predictions = drawn(8)
    found = list(entries(assess(predictions, 50, 0, training=[1, 2, 3, 4], validation=drawn(9))))
    assert len(found) > 100
    assert all(entry["patients"] >= 1 for entry in found)


def test_predictions_no_better_than_chance_give_a_warning():
    rng = np.random.default_rng(3)
    scores, predicted = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    words = warnings_of(
        assess(predictions_for(np.arange(60) % 12, scores, predicting(predicted)), 200, 0)
    )
    assert "Accuracy is not significantly better than chance" in words
    assert "Kappa is not significantly better than chance" in words
    assert "chance" not in warnings_of(assess(drawn(5), 200, 0))


def test_an_interval_that_contains_the_majority_gives_a_warning():
    # Four patients with all predictions correct, four with one of four: accuracy 0.625, majority 0.5.
    scores, predicted = [2, 2, 0, 1] * 8, [2, 2, 0, 1] * 4 + [0, 1, 1, 1] * 4
    patients = np.repeat(np.arange(8), 4)
    words = warnings_of(assess(predictions_for(patients, scores, predicting(predicted)), 200, 0))
    assert "contains the accuracy of predicting score 2 for every video (0.500)" in words
    assert "contains the accuracy" not in warnings_of(assess(drawn(5), 200, 0))


def test_a_score_of_few_patients_gives_a_warning():
    patients, scores = list(range(10)) * 3, [0] * 10 + [1] * 10 + [2] * 8 + [3] * 2
    assessed = assess(predictions_for(patients, scores, predicting(scores)), 100, 0)
    assert "Score 3 occurs in 2 of 10 patients" in warnings_of(assessed)
    assert "Score 1" not in warnings_of(assessed)
    assert assessed["per_class"][3]["recall"]["patients"] == 2


def test_totals_no_better_than_a_constant_give_a_warning():
    # The predictions for each exam are the scores of the next one: correct on average, wrong for each.
    scores = np.repeat([0, 1, 2, 3, 0, 1, 2, 3], 4)
    videos = [(str(i // 4), "1", str(i % 4)) for i in range(32)]
    predictions = metrics.Predictions(videos, scores, predicting(np.roll(scores, 8)))
    assert "Totals of exams have a mean error of 8.00, no better" in warnings_of(
        assess(predictions, 50, 0)
    )


def test_without_validation_the_temperature_is_undefined_with_a_reason():
    temperature = assess(drawn(0), 0, 0)["temperature"]
    assert temperature == {"value": None, "why": "no validation video was scored"}


def test_a_temperature_of_few_patients_gives_a_warning():
    few = drawn(1, patients=3)
    assert "only 3 validation patients" in warnings_of(assess(drawn(0), 0, 0, validation=few))


def test_totals_that_are_not_significantly_better_give_a_warning():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, 48)
    predicted = np.where(rng.random(48) < 0.35, scores, rng.integers(0, 4, 48))
    videos = [(str(i // 6), "1", str(i % 6)) for i in range(48)]
    assessed = assess(metrics.Predictions(videos, scores, predicting(predicted)), 0, 0)
    error = assessed["sums"]["exam"]["total"]["predicted"]["mae"]
    less = error["less"]["majority"]
    assert less["value"] < 0 < less["high"]
    assert "not shown to be better than one score for every video" in warnings_of(assessed)


def test_equal_probabilities_for_many_videos_give_a_warning():
    predictions = drawn(5)
    rows = predictions.probabilities + np.arange(80)[:, None] * 1e-9  # no two equal
    rows[:30] = rows[0]
    blind = predictions_for(predictions.patients, predictions.scores, rows)
    assert "30 of 80 videos have exactly the same probabilities" in warnings_of(assess(blind, 0, 0))
    rows[4:30] += np.arange(26)[:, None] * 1e-9
    seeing = predictions_for(predictions.patients, predictions.scores, rows)
    assert "the same probabilities" not in warnings_of(assess(seeing, 0, 0))
