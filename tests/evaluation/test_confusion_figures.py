"""The figures of predicted scores, checked by what they show."""

from __future__ import annotations

from typing import Any

import numpy as np

from lus_cli import figures
from lus_cli.evaluation import confidence_figures
from lus_cli.evaluation import confusion_figures as evaluation_figures
from tests.drawing import bars, words_on

CONFUSION = [[5, 2, 0, 0], [1, 6, 0, 3], [0, 0, 9, 0], [0, 0, 0, 0]]
BINS: list[dict[str, Any]] = [
    {"from": 0.0, "to": 0.5, "videos": 0, "confidence": None, "accuracy": None},
    {"from": 0.5, "to": 1.0, "videos": 8, "confidence": 0.8, "accuracy": 0.5},
]


def test_confusion_reads_by_row() -> None:
    figure = evaluation_figures.confusion(CONFUSION)
    words = words_on(figure)
    for word in ("71%", "29%", "10%", "60%", "30%", "100%", "of 7", "of 0"):
        assert word in words
    axes = figure.axes[0]
    (cell,) = [t for t in axes.texts if t.get_text() == "3"]
    assert cell.xy == (3.5, 1.5)  # predicted 3, true 1
    assert axes.yaxis_inverted()


def test_errors_are_counted_and_coloured_by_predicted_score() -> None:
    figure = evaluation_figures.errors_per_class(CONFUSION)
    words = words_on(figure)
    for word in ("2 of 7", "4 of 10", "0 of 9", "0 of 0"):
        assert word in words
    axes = figure.axes[0]
    assert bars(axes, figures.SCORE_COLOURS[3]) == [3]
    assert bars(axes, figures.SCORE_COLOURS[2]) == []


def test_calibration_leaves_empty_bins_out() -> None:
    figure = confidence_figures.calibration(BINS, 0.3)
    dots = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert dots.tolist() == [[0.8, 0.5]]
    assert "Calibration (ECE 0.300)" in words_on(figure)
