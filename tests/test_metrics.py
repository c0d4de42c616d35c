"""Figures against scikit-learn, against hand-computed cases and against the report's own numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from lus_cli import metrics
from lus_cli.metrics import Predictions, assess

LABELS = [0, 1, 2, 3]
REPORT_TEST_SET = [0] * 10 + [1] * 14 + [2] * 26 + [3] * 19


def predictions_for(patients, scores, probabilities) -> Predictions:
    videos = [(str(patient), "1", str(area)) for area, patient in enumerate(patients)]
    return Predictions(videos, np.array(scores), np.array(probabilities, dtype=float))


def answering(answers, confidence=0.7) -> np.ndarray:
    """Probabilities that answer these scores, the rest spread evenly."""
    rest = (1 - confidence) / 3
    return np.full((len(answers), 4), rest) + (confidence - rest) * np.eye(4)[list(answers)]


def drawn(seed: int, patients: int = 9, videos: int = 80) -> Predictions:
    """Predictions with some skill, ties between probabilities and patients of unequal size."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, videos)
    logits = rng.normal(0, 1, (videos, 4)) - np.abs(np.arange(4) - scores[:, None])
    probabilities = np.exp(logits).round(1) + 0.1
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return predictions_for(rng.integers(0, patients, videos), scores, probabilities)


def from_sklearn(truth, probabilities) -> dict[str, float]:
    """Every figure that scikit-learn has, and the others written out once more, video by video."""
    answer = probabilities.argmax(axis=1)
    rules = {"labels": LABELS, "zero_division": 0}
    figures = {
        "accuracy": sklearn_metrics.accuracy_score(truth, answer),
        "mean_absolute_error": sklearn_metrics.mean_absolute_error(truth, answer),
        "kappa_quadratic": sklearn_metrics.cohen_kappa_score(
            truth, answer, labels=LABELS, weights="quadratic"
        ),
        "auroc_macro": sklearn_metrics.roc_auc_score(
            truth, probabilities, multi_class="ovr", average="macro", labels=LABELS
        ),
        "brier": np.mean([((p - np.eye(4)[y]) ** 2).sum() for y, p in zip(truth, probabilities)]),  # noqa: B905
    }
    for average in ("micro", "macro", "weighted"):
        figures[f"f1_{average}"] = sklearn_metrics.f1_score(truth, answer, average=average, **rules)
    by_score = sklearn_metrics.precision_recall_fscore_support(truth, answer, **rules)
    for score in LABELS:
        for name, values in zip(("precision", "recall", "f1"), by_score, strict=False):
            figures[f"{name}_{score}"] = values[score]
        figures[f"auroc_{score}"] = sklearn_metrics.roc_auc_score(
            truth == score, probabilities[:, score]
        )
    losses, floors = [], []
    for y, p in zip(truth, probabilities, strict=True):
        soft = [math.exp(-2 * (i - y) ** 2) for i in LABELS]
        soft = [s / sum(soft) for s in soft]
        losses.append(-sum(s * math.log(q) for s, q in zip(soft, p, strict=True)))
        floors.append(-sum(s * math.log(s) for s in soft))
    figures["sord_loss"] = np.mean(losses)
    figures["sord_excess"] = np.mean(losses) - np.mean(floors)
    return figures


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


