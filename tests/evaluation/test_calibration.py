"""Reliability by hand, temperature against a grid, abstention against a direct computation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lus_cli.evaluation.assessment import assess, warnings_of_temperature
from lus_cli.evaluation.calibration import (
    TEMPERATURES,
    RiskCoverage,
    abstention,
    cross_fitted_scaling,
    fit_temperature,
    scaled,
    temperature_scaling,
)
from lus_cli.evaluation.intervals import Jackknife
from lus_cli.evaluation.metrics import Predictions, soft_labels
from lus_cli.pages.figures import TEXTS
from tests.predicted import drawn, predicting, predictions_for


def test_calibration_by_hand():
    # Bin 0.5 to 0.6: confidence 0.55, one of two correct; bin 0.9 to 1: 0.9 and 1, both correct.
    probabilities = [[0.55, 0.45, 0, 0], [0.55, 0.45, 0, 0], [0.1, 0, 0.9, 0], [0, 0, 0, 1]]
    assessed = assess(predictions_for("abcd", [0, 1, 2, 3], probabilities), 0, 0)
    assert assessed["metrics"]["ece"]["value"] == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)
    filled = [row for row in assessed["calibration"] if row["videos"]]
    assert [(row["from"], row["videos"], row["accuracy"]) for row in filled] == [
        (0.5, 2, 0.5),
        (0.9, 2, 1.0),
    ]
    assert filled[1]["confidence"] == pytest.approx(0.95)
    assert assessed["calibration"][0]["accuracy"] is None


# ------------------------------------------------------------------------------------- temperature


def tempered(predictions: Predictions, temperature: float) -> Predictions:
    return replace(predictions, probabilities=scaled(predictions.probabilities, temperature))


def likelihood(predictions: Predictions) -> float:
    given = predictions.probabilities[np.arange(len(predictions.scores)), predictions.scores]
    return -np.log(given).mean()


def test_scaling_is_that_of_the_logits_and_changes_no_prediction():
    logits = np.random.default_rng(0).normal(0, 3, (40, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    cooled = np.exp(logits / 0.4) / np.exp(logits / 0.4).sum(axis=1, keepdims=True)
    predictions = predictions_for(range(40), [0] * 40, shares)
    assert scaled(predictions.probabilities, 0.4) == pytest.approx(cooled)
    assert (tempered(predictions, 5.0).predicted == predictions.predicted).all()


@pytest.mark.parametrize("distorted", [0.3, 1.0, 4.0])
def test_no_temperature_has_a_higher_likelihood_than_the_fitted_one(distorted):
    predictions = tempered(drawn(0), distorted)
    fitted = fit_temperature(predictions)
    least = likelihood(tempered(predictions, fitted))
    for temperature in np.geomspace(*TEMPERATURES, 400):
        assert likelihood(tempered(predictions, temperature)) >= least - 1e-12
    # Scaling twice is scaling by the product, so the fit undoes the distortion.
    assert fitted == pytest.approx(fit_temperature(drawn(0)) / distorted)


def test_probabilities_that_aim_at_soft_labels_get_a_temperature_below_1():
    scores = np.tile([0, 1, 2, 3], 25)
    rng = np.random.default_rng(0)
    truth = np.minimum(scores + (rng.random(100) < 0.05), 3)  # a few are one score higher
    assert fit_temperature(predictions_for(range(100), truth, soft_labels()[scores])) < 1


@pytest.mark.parametrize(("answers", "limit"), [([0, 1, 2, 3], 0), ([3, 2, 1, 0], 1)])
def test_a_temperature_without_a_minimum_gives_a_warning(answers, limit):
    validation = predictions_for("abcd", [0, 1, 2, 3], predicting(answers))
    found = temperature_scaling(drawn(0), validation, Jackknife(9))
    assert found["value"] == pytest.approx(TEMPERATURES[limit])
    assert found["at_limit"]
    warning = warnings_of_temperature({"temperature": found})[-1]
    assert warning.endswith(("fitted on are all correct", "fitted on carry no information")[limit])
    assert "or" not in warning.split("fitted on")[1].split()


def test_a_certain_prediction_does_not_stop_the_fit():
    probabilities = np.concatenate([np.eye(4)[[0, 1, 2]], drawn(0).probabilities])
    scores = [0, 1, 3, *drawn(0).scores]
    assert np.isfinite(fit_temperature(predictions_for(range(83), scores, probabilities)))


def test_out_of_fold_predictions_get_a_temperature_from_the_other_folds():
    scored = tempered(drawn(2), 0.4)
    names = np.array(scored.patients)
    folds = [np.unique(names)[number::3] for number in range(3)]
    found = cross_fitted_scaling(scored, folds, Jackknife(9))
    expected = np.zeros_like(scored.probabilities)
    for fold, temperature in zip(folds, found["by_fold"], strict=True):
        others = [place for place, name in enumerate(names) if name not in fold]
        videos = [scored.videos[place] for place in others]
        rest = Predictions(videos, scored.scores[others], scored.probabilities[others])
        assert temperature == fit_temperature(rest) != fit_temperature(scored)
        inside = np.isin(names, fold)
        expected[inside] = scaled(scored.probabilities[inside], temperature)
    after = Predictions(scored.videos, scored.scores, expected)
    assert found["metrics"]["nll"]["after"]["value"] == pytest.approx(likelihood(after))
    assert min(found["by_fold"]) < found["value"] < max(found["by_fold"])
    assert cross_fitted_scaling(scored, [names], Jackknife(9))["value"] is None


def test_the_temperature_is_fitted_on_validation_and_measured_on_the_scored_videos():
    scored, validation = tempered(drawn(2), 0.4), tempered(drawn(3), 0.4)
    found = temperature_scaling(scored, validation, Jackknife(9))
    assert found["value"] == fit_temperature(validation) != fit_temperature(scored)
    assert found["fitted_on"] == {"videos": 80, "patients": 9}
    after = tempered(scored, found["value"])
    nll = found["metrics"]["nll"]
    assert nll["before"]["value"] == pytest.approx(likelihood(scored))
    assert nll["after"]["value"] == pytest.approx(likelihood(after))
    assert nll["after"]["value"] < nll["before"]["value"]
    assert nll["after"]["low"] < nll["after"]["value"] < nll["after"]["high"]
    assert found["metrics"]["ece"]["after"]["value"] < found["metrics"]["ece"]["before"]["value"]


# -------------------------------------------------------------------------------------- abstention


def untied(seed: int) -> Predictions:
    predictions = drawn(seed)
    noise = np.random.default_rng(seed).random(predictions.probabilities.shape) / 100
    shares = predictions.probabilities + noise
    return predictions_for(
        predictions.patients, predictions.scores, shares / shares.sum(axis=1, keepdims=True)
    )


def written_out(predictions: Predictions, videos) -> float:
    """AURC of videos, with repetitions: the mean over videos of the error of all videos with at least
    the same confidence."""
    sure = predictions.confidence[videos]
    wrong = (predictions.predicted != predictions.scores)[videos]
    return np.mean([wrong[sure >= own].mean() for own in sure])


def test_aurc_by_hand():
    # In order of confidence: correct, correct, wrong, correct: risks 0, 0, 1/3, 1/4.
    probabilities = predicting([0, 1, 2, 3])
    for row, confidence in enumerate((0.9, 0.8, 0.7, 0.6)):
        probabilities[row] = predicting([row], confidence)
    found = abstention(
        predictions_for("abcd", [0, 1, 0, 3], probabilities),
        Jackknife(4),
    )
    assert found["aurc"]["value"] == pytest.approx((1 / 3 + 1 / 4) / 4)
    assert found["aurc_random"] == 0.25
    assert found["aurc_best"] == pytest.approx((1 / 4) / 4)  # the wrong one left out first
    assert [row["videos"] for row in found["curve"]] == [1, 2, 3, 4]
    assert [row["accuracy"] for row in found["curve"]] == pytest.approx([1, 1, 2 / 3, 3 / 4])
    assert found["curve"][1]["f1_macro"] == 1  # scores 2 and 3 are left out
    assert found["curve"][2]["patients"] == 3


def test_aurc_of_weighted_patients_is_that_of_repeated_videos():
    predictions = untied(1)
    draws = np.array([[2, 0, 1, 3, 0, 1, 1, 1, 0], [1] * 9])
    areas = RiskCoverage(predictions).resampled(draws)["area"]
    names = np.unique(predictions.patients, return_inverse=True)[1]
    for draw, area in zip(draws, areas, strict=True):
        videos = [v for v, patient in enumerate(names) for _ in range(draw[patient])]
        assert area == pytest.approx(written_out(predictions, videos))


def test_a_model_of_constant_confidence_gains_nothing_by_abstaining():
    answers = [0, 1, 2, 3, 0, 0]
    found = abstention(
        predictions_for("aabbcc", [0, 1, 2, 3, 1, 2], predicting(answers)),
        Jackknife(3),
    )
    assert len(found["curve"]) == 1
    assert found["aurc"]["value"] == found["aurc_random"] == pytest.approx(1 / 3)
    assert {row["coverage"] for row in found["at_coverage"]} == {1.0}


def test_a_score_of_which_no_video_is_left_does_not_count_in_macro_f1():
    # The videos of score 2 are the least confident; the page says that they are left out, not 0.
    shares = [[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0], [0.1, 0.1, 0.7, 0.1], [0.6, 0.2, 0.2, 0]]
    curve = abstention(predictions_for("abcd", [0, 1, 2, 2], shares), Jackknife(4))["curve"]
    assert [row["videos"] for row in curve] == [2, 3, 4]
    assert [row["f1_macro"] for row in curve] == pytest.approx([1, 1, (2 / 3 + 1 + 2 / 3) / 3])
    assert "leaves out a score that no video left has" in TEXTS["abstention"][1]


def test_accuracy_at_a_coverage_is_over_at_least_so_many_videos():
    predictions = untied(4)
    found = abstention(predictions, Jackknife(9))
    order = np.argsort(-predictions.confidence)
    right = (predictions.predicted == predictions.scores)[order]
    for row in found["at_coverage"]:
        kept = round(row["at_least"] * 80)
        assert (row["videos"], row["coverage"]) == (kept, pytest.approx(kept / 80))
        assert row["accuracy"] == pytest.approx(right[:kept].mean())
        assert 0 <= row["low"] <= row["high"] <= 1
