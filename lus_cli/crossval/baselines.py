"""Baselines for a network on the same folds: from the most frequent score to a frozen CNN.

A baseline gets the training videos with their scores and patients, but only the features of the test
videos, so the test scores cannot leak into it. Hyper-parameters are selected within the training
patients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lus_cli.crossval.features import CNN_FRAMES, Features
from lus_cli.evaluation.metrics import SCORES

if TYPE_CHECKING:
    from lus_cli.crossval.aggregation import Aggregation

FOLDS = 5  # within the training patients
# Candidates for scikit-learn's C; a small C is a strong penalty.
STRENGTHS = tuple(10.0**power for power in range(-5, 0))
SEED = 0


@dataclass(frozen=True)
class Training:
    """The videos a baseline learns from.

    features: kind -> (video, feature). scores: (video,) int in 0..3. patients: that of each video.
    """

    features: Features
    scores: np.ndarray
    patients: Sequence[str]


@dataclass(frozen=True)
class Baseline:
    """A simple method: its name in tables, and its description.

    fit: learns from the training videos and predicts the test videos from their features. Returns
        (video, class) float64, rows summing to 1.
    drawn: the predicted scores are drawn with these probabilities; see metrics.Predictions.
    """

    name: str
    description: str
    fit: Callable[[Training, Features], np.ndarray]
    drawn: bool = False

    def fit_predict(self, train: Training, test: Features) -> np.ndarray:
        """The probabilities of the test videos. Raises ValueError if there is no training video."""
        if not len(train.scores):
            raise ValueError("a baseline needs at least one training video")
        return self.fit(train, test)


def predict(
    baseline: Baseline,
    features: Features,
    scores: np.ndarray,
    patients: Sequence[str],
    split: tuple[Sequence[int], Sequence[int]],
) -> np.ndarray:
    """A baseline's probabilities for the test videos of one fold, (video, class).

    split: the indices of the training videos and of the test videos. Raises ValueError if a patient
    is in both.
    """
    train, test = (np.asarray(part, int) for part in split)
    names = np.asarray(patients)
    if shared := sorted(set(names[train]) & set(names[test])):
        raise ValueError(f"patient {shared[0]} is in the training and in the test videos")
    training = Training(select(features, train), scores[train], names[train].tolist())
    return baseline.fit_predict(training, select(features, test))


def select(features: Features, indices: np.ndarray) -> Features:
    return {kind: matrix[indices] for kind, matrix in features.items()}


def videos_in(features: Features) -> int:
    return len(next(iter(features.values())))


def shares(scores: np.ndarray) -> np.ndarray:
    """The relative frequency of each score: (class,) float64, summing to 1."""
    counts = np.bincount(scores, minlength=len(SCORES)).astype(float)
    return counts / counts.sum()


def majority(train: Training, test: Features) -> np.ndarray:
    """Always the most frequent score of the training videos; the lowest of equally frequent ones."""
    certain = np.eye(len(SCORES))[shares(train.scores).argmax()]
    return np.tile(certain, (videos_in(test), 1))


def prior(train: Training, test: Features) -> np.ndarray:
    """For every video, the frequencies of the training scores. The predicted score is drawn from them."""
    return np.tile(shares(train.scores), (videos_in(test), 1))


def logistic(kind: str) -> Callable[[Training, Features], np.ndarray]:
    """Logistic regression on one kind of features, standardised on the training videos.

    Classes are balanced. The penalty is the one with the lowest loss in a cross-validation within
    the training patients.
    """

    def fit(train: Training, test: Features) -> np.ndarray:
        training, new = train.features[kind], test[kind]
        strength = best_strength(training, train.scores, train.patients)
        return fit_predict(regression(strength), training, train.scores, new)

    return fit


def regression(strength: float) -> Any:
    """Logistic regression on all principal components of the standardised features.

    The penalty is invariant to rotation, so the predictions are those of the features themselves,
    but there are at most as many components as videos.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), PCA(svd_solver="full"), model)


def best_strength(features: np.ndarray, scores: np.ndarray, patients: Sequence[str]) -> float:
    """The C with the lowest log loss over GroupKFold; the middle one if there is only one patient."""
    from sklearn.model_selection import GroupKFold

    count = min(FOLDS, len(set(patients)))
    if count < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    loss = np.zeros(len(STRENGTHS))
    for rest, held_out in GroupKFold(count).split(features, scores, patients):
        for index, strength in enumerate(STRENGTHS):
            model = regression(strength)
            predicted = fit_predict(model, features[rest], scores[rest], features[held_out])
            of_truth = predicted[np.arange(len(held_out)), scores[held_out]]
            loss[index] -= np.log(np.maximum(of_truth, 1e-6)).sum()
    return STRENGTHS[int(loss.argmin())]


def boosting(kind: str) -> Callable[[Training, Features], np.ndarray]:
    """Gradient boosting on one kind of features: small trees with fixed hyper-parameters."""

    def fit(train: Training, test: Features) -> np.ndarray:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(
            learning_rate=0.05,
            max_iter=80,
            max_leaf_nodes=6,
            min_samples_leaf=8,
            l2_regularization=1.0,
            class_weight="balanced",
            early_stopping=False,
            random_state=SEED,
        )
        return fit_predict(model, train.features[kind], train.scores, test[kind])

    return fit


