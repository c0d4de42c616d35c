"""Metrics against scikit-learn and against numbers of the report."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from lus_cli.evaluation import metric_labels, metrics
from lus_cli.evaluation.assessment import assess
from lus_cli.model import losses
from tests.predicted import drawn, from_sklearn, predicting, predictions_for

REPORT_TEST_SET = [0] * 10 + [1] * 14 + [2] * 26 + [3] * 19


def test_values_are_those_of_scikit_learn():
    predictions = drawn(0)
    assessed = assess(predictions, permutations=0, seed=0)
    expected = from_sklearn(predictions.scores, predictions.probabilities)
    for name in metric_labels.METRICS:
        if name != "ece":
            assert assessed["metrics"][name]["value"] == pytest.approx(expected[name]), name
    for row in assessed["per_class"]:
        for name in metric_labels.CLASS_METRICS:
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
    assessed = assess(predictions_for(range(69), REPORT_TEST_SET, probabilities), 0, 0)["metrics"]
    assert assessed["sord_loss"]["value"] == pytest.approx(loss, abs=5e-4)
    assert assessed["sord_excess"]["value"] == pytest.approx(loss - 0.542, abs=1e-3)
    assert assessed["sord_loss"]["majority"] == pytest.approx(1.340, abs=5e-4)


def test_certainty_in_a_wrong_prediction_has_a_large_but_finite_loss():
    figures = assess(predictions_for("ab", [0, 3], np.eye(4)[[3, 0]]), 0, 0)["metrics"]
    assert 50 < figures["sord_loss"]["value"] < 100


def answers_of(truth, answer) -> dict[str, float]:
    """Every metric of predicted scores, from scikit-learn; NaN where it would divide by zero."""
    figures = {
        "accuracy": sklearn_metrics.accuracy_score(truth, answer),
        "mean_absolute_error": sklearn_metrics.mean_absolute_error(truth, answer),
        "kappa_quadratic": sklearn_metrics.cohen_kappa_score(
            truth, answer, labels=range(4), weights="quadratic"
        ),
    }
    for average in ("micro", "macro", "weighted"):
        figures[f"f1_{average}"] = sklearn_metrics.f1_score(
            truth, answer, average=average, zero_division=0
        )
    by_score = sklearn_metrics.precision_recall_fscore_support(
        truth, answer, labels=range(4), zero_division=np.nan
    )
    for name, values in zip(("precision", "recall", "f1"), by_score[:3], strict=True):
        figures |= {f"{name}_{score}": values[score] for score in range(4)}
    return figures


@pytest.mark.parametrize("unit", [1, 80], ids=["counts", "shares"])
def test_metrics_of_many_confusion_matrices_are_those_of_scikit_learn(unit: int) -> None:
    """Intervals and permutations use these, values are scikit-learn's: both must be equal."""
    random = np.random.default_rng(3)
    studies = [(drawn(seed).scores, drawn(seed).predicted) for seed in range(3)]
    studies.append((random.integers(0, 3, 80), random.integers(0, 3, 80)))  # no score 3
    studies.append(
        (random.integers(0, 3, 80), random.integers(1, 4, 80))
    )  # 3 is predicted, never correctly
    confusion = np.array(
        [sklearn_metrics.confusion_matrix(*study, labels=range(4)) for study in studies]
    )
    figures = metrics.label_metrics(confusion / unit)
    for number, study in enumerate(studies):
        expected = answers_of(*study)
        found = {name: values[number] for name, values in figures.items()}
        assert found == pytest.approx(expected, nan_ok=True)


def test_kappa_is_undefined_where_chance_is_never_wrong() -> None:
    confusion = np.zeros((2, 4, 4))
    confusion[0, 2, 2] = 5.0  # all videos have the same score, which is predicted
    confusion[1] = np.eye(4)
    assert metrics.label_metrics(confusion)["kappa_quadratic"] == pytest.approx(
        [np.nan, 1], nan_ok=True
    )


@pytest.mark.filterwarnings("error")
def test_a_quotient_is_undefined_only_by_zero() -> None:
    found = metrics.quotient(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.0, 0.0, 0.5, 2.0]))
    assert found == pytest.approx([np.nan, np.nan, 2, 0], nan_ok=True)


