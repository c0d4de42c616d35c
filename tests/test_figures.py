"""How every figure looks and is saved."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from lus_cli import evaluation_figures, figures, study_figures

CONFUSION = [[5, 2, 0, 0], [1, 6, 0, 3], [0, 0, 9, 0], [0, 0, 0, 0]]


def test_the_same_figure_is_the_same_bytes() -> None:
    one, again = (evaluation_figures.confusion(CONFUSION) for _ in range(2))
    for kind in ("svg", "png"):
        assert figures.rendered(again, kind) == figures.rendered(one, kind)
    words = set(re.findall(r"[\w:<.]+", figures.svg_text(one)))
    assert not {"<dc:date", "matplotlib.org", "Matplotlib"} & words


def test_save_writes_both_files_whole(tmp_path: Path) -> None:
    figure = evaluation_figures.confusion(CONFUSION)
    paths = figures.save(figure, tmp_path / "new" / "confusion.v1")
    assert [path.name for path in paths] == ["confusion.v1.svg", "confusion.v1.png"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths)
    with Image.open(paths[1]) as image:
        assert image.width > 800


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    evaluation_figures.confusion(CONFUSION)
    assert dict(matplotlib.rcParams) == before


def test_score_colours_are_ordered_by_lightness_and_far_apart() -> None:
    def lightness(colour: str) -> float:
        r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return float((0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2) ** (1 / 2.4))

    values = [lightness(colour) for colour in figures.SCORE_COLOURS]
    assert all(a - b > 0.1 for a, b in itertools.pairwise(values))


def test_ids_are_words_not_formulas_or_markup() -> None:
    figure = study_figures.lengths_by_patient(np.array([3, 4]), ["<script>$x_1$</script>", "b & c"])
    svg = figures.svg_text(figure)
    assert "<script>" not in svg
    assert "&lt;script&gt;$x_1$&lt;/script&gt;" in svg
