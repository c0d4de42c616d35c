"""Figures against scikit-learn and against the landmarks of the report's own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lus_cli import metrics
from lus_cli.assessment import assess
from tests.answers import drawn, from_sklearn, predictions_for

REPORT_TEST_SET = [0] * 10 + [1] * 14 + [2] * 26 + [3] * 19


def test_values_are_those_of_scikit_learn():
    predictions = drawn(0)
    assessed = assess(predictions, resamples=0, seed=0)
    expected = from_sklearn(predictions.scores, predictions.probabilities)
    for name in metrics.FIGURES:
        if name != "ece":
            assert assessed["figures"][name]["value"] == pytest.approx(expected[name]), name
    for row in assessed["per_class"]:
        for name in metrics.CLASS_FIGURES:
            assert row[name]["value"] == pytest.approx(expected[f"{name}_{row['score']}"]), name


@pytest.mark.parametrize(
    ("answer", "loss"),
    [
        (lambda y: np.full(4, 0.25), math.log(4)),
        (lambda y: metrics.soft_labels()[REPORT_TEST_SET].mean(axis=0), 1.340),
        (lambda y: metrics.soft_labels()[y], 0.542),
    ],
    ids=["uniform", "best constant", "perfect"],
)
def test_the_loss_has_the_landmarks_of_the_reports_test_set(answer, loss):
    probabilities = [answer(y) for y in REPORT_TEST_SET]
    assessed = assess(predictions_for(range(69), REPORT_TEST_SET, probabilities), 0, 0)["figures"]
    assert assessed["sord_loss"]["value"] == pytest.approx(loss, abs=5e-4)
    assert assessed["sord_excess"]["value"] == pytest.approx(loss - 0.542, abs=1e-3)
    assert assessed["sord_loss"]["majority"] == pytest.approx(1.340, abs=5e-4)


def test_certainty_in_a_wrong_answer_costs_much_but_not_infinity():
    figures = assess(predictions_for("ab", [0, 3], np.eye(4)[[3, 0]]), 0, 0)["figures"]
    assert 50 < figures["sord_loss"]["value"] < 100


@pytest.mark.parametrize(
    ("videos", "scores", "probabilities"),
    [
        ([], [], np.zeros((0, 4))),
        ("ab", [0], np.full((2, 4), 0.25)),
        ("a", [4], np.full((1, 4), 0.25)),
        ("a", [0], np.full((1, 4), 0.3)),
        ("a", [0], np.full((1, 4), np.nan)),
        ("a", [0], np.array([[1.5, -0.5, 0, 0]])),
    ],
)
def test_predictions_that_are_none_are_refused(videos, scores, probabilities):
    with pytest.raises(ValueError, match=r"video|score|probabilities"):
        predictions_for(videos, scores, probabilities)
