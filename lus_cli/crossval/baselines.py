"""What a network has to beat, on the same folds: from answers that need no look to a frozen CNN.

A baseline is handed the training videos with their scores and patients, and of the test videos the
features alone, so their scores cannot reach it. What is chosen, is chosen inside the training
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
    from lus_cli.crossval.aggregation import How

FOLDS = 5  # inside the training patients
STRENGTHS = tuple(
    10.0**power for power in range(-5, 0)
)  # scikit-learn's C, weak features to strong
SEED = 0


@dataclass(frozen=True)
class Training:
    """The videos a baseline learns from.

    features: kind -> (video, feature); scores: (video,) int in 0..3; patients: of each video.
    """

    features: Features
    scores: np.ndarray
    patients: Sequence[str]


@dataclass(frozen=True)
class Baseline:
    """A way to answer: its name in tables, and what it is in words.

    fit: learns from training videos and answers the test videos, of which it gets the features:
        (video, class) float64, rows summing to 1.
    drawn: its answers are drawn by these probabilities; see metrics.Predictions.
    """

    name: str
    words: str
    fit: Callable[[Training, Features], np.ndarray]
    drawn: bool = False

    def fit_predict(self, train: Training, test: Features) -> np.ndarray:
        """The probabilities of the test videos. Raises ValueError if there is no training video."""
        if not len(train.scores):
            raise ValueError("a baseline needs a training video")
        return self.fit(train, test)


def answers(
    baseline: Baseline,
    features: Features,
    scores: np.ndarray,
    patients: Sequence[str],
    split: tuple[Sequence[int], Sequence[int]],
) -> np.ndarray:
    """A baseline's probabilities for the test videos of one fold, (video, class).

    split: the indices of the training and of the test videos. Raises ValueError if a patient is in
    both.
    """
    train, test = (np.asarray(part, int) for part in split)
    names = np.asarray(patients)
    if shared := sorted(set(names[train]) & set(names[test])):
        raise ValueError(f"patient {shared[0]} is in training and in test")
    known = Training(rows(features, train), scores[train], names[train].tolist())
    return baseline.fit_predict(known, rows(features, test))


def rows(features: Features, indices: np.ndarray) -> Features:
    return {kind: matrix[indices] for kind, matrix in features.items()}


def videos_in(features: Features) -> int:
    return len(next(iter(features.values())))


def shares(scores: np.ndarray) -> np.ndarray:
    """How often each score occurs: (class,) float64, summing to 1."""
    counts = np.bincount(scores, minlength=len(SCORES)).astype(float)
    return counts / counts.sum()


def majority(train: Training, test: Features) -> np.ndarray:
    """The most frequent score of the training videos, for certain; the lowest of equals."""
    certain = np.eye(len(SCORES))[shares(train.scores).argmax()]
    return np.tile(certain, (videos_in(test), 1))


def prior(train: Training, test: Features) -> np.ndarray:
    """How often each score occurs in training, for every video: its answer is drawn by that."""
    return np.tile(shares(train.scores), (videos_in(test), 1))


def logistic(kind: str) -> Callable[[Training, Features], np.ndarray]:
    """Logistic regression on one kind of features, each with mean 0 and spread 1 in training.

    Scores weigh alike, however rare. The strength of the penalty is that with the least loss on
    patients left out of the training patients, in groups.
    """

    def fit(train: Training, test: Features) -> np.ndarray:
        known, new = train.features[kind], test[kind]
        strength = best_strength(known, train.scores, train.patients)
        return fitted(regression(strength), known, train.scores, new)

    return fit


def regression(strength: float) -> Any:
    """Turned to its principal axes first: the same answers, since the penalty knows no direction,
    from no more numbers than there are videos."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), PCA(svd_solver="full"), model)


def best_strength(features: np.ndarray, scores: np.ndarray, patients: Sequence[str]) -> float:
    """The C with the least log loss over GroupKFold; the middle one where there is one patient."""
    from sklearn.model_selection import GroupKFold

    count = min(FOLDS, len(set(patients)))
    if count < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    loss = np.zeros(len(STRENGTHS))
    for known, held_out in GroupKFold(count).split(features, scores, patients):
        for place, strength in enumerate(STRENGTHS):
            given = fitted(regression(strength), features[known], scores[known], features[held_out])
            right = given[np.arange(len(held_out)), scores[held_out]]
            loss[place] -= np.log(np.maximum(right, 1e-6)).sum()
    return STRENGTHS[int(loss.argmin())]


def boosting(kind: str) -> Callable[[Training, Features], np.ndarray]:
    """Gradient-boosted trees on one kind of features: small ones, fixed beforehand."""

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
        return fitted(model, train.features[kind], train.scores, test[kind])

    return fit


