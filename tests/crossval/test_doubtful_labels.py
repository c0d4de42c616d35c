"""Doubtful labels: what the JSON, the CSV, the terminal and the page of a cross-validation say."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lus_cli.crossval.confident_learning import wrong_share
from lus_cli.crossval.doubtful_labels import (
    doubt_note,
    doubted_labels,
    is_informative,
    label_rows,
)
from lus_cli.crossval.page import MOST_DOUBTED, write_crossval_page
from lus_cli.evaluation import comparison
from lus_cli.evaluation.intervals import SHARE, confidence_interval
from lus_cli.evaluation.metrics import Predictions
from lus_cli.progress import Result
from tests.crossval.test_page import about_of, scores_of
from tests.evaluation.test_page import section, words
from tests.predicted import predicting, predictions_for

PATIENTS = np.repeat([f"p{number}" for number in range(10)], 12)
TRUE = np.random.default_rng(7).integers(0, 4, len(PATIENTS))
VIDEOS = [(patient, "1", str(index % 12)) for index, patient in enumerate(PATIENTS.tolist())]
PLANTED = np.random.default_rng(8).permutation(len(PATIENTS))[:12]
GIVEN = TRUE.copy()
GIVEN[PLANTED] = (TRUE[PLANTED] + 2) % 4


def repetitions(right: float, count: int = 2, given: np.ndarray = GIVEN) -> list[Predictions]:
    """Predictions that are right about the true score for a share of the videos, else random."""
    made = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        guesses = random.integers(0, 4, len(TRUE))
        predicted = np.where(random.random(len(TRUE)) < right, TRUE, guesses)
        noise = random.dirichlet(np.ones(4), len(TRUE))
        made.append(Predictions(VIDEOS, given, 0.8 * predicting(predicted) + 0.2 * noise))
    return made


def page_of(path: Path, repeats: list[Predictions]) -> str:
    scores = scores_of({"standard": repeats, "signs": repeats})
    write_crossval_page(path, about_of(), scores, repeats, {}, {})
    return path.read_text(encoding="utf-8")


def labels_section(page: str) -> str:
    return words(section(page, "labels"))


# ----------------------------------------------------------------------------------------- numbers


def test_planted_labels_are_doubted_and_rank_first() -> None:
    rows = label_rows(repetitions(0.9))
    planted = {VIDEOS[index] for index in PLANTED}
    first = [(row["patient"], row["exam"], row["area"]) for row in rows[:24]]
    assert len(planted & set(first)) >= 10
    doubted = [row for row in rows if row["doubted"]]
    assert all(row["suggested"] not in (None, row["score"]) for row in doubted)
    assert all(row["suggested"] is None for row in rows if not row["doubted"])
    assert [row["rank"] for row in rows] == list(range(1, len(TRUE) + 1))
    assert all(a["p_given"] <= b["p_given"] for a, b in itertools.pairwise(rows))


def test_probabilities_are_averaged_over_repetitions() -> None:
    first, second = repetitions(0.9)
    row = label_rows([first, second])[0]
    place = first.videos.index((row["patient"], row["exam"], row["area"]))
    mean = (first.probabilities[place] + second.probabilities[place]) / 2
    assert [row[f"p{score}"] for score in range(4)] == pytest.approx(mean.tolist())
    assert row["p_given"] == pytest.approx(mean[GIVEN[place]])


def test_the_interval_is_over_patients() -> None:
    repeats = repetitions(0.9, count=1)
    given, probabilities = repeats[0].scores, repeats[0].probabilities
    kept = [p != PATIENTS for p in np.unique(PATIENTS)]
    without = [wrong_share(given[one], probabilities[one]) for one in kept]
    share = wrong_share(given, probabilities)
    low, high = confidence_interval(share, np.array(without), 10, SHARE)
    numbers = doubted_labels(repeats)
    expected = numbers["expected_wrong"]
    assert [expected[key] for key in ("value", "low", "high")] == pytest.approx(
        [120 * share, 120 * low, 120 * high]
    )
    assert low < share < high
    assert np.sum(numbers["expected_labels"]) == pytest.approx(120)
    assert 120 - np.trace(numbers["expected_labels"]) == pytest.approx(expected["value"])
    assert numbers["below_chance"]["value"] == pytest.approx(
        numbers["by_chance"] - expected["value"]
    )


def test_metrics_of_all_videos_are_those_of_the_methods_table() -> None:
    repeats = repetitions(0.8)
    numbers = doubted_labels(repeats)
    entries = comparison.compare({"a": repeats, "b": repeats})["candidates"][0]["metrics"]
    for name, value in numbers["metrics"]["all"].items():
        assert value == pytest.approx(entries[name]["value"])
    assert numbers["metrics"]["without_doubted"]["accuracy"] > entries["accuracy"]["value"]


def test_predictions_by_chance_are_not_informative() -> None:
    skilled, random = doubted_labels(repetitions(0.9)), doubted_labels(repetitions(0.0))
    assert is_informative(skilled)
    assert "confident learning expects" in doubt_note(skilled)
    assert not is_informative(random)
    assert doubt_note(random).endswith("do not use that list.")


def test_a_constant_model_is_not_informative() -> None:
    """It doubts every label but the most frequent one, as predictions by chance do."""
    shares = np.tile(np.bincount(GIVEN) / len(GIVEN), (len(GIVEN), 1))
    constant = doubted_labels([Predictions(VIDEOS, GIVEN, shares)])
    assert constant["doubted"] == len(GIVEN) - np.bincount(GIVEN).max()
    assert constant["below_chance"]["value"] == 0
    assert constant["by_chance"] == pytest.approx(constant["expected_wrong"]["value"])
    assert not is_informative(constant)


def test_a_score_that_no_video_has_is_never_suggested() -> None:
    given = np.minimum(GIVEN, 2)
    repeats = repetitions(0.9, given=given)
    numbers = doubted_labels(repeats)
    assert numbers["thresholds"][3] is None
    assert {row["suggested"] for row in label_rows(repeats)} == {None, 0, 1, 2}


def test_one_patient_has_a_number_without_an_interval() -> None:
    one = predictions_for(["p"] * 4, range(4), np.eye(4))
    numbers = doubted_labels([one])
    assert numbers["expected_wrong"]["value"] == 0
    assert numbers["expected_wrong"]["low"] is None
    assert numbers["doubted"] == 0
    assert not is_informative(numbers)


def test_metrics_are_undefined_if_every_label_is_doubted() -> None:
    swapped = predictions_for(["p", "q"], [0, 1], np.eye(4)[[1, 0]])
    numbers = doubted_labels([swapped])
    assert numbers["doubted"] == 2
    assert set(numbers["metrics"]["without_doubted"].values()) == {None}


# ------------------------------------------------------------------------------------ files and page


def test_the_command_writes_every_label(crossvalidated: tuple[Path, Result]) -> None:
    _, result = crossvalidated
    path = result.files["doubtful labels"]
    assert path.name == "doubtful-labels.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    numbers: dict[str, Any] = result.numbers["doubtful_labels"]
    assert len(rows) == numbers["videos"] == 18
    assert sum(int(row["doubted"]) for row in rows) == numbers["doubted"]
    assert list(rows[0]) == [
        *("rank", "patient", "exam", "area", "score", "predicted", "p0", "p1", "p2", "p3"),
        *("p_given", "suggested", "doubted"),
    ]
    assert any(note.startswith("The predictions doubt") for note in result.notes)
    assert 'id="labels"' in result.files["report"].read_text(encoding="utf-8")


def test_the_page_shows_the_doubted_labels_in_order_and_warns(tmp_path: Path) -> None:
    repeats = repetitions(0.9)
    page = page_of(tmp_path / "page.html", repeats)
    text, numbers = labels_section(page), doubted_labels(repeats)
    videos = [
        f"{row['patient']}/{row['exam']}/{row['area']}"
        for row in label_rows(repeats)
        if row["doubted"]
    ]
    places = [text.index(f" {video} ") for video in videos]
    assert places == sorted(places)
    assert f"doubt the given score of {numbers['doubted']} of 120 videos" in text
    assert (
        f"expects {numbers['expected_wrong']['value']:.0f} of the given scores to be wrong" in text
    )
    assert f"it would expect {numbers['by_chance']:.0f}" in text
    assert "For inspection only, never for reporting" in text
    assert f"{numbers['metrics']['without_doubted']['accuracy']:.3f}" in text
    assert "too large, especially if the model is weak" in text
    assert "mean probabilities of all repetitions" in text
    assert "do not use this list" not in text
    assert "most doubted of" not in text


def test_the_page_says_so_if_the_list_is_useless_or_shortened(tmp_path: Path) -> None:
    repeats = repetitions(0.0)
    text, numbers = (
        labels_section(page_of(tmp_path / "page.html", repeats)),
        doubted_labels(repeats),
    )
    assert "not shown to do better than that: do not use this list" in text
    assert numbers["doubted"] > MOST_DOUBTED
    assert f"The {MOST_DOUBTED} most doubted of {numbers['doubted']}." in text


def test_the_page_has_no_box_without_doubted_labels(tmp_path: Path) -> None:
    certain = [Predictions(VIDEOS, TRUE, predicting(TRUE))] * 2
    text = labels_section(page_of(tmp_path / "page.html", certain))
    assert "doubt the given score of 0 of 120 videos" in text
    assert "For inspection only" not in text
