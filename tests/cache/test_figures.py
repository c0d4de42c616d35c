"""The figures of a study, by what is drawn on them: any number of patients, none left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lus_cli import figures
from lus_cli.cache import figures as study_figures
from tests.drawing import bars, words_on


def test_histograms_hold_every_labelled_video() -> None:
    lengths = np.array([10, 10, 20, 250, 30])
    figure = study_figures.lengths_by_score(lengths, np.array([0, 0, 1, 3, -1]))
    words = words_on(figure)
    for label in ("score 0", "2 videos", "score 1", "1 video", "score 2", "0 videos"):
        assert label in words
    axes = figure.axes[0]
    heights = [p.get_height() for p in axes.patches if p.get_height()]
    assert sorted(heights) == pytest.approx([0.33, 0.33, 0.66])


def test_shortest_patients_come_first() -> None:
    lengths = np.array([200, 210, 20, 30, 100])
    figure = study_figures.lengths_by_patient(lengths, ["1017", "1017", "1047", "1047", "1051"])
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["1047  (2)", "1051  (1)", "1017  (2)"]
    top, bottom = axes.transData.transform([(0, 0), (0, 2)])[:, 1]
    assert top > bottom


@pytest.mark.parametrize("patients", [1, 4, 11, 50, 300, 3000])
def test_a_page_holds_any_number_of_patients(patients: int) -> None:
    names = [str(1000 + patient) for patient in range(patients)] * 3
    lengths = np.arange(len(names)) + 5
    figure = study_figures.lengths_by_patient(lengths, names)
    assert figure.get_size_inches()[1] < 9
    words = " ".join(words_on(figure))
    assert "1000" in words
    named = [name for name in set(names) if name in words]
    assert len(named) == patients or f"{patients} patients" in words


def test_rows_are_as_far_apart_as_their_names_are_tall() -> None:
    names = [str(1000 + patient) for patient in range(50)]
    figure = study_figures.lengths_by_patient(np.arange(50) + 5, names)
    axes = figure.axes[0]
    figures.rendered(figure, "svg")  # lays it out
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(boxes))


def test_bands_hold_every_patient_between_its_extremes() -> None:
    random = np.random.default_rng(0)
    patients = [f"P{n}" for n in range(200) for _ in range(4)]
    lengths = random.integers(5, 252, len(patients))
    figure = study_figures.lengths_by_patient(lengths, patients)
    upper, lower = figure.axes
    own = np.sort(lengths.reshape(200, 4), axis=1)
    own = own[np.argsort(np.median(own, axis=1), kind="stable")]
    band = upper.collections[0].get_paths()[0].vertices
    for place, (least, *_, most) in enumerate(own, start=1):
        inside = band[(band[:, 0] > place - 0.6) & (band[:, 0] < place + 0.6), 1]
        assert {least, most} <= set(inside)
    assert lower.get_ylim()[1] > 4
    words = " ".join(words_on(figure))
    order = sorted(range(200), key=lambda n: (np.median(lengths[4 * n : 4 * n + 4]), n))
    assert f"shortest: {', '.join(f'P{n}' for n in order[:3])}" in words
    assert f"longest: {', '.join(f'P{n}' for n in order[:-4:-1])}" in words


def test_table_one_has_its_numbers() -> None:
    figure = study_figures.scores_by_part({"train": [35, 31, 75, 36], "test": [10, 14, 26, 19]})
    words = words_on(figure)
    for word in ("35", "75", "177 videos", "69 videos", "train", "test"):
        assert word in words
    widths = bars(figure.axes[0], figures.SCORE_COLOURS[2])
    assert widths == pytest.approx([75 / 177, 26 / 69])


def test_a_number_too_wide_for_its_segment_is_written_all_the_same() -> None:
    words = words_on(study_figures.scores_by_part({"train": [990, 7, 2, 0]}))
    assert {"990", "7", "2"} <= set(words)
