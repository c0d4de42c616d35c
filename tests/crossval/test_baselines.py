"""Baselines learn from the training patients only, and predict valid probabilities for any input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lus_cli.cache.video_cache import VideoCache
from lus_cli.crossval import baselines
from lus_cli.crossval import features as video_features
from lus_cli.crossval.baselines import BASELINES, Baseline, Training, predict
from lus_cli.crossval.features import CNN_FRAMES, KINDS, Features, compute_features
from lus_cli.progress import silent

PATIENTS = [str(number // 8) for number in range(72)]  # nine, of eight videos
TRAIN, TEST = list(range(56)), list(range(56, 72))
LEARNERS = [b for b in BASELINES if b.name not in ("majority", "prior")]
# One per way of fitting.
PLAIN = [b for b in BASELINES if b.name in ("majority", "prior", "signs", "signs-boosted")]
by_name = pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.name)


def study() -> tuple[Features, np.ndarray]:
    """Features of every kind that contain the score and some noise."""
    random = np.random.default_rng(1)
    scores = random.integers(0, 4, len(PATIENTS))
    noise = random.normal(0, 0.3, (len(KINDS), len(PATIENTS), 3 * CNN_FRAMES))
    return {k: n + scores[:, None] for k, n in zip(KINDS, noise, strict=True)}, scores


def fold(baseline: Baseline, features: Features, scores: np.ndarray) -> np.ndarray:
    return predict(baseline, features, scores, PATIENTS, (TRAIN, TEST))


@by_name
def test_predictions_are_probabilities(baseline: Baseline) -> None:
    probabilities = fold(baseline, *study())
    assert probabilities.shape == (len(TEST), 4)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@by_name
def test_scores_of_test_videos_change_nothing(baseline: Baseline) -> None:
    features, scores = study()
    other = scores.copy()
    other[TEST] = 3 - scores[TEST]
    np.testing.assert_array_equal(fold(baseline, features, scores), fold(baseline, features, other))


@by_name
def test_pixels_of_test_videos_change_only_their_own_prediction(baseline: Baseline) -> None:
    features, scores = study()
    other = {kind: matrix.copy() for kind, matrix in features.items()}
    for matrix in other.values():
        matrix[TEST[1:]] = 100 * np.random.default_rng(2).normal(size=matrix[TEST[1:]].shape)
    before, after = fold(baseline, features, scores), fold(baseline, other, scores)
    np.testing.assert_array_equal(before[0], after[0])
    if baseline in LEARNERS:
        assert np.abs(before[1:] - after[1:]).max() > 0.1


@pytest.mark.parametrize("baseline", LEARNERS, ids=lambda baseline: baseline.name)
def test_scores_in_the_features_are_learned(baseline: Baseline) -> None:
    features, scores = study()
    right = fold(baseline, features, scores).argmax(axis=1) == scores[TEST]
    assert right.mean() > 0.8
    shuffled = np.random.default_rng(3).permutation(scores)
    assert (fold(baseline, features, shuffled).argmax(axis=1) == shuffled[TEST]).mean() < 0.7


def test_the_penalty_is_selected_on_held_out_training_patients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here a feature is the patient, so that the test can record the patients of every fit."""
    features, scores = study()
    features = {kind: matrix.copy() for kind, matrix in features.items()}
    features["signs"][:, 0] = [int(name) for name in PATIENTS]
    fits = []
    real = baselines.fit_predict

    def recording(
        model: object, training: np.ndarray, truth: np.ndarray, new: np.ndarray
    ) -> np.ndarray:
        fits.append((set(training[:, 0]), set(new[:, 0])))
        return real(model, training, truth, new)

    monkeypatch.setattr(baselines, "fit_predict", recording)
    fold(next(b for b in BASELINES if b.name == "signs"), features, scores)
    test_patients = {int(PATIENTS[index]) for index in TEST}
    *inner, last = fits
    assert len(inner) == baselines.FOLDS * len(baselines.STRENGTHS)
    assert all(not training & new for training, new in fits)
    assert all(not (training | new) & test_patients for training, new in inner)
    assert not last[0] & test_patients
    assert last[1] == test_patients


