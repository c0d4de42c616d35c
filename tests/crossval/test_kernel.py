"""The kernel regression against scikit-learn, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from lus_cli.crossval.kernel import (
    PENALTIES,
    fit,
    inner_folds,
    kernel,
    ridge,
)

CHANNELS, KINDS = 12, 2


def study(patients: int = 12, videos: int = 8, noise: float = 0.5, seed: int = 0):
    """Vectors of which three channels follow the score."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, patients * videos)
    vectors = random.normal(size=(len(scores), KINDS, CHANNELS))
    vectors[:, 0, :3] += scores[:, None] * 1.5
    vectors *= noise + 0.5
    names = [f"p{i // videos}" for i in range(len(scores))]
    return vectors.astype(np.float32), scores, names


def test_ridge_is_kernel_ridge_regression_on_a_centred_kernel() -> None:
    vectors, scores, _ = study()
    x = torch.from_numpy(vectors)
    gram = kernel(x, x).double().numpy()
    new = kernel(torch.from_numpy(study(seed=1)[0]), x).double().numpy()
    dual, offset = ridge(gram, scores.astype(float))
    rows = gram.mean(axis=1)
    centred = gram - rows[:, None] - rows[None, :] + rows.mean()
    centred_new = new - new.mean(axis=1, keepdims=True) - rows[None, :] + rows.mean()
    for place in (0, 4, 8):
        model = KernelRidge(alpha=PENALTIES[place], kernel="precomputed")
        model.fit(centred, scores - scores.mean())
        theirs = model.predict(centred_new) + scores.mean()
        ours = new @ dual[place] + offset[place]
        assert np.allclose(ours, theirs, atol=1e-6)


def test_the_kernel_is_one_with_itself_and_falls_with_distance() -> None:
    x = torch.randn(5, KINDS, CHANNELS)
    assert torch.allclose(kernel(x, x).diagonal(), torch.ones(5), atol=1e-5)
    assert (kernel(x, x + 3) < 0.1).all()
    by_hand = torch.exp(-((x[0] - x[1]) ** 2).mean(dim=1) / 2).mean()
    assert kernel(x, x)[0, 1].item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_it_scores_videos_of_other_patients() -> None:
    vectors, scores, names = study(patients=30)
    model = fit(vectors[:160], scores[:160], names[:160], seed=0)
    predicted = model.logits(torch.from_numpy(vectors[160:])).argmax(dim=1).numpy()
    assert (predicted == scores[160:]).mean() > 0.6
    assert np.abs(predicted - scores[160:]).mean() < 0.5
    # Scores are as frequent as in training, even the outer ones, which rounding would leave empty.
    share = np.bincount(predicted, minlength=4) / len(predicted)
    assert share.min() > 0.1


def test_equal_cuts_leave_no_nan() -> None:
    """If training has no video of a score, two cuts coincide."""
    vectors, scores, names = study()
    scores = np.where(scores == 1, 2, scores)
    model = fit(vectors, scores, names, seed=0)
    logits = model.logits(torch.from_numpy(vectors))
    assert torch.isfinite(logits).all()
    assert (logits.argmax(dim=1) != 1).float().mean() > 0.95


def test_left_out_patients_are_left_out_whole_and_the_seed_deals_them() -> None:
    _, scores, names = study()
    seen = np.zeros(len(scores), int)
    for fitted, out in inner_folds(scores, names, 3):
        assert not {names[i] for i in fitted} & {names[i] for i in out}
        seen[out] += 1
    assert (seen == 1).all()
    first, second = (next(iter(inner_folds(scores, names, s)))[1].tolist() for s in (3, 4))
    assert first != second


def test_one_patient_and_one_score_are_fitted_too() -> None:
    vectors, scores, _ = study(patients=1)
    assert torch.isfinite(
        fit(vectors, scores, ["a"] * 8, 0).logits(torch.from_numpy(vectors))
    ).all()
    constant = fit(vectors, np.full(8, 2), ["a"] * 8, 0).logits(torch.from_numpy(vectors))
    assert constant.argmax(dim=1).tolist() == [2] * 8
