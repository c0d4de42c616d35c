"""The figures of totals, areas, abstention and temperature, checked by what they show."""

from __future__ import annotations

import numpy as np
import pytest

from lus_cli import figures
from lus_cli.evaluation import confidence_figures, totals_figures
from lus_cli.evaluation.assessment import assess
from lus_cli.evaluation.metrics import Predictions
from tests.drawing import svg_text
from tests.predicted import drawn, predicting


def words(figure) -> str:
    svg = svg_text(figure)
    pieces = (piece.rsplit(">", 1)[-1].strip() for piece in svg.split("</text>")[:-1])
    return " | ".join(pieces)


@pytest.fixture(scope="module")
def assessed() -> dict:
    return assess(drawn(0), 100, 0, training=[1, 2, 3, 4], validation=drawn(1))


def dots(axes) -> np.ndarray:
    return np.concatenate([c.get_offsets() for c in axes.collections if len(c.get_offsets())])


def test_totals_are_drawn_as_true_against_predicted_and_as_difference(assessed):
    unit = assessed["sums"]["exam"]
    figure = totals_figures.agreement(unit["rows"], unit["total"]["predicted"], "exam", "predicted")
    left, right = figure.axes
    pairs = [(row["true"], row["predicted"]) for row in unit["rows"]]
    assert dots(left).tolist() == [list(pair) for pair in pairs]
    assert dots(right).tolist() == [[(t + a) / 2, a - t] for t, a in pairs]
    text = words(figure)
    assert f"ICC {unit['total']['predicted']['icc']['value']:.2f}" in text
    assert "9 patients" in text
    assert "+1.96 SD" in text
    low, high = right.get_ylim()
    assert low < unit["total"]["predicted"]["low_limit"]["low"]
    assert high > unit["total"]["predicted"]["high_limit"]["high"]


def test_one_exam_is_drawn_without_limits():
    predictions = Predictions([("a", "1", "1")], np.array([2]), predicting([1]))
    unit = assess(predictions, 10, 0)["sums"]["exam"]
    text = words(
        totals_figures.agreement(unit["rows"], unit["total"]["predicted"], "exam", "predicted")
    )
    assert "ICC undefined" in text
    assert "SD" not in text


def test_the_abstention_curve_ends_at_the_accuracy_of_all(assessed):
    figure = confidence_figures.abstention(assessed["abstention"])
    accuracy = next(line for line in figure.axes[0].lines if line.get_label() == "accuracy")
    assert accuracy.get_xdata()[-1] == 1
    assert accuracy.get_ydata()[-1] == assessed["metrics"]["accuracy"]["value"]
    assert "band: 95 %, 9 patients" in words(figure)


def test_a_curve_of_one_point_can_be_seen():
    videos = [(str(patient), "1", "1") for patient in range(4)]
    predictions = Predictions(videos, np.array([0, 1, 2, 3]), predicting([2, 2, 2, 2]))
    figure = confidence_figures.abstention(assess(predictions, 0, 0)["abstention"])
    assert all(line.get_marker() == "o" for line in figure.axes[0].lines[:2])
    assert "band" not in words(figure)


def test_areas_of_few_patients_are_hollow(assessed):
    rows = assessed["areas"]
    rows = [rows[0] | {"few": False}, rows[1] | {"few": True}]
    figure = totals_figures.areas(rows, {"accuracy": 0.5, "mean_absolute_error": 0.7})
    markers = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [m.get_markerfacecolor() for m in markers] == [figures.ACCENT, figures.PAPER]
    assert "hollow: fewer than 5 patients" in words(figure)
    assert f"{rows[0]['area']}  ({rows[0]['videos']}, {rows[0]['patients']})" in words(figure)
    figure = totals_figures.areas(rows[:1], {"accuracy": 0.5, "mean_absolute_error": 0.7})
    assert "hollow" not in words(figure)


def test_the_temperature_is_drawn_with_both_errors(assessed):
    scaling = assessed["temperature"]
    figure = confidence_figures.temperature(
        assessed["calibration"], scaling["calibration"], scaling
    )
    text = words(figure)
    for when in ("before", "after"):
        assert f"{when}, ECE {scaling['metrics']['ece'][when]['value']:.3f}" in text
    filled = sum(row["videos"] > 0 for row in assessed["calibration"])
    assert len(figure.axes[0].collections[0].get_offsets()) == filled