def test_a_patient_in_both_parts_is_refused() -> None:
    features, scores = study()
    with pytest.raises(ValueError, match="patient 0 is in the training and in the test"):
        predict(BASELINES[0], features, scores, PATIENTS, ([0, 1], [2, 70]))


@pytest.mark.parametrize("baseline", PLAIN, ids=lambda baseline: baseline.name)
@pytest.mark.parametrize("present", [(2,), (1, 3)])
def test_scores_without_a_training_video_are_never_predicted(
    baseline: Baseline, present: tuple[int, ...]
) -> None:
    features, _ = study()
    scores = np.resize(present, len(PATIENTS))
    probabilities = fold(baseline, features, scores)
    absent = sorted(set(range(4)) - set(present))
    assert (probabilities[:, absent] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("baseline", PLAIN, ids=lambda baseline: baseline.name)
def test_one_training_patient_is_enough(baseline: Baseline) -> None:
    features, scores = study()
    probabilities = predict(baseline, features, scores, PATIENTS, (TRAIN[:8], TEST))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_majority_and_prior_by_hand() -> None:
    scores = np.array([1, 1, 1, 3])
    train = Training({"signs": np.zeros((4, 1))}, scores, list("abcd"))
    test = {"signs": np.zeros((4000, 1))}
    assert set(baselines.majority(train, test).argmax(axis=1)) == {1}
    drawn = baselines.prior(train, test).mean(axis=0)
    np.testing.assert_allclose(drawn, [0, 0.75, 0, 0.25])


def test_no_training_video_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs at least one training video"):
        predict(BASELINES[0], *study(), PATIENTS, ([], TEST))


# ------------------------------------------------------------------------- features of the videos


@pytest.fixture(scope="module")
def computed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Features]:
    folder = tmp_path_factory.mktemp("features")
    return folder, compute_features(VideoCache(prepared / "videos.h5"), folder, silent)


def test_every_video_has_vectors_of_every_kind(
    prepared: Path, computed: tuple[Path, Features]
) -> None:
    count = len(VideoCache(prepared / "videos.h5"))
    widths = {"signs": 18, "confounders": 9, "framewise": 8 * 320}
    widths |= {"frames": 320, "projections": 3 * 320, "picture": 7 * 320}
    assert {k: m.shape for k, m in computed[1].items()} == {
        k: (count, w) for k, w in widths.items()
    }
    assert all(np.isfinite(matrix).all() for matrix in computed[1].values())


def test_features_are_computed_once_and_a_damaged_file_again(
    prepared: Path, computed: tuple[Path, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = computed
    videos = VideoCache(prepared / "videos.h5")
    victims = sorted(folder.iterdir())
    victims[0].write_bytes(victims[0].read_bytes()[:100])
    victims[1].unlink()
    read = []
    real = VideoCache.read
    monkeypatch.setattr(
        VideoCache, "read", lambda self, *which: read.append(which) or real(self, *which)
    )
    after = compute_features(videos, folder, silent)
    assert len(read) == 2  # the damaged one and the missing one
    assert sorted(folder.iterdir()) == victims
    for kind in KINDS:
        np.testing.assert_allclose(before[kind], after[kind], rtol=1e-5, atol=1e-5)


def test_projections_by_hand() -> None:
    frames = np.array([[[10, 0]], [[20, 3]], [[60, 0]]], np.uint8)
    assert video_features.projections(frames).tolist() == [[[60, 3]], [[30, 1]], [[10, 0]]]


def test_rotating_the_features_does_not_change_predictions() -> None:
    """With more features than videos, as for a CNN."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from lus_cli.crossval.baselines import regression

    random = np.random.default_rng(0)
    training, new = random.normal(size=(40, 200)), random.normal(size=(15, 200))
    scores = np.arange(40) % 4
    plain = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000, tol=1e-8),
    )
    ours = regression(0.01)
    ours.set_params(logisticregression__tol=1e-8)
    predicted = [model.fit(training, scores).predict_proba(new) for model in (plain, ours)]
    assert np.allclose(*predicted, atol=1e-5)
