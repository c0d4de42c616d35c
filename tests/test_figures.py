"""Figures, by what is drawn on them."""

from __future__ import annotations

import itertools
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from lus_cli import figures

EPOCHS = [
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
CONFUSION = [[5, 2, 0, 0], [1, 6, 0, 3], [0, 0, 9, 0], [0, 0, 0, 0]]


def texts(figure) -> list[str]:
    """Every word on a figure, as it is written out."""
    svg = figures.svg_text(figure)
    return [piece.rsplit(">", 1)[-1].strip() for piece in svg.split("</text>")[:-1]]


def bars(axes, colour) -> list[float]:
    return [p.get_width() for p in axes.patches if to_hex(p.get_facecolor()) == colour]


def drawn_figures():
    rng = np.random.default_rng(0)
    lengths, scores = rng.integers(5, 252, 60), rng.integers(-1, 4, 60)
    patients = [f"{patient}" for patient in rng.integers(1000, 1011, 60)]
    image = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    bins = [
        {"from": 0.0, "to": 0.5, "videos": 0, "confidence": None, "accuracy": None},
        {"from": 0.5, "to": 1.0, "videos": 8, "confidence": 0.8, "accuracy": 0.5},
    ]
    return {
        "lengths_by_score": figures.lengths_by_score(lengths, scores),
        "lengths_by_patient": figures.lengths_by_patient(lengths, patients),
        "scores_by_part": figures.scores_by_part({"train": [3, 2, 5, 1], "test": [0, 0, 1, 0]}),
        "curves": figures.curves(EPOCHS, 1.34, 0.542, 0.41),
        "confusion": figures.confusion(CONFUSION),
        "errors_per_class": figures.errors_per_class(CONFUSION),
        "calibration": figures.calibration(bins, 0.3),
        "attention_gallery": figures.attention_gallery([("1017/1048/11/86", image)] * 8),
    }


@pytest.fixture(scope="module")
def drawn():
    return drawn_figures()


def test_the_same_figure_is_the_same_bytes(drawn):
    again = figures.curves(EPOCHS, 1.34, 0.542, 0.41)
    for kind in ("svg", "png"):
        assert figures.rendered(again, kind) == figures.rendered(drawn["curves"], kind)
    for name, figure in drawn.items():
        svg = figures.svg_text(figure)
        assert not {"<dc:date", "matplotlib.org", "Matplotlib"} & set(
            re.findall(r"[\w:<.]+", svg)
        ), name


def test_save_writes_both_files_whole(drawn, tmp_path):
    paths = figures.save(drawn["confusion"], tmp_path / "new" / "confusion.v1")
    assert [path.name for path in paths] == ["confusion.v1.svg", "confusion.v1.png"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths)
    with Image.open(paths[1]) as image:
        assert image.width > 800


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    figures.confusion(CONFUSION)
    assert dict(matplotlib.rcParams) == before


def test_score_colours_are_ordered_by_lightness_and_far_apart():
    def lightness(colour):
        r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2

    values = [lightness(colour) ** (1 / 2.4) for colour in figures.SCORE_COLOURS]
    assert all(a - b > 0.1 for a, b in itertools.pairwise(values))


def test_histograms_hold_every_labelled_video():
    lengths = np.array([10, 10, 20, 250, 30])
    figure = figures.lengths_by_score(lengths, np.array([0, 0, 1, 3, -1]))
    words = texts(figure)
    for label in ("score 0", "2 videos", "score 1", "1 video", "score 2", "0 videos"):
        assert label in words
    axes = figure.axes[0]
    heights = [p.get_height() for p in axes.patches if p.get_height()]
    assert sorted(heights) == pytest.approx([0.33, 0.33, 0.66])


def test_shortest_patients_come_first():
    lengths = np.array([200, 210, 20, 30, 100])
    figure = figures.lengths_by_patient(lengths, ["1017", "1017", "1047", "1047", "1051"])
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["1047  (2)", "1051  (1)", "1017  (2)"]
    top, bottom = axes.transData.transform([(0, 0), (0, 2)])[:, 1]
    assert top > bottom


@pytest.mark.parametrize("patients", [1, 11, 300])
def test_length_figures_stay_a_page_at_any_number_of_patients(patients):
    names = [str(1000 + patient) for patient in range(patients)] * 3
    lengths = np.arange(len(names)) + 5
    figure = figures.lengths_by_patient(lengths, names)
    assert figure.get_size_inches()[1] < 15
    assert "1000" in " ".join(texts(figure))


def test_table_one_has_its_numbers():
    figure = figures.scores_by_part({"train": [35, 31, 75, 36], "test": [10, 14, 26, 19]})
    words = texts(figure)
    for word in ("35", "75", "177 videos", "69 videos", "train", "test"):
        assert word in words
    widths = bars(figure.axes[0], figures.SCORE_COLOURS[2])
    assert widths == pytest.approx([75 / 177, 26 / 69])


def test_curves_mark_the_epoch_with_the_lowest_validation_loss():
    words = " ".join(texts(figures.curves(EPOCHS, 1.34, 0.542, 0.41)))
    assert "best: epoch 2, 0.900" in words
    assert "best constant answer 1.340" in words
    assert "perfect answer 0.542" in words
    assert "accuracy of the most frequent score 0.410" in words


def test_curves_show_what_there_is():
    quality = figures.curves(EPOCHS).axes[1]
    assert quality.get_ylim()[0] < -0.2  # a kappa below zero is not cut off
    without_validation = [
        {"epoch": 1, "train_loss": 1.2, "validation_loss": None, "learning_rate": 0.0}
    ]
    figure = figures.curves(without_validation)
    assert "best" not in " ".join(texts(figure))
    assert len(figure.axes[0].lines) == 1
    texts(figures.curves([]))


def test_confusion_reads_by_row():
    figure = figures.confusion(CONFUSION)
    words = texts(figure)
    for word in ("71%", "29%", "10%", "60%", "30%", "100%", "of 7", "of 0"):
        assert word in words
    axes = figure.axes[0]
    (cell,) = [t for t in axes.texts if t.get_text() == "3"]
    assert cell.xy == (3.5, 1.5)  # answered 3, true 1
    assert axes.yaxis_inverted()


def test_errors_are_counted_and_coloured_by_the_answer():
    figure = figures.errors_per_class(CONFUSION)
    words = texts(figure)
    for word in ("2 of 7", "4 of 10", "0 of 9", "0 of 0"):
        assert word in words
    axes = figure.axes[0]
    assert bars(axes, figures.SCORE_COLOURS[3]) == [3]
    assert bars(axes, figures.SCORE_COLOURS[2]) == []


def test_calibration_leaves_empty_bins_out(drawn):
    upper = drawn["calibration"].axes[0]
    assert upper.collections[0].get_offsets().tolist() == [[0.8, 0.5]]
    assert "Calibration (ECE 0.300)" in texts(drawn["calibration"])


def test_a_gallery_shows_every_overlay_with_its_id(drawn):
    shown = [axes for axes in drawn["attention_gallery"].axes if axes.images]
    assert len(shown) == 8
    assert texts(drawn["attention_gallery"]).count("1017/1048/11/86") == 8
    three = figures.attention_gallery([("a", np.zeros((8, 8, 3), np.uint8))] * 3)
    assert len([axes for axes in three.axes if axes.images]) == 3


def test_ids_are_words_not_formulas_or_markup():
    figure = figures.lengths_by_patient(np.array([3, 4]), ["<script>$x_1$</script>", "b & c"])
    svg = figures.svg_text(figure)
    assert "<script>" not in svg
    assert "&lt;script&gt;$x_1$&lt;/script&gt;" in svg
