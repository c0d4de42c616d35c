"""Kappa and ICC against published values and second implementations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from lus_cli.errors import LusError
from lus_cli.evaluation.intervals import CORRELATION, confidence_interval
from lus_cli.evaluation.totals import agreement as agreement_of_two
from lus_cli.labelling.agreement import (
    confusion,
    exact_agreement,
    icc,
    light_kappa,
    pairs,
    quadratic_kappa,
)
from lus_cli.labelling.raters import (
    common_table,
    difference,
    differing,
    estimates,
    measure,
    of_files,
)
from lus_cli.labelling.ratings import Rated, RaterFile, Rating
from lus_cli.study.ids import VideoId

# Table 2 of Shrout and Fleiss 1979: four judges rate six targets; table 4: ICC(2,1) = .29.
SHROUT_AND_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def random_ratings(videos: int, raters: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 4, videos)
    noise = draw.integers(-1, 2, (videos, raters))
    return np.clip(truth[:, None] + noise, 0, 3).astype(float)


def test_icc_is_that_of_shrout_and_fleiss() -> None:
    assert icc(SHROUT_AND_FLEISS) == pytest.approx(0.2898, abs=5e-5)


def test_icc_of_two_raters_is_that_of_the_totals() -> None:
    ratings = random_ratings(30, 2)
    other = agreement_of_two(ratings[:, 0], ratings[:, 1], np.ones((1, 30)))["icc"][0]
    assert icc(ratings) == pytest.approx(other)


def test_icc_leaves_out_videos_that_a_rater_did_not_rate() -> None:
    ratings = random_ratings(30, 3)
    ratings[3:6, 1] = np.nan
    assert icc(ratings) == icc(np.delete(ratings, [3, 4, 5], axis=0))


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    one, other = random_ratings(40, 2, seed).T
    expected = cohen_kappa_score(one, other, weights="quadratic", labels=[0, 1, 2, 3])
    assert quadratic_kappa(one, other) == pytest.approx(expected)
    binary = cohen_kappa_score(one == 2, other == 2)
    assert quadratic_kappa(1.0 * (one == 2), 1.0 * (other == 2)) == pytest.approx(binary)


def test_kappa_of_several_raters_is_the_mean_of_their_pairs() -> None:
    ratings = random_ratings(40, 4)
    ratings[0, 0] = np.nan
    kappas = [quadratic_kappa(ratings[:, a], ratings[:, b]) for a, b in pairs(4)]
    assert len(kappas) == 6
    assert light_kappa(ratings) == pytest.approx(np.mean(kappas))


def test_perfect_and_undefined_agreement() -> None:
    same = np.repeat(random_ratings(20, 1), 2, axis=1)
    assert (light_kappa(same), icc(same), exact_agreement(same)) == (1, 1, 1)
    constant = np.full((20, 2), 2.0)
    assert np.isnan([light_kappa(constant), icc(constant)]).all()
    assert np.isnan(exact_agreement(np.array([[1.0, np.nan], [np.nan, 1.0]])))


def test_confusion_has_the_first_rater_in_rows() -> None:
    counts = confusion(np.array([0, 3, 3, np.nan]), np.array([0, 1, 1, 2]), 4)
    assert counts[3, 1] == 2
    assert counts.sum() == 3


def test_intervals_leave_out_patients_not_videos() -> None:
    ratings, patients = random_ratings(30, 2), [f"p{k % 6}" for k in range(30)]
    entry = estimates(ratings, patients)["kappa_quadratic"]
    of_video = np.array(patients)
    left_out = [light_kappa(ratings[of_video != f"p{k}"]) for k in range(6)]
    low, high = confidence_interval(light_kappa(ratings), np.array(left_out), 6, CORRELATION)
    assert (entry["low"], entry["high"], entry["patients"]) == (low, high, 6)


def test_without_patients_there_are_no_intervals() -> None:
    entry = estimates(random_ratings(10, 2), [None] * 10)["icc_a1"]
    assert entry["value"] is not None
    assert (entry["low"], entry["why"]) == (None, "the patients are unknown")


# ------------------------------------------------------------------------------- raters and videos


def rater(name: str, *ratings: Rating | None) -> RaterFile:
    """Ratings of the videos 0, 1, ... of two areas of one patient each."""
    file = RaterFile(name)
    for number, rating in enumerate(ratings):
        if rating is not None:
            video = VideoId(f"p{number // 2}", "1", f"area{number % 2}")
            file.by_file[f"{number}.mp4"] = Rated(f"{number}.mp4", video, 1, rating)
    return file


NONE = Rating(assessable=False)
ANNA = rater("anna", Rating(0), Rating(1, a_lines=True), Rating(3), NONE, Rating(2), Rating(1))
BEN = rater("ben", Rating(0), Rating(1, a_lines=False), Rating(1), Rating(2), NONE, None)


def test_agreement_is_measured_by_score_and_by_area() -> None:
    numbers = measure(of_files([ANNA, BEN]))
    rows = {row["name"]: row for row in numbers["agreement"]}
    assert rows["all scores"]["videos"] == 3
    assert rows["area area0"]["videos"] == 2
    assert rows["area area1"]["videos"] == 1
    assert rows["assessable"]["agreement"]["value"] == pytest.approx(3 / 5)
    assert rows["score 3"]["agreement"]["value"] == pytest.approx(2 / 3)
    one, other = np.array([0.0, 1, 3]), np.array([0.0, 1, 1])
    assert rows["all scores"]["kappa_quadratic"]["value"] == quadratic_kappa(one, other)
    [pair] = numbers["pairs"]
    assert (pair["rater"], pair["other"]) == ("anna", "ben")
    assert pair["confusion"][3] == [0, 1, 0, 0, 0]
    assert pair["confusion"][4] == [0, 0, 1, 0, 0]  # not assessable for anna


def test_the_videos_that_differ_are_listed_the_largest_difference_first() -> None:
    rows = differing(of_files([ANNA, BEN]))
    assert [(row["file"], row["anna"], row["ben"]) for row in rows] == [
        ("3.mp4", "n.a.", "2"),
        ("4.mp4", "2", "n.a."),
        ("2.mp4", "3", "1"),
    ]
    assert difference([Rating(2), Rating(2, a_lines=True)]) == 0


def test_the_common_table_has_no_score_where_raters_differ_until_there_is_a_consensus() -> None:
    rows = common_table(of_files([ANNA, BEN]), {"2.mp4": Rating(2), "4.mp4": NONE})
    assert [(row["score"], row["decided_by"]) for row in rows] == [
        (0, "all"),
        (1, "all"),
        (2, "consensus"),
        ("", ""),
        ("", "consensus"),
        (1, "one rater"),
    ]
    assert rows[1]["a_lines"] == ""  # they say yes and no


def test_ids_may_be_given_later_but_not_contradict() -> None:
    unknown = RaterFile("ben", {"0.mp4": Rated("0.mp4", None, 1, Rating(1))})
    known = VideoId("p0", "1", "area0")
    assert of_files([ANNA, unknown]).videos[0] == ("0.mp4", known)
    assert of_files([unknown, ANNA]).videos[0] == ("0.mp4", known)
    other = VideoId("p9", "1", "area0")
    contradicting = RaterFile("ben", {"0.mp4": Rated("0.mp4", other, 1, Rating(1))})
    with pytest.raises(LusError, match=r"0\.mp4 is video p9/1/area0 for ben and p0/1/area0"):
        of_files([ANNA, contradicting])
    assert of_files([ANNA, contradicting], {"0.mp4": other}).videos[0] == ("0.mp4", other)