@pytest.mark.filterwarnings("error")  # scikit-learn warns of what is undefined
@pytest.mark.parametrize("without", [{"kappa_quadratic"}, set()])
def test_only_what_is_defined_gets_a_value(without: set[str]) -> None:
    """Score 1 does not occur and 3 is never predicted; values that scikit-learn lacks stay unchanged."""
    truth, answer = np.array([0, 0, 2, 2, 3]), [0, 2, 2, 0, 2]
    predictions = predictions_for("abcde", truth, predicting(answer, confidence=0.4))
    undefined = {"recall_1", "precision_1", "f1_1", "auroc_1", "auroc_macro", "precision_3"}
    undefined |= without  # whatever scikit-learn returns
    names = {f"{name}_{score}" for name in metric_labels.CLASS_METRICS for score in range(4)}
    own = dict.fromkeys(names | set(metric_labels.METRICS), 0.125)
    own |= dict.fromkeys(undefined, math.nan)
    values = metrics.point_values(predictions, own)
    expected = answers_of(truth, np.array(answer))
    expected |= {
        f"auroc_{score}": sklearn_metrics.roc_auc_score(
            truth == score, predictions.probabilities[:, score]
        )
        for score in (0, 2, 3)
    }
    assert {name for name, value in values.items() if math.isnan(value)} == undefined
    assert {name for name, value in values.items() if value == 0.125} >= {"brier", "ece"}
    for name in expected.keys() - undefined:
        assert values[name] == pytest.approx(expected[name]), name
    assert values.keys() == own.keys()


def test_soft_labels_are_those_of_the_loss() -> None:
    ours = losses.soft_labels(torch.arange(4), "sord")
    np.testing.assert_allclose(metrics.soft_labels(), ours, rtol=1e-6)


def test_what_probabilities_say() -> None:
    predictions = predictions_for("ab", [0, 3], [[0.4, 0.1, 0.4, 0.1], [0, 0.25, 0.25, 0.5]])
    assert predictions.predicted.tolist() == [0, 3]  # the lower of two with equal probability
    assert predictions.confidence.tolist() == [0.4, 0.5]
    assert predictions.expected == pytest.approx([1.2, 2.25])
    assert predictions.patients == ["a", "b"]


def test_the_mean_is_over_the_last_axis_whichever_it_is() -> None:
    values = np.array([1.0, np.nan, 3.0])
    assert metrics.mean_of_defined(values) == 2
    assert metrics.mean_of_defined(values[None, None]).tolist() == [[2]]


def test_equal_predictions_are_those_of_the_same_four_probabilities() -> None:
    probabilities = [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0.5, 0.5, 0, 0]]
    assert metrics.equal_predictions(predictions_for("abc", [0, 1, 2], probabilities)) == 2


def test_probabilities_may_be_rounded() -> None:
    assert len(predictions_for("a", [0], [[0.33333, 0.33333, 0.33333, 0]]).videos) == 1


@pytest.mark.parametrize(
    ("videos", "scores", "probabilities", "complaint"),
    [
        ([], [], np.zeros((0, 4)), "there are no videos"),
        ("ab", [0], np.full((2, 4), 0.25), r"2 videos, scores \(1,\), probabilities \(2, 4\)"),
        ("ab", [0, 1], np.full((1, 4), 0.25), "2 videos, scores"),
        ("a", [0], np.full((1, 5), 0.2), "1 videos, scores"),
        ("a", [4], np.full((1, 4), 0.25), r"a score outside 0\.\.3"),
        ("a", [-1], np.full((1, 4), 0.25), r"a score outside 0\.\.3"),
        ("a", [0], np.full((1, 4), 0.3), "do not sum to 1"),
        ("a", [0], np.full((1, 4), 0.2502), "do not sum to 1"),
        ("a", [0], np.full((1, 4), np.nan), "negative, NaN or"),
        ("a", [0], np.array([[1.5, -0.5, 0, 0]]), "negative"),
        ("ab", [0, 0], np.array([[0.4] * 4, [0.1] * 4]), "do not sum to 1"),
    ],
)
def test_inconsistent_predictions_are_refused(videos, scores, probabilities, complaint):
    with pytest.raises(ValueError, match=complaint):
        predictions_for(videos, scores, probabilities)


def test_probabilities_may_sum_to_1_as_nearly_as_numbers_of_four_digits_do():
    predictions = predictions_for("a", [0], np.array([[0.25, 0.25, 0.25, 0.25 + 9e-5]]))
    assert predictions.predicted.tolist() == [3]
