"""Intervals over patients and the permutation test, against direct computations."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from lus_cli.evaluation import intervals
from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.intervals import ANY, CORRELATION, POSITIVE, SHARE, Jackknife
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.resampling import (
    PatientSums,
    pairs_won,
    permutation_test,
    permuted_confusions,
)
from tests.benchmarks import statistics
from tests.predicted import drawn, from_sklearn, predicting, predictions_for


def test_weighted_patients_have_the_metrics_of_repeated_videos():
    predictions = drawn(1)
    sums = PatientSums(predictions)
    draws = np.array([[2, 0, 1, 3, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
    resampled = sums.metrics(draws)
    for index, draw in enumerate(draws):
        videos = [v for v, patient in enumerate(sums.patient) for _ in range(draw[patient])]
        expected = from_sklearn(predictions.scores[videos], predictions.probabilities[videos])
        for name, value in expected.items():
            assert resampled[name][index] == pytest.approx(value), name


def constant(value: float, patients: int = 6) -> np.ndarray:
    return np.full(patients, value)


def test_intervals_are_over_patients_not_videos():
    # One patient with only correct, one with only wrong predictions: two patients say almost nothing,
    # while an interval over 400 videos would stay near 1/2.
    scores, patients = [0] * 400, ["right"] * 200 + ["wrong"] * 200
    predicted = [0] * 200 + [1] * 200
    accuracy = assess(predictions_for(patients, scores, predicting(predicted)), 0, 0)["metrics"][
        "accuracy"
    ]
    assert accuracy["value"] == 0.5
    assert accuracy["low"] < 0.001
    assert accuracy["high"] > 0.999


def test_intervals_contain_the_value_and_are_reproducible():
    first, again = assess(drawn(3), 300, 0), assess(drawn(3), 300, 0)
    assert first == again
    for name, figure in first["metrics"].items():
        assert figure["low"] < figure["value"] < figure["high"], name


def test_the_interval_of_a_mean_is_students_on_the_logit():
    shares = np.array(
        [0.2, 0.5, 0.4, 0.9, 0.7]
    )  # accuracies of patients with equal numbers of videos
    mean = shares.mean()
    left_out = (shares.sum() - shares) / 4
    entry = Jackknife(5).estimate(mean, left_out, 5)
    spread = shares.std(ddof=1) / np.sqrt(5) / (mean * (1 - mean))
    ends = np.log(mean / (1 - mean)) + stats.t.ppf([0.025, 0.975], 4) * spread
    assert [entry["low"], entry["high"]] == pytest.approx(1 / (1 + np.exp(-ends)))
    entry = Jackknife(5).estimate(mean, left_out, 5, ANY)
    expected = stats.t.interval(0.95, 4, mean, shares.std(ddof=1) / np.sqrt(5))
    assert (entry["low"], entry["high"]) == pytest.approx(expected)


@pytest.mark.parametrize("limits", [SHARE, CORRELATION, POSITIVE, ANY, (0.0, 3.0), (-4.0, 4.0)])
def test_an_interval_stays_in_the_range_and_contains_the_value(limits):
    rng, (low, high) = np.random.default_rng(0), limits
    start, end = max(low, -5.0), min(high, 5.0)
    for width in (1e-12, 1e-6, 1e-2, 1.0, 10.0):
        for value in (start, start + 1e-12, *rng.uniform(start, end, 5), end - 1e-12, end):
            left_out = np.clip(value + rng.normal(0, width, 4), low, high)
            entry = Jackknife(4).estimate(value, left_out, 4, limits)
            assert low <= entry["low"] <= value <= entry["high"] <= high


@pytest.mark.parametrize("patients", [2, 5, 9])
def test_a_perfect_model_gets_1_even_if_a_score_disappears_with_a_patient(patients):
    # Only one patient has the last score; without that patient it is missing.
    scores = np.concatenate([np.tile([0, 1, 2], patients - 1), [0, 1, 3]])
    owner = np.repeat(np.arange(patients), 3)
    for truth in (scores, np.minimum(scores, 2), np.where(scores == 3, 3, 0)):
        found = assess(predictions_for(owner, truth, predicting(truth)), 50, 0)["metrics"]
        for name in ("accuracy", "f1_macro", "f1_weighted", "kappa_quadratic", "auroc_macro"):
            entry = found[name]
            assert (entry["low"], entry["value"], entry["high"]) == pytest.approx((1, 1, 1)), name
        error = found["mean_absolute_error"]
        assert (error["low"], error["value"], error["high"]) == (0, 0, 0)
        assert "no width" in error["note"]


def test_a_score_that_is_never_predicted_correctly_widens_macro_f1():
    # F1 of score 3 is 0 whichever patient is left out, although only two patients have it.
    scores = np.array([0, 1, 2, 0, 1, 2] * 6)
    scores[[2, 8]] = 3
    predicted = scores.copy()
    predicted[[2, 8, 13, 20]] = [2, 2, 0, 1]
    predictions = predictions_for(np.repeat(np.arange(6), 6), scores, predicting(predicted))
    sums = PatientSums(predictions)
    plain = sums.metrics(sums.unweighted)["f1_macro"][0]
    entry = assess(predictions, 0, 0)["metrics"]["f1_macro"]
    assert entry["value"] == pytest.approx(plain)
    narrow = Jackknife(6).estimate(plain, sums.metrics(Jackknife(6).draws)["f1_macro"], 6)
    assert entry["high"] > narrow["high"] + 0.05


@pytest.mark.parametrize("name", statistics.POPULATIONS)
def test_intervals_contain_the_true_value_as_often_as_claimed(name):
    # With 400 studies, a share of 0.95 deviates by more than 0.033 once in 400 times; the seed is fixed.
    population = statistics.POPULATIONS[name]
    for patients, studies in ((5, 400), (11, 400)):
        found = statistics.coverage(population, patients, studies, np.random.default_rng(1))
        for figure, share in found.items():
            assert 0.91 <= share <= 0.99, (figure, patients, share)


def test_p_values_distinguish_skill_from_chance():
    skilled = assess(drawn(5), 200, 0)["metrics"]
    assert skilled["accuracy"]["p_value"] < 0.02
    assert skilled["kappa_quadratic"]["p_value"] < 0.02


@pytest.mark.parametrize("name", statistics.NULLS)
def test_a_model_that_only_recognises_patients_is_rarely_significant(name):
    # Scores and predictions both cluster by patient and are independent of each other. A test that
    # permutes single videos calls 3 in 10 of such models significant at 5 %.
    for patients in (3, 11):
        found = statistics.significant_share(
            statistics.NULLS[name], patients, 200, np.random.default_rng(2)
        )
        assert max(found.values()) <= 0.1


def test_a_permutation_gives_every_patient_the_predictions_of_one_patient():
    # Each patient has its own predicted score, so a permutation shows whose predictions a patient gets;
    # with equal numbers of videos, no patient gives twice.
    owner = np.repeat([0, 1, 2, 3], 5)
    sums = PatientSums(predictions_for(owner, owner, predicting(owner)))
    permuted = permuted_confusions(sums, 50, np.random.default_rng(0))
    assert np.isin(permuted, (0, 5)).all()
    assert (permuted.sum(axis=1) == 5).all()
    assert (permuted.sum(axis=2) == 5).all()
    assert len({matrix.tobytes() for matrix in permuted}) > 15  # of 24


def test_p_is_1_if_no_permutation_differs():
    sums = PatientSums(predictions_for("aabbcc", [0, 1, 2, 3, 0, 1], predicting([2] * 6)))
    p_values = permutation_test(sums, 50, np.random.default_rng(0))
    assert p_values == {"accuracy": 1, "kappa_quadratic": 1}


def test_a_metric_that_depends_on_one_patient_has_no_interval():
    estimate = Jackknife(6).estimate(0.5, constant(0.5), 1)
    assert (estimate["value"], estimate["low"], estimate["high"]) == (0.5, None, None)
    assert "two patients" in estimate["why"]
    assert Jackknife(6).estimate(0.5, constant(0.5), 2)["low"] == 0.5


def test_an_interval_is_undefined_if_the_metric_is_undefined_without_one_patient():
    left_out = np.linspace(0.4, 0.6, 6)
    left_out[2] = np.nan
    estimate = Jackknife(6).estimate(0.5, left_out, 6)
    assert (estimate["low"], estimate["high"]) == (None, None)
    assert "one of the patients is left out" in estimate["why"]


def test_kappa_that_is_undefined_without_one_of_two_patients_has_no_interval() -> None:
    # Without patient b, all videos have score 1 and it is predicted for each of them.
    predictions = predictions_for(
        "aaabbbb", [1, 1, 1, 0, 1, 2, 3], predicting([1, 1, 1, 0, 1, 3, 2])
    )
    kappa = assess(predictions, 0, 0)["metrics"]["kappa_quadratic"]
    assert kappa["value"] == pytest.approx(1 - 2 / 10.857142857)
    assert (kappa["low"], kappa["high"]) == (None, None)
    assert "one of the patients is left out" in kappa["why"]


def test_values_that_are_equal_but_for_an_undefined_one_have_no_interval(monkeypatch) -> None:
    # Both patients with score 3 are in one group: without it, recall is undefined, else unchanged.
    monkeypatch.setattr(intervals, "MOST_GROUPS", 5)
    names = np.array([f"p{number:02}" for number in range(20)])
    together = names[Jackknife(20).group == 0][:2]
    scores = np.where(np.isin(names, together), 3, 0).repeat(2)
    predicted = scores.copy()
    predicted[np.flatnonzero(scores)[::2]] = 0  # one of the two videos of each
    rows = assess(predictions_for(names.repeat(2), scores, predicting(predicted)), 0, 0)[
        "per_class"
    ]
    recall = rows[3]["recall"]
    assert (recall["value"], recall["low"], recall["patients"]) == (0.5, None, 2)
    assert "one of the patients is left out" in recall["why"]


def many(patients: int, videos: int) -> Predictions:
    """Predictions that are mostly correct, more often for some patients than for others."""
    random = np.random.default_rng(patients)
    owner = np.repeat(np.arange(patients), videos)
    scores = random.integers(4, size=len(owner))
    skill = random.uniform(0.5, 3, patients)[owner, None]
    logits = random.normal(size=(len(owner), 4)) + skill * np.eye(4)[scores]
    shares = np.exp(logits)
    names = [f"{patient:05}" for patient in owner]
    return predictions_for(names, scores, shares / shares.sum(axis=1, keepdims=True))


def test_leaving_out_groups_gives_the_intervals_of_leaving_out_patients(monkeypatch):
    # With 200 groups the standard error itself varies by 1 / sqrt(2 * 199) = 5 %.
    predictions = many(800, 3)
    exact = assess(predictions, 0, 0)
    monkeypatch.setattr(intervals, "MOST_GROUPS", 200)
    grouped = assess(predictions, 0, 0)
    assert "leave-one-patient-out" in exact["intervals"]
    assert "200 random groups of patients" in grouped["intervals"]
    pairs = [(exact["metrics"][name], grouped["metrics"][name]) for name in exact["metrics"]]
    pairs += [(one["sums"]["exam"]["mean"]["predicted"]["icc"] for one in (exact, grouped))]
    pairs += [(one["areas"][0]["accuracy"] for one in (exact, grouped))]
    pairs += [(one["abstention"]["aurc"] for one in (exact, grouped))]
    for one, other in pairs:
        assert (other["value"], other["patients"]) == (one["value"], one["patients"])
        ratio = (other["high"] - other["low"]) / (one["high"] - one["low"])
        assert ratio != 1
        assert 0.85 < ratio < 1.15


def test_every_patient_is_in_one_group_of_nearly_equal_size(monkeypatch):
    monkeypatch.setattr(intervals, "MOST_GROUPS", 7)
    jackknife = Jackknife(25)
    left_out = 1 - jackknife.draws
    assert (left_out.sum(axis=0) == 1).all()
    assert sorted(set(left_out.sum(axis=1))) == [3, 4]
    assert (jackknife.draws == Jackknife(25).draws).all()  # differences are paired
    assert (Jackknife(7).draws == 1 - np.eye(7)).all()


def test_intervals_are_the_same_however_many_draws_are_in_memory(monkeypatch):
    together = assess(drawn(3), 0, 0)
    monkeypatch.setattr(intervals, "AT_ONCE", 200)  # two of the nine patients at a time
    apart = assess(drawn(3), 0, 0)
    for name, entry in together["metrics"].items():
        assert apart["metrics"][name] == pytest.approx(entry), name
    assert apart["abstention"]["aurc"] == pytest.approx(together["abstention"]["aurc"])


def test_memory_does_not_grow_with_the_square_of_the_patients():
    patients = 6000
    predictions = many(patients, 1)
    tracemalloc.start()
    try:
        assess(predictions, 0, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < patients**2 * 8


def test_pairs_of_equal_infinities_are_ties() -> None:
    values = np.array([-np.inf, -np.inf, 0.5])
    has = np.array([True, False, False])
    assert pairs_won(values, has, np.ones((1, 3))).tolist() == [0.5]
    assert pairs_won(values[:0], has[:0], np.ones((1, 0))).tolist() == [0.0]