def framewise(aggregation: Aggregation) -> Callable[[Training, Features], np.ndarray]:
    """Logistic regression on frames, each labelled with the score of its video.

    The predictions of the frames are aggregated to one of the video (Roy et al. 2020; see
    aggregation.py).
    """

    def fit(train: Training, test: Features) -> np.ndarray:
        import torch

        from lus_cli.crossval.aggregation import learned_neutral, uninorm, worst

        model = regression(best_strength(train.features["frames"], train.scores, train.patients))
        training, new = train.features["framewise"], test["framewise"]
        frames = torch.from_numpy(predict_frames(model, training, train.scores, new))
        if aggregation == "mean":
            probabilities = frames.mean(dim=0)
        elif aggregation == "max":
            probabilities = worst(frames)
        else:
            held_out = torch.from_numpy(predict_held_out_frames(model, train))
            scores = torch.from_numpy(train.scores.astype(np.int64))
            neutral = learned_neutral(held_out, scores)
            probabilities = torch.softmax(uninorm(frames, neutral), dim=1)
        return np.asarray(probabilities.numpy())

    return fit


def predict_frames(
    model: Any, training: np.ndarray, scores: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """Probabilities for each frame of new videos by a classifier of frames: (frame, video, class)."""
    training_frames, new_frames = (
        rows.reshape(len(rows) * CNN_FRAMES, rows.shape[1] // CNN_FRAMES)
        for rows in (training, new)
    )
    predicted = fit_predict(model, training_frames, np.repeat(scores, CNN_FRAMES), new_frames)
    return np.ascontiguousarray(predicted.reshape(len(new), CNN_FRAMES, -1).swapaxes(0, 1))


def predict_held_out_frames(model: Any, train: Training) -> np.ndarray:
    """The same for the training videos, by classifiers that never saw their patients.

    With only one patient, by a classifier of that patient.
    """
    from sklearn.model_selection import GroupKFold

    vectors, scores = train.features["framewise"], train.scores
    count = min(FOLDS, len(set(train.patients)))
    if count < 2:
        return predict_frames(model, vectors, scores, vectors)
    predicted = np.zeros((CNN_FRAMES, len(vectors), len(SCORES)))
    for rest, held_out in GroupKFold(count).split(vectors, scores, train.patients):
        predicted[:, held_out] = predict_frames(
            model, vectors[rest], scores[rest], vectors[held_out]
        )
    return predicted


def similarity(kind: str, parts: int) -> Callable[[Training, Features], np.ndarray]:
    """Kernel ridge regression on the score. Its cuts give the scores their training frequencies.

    parts: the number of vectors of equal length in a row, which the kernel compares separately. See
    kernel.py.
    """

    def fit(train: Training, test: Features) -> np.ndarray:
        import torch

        from lus_cli.crossval import kernel

        training, new = (
            np.ascontiguousarray(features[kind].reshape(videos_in(features), parts, -1), np.float32)
            for features in (train.features, test)
        )
        model = kernel.fit(training, train.scores, train.patients, SEED)
        with torch.inference_mode():
            probabilities = torch.softmax(model.logits(torch.from_numpy(new)).double(), dim=1)
        return np.asarray(probabilities.numpy())

    return fit


def fit_predict(
    model: Any, training: np.ndarray, scores: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """The probabilities of a scikit-learn classifier for every score; 0 for scores not in training."""
    from sklearn.exceptions import ConvergenceWarning

    classes = np.unique(scores)
    predicted = np.zeros((len(new), len(SCORES)))
    if len(classes) == 1:
        predicted[:, classes[0]] = 1
        return predicted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the unconverged fit is good enough
        model.fit(training, scores)
    predicted[:, model.classes_] = model.predict_proba(new)
    return predicted


BASELINES = (
    Baseline("majority", "always the most frequent score of the training videos", majority),
    Baseline("prior", "scores drawn with their frequencies; expected values", prior, drawn=True),
    Baseline(
        "confounders", "only gain, depth and sector; logistic regression", logistic("confounders")
    ),
    Baseline("signs", "hand-made signs of lung ultrasound; logistic regression", logistic("signs")),
    Baseline(
        "signs-boosted", "hand-made signs of lung ultrasound; gradient boosting", boosting("signs")
    ),
    Baseline(
        "frozen",
        "frozen ImageNet features, mean over frames; logistic regression",
        logistic("frames"),
    ),
    *(
        Baseline(
            f"frames-{aggregation}",
            f"frozen ImageNet features; logistic regression on frames, {aggregation} over frames",
            framewise(aggregation),
        )
        for aggregation in ("mean", "max", "uninorm")
    ),
    Baseline(
        "projections",
        "frozen ImageNet features of the maximum, mean and minimum over time; logistic regression",
        logistic("projections"),
    ),
    Baseline(
        "similarity",
        "the same features; kernel ridge regression on the score, cut at the training frequencies",
        similarity("projections", parts=3),
    ),
    Baseline(
        "kernel",
        "frozen ImageNet features of one picture of the video along the scan lines; kernel ridge "
        "regression on the score, cut at the training frequencies",
        similarity("picture", parts=1),
    ),
)
DRAWN = {baseline.name for baseline in BASELINES if baseline.drawn}
