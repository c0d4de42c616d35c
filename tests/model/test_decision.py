"""Decisions by cuts: the frequencies of the scores, kappa, and logits that say the same."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from torch import Tensor
from torch.nn import functional as F

from lus_cli.cache.chunks import FrameFormat
from lus_cli.model.checkpoint import Card, load_best, new_model, save_best
from lus_cli.model.decision import (
    BETWEEN,
    SHARPNESSES,
    Decision,
    best_sharpness,
    by_frequencies,
    by_kappa,
    calibrated,
    expected_scores,
    positions,
)
from lus_cli.options import build
from lus_cli.recipes.recipe import Recipe
from tests.conftest import PAPER

CUTS = (0.7, 1.1, 1.3)


def study(
    videos: int = 200, seed: int = 0, among: tuple[int, ...] = (0, 1, 2, 3)
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of an unsure model whose expected scores follow the true ones, and these."""
    random = np.random.default_rng(seed)
    frequent = np.array([0.1, 0.5, 0.25, 0.15])[list(among)]
    scores = random.choice(among, videos, p=frequent / frequent.sum())
    centre = 1.3 + 0.3 * (scores - 1.5) + random.normal(0, 0.3, videos)
    logits = -0.5 * (np.arange(4) - centre[:, None]) ** 2
    return logits.astype(np.float32), scores


def expected_of(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(float))
    return (shares / shares.sum(axis=1, keepdims=True)) @ np.arange(4)


def kappa(scores: np.ndarray, predicted: np.ndarray) -> float:
    return cohen_kappa_score(scores, predicted, weights="quadratic", labels=range(4))


def decided(logits: np.ndarray, cuts: tuple[float, ...], sharpness: float) -> Tensor:
    decision = Decision()
    decision.set(cuts, sharpness)
    return decision(torch.from_numpy(logits))


# -------------------------------------------------------------------------------------------- cuts


@pytest.mark.parametrize("seed", range(3))
def test_cuts_by_frequencies_reproduce_the_frequencies(seed: int) -> None:
    logits, scores = study(seed=seed)
    expected = expected_of(logits)
    predicted = np.searchsorted(by_frequencies(expected, scores), expected, side="right")
    assert np.bincount(predicted, minlength=4).tolist() == np.bincount(scores, minlength=4).tolist()
    most_probable = np.bincount(logits.argmax(axis=1), minlength=4)
    assert most_probable[3] < np.bincount(scores)[3] / 4  # why there are cuts


@pytest.mark.parametrize(
    "among", [(1, 2, 3), (0, 1, 2), (0, 2, 3), (0, 1, 3), (1, 2), (0, 3), (0,), (2,), (3,)]
)
def test_a_score_that_is_absent_is_never_predicted(among: tuple[int, ...]) -> None:
    logits, scores = study(among=among)
    for kind in ("frequencies", "kappa"):
        cuts, sharpness = calibrated(kind, logits, scores)
        assert sharpness > 0
        others, _ = study(videos=500, seed=9)
        others[0], others[1] = (9, 0, 0, 0), (0, 0, 0, 9)  # beyond all of these
        predicted = decided(others, cuts, sharpness).argmax(dim=1)
        if kind == "frequencies":
            assert set(predicted.tolist()) <= set(among)
        assert torch.isfinite(decided(others, cuts, sharpness)).all()


@pytest.mark.parametrize("seed", range(3))
def test_cuts_by_kappa_have_at_least_the_kappa_of_those_by_frequencies(seed: int) -> None:
    logits, scores = study(videos=80, seed=seed)
    expected = expected_of(logits)
    start = by_frequencies(expected, scores)
    cuts = by_kappa(expected, scores, start)
    assert (np.diff(cuts) >= 0).all()
    before, after = (
        kappa(scores, np.searchsorted(those, expected, side="right")) for those in (start, cuts)
    )
    assert after >= before
    best = max(
        kappa(scores, np.searchsorted(those, expected, side="right"))
        for those in itertools.combinations(np.quantile(expected, np.linspace(0, 1, 14)), 3)
    )
    assert after > best - 0.03  # a search along one cut at a time comes close to one over all


def test_calibration_decides_on_left_out_videos_as_it_says() -> None:
    logits, scores = study()
    wanted = np.bincount(scores, minlength=4)
    predicted = decided(logits, *calibrated("frequencies", logits, scores)).argmax(dim=1).numpy()
    assert np.abs(np.bincount(predicted, minlength=4) - wanted).max() <= 1
    by_cuts = decided(logits, *calibrated("kappa", logits, scores)).argmax(dim=1).numpy()
    assert kappa(scores, by_cuts) >= kappa(scores, predicted) - 1e-9
    assert kappa(scores, predicted) > kappa(scores, logits.argmax(axis=1))
    assert calibrated("most-probable", logits, scores) == (BETWEEN, 0.0)


# ------------------------------------------------------------------------------------------ logits


