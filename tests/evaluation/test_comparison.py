"""Paired comparisons against intervals computed by hand, and what they must not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from lus_cli.cache.layout import Cache
from lus_cli.errors import LusError
from lus_cli.evaluation.comparison import compare, conclusion, ensemble
from lus_cli.evaluation.metrics import Predictions
from lus_cli.evaluation.run_comparison import compare_candidates, compare_runs, folder_name

PATIENTS, AREAS = 12, 5


def predictions_of(share_right: float, seed: int) -> Predictions:
    """Predictions for the same 60 videos, of which a share is correct."""
    truth = np.random.default_rng(7).integers(0, 4, PATIENTS * AREAS)
    random = np.random.default_rng(seed)
    answered = np.where(random.random(len(truth)) < share_right, truth, (truth + 1) % 4)
    probabilities = np.full((len(truth), 4), 0.1)
    probabilities[np.arange(len(truth)), answered] = 0.7
    videos = [(f"p{i // AREAS}", "1", str(i % AREAS)) for i in range(len(truth))]
    return Predictions(videos, truth, probabilities)


def test_metrics_are_means_over_repetitions_and_differences_are_paired() -> None:
    good, bad = [predictions_of(0.9, 1), predictions_of(0.8, 2)], [predictions_of(0.5, 3)]
    compared = compare({"bad": bad, "good": good})
    row_bad, row_good = (row["metrics"]["accuracy"] for row in compared["candidates"])
    accuracies = [(p.predicted == p.scores).mean() for p in good]
    assert row_good["value"] == pytest.approx(np.mean(accuracies))
    assert row_good["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert row_bad["sd"] is None
    assert "difference" not in row_bad

    # By hand: the accuracy of each patient, with equal numbers of videos; t interval of the differences.
    def accuracy(predictions: Predictions) -> np.ndarray:
        right = (predictions.predicted == predictions.scores).astype(float)
        return right.reshape(PATIENTS, AREAS).mean(axis=1)

    by_hand = (accuracy(good[0]) + accuracy(good[1])) / 2 - accuracy(bad[0])
    spread = by_hand.std(ddof=1) / np.sqrt(PATIENTS)
    mean, reach = by_hand.mean(), stats.t.ppf(0.975, PATIENTS - 1) * spread
    found = row_good["difference"]
    z = np.arctanh(mean) + np.array([-1, 1]) * reach / (1 - mean**2)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.tanh(z)))
    assert conclusion(row_good, "accuracy") == "better"


def test_kappa_is_that_of_scikit_learn_and_a_worse_candidate_is_worse() -> None:
    good, bad = predictions_of(0.9, 1), predictions_of(0.4, 3)
    compared = compare({"good": [good], "bad": [bad]})
    metrics = compared["candidates"][1]["metrics"]
    assert metrics["kappa_quadratic"]["value"] == pytest.approx(
        cohen_kappa_score(bad.scores, bad.predicted, weights="quadratic")
    )
    assert conclusion(metrics["accuracy"], "accuracy") == "worse"
    assert (
        conclusion(metrics["mean_absolute_error"], "mean_absolute_error") == "worse"
    )  # lower is better
    assert compared["reference"] == "good"


def test_equal_predictions_do_not_differ() -> None:
    compared = compare({"one": [predictions_of(0.7, 1)], "other": [predictions_of(0.7, 1)]})
    for figure, entry in compared["candidates"][1]["metrics"].items():
        if entry["value"] is not None:
            difference = entry["difference"]
            assert (difference["value"], difference["low"], difference["high"]) == (0, 0, 0), figure
            assert conclusion(entry, figure) == "alike"


def test_paired_intervals_are_narrower_than_those_of_two_studies() -> None:
    """Two models with errors on nearly the same videos: the difficulty of patients cancels out."""
    one = predictions_of(0.6, 1)
    probabilities = one.probabilities.copy()
    wrong = np.flatnonzero(one.predicted != one.scores)[:3]
    probabilities[wrong] = 0.1
    probabilities[wrong, one.scores[wrong]] = 0.7
    other = Predictions(one.videos, one.scores, probabilities)
    entry = compare({"one": [one], "other": [other]})["candidates"][1]["metrics"]["accuracy"]
    width = entry["difference"]["high"] - entry["difference"]["low"]
    assert width < 0.6 * (entry["high"] - entry["low"])


def test_other_videos_are_refused() -> None:
    one = predictions_of(0.7, 1)
    fewer = Predictions(one.videos[1:], one.scores[1:], one.probabilities[1:])
    with pytest.raises(ValueError, match="same videos"):
        compare({"one": [one], "fewer": [fewer]})


def test_an_ensemble_is_the_mean_of_the_probabilities() -> None:
    both = [predictions_of(0.9, 1), predictions_of(0.5, 3)]
    together = ensemble(both)
    assert np.allclose(together.probabilities, (both[0].probabilities + both[1].probabilities) / 2)
    assert together.videos == both[0].videos


@pytest.mark.parametrize("patients", [2, 4, 5])
def test_fewer_than_five_patients_decide_nothing(patients: int) -> None:
    count = patients * AREAS
    good, bad = predictions_of(1.0, 1), predictions_of(0.0, 3)
    some = [
        Predictions(one.videos[:count], one.scores[:count], one.probabilities[:count])
        for one in (bad, good)
    ]
    entry = compare({"bad": some[:1], "good": some[1:]})["candidates"][1]["metrics"]["accuracy"]
    assert entry["difference"]["value"] == 1
    assert conclusion(entry, "accuracy") == ("better" if patients == 5 else "")


def test_predictions_drawn_by_their_probabilities_have_expected_metrics() -> None:
    """The mean over many draws equals the expected values that are computed at once."""
    one = predictions_of(0.5, 1)
    shares = np.tile([0.4, 0.3, 0.2, 0.1], (len(one.scores), 1))
    prior = Predictions(one.videos, one.scores, shares, drawn=True)
    metrics = compare({"one": [one], "prior": [prior]})["candidates"][1]["metrics"]
    assert metrics["kappa_quadratic"]["value"] == pytest.approx(0)
    right = [
        (np.random.default_rng(seed).choice(4, len(shares), p=shares[0]) == one.scores).mean()
        for seed in range(2000)
    ]
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean(right), abs=0.005)


def test_constant_and_blind_runs_get_warnings_and_majority_is_the_most_frequent_score(
    tmp_path: Path,
) -> None:
    good = predictions_of(0.9, 1)
    shares = good.probabilities + np.arange(len(good.scores))[:, None] * 1e-9
    good = Predictions(good.videos, good.scores, shares)  # no two videos are equal
    blind_rows = shares.copy()
    blind_rows[:20] = [0.4, 0.3, 0.2, 0.1]
    same = np.tile([0.1, 0.1, 0.1, 0.7], (len(good.scores), 1))
    runs = {
        "good": good,
        "blind": Predictions(good.videos, good.scores, blind_rows),
        "constant": Predictions(good.videos, good.scores, same),
    }
    result = compare_runs(Cache(tmp_path), "test", runs, {"warnings": []})
    notes = " | ".join(result.notes)
    assert "Run constant predicts score 3 for every video." in notes
    assert "Run blind: 20 of 60 videos have exactly the same probabilities" in notes
    assert "un good" not in notes
    rows = {row["name"]: row["metrics"] for row in result.numbers["candidates"]}
    most = np.bincount(good.scores).max() / len(good.scores)
    assert rows["majority"]["accuracy"]["value"] == pytest.approx(most)
    four = [i for i, (patient, _, _) in enumerate(good.videos) if patient in ("p0", "p1", "p2")]
    few = {
        name: Predictions([one.videos[i] for i in four], one.scores[four], one.probabilities[four])
        for name, one in runs.items()
    }
    notes = " | ".join(compare_runs(Cache(tmp_path), "test", few, {"warnings": []}).notes)
    assert "Only 3 patients" in notes
    assert " than " not in notes.replace("fewer than", "")


def test_a_baseline_called_majority_is_not_replaced_by_that_of_the_tested_videos(
    tmp_path: Path,
) -> None:
    good = predictions_of(0.9, 1)
    folds = np.eye(4)[np.arange(len(good.scores)) // AREAS % 2 * 3]  # another score in each fold
    blind = Predictions(good.videos, good.scores, folds)
    result = compare_candidates(tmp_path, {"good": [good], "majority": [blind]}, "", {})
    rows = {
        row["name"]: row["metrics"]["accuracy"]["value"] for row in result.numbers["candidates"]
    }
    assert list(rows) == ["good", "majority"]
    assert rows["majority"] == pytest.approx((blind.predicted == good.scores).mean())
    most = np.bincount(good.scores).max() / len(good.scores)
    assert rows["majority"] < most
    alone = compare_candidates(tmp_path, {"good": [good]}, "", {}).numbers["candidates"]
    assert alone[1]["metrics"]["accuracy"]["value"] == pytest.approx(most)


def test_runs_of_studies_with_other_scores_are_refused_in_one_line(tmp_path: Path) -> None:
    one = predictions_of(0.9, 1)
    scores = one.scores.copy()
    scores[[7, 8]] = 3 - scores[[7, 8]]
    runs = {"one": one, "relabelled": Predictions(one.videos, scores, one.probabilities)}
    with pytest.raises(LusError, match="one and relabelled have different scores of 2 videos") as e:
        compare_runs(Cache(tmp_path), "test", runs, {"warnings": []})
    assert "p1/1/2" in str(e.value)


def test_no_comparison_replaces_that_of_other_runs() -> None:
    assert folder_name(["a", "b", "c"], "test") == "a-b-c-on-test"
    four = [folder_name(names, "test") for names in (list("abcd"), list("abce"), list("abdc"))]
    assert len(set(four)) == 3
    assert all(name.startswith("a-and-3-more-") and name.endswith("-on-test") for name in four)
    long = [folder_name([f"{'x' * 100}-{end}", "y" * 100 + end], "test") for end in "12"]
    assert long[0] != long[1]
    assert max(map(len, long)) < 255
