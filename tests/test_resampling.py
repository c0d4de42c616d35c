"""Intervals over patients and the permutation test, against the same written out."""

from __future__ import annotations

import numpy as np
import pytest

from lus_cli.assessment import assess
from lus_cli.resampling import Bootstrap, PatientSums, permutation_test
from tests.answers import answering, drawn, from_sklearn, predictions_for


def test_a_resample_has_the_figures_of_its_videos_written_out():
    predictions = drawn(1)
    sums = PatientSums(predictions)
    draws = np.array([[2, 0, 1, 3, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
    resampled = sums.figures(draws)
    for index, draw in enumerate(draws):
        videos = [v for v, patient in enumerate(sums.patient) for _ in range(draw[patient])]
        expected = from_sklearn(predictions.scores[videos], predictions.probabilities[videos])
        for name, value in expected.items():
            assert resampled[name][index] == pytest.approx(value), name


def test_intervals_resample_patients_not_videos():
    # One patient answered right throughout, one wrong throughout: a resample of patients has
    # accuracy 0, 1/2 or 1, while 400 resampled videos would stay near 1/2.
    scores, patients = [0] * 400, ["right"] * 200 + ["wrong"] * 200
    answers = [0] * 200 + [1] * 200
    accuracy = assess(predictions_for(patients, scores, answering(answers)), 500, 0)["figures"][
        "accuracy"
    ]
    assert (accuracy["low"], accuracy["value"], accuracy["high"]) == (0, 0.5, 1)


def test_intervals_hold_the_value_and_repeat_with_the_seed():
    first, again, other = (assess(drawn(3), 300, seed) for seed in (0, 0, 1))
    assert first == again
    assert first["figures"]["accuracy"]["low"] != other["figures"]["accuracy"]["low"]
    for name, figure in first["figures"].items():
        assert figure["low"] < figure["high"], name
        if name != "ece":  # of few videos its bootstrap leans upward
            assert figure["low"] <= figure["value"] <= figure["high"], name


def test_p_values_tell_skill_from_luck():
    skilled = assess(drawn(5), 200, 0)["figures"]
    assert skilled["accuracy"]["p_value"] < 0.02
    assert skilled["kappa_quadratic"]["p_value"] < 0.02


def test_a_model_that_only_tells_patients_apart_is_seldom_significant():
    # Scores and answers both cluster by patient and are independent of each other: a test that
    # deals out single videos calls 3 in 10 of such models significant at 5 %.
    rng = np.random.default_rng(0)
    significant = 0
    for _ in range(100):
        patients = np.repeat(np.arange(11), rng.integers(5, 20, 11))

        def clustered(patients=patients):
            noisy = 1.5 + rng.normal(0, 1, 11)[patients] + rng.normal(0, 0.5, len(patients))
            return np.clip(np.rint(noisy), 0, 3).astype(int)

        predictions = predictions_for(patients, clustered(), answering(clustered()))
        p_values = permutation_test(PatientSums(predictions), 99, rng)
        significant += p_values["kappa_quadratic"] <= 0.05
    assert significant <= 15


def test_a_figure_that_rests_on_one_patient_has_no_interval():
    bootstrap = Bootstrap.drawn(6, 50, np.random.default_rng(0))
    estimate = bootstrap.estimate(0.5, np.full(50, 0.5), 1, "")
    assert (estimate["value"], estimate["low"], estimate["high"]) == (0.5, None, None)
    assert "one patient" in estimate["why"]
    assert bootstrap.estimate(0.5, np.full(50, 0.5), 2, "")["low"] == 0.5


def test_an_interval_is_undefined_where_most_resamples_are():
    bootstrap = Bootstrap.drawn(6, 50, np.random.default_rng(0))
    resampled = np.where(np.arange(50) < 20, 0.5, np.nan)
    assert "most resamples" in bootstrap.estimate(0.5, resampled, 6, "")["why"]