@pytest.mark.parametrize("sharpness", SHARPNESSES[[0, 8, -1]].tolist())
@pytest.mark.parametrize(
    "cuts", [CUTS, BETWEEN, (0.7, 0.7, 1.3), (1.1, 1.1, 1.1), (-1.0, 1.0, 4.0)]
)
def test_the_largest_logit_is_that_of_the_score_between_the_cuts(
    cuts: tuple[float, ...], sharpness: float
) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (500, 4)).astype(np.float32)
    expected = expected_scores(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(expected, expected_of(logits), atol=1e-5)
    between = np.searchsorted(np.array(cuts, np.float32), expected, side="right")
    assert len(set(between.tolist())) > 1
    assert decided(logits, cuts, sharpness).argmax(dim=1).tolist() == between.tolist()


@pytest.mark.parametrize("cuts", [CUTS, (0.7, 0.7, 1.3), (-1.0, 1.0, 4.0), (1.0, 2.0, 4.0)])
def test_positions_keep_the_order_of_videos_and_change_no_more_than_they_must(
    cuts: tuple[float, ...],
) -> None:
    expected = torch.linspace(0, 3, 301)
    placed = positions(expected, torch.tensor(cuts))
    assert (placed.diff() >= 0).all()
    assert placed.min() >= 0
    assert placed.max() <= 3
    same = positions(expected, torch.tensor(BETWEEN))
    torch.testing.assert_close(same, expected, atol=2e-4, rtol=0)


def test_a_sharpness_of_0_changes_nothing() -> None:
    logits = torch.from_numpy(study()[0])
    decision = Decision()
    assert torch.equal(decision(logits), logits)
    decision.set(CUTS, 1.0)
    assert not torch.allclose(decision(logits), logits)
    decision.set(CUTS, 0.0)
    assert torch.equal(decision(logits), logits)


def test_the_sharpness_has_the_lowest_log_loss() -> None:
    logits, scores = study()
    cuts = torch.tensor(CUTS)
    chosen = best_sharpness(torch.from_numpy(expected_of(logits)).float(), scores, cuts)
    truth = torch.from_numpy(scores)
    losses = {
        sharpness: float(F.cross_entropy(decided(logits, CUTS, sharpness), truth))
        for sharpness in SHARPNESSES.tolist()
    }
    assert losses[chosen] == pytest.approx(min(losses.values()), abs=1e-6)
    assert SHARPNESSES[0] < chosen < SHARPNESSES[-1]


# ------------------------------------------------------------------------------------------- state


def test_a_decision_survives_saving_and_loading(tmp_path: Path) -> None:
    recipe = build(Recipe, PAPER | {"weights": "none", "hidden": 8, "attention_channels": [4]})
    model = new_model(recipe).eval()
    model.decision.set(CUTS, 0.25)
    frames, lengths = torch.randint(0, 256, (5, 96, 96), dtype=torch.uint8), torch.tensor([2, 3])
    path = tmp_path / "best.safetensors"
    card = Card(recipe, FrameFormat(96, True, False), 252, 7, 0.9, "f00d")
    save_best(path, model.state_dict(), card)
    loaded, _ = load_best(path)
    assert loaded.decision.cuts.tolist() == pytest.approx(CUTS)
    assert float(loaded.decision.sharpness) == 0.25
    with torch.no_grad():
        expected = model(frames, lengths).logits
        assert torch.equal(loaded(frames, lengths).logits, expected)
        model.decision.set(CUTS, 0.0)
        assert not torch.allclose(model(frames, lengths).logits, expected)


def test_auto_cuts_where_the_most_probable_score_is_hardly_ever_a_rare_one() -> None:
    logits, scores = study()  # of an unsure model
    assert calibrated("auto", logits, scores) == calibrated("frequencies", logits, scores)
    sure = -4.0 * (np.arange(4) - scores[:, None]) ** 2 + np.random.default_rng(0).normal(
        0, 1, (200, 4)
    )
    assert calibrated("auto", sure, scores) == (BETWEEN, 0.0)


def test_auto_cuts_below_two_thirds_of_a_frequency() -> None:
    scores = np.repeat([0, 1, 2, 3], [40, 30, 20, 9])
    for missed, cuts in ((3, False), (4, True)):  # 6 of 9 are two thirds
        predicted = scores.copy()
        predicted[-missed:] = 2
        logits = -((np.arange(4) - predicted[:, None]) ** 2).astype(np.float32)
        assert (calibrated("auto", logits, scores)[1] > 0) == cuts


def test_cuts_are_closer_for_a_model_whose_predictions_vary_less() -> None:
    logits, scores = study(4000)
    expected = expected_of(logits)
    narrow = expected.mean() + 0.8 * (
        expected - expected.mean()
    )  # what the whole ensemble predicts
    cuts, _ = calibrated("frequencies", logits, scores, averaged_out=0.36 * expected.var())
    often = np.bincount(np.searchsorted(cuts, narrow), minlength=4)
    assert np.abs(often - np.bincount(scores)).max() <= 2
    assert np.bincount(np.searchsorted(cuts, expected))[3] > 1.3 * np.bincount(scores)[3]


def test_every_score_is_predicted_even_if_averaging_seems_to_remove_all_variance() -> None:
    """As of a model that learned nothing: its cuts would lie on each other, between scores 0 and 3."""
    logits, scores = study(4000)
    expected = expected_of(logits)
    cuts, _ = calibrated("frequencies", logits, scores, averaged_out=1.2 * expected.var())
    narrow = expected.mean() + np.sqrt(0.1) * (expected - expected.mean())
    often = np.bincount(np.searchsorted(cuts, narrow), minlength=4)
    assert np.abs(often - np.bincount(scores)).max() <= 2
