"""Confounders, compared with SciPy, and for models that read the gain or the lung."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from lus_cli.crossval.confounders import confounder_warnings, confounding
from lus_cli.evaluation.metrics import Predictions

PATIENTS, AREAS = 25, 6


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, PATIENTS * AREAS)


def predictions_of(truth: np.ndarray, expected: np.ndarray) -> Predictions:
    """Predictions with these expected scores."""
    near = -2.0 * (np.arange(4)[None, :] - expected[:, None]) ** 2
    shares = np.exp(near) / np.exp(near).sum(axis=1, keepdims=True)
    videos = [(f"p{i // AREAS}", "1", str(i % AREAS)) for i in range(len(truth))]
    return Predictions(videos, truth, shares)


def test_correlations_are_spearmans_and_the_partial_one_that_of_the_residuals(truth) -> None:
    random = np.random.default_rng(2)
    gain = random.normal(truth, 1.0)
    predictions = predictions_of(truth, np.clip(truth + 0.5 * random.normal(size=len(truth)), 0, 3))
    (row,) = confounding(predictions, {"gain": gain})
    assert row["with_score"]["value"] == pytest.approx(spearmanr(gain, truth)[0])
    assert row["with_prediction"]["value"] == pytest.approx(
        spearmanr(gain, predictions.expected)[0]
    )
    a, c, y = (rankdata(v) for v in (predictions.expected, gain, truth))

    def less_truth(values: np.ndarray) -> np.ndarray:
        slope, start = np.polyfit(y, values, 1)
        return values - slope * y - start

    by_hand = np.corrcoef(less_truth(a), less_truth(c))[0, 1]
    assert row["beyond_score"]["value"] == pytest.approx(by_hand)
    assert row["with_score"]["low"] < row["with_score"]["value"] < row["with_score"]["high"]


def test_a_model_that_reads_the_gain_gets_a_warning_and_one_that_reads_the_lung_does_not(
    truth,
) -> None:
    random = np.random.default_rng(3)
    gain = random.normal(truth, 1.5)  # diseased patients were filmed brighter
    lung = predictions_of(truth, np.clip(truth + 0.7 * random.normal(size=len(truth)), 0, 3))
    reader = predictions_of(truth, np.clip(gain, 0, 3))
    assert not confounder_warnings(confounding(lung, {"gain": gain}))
    (sentence,) = confounder_warnings(confounding(reader, {"gain": gain}))
    assert sentence.startswith("Predictions follow gain beyond what the true scores explain")


def test_strata_are_thirds_that_hold_every_video_once(truth) -> None:
    values = np.random.default_rng(4).normal(size=len(truth))
    predictions = predictions_of(truth, truth.astype(float))
    (row,) = confounding(predictions, {"depth": values})
    assert [stratum["videos"] for stratum in row["strata"]] == [50, 50, 50]
    assert all(stratum["accuracy"]["value"] == 1 for stratum in row["strata"])
    first, second, third = row["strata"]
    assert first["high"] < second["low"]
    assert second["high"] < third["low"]


def test_the_correlation_with_a_constant_confounder_is_undefined_not_nan(truth) -> None:
    (row,) = confounding(predictions_of(truth, truth.astype(float)), {"depth": np.ones(len(truth))})
    for key in ("with_score", "with_prediction", "beyond_score"):
        assert row[key]["value"] is None
        assert row[key]["why"]
    assert len(row["strata"]) == 1
    assert not confounder_warnings([row])
