"""The curves of a run, by what is drawn on them."""

from __future__ import annotations

from typing import Any

from lus_cli.training import figures as run_figures
from tests.drawing import words_on

EPOCHS: list[dict[str, Any]] = [
    {
        "epoch": epoch,
        "train_loss": 1.4 / epoch,
        "validation_loss": loss,
        "validation_accuracy": 0.5,
        "validation_kappa": -0.2,
        "learning_rate": 0.01 / epoch,
    }
    for epoch, loss in enumerate((1.3, 0.9, 1.1, 1.2), start=1)
]


def test_curves_mark_the_epoch_with_the_lowest_validation_loss() -> None:
    words = " ".join(words_on(run_figures.curves(EPOCHS, 1.34, 0.542, 0.41)))
    assert "the best epoch, 2, of validation loss 0.900" in words
    assert "best constant prediction 1.340" in words
    assert "perfect prediction 0.542" in words
    assert "accuracy of the most frequent score 0.410" in words


def test_curves_show_what_there_is() -> None:
    quality = run_figures.curves(EPOCHS).axes[1]
    assert quality.get_ylim()[0] < -0.2  # a kappa below zero is not cut off
    without_validation = [
        {"epoch": 1, "train_loss": 1.2, "validation_loss": None, "learning_rate": 0.0}
    ]
    figure = run_figures.curves(without_validation)
    assert "best epoch" not in " ".join(words_on(figure))
    assert len(figure.axes[0].lines) == 1
    words_on(run_figures.curves([]))
