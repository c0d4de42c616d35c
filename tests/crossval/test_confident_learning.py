"""Confident learning: by hand, against cleanlab 2.9.0's values, and on planted errors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lus_cli.crossval.confident_learning import (
    NOT_CONFIDENT,
    chance_share,
    confident_classes,
    confident_joint,
    joint_distribution,
    self_confidence,
    thresholds,
    wrong_share,
)


def two(high) -> np.ndarray:
    """Probabilities of two classes, from those of class 1."""
    return np.stack([1 - np.array(high), high], axis=1)


def simulated(
    seed: int, classes: int = 4, videos: int = 120, wrong: float = 0.15, skill: float = 1.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True labels, given labels of which a share is drawn at random, and probabilities of 4 classes."""
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, videos)
    given = np.where(random.random(videos) < wrong, random.integers(0, classes, videos), true)
    distance = np.abs(np.arange(4) - true[:, None])
    odds = np.exp(random.normal(0, 1, (videos, 4)) - skill * distance)
    return true, given, odds / odds.sum(axis=1, keepdims=True)


# ----------------------------------------------------------------------------------------- by hand


def test_by_hand() -> None:
    """Class 0 has the mean (0.9 + 0.7 + 0.2) / 3, class 1 has (0.6 + 0.8) / 2."""
    given = np.array([0, 0, 0, 1, 1])
    probabilities = two([0.1, 0.3, 0.8, 0.6, 0.8])
    least = thresholds(given, probabilities)
    assert least == pytest.approx([0.6, 0.7])
    confident = confident_classes(probabilities, least)
    assert confident.tolist() == [0, 0, 1, NOT_CONFIDENT, 1]
    counts = confident_joint(given, confident, 2)
    assert counts.tolist() == [[2, 1], [0, 1]]
    # Two thirds and one third of the three videos, and both of the others.
    assert joint_distribution(counts, given) == pytest.approx(np.array([[0.4, 0.2], [0.0, 0.4]]))
    assert wrong_share(given, probabilities) == pytest.approx(0.2)
    assert self_confidence(given, probabilities) == pytest.approx([0.9, 0.7, 0.2, 0.6, 0.8])


def test_of_several_classes_that_reach_their_threshold_the_most_probable_one_counts() -> None:
    probabilities = np.array([[0.3, 0.3, 0.4], [0.25, 0.35, 0.4], [0.1, 0.1, 0.8]])
    found = confident_classes(probabilities, np.array([0.2, 0.3, 0.5]))
    assert found.tolist() == [0, 1, 2]  # a tie goes to the lower class


def test_a_class_without_videos_is_never_suggested_and_has_no_share() -> None:
    given, probabilities = np.array([0, 0, 1]), np.eye(3)[[0, 2, 2]]
    least = thresholds(given, probabilities)
    assert least.tolist() == [0.5, 0.0, np.inf]
    confident = confident_classes(probabilities, least)
    assert confident.tolist() == [0, 1, 1]
    joint = joint_distribution(confident_joint(given, confident, 3), given)
    assert joint[2].tolist() == [0, 0, 0]
    assert joint.sum() == pytest.approx(1)


def test_a_class_without_a_confident_video_keeps_its_labels() -> None:
    counts = confident_joint(np.array([0, 1]), np.array([0, NOT_CONFIDENT]), 2)
    assert counts.tolist() == [[1, 0], [0, 1]]
    joint = joint_distribution(counts, np.array([0, 1]))
    assert joint.tolist() == [[0.5, 0.0], [0.0, 0.5]]


def test_equal_probabilities_reach_their_mean_whatever_the_rounding() -> None:
    probabilities = np.tile([0.1, 0.7, 0.1, 0.1], (7, 1))
    given = np.array([0, 1, 1, 1, 1, 1, 1])
    assert (confident_classes(probabilities, thresholds(given, probabilities)) == 1).all()
    # Each is counted to class 1; the label 0 keeps the half that its diagonal of 1 gives it.
    assert wrong_share(given, probabilities) == pytest.approx(1 / 7 / 2)
    # It says nothing about the labels, so that is also what chance gives.
    assert chance_share(given, probabilities) == pytest.approx(1 / 7 / 2)


