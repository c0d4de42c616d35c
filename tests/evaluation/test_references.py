"""References that do not look at a video: majority, prior, chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lus_cli.evaluation import metric_labels, metrics, references
from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.resampling import PatientSums
from tests.predicted import drawn, from_sklearn, predicting, predictions_for


def test_no_constant_prediction_beats_the_majority_reference():
    predictions = drawn(2)
    figures = assess(predictions, 0, 0)["metrics"]
    rng = np.random.default_rng(0)
    for constant in rng.dirichlet(np.ones(4), 300):
        same = predictions_for(
            predictions.patients,
            predictions.scores,
            np.tile(constant, (len(predictions.videos), 1)),
        )
        values = PatientSums(same).metrics(np.ones((1, 9)))
        assert values["sord_loss"][0] >= figures["sord_loss"]["majority"]
        assert values["brier"][0] >= figures["brier"]["majority"]
        assert values["accuracy"][0] <= figures["accuracy"]["majority"]


def test_chance_is_the_mean_over_random_permutations():
    predictions = drawn(4, videos=40)
    chance = references.chance(PatientSums(predictions))
    rng = np.random.default_rng(0)
    deals = [
        from_sklearn(predictions.scores, rng.permutation(predictions.probabilities))
        for _ in range(80)
    ]
    for name in set(metric_labels.METRICS) - {"ece"}:
        values = [deal[name] for deal in deals]
        error = np.std(values) / math.sqrt(len(values))
        assert chance[name] == pytest.approx(np.mean(values), abs=4 * error), name


def test_the_prior_is_the_mean_over_scores_drawn_as_often_as_in_training():
    predictions, training = drawn(6, videos=60), np.array([10.0, 30.0, 20.0, 40.0])
    found = references.prior(PatientSums(predictions), training)
    random = np.random.default_rng(0)
    answers = random.choice(4, (2000, 60), p=training / training.sum())
    confusion = np.zeros((2000, 4, 4))
    np.add.at(confusion, (np.arange(2000)[:, None], predictions.scores[None], answers), 1)
    draws = metrics.label_metrics(confusion)
    for name in ("accuracy", "mean_absolute_error", "kappa_quadratic"):
        error = np.std(draws[name]) / math.sqrt(2000)
        assert found[name] == pytest.approx(np.mean(draws[name]), abs=4 * error), name


def test_the_priors_probabilities_are_the_training_videos_shares():
    predictions, training = drawn(7), np.array([1, 2, 3, 4])
    constant = np.tile(training / 10, (len(predictions.videos), 1))
    same = predictions_for(predictions.patients, predictions.scores, constant)
    values = PatientSums(same).probability_metrics(np.ones((1, 9)))
    found = references.prior(PatientSums(predictions), training)
    assert found["brier"] == pytest.approx(values["brier"][0])
    assert found["ece"] == pytest.approx(values["ece"][0])
    assert found["kappa_quadratic"] == pytest.approx(0)
    # For SORD they are the mean soft label: the constant prediction that training converges to.
    soft = np.tile(training / 10 @ metrics.soft_labels(), (len(predictions.videos), 1))
    same = predictions_for(predictions.patients, predictions.scores, soft)
    values = PatientSums(same).probability_metrics(np.ones((1, 9)))
    assert found["sord_loss"] == pytest.approx(values["sord_loss"][0])
    assert found["sord_excess"] == pytest.approx(values["sord_excess"][0])


def test_the_prior_is_the_training_patients_not_the_scored_ones():
    predictions = predictions_for("aabbcc", [2] * 6, predicting([2, 2, 2, 2, 1, 1]))
    figures = assess(predictions, 0, 0, training=[8, 0, 2, 0])["metrics"]
    assert figures["accuracy"]["prior"] == pytest.approx(0.2)
    assert figures["accuracy"]["majority"] == 1
    assert assess(predictions, 0, 0)["metrics"]["accuracy"]["prior"] is None