def test_a_resample_has_the_figures_of_its_videos_written_out():
    predictions = drawn(1)
    sums = metrics.PatientSums(predictions)
    draws = np.array([[2, 0, 1, 3, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
    resampled = sums.figures(draws)
    for index, draw in enumerate(draws):
        videos = [v for v, patient in enumerate(sums.patient) for _ in range(draw[patient])]
        expected = from_sklearn(predictions.scores[videos], predictions.probabilities[videos])
        for name, value in expected.items():
            assert resampled[name][index] == pytest.approx(value), name


def test_the_reports_model_is_named_for_what_it_is():
    scores = [0] * 45 + [1] * 45 + [2] * 101 + [3] * 55
    patients = np.arange(len(scores)) % 11
    assessed = assess(
        predictions_for(patients, scores, answering([2] * 246)), resamples=200, seed=0
    )
    figures = assessed["figures"]
    assert figures["accuracy"]["value"] == pytest.approx(101 / 246)  # the report's 41.06 %
    assert figures["f1_micro"]["value"] == figures["accuracy"]["value"]
    assert figures["f1_macro"]["value"] == pytest.approx(0.1455, abs=1e-4)
    assert figures["kappa_quadratic"]["value"] == pytest.approx(0)
    for name in ("accuracy", "f1_macro", "kappa_quadratic", "mean_absolute_error"):
        assert figures[name]["value"] == pytest.approx(figures[name]["majority"])
        assert figures[name]["value"] == pytest.approx(figures[name]["chance"])
    assert figures["accuracy"]["p_value"] == figures["kappa_quadratic"]["p_value"] == 1
    assert assessed["warnings"] == [
        "This model answers score 2 for every video: "
        "it has learned nothing but the most frequent score."
    ]
    assert assessed["errors_per_class"][3] == {"score": 3, "wrong": 55, "as": [0, 0, 55, 0]}


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


def test_no_constant_answer_beats_the_majority_reference():
    predictions = drawn(2)
    figures = assess(predictions, 0, 0)["figures"]
    rng = np.random.default_rng(0)
    for constant in rng.dirichlet(np.ones(4), 300):
        same = predictions_for(
            predictions.patients,
            predictions.scores,
            np.tile(constant, (len(predictions.videos), 1)),
        )
        values = metrics.PatientSums(same).figures(np.ones((1, 9)))
        assert values["sord_loss"][0] >= figures["sord_loss"]["majority"]
        assert values["brier"][0] >= figures["brier"]["majority"]
        assert values["accuracy"][0] <= figures["accuracy"]["majority"]


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


def test_chance_is_the_mean_over_random_deals():
    predictions = drawn(4, videos=40)
    chance = metrics.chance(metrics.PatientSums(predictions))
    rng = np.random.default_rng(0)
    deals = [
        from_sklearn(predictions.scores, rng.permutation(predictions.probabilities))
        for _ in range(80)
    ]
    for name in set(metrics.FIGURES) - {"ece"}:
        values = [deal[name] for deal in deals]
        error = np.std(values) / math.sqrt(len(values))
        assert chance[name] == pytest.approx(np.mean(values), abs=4 * error), name


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
        p_values = metrics.permutation_test(metrics.PatientSums(predictions), 99, rng)
        significant += p_values["kappa_quadratic"] <= 0.05
    assert significant <= 15


def test_calibration_by_hand():
    # Bin 0.5 to 0.6: 0.55 sure, one of two right; bin 0.9 to 1: sure 0.9 and 1, both right.
    probabilities = [[0.55, 0.45, 0, 0], [0.55, 0.45, 0, 0], [0.1, 0, 0.9, 0], [0, 0, 0, 1]]
    assessed = assess(predictions_for("abcd", [0, 1, 2, 3], probabilities), 0, 0)
    assert assessed["figures"]["ece"]["value"] == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)
    filled = [row for row in assessed["calibration"] if row["videos"]]
    assert [(row["from"], row["videos"], row["accuracy"]) for row in filled] == [
        (0.5, 2, 0.5),
        (0.9, 2, 1.0),
    ]
    assert filled[1]["confidence"] == pytest.approx(0.95)
    assert assessed["calibration"][0]["accuracy"] is None


@pytest.mark.parametrize(
    ("patients", "scores", "answers"),
    [
        ("a", [2], [2]),
        ("aaa", [2, 2, 2], [2, 2, 2]),
        ("abc", [0, 0, 0], [1, 1, 1]),
        ("ab", [0, 3], [3, 0]),
        ("aab", [0, 1, 2], [0, 1, 2]),
    ],
)
def test_what_is_undefined_is_none_with_a_reason(patients, scores, answers):
    assessed = assess(predictions_for(patients, scores, answering(answers)), 100, 0)
    json.dumps(assessed, allow_nan=False)
    entries = [*assessed["figures"].values()]
    entries += [row[name] for row in assessed["per_class"] for name in metrics.CLASS_FIGURES]
    for entry in entries:
        undefined = entry["value"] is None or entry["low"] is None
        assert bool(entry.get("why")) == undefined
    if set(scores) == set(answers) == {2}:
        assert assessed["figures"]["kappa_quadratic"]["value"] is None
        assert any("Kappa is undefined" in line for line in assessed["warnings"])


def test_a_missing_score_and_few_patients_are_said():
    predictions = predictions_for("aabb", [0, 1, 2, 0], answering([0, 1, 1, 0]))
    assessed = assess(predictions, 50, 0)
    said = " | ".join(assessed["warnings"])
    assert "Only 2 patients: " in said
    assert "No video has score 3: " in said
    assert "never answers score 2" in said
    assert assessed["figures"]["f1_macro"]["value"] == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert assessed["per_class"][3]["recall"]["value"] is None


def test_a_model_no_better_than_the_majority_is_told_so():
    predictions = predictions_for(range(6), [2, 2, 2, 0, 1, 3], answering([2, 2, 0, 0, 2, 2]))
    assert any(
        "no better than answering score 2" in w for w in assess(predictions, 0, 0)["warnings"]
    )


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