# ------------------------------------------------------------------------------ second implementation

# compute_confident_joint, get_confident_thresholds (2 for a class without videos), and the numbers of
# labels by estimate_joint, which rounds them, from cleanlab 2.9.0 for `simulated(0, classes)`.
CLEANLAB = {
    4: (
        [[13, 3, 0, 0], [3, 16, 1, 2], [2, 4, 21, 3], [0, 1, 9, 15]],
        [0.61512, 0.536289, 0.471815, 0.544271],
        [[20, 4, 0, 0], [4, 20, 1, 3], [3, 5, 28, 4], [0, 1, 10, 17]],
    ),
    3: (
        [[19, 2, 0, 0], [2, 23, 4, 0], [4, 2, 22, 0], [0, 0, 0, 1]],
        [0.631732, 0.564098, 0.488763, np.inf],
        [[30, 3, 0, 0], [3, 32, 6, 0], [7, 3, 36, 0], [0, 0, 0, 0]],
    ),
}


@pytest.mark.parametrize("classes", CLEANLAB)
def test_the_same_as_cleanlab(classes: int) -> None:
    _, given, probabilities = simulated(0, classes)
    joint, least, labels = CLEANLAB[classes]
    found = thresholds(given, probabilities)
    assert found == pytest.approx(least, abs=1e-6)
    counts = confident_joint(given, confident_classes(probabilities, found), 4)
    assert counts.tolist() == joint
    rounded = np.array(labels)
    assert np.abs(joint_distribution(counts, given) * len(given) - rounded).max() <= 1


# ---------------------------------------------------------------------------------- what it is for


def test_planted_errors_rank_first() -> None:
    """By self-confidence at least as well as by the margin to the most probable other class."""
    first: dict[str, list[float]] = {"self-confidence": [], "margin": []}
    for seed in range(20):
        true, given, probabilities = simulated(seed)
        planted, every = given != true, np.arange(len(given))
        own = self_confidence(given, probabilities)
        others = probabilities.copy()
        others[every, given] = 0
        rankings = {"self-confidence": own, "margin": own - others.max(axis=1)}
        for name, ranking in rankings.items():
            first[name].append(planted[np.argsort(ranking)[: planted.sum()]].mean())
        assert roc_auc_score(planted, -own) > 0.75
    chance = 0.15 * 3 / 4
    assert np.mean(first["self-confidence"]) > 4 * chance
    assert np.mean(first["self-confidence"]) >= np.mean(first["margin"])


def test_more_wrong_labels_are_expected_where_there_are_more() -> None:
    shares = [wrong_share(*simulated(1, videos=2000, wrong=wrong)[1:]) for wrong in (0, 0.2, 0.4)]
    assert shares[0] < shares[1] - 0.05 < shares[2] - 0.1
    assert shares[2] > 0.4 * 3 / 4  # it includes the errors of the model


def test_the_weaker_the_model_the_more_the_expected_number_is_too_large() -> None:
    """The figures in evaluation/README.md."""
    planted: list[int] = []
    expected: dict[float, list[float]] = {1.5: [], 0.3: []}
    for seed in range(40):
        for skill, numbers in expected.items():
            true, given, probabilities = simulated(seed, videos=240, wrong=0.1, skill=skill)
            numbers.append(240 * wrong_share(given, probabilities))
            planted.append((given != true).sum())
    assert [round(np.mean(numbers)) for numbers in (planted, *expected.values())] == [18, 40, 149]


def test_a_perfect_model_expects_the_planted_share() -> None:
    true, given, _ = simulated(2, videos=400)
    sharp = np.full((400, 4), 0.01) + 0.96 * np.eye(4)[true]
    assert wrong_share(given, sharp) == pytest.approx((given != true).mean(), abs=0.005)


def test_the_share_by_chance_is_that_of_permuted_predictions() -> None:
    _, given, probabilities = simulated(3, videos=400)
    random = np.random.default_rng(0)
    permuted = [wrong_share(given, random.permutation(probabilities)) for _ in range(200)]
    assert chance_share(given, probabilities) == pytest.approx(np.mean(permuted), abs=0.02)
    assert wrong_share(given, probabilities) < min(permuted)