def framewise(how: How) -> Callable[[Training, Features], np.ndarray]:
    """Logistic regression on frames, each with its video's score, and one answer of a video's
    frames (Roy et al. 2020: see aggregation)."""

    def fit(train: Training, test: Features) -> np.ndarray:
        import torch

        from lus_cli.crossval import aggregation

        model = regression(best_strength(train.features["frames"], train.scores, train.patients))
        known, new = train.features["framewise"], test["framewise"]
        frames = torch.from_numpy(of_frames(model, known, train.scores, new))
        if how == "mean":
            answers = frames.mean(dim=0)
        elif how == "max":
            answers = aggregation.worst(frames)
        else:
            left_out = torch.from_numpy(of_frames_left_out(model, train))
            scores = torch.from_numpy(train.scores.astype(np.int64))
            neutral = aggregation.learned_neutral(left_out, scores)
            answers = torch.softmax(aggregation.uninorm(frames, neutral), dim=1)
        return np.asarray(answers.numpy())

    return fit


def of_frames(model: Any, known: np.ndarray, scores: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What a classifier of frames says of each frame of new videos: (frame, video, class)."""
    apart, wanted = (
        rows.reshape(len(rows) * CNN_FRAMES, rows.shape[1] // CNN_FRAMES) for rows in (known, new)
    )
    given = fitted(model, apart, np.repeat(scores, CNN_FRAMES), wanted)
    return np.ascontiguousarray(given.reshape(len(new), CNN_FRAMES, -1).swapaxes(0, 1))


def of_frames_left_out(model: Any, train: Training) -> np.ndarray:
    """The same of the training videos, by classifiers that never saw their patients."""
    known, count = train.features["framewise"], min(FOLDS, len(set(train.patients)))
    if count < 2:
        return of_frames(model, known, train.scores, known)
    given = np.zeros((CNN_FRAMES, len(known), len(SCORES)))
    from sklearn.model_selection import GroupKFold

    for some, rest in GroupKFold(count).split(known, train.scores, train.patients):
        given[:, rest] = of_frames(model, known[some], train.scores[some], known[rest])
    return given


def likeness(kind: str, parts: int) -> Callable[[Training, Features], np.ndarray]:
    """Kernel ridge regression on the score, cut where the scores come up as often as in training.

    parts: vectors of equal length that a row is made of, each compared by itself. See kernel_head.
    """

    def fit(train: Training, test: Features) -> np.ndarray:
        import torch

        from lus_cli.model import kernel_head

        known, new = (
            np.ascontiguousarray(features[kind].reshape(videos_in(features), parts, -1), np.float32)
            for features in (train.features, test)
        )
        head, _ = kernel_head.fit(known, train.scores, train.patients, SEED)
        with torch.inference_mode():
            answers = torch.softmax(head(torch.from_numpy(new)).double(), dim=1)
        return np.asarray(answers.numpy())

    return fit


def fitted(model: Any, known: np.ndarray, scores: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A scikit-learn classifier's probabilities of every score, 0 for one it never saw."""
    from sklearn.exceptions import ConvergenceWarning

    seen = np.unique(scores)
    given = np.zeros((len(new), len(SCORES)))
    if len(seen) == 1:
        given[:, seen[0]] = 1
        return given
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit cut short is a fit all the same
        model.fit(known, scores)
    given[:, model.classes_] = model.predict_proba(new)
    return given


BASELINES = (
    Baseline("majority", "the most frequent score, always", majority),
    Baseline("prior", "a score drawn as often as it occurs, expected value", prior, drawn=True),
    Baseline(
        "confounders", "gain, depth and sector alone; logistic regression", logistic("confounders")
    ),
    Baseline("signs", "hand-made LUS signs; logistic regression", logistic("signs")),
    Baseline("signs-boosted", "hand-made LUS signs; gradient boosting", boosting("signs")),
    Baseline(
        "frozen", "frozen ImageNet features of frames; logistic regression", logistic("frames")
    ),
    *(
        Baseline(
            f"frames-{how}",
            f"frozen ImageNet features; logistic regression on frames, {how} of their answers",
            framewise(how),
        )
        for how in ("mean", "max", "uninorm")
    ),
    Baseline(
        "projections",
        "frozen ImageNet features of max, mean and min over time; logistic regression",
        logistic("projections"),
    ),
    Baseline(
        "likeness",
        "the same features; kernel ridge regression on the score, cut at the training frequencies",
        likeness("projections", parts=3),
    ),
)
DRAWN = {baseline.name for baseline in BASELINES if baseline.drawn}
