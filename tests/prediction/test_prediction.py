"""The uncertainty of a prediction, compared with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lus_cli.prediction.prediction import Prediction, score_counts


def prediction_of(*probabilities: float) -> Prediction:
    return Prediction("v", "/v", probabilities, 4, (0, 2), None)


def test_all_on_one_score_is_certain():
    certain = prediction_of(0.0, 0.0, 1.0, 0.0)
    assert (certain.score, certain.probability) == (2, 1.0)
    assert (certain.uncertainty, certain.expected, certain.deviation) == (0.0, 2.0, 0.0)


def test_every_score_alike_is_as_uncertain_as_can_be():
    uniform = prediction_of(0.25, 0.25, 0.25, 0.25)
    assert uniform.score == 0
    assert uniform.uncertainty == pytest.approx(1.0)
    assert uniform.uncertainty <= 1
    assert uniform.expected == pytest.approx(1.5)
    assert uniform.deviation == pytest.approx(math.sqrt(1.25))


def test_two_scores_alike_are_half_of_the_entropy():
    ends = prediction_of(0.5, 0.0, 0.0, 0.5)
    assert ends.uncertainty == pytest.approx(0.5)  # ln 2 of ln 4
    assert (ends.expected, ends.deviation) == (1.5, 1.5)


def test_mean_and_deviation_are_those_of_many_draws():
    p = (0.1, 0.2, 0.6, 0.1)
    draws = np.random.default_rng(0).choice(4, 400_000, p=p)
    assert prediction_of(*p).expected == pytest.approx(draws.mean(), abs=0.01)
    assert prediction_of(*p).deviation == pytest.approx(draws.std(), abs=0.01)


def test_a_row_holds_what_the_json_holds_without_lists():
    shown = Prediction("v", "/v", (0.1, 0.2, 0.6, 0.1), 4, (0, 2), (0.25, 0.75), ("a", "b"))
    row, known = shown.to_row(), shown.to_json()
    assert [row[f"p{score}"] for score in range(4)] == known["probabilities"]
    assert row["frames_used"] == len(known["frame_numbers"]) == 2
    assert known["frame_weights"] == [0.25, 0.75]
    assert row["remarks"] == "a; b"
    assert not [value for value in row.values() if isinstance(value, (list, tuple))]


def test_answers_are_counted_by_score():
    predictions = [prediction_of(0, 0, 1, 0), prediction_of(0, 0, 1, 0), prediction_of(1, 0, 0, 0)]
    assert score_counts(predictions) == [1, 0, 2, 0]
