"""How every figure looks and is saved."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from lus_cli import figures
from lus_cli.cache import figures as study_figures
from lus_cli.evaluation import confidence_figures
from lus_cli.evaluation import (
    confusion_figures as evaluation_figures,
)
from lus_cli.pages.base import template_text
from lus_cli.training import figures as run_figures
from tests.drawing import svg_text

CONFUSION = [[5, 2, 0, 0], [1, 6, 0, 3], [0, 0, 9, 0], [0, 0, 0, 0]]


def test_the_same_figure_is_the_same_bytes() -> None:
    one, again = (evaluation_figures.confusion(CONFUSION) for _ in range(2))
    for kind in ("svg", "png"):
        assert figures.rendered(again, kind) == figures.rendered(one, kind)
    words = set(re.findall(r"[\w:<.]+", svg_text(one)))
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
    svg = svg_text(figure)
    assert "<script>" not in svg
    assert "&lt;script&gt;$x_1$&lt;/script&gt;" in svg


# --------------------------------------------------------------------------------- fit for print

BINS = [
    {"from": 0.0, "to": 0.5, "videos": 0, "confidence": None, "accuracy": None},
    {"from": 0.5, "to": 1.0, "videos": 888, "confidence": 0.8, "accuracy": 0.5},
]
EPOCHS = [
    {
        "epoch": epoch,
        "train_loss": 1.4 / epoch,
        "validation_loss": 1.3 - 0.01 * epoch,
        "validation_accuracy": 0.5,
        "validation_kappa": -0.2,
        "learning_rate": 0.01 / epoch,
        "learning_rate_cnn": 0.0001 / epoch,
    }
    for epoch in range(1, 36)
]
CURVE = [{"coverage": c / 10, "accuracy": 0.6, "f1_macro": 0.5} for c in range(1, 11)]
ABSTENTION = {
    "curve": CURVE,
    "at_coverage": [row | {"low": 0.2, "high": 0.9} for row in CURVE],
    "aurc": {"value": 0.456, "patients": 123},
    "aurc_random": 0.567,
}
SCALING = {
    "value": 12.34,
    "metrics": {"ece": {"before": {"value": 0.123}, "after": {"value": 0.456}}},
}
COLUMN_FIGURES = {
    "curves": lambda: run_figures.curves(EPOCHS, 1.34, 0.542, 0.41),  # the report's Figs. 6 and 7
    "confusion": lambda: evaluation_figures.confusion([[1234] * 4] * 4),  # Fig. 8
    "errors_per_class": lambda: evaluation_figures.errors_per_class([[1234] * 4] * 4),  # Fig. 9
    "calibration": lambda: confidence_figures.calibration(BINS, 0.123),
    "abstention": lambda: confidence_figures.abstention(ABSTENTION),
    "temperature": lambda: confidence_figures.temperature(BINS, BINS, SCALING),
}


def ticks_beyond(figure: Figure) -> list[Text]:
    """Labels of ticks that matplotlib keeps but does not draw: beyond the ends of their axis."""
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    return [
        tick.label1
        for axis in axes
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    ]


@pytest.mark.parametrize("name", COLUMN_FIGURES)
def test_a_figure_of_one_column_can_be_read_there(name: str) -> None:
    figure = COLUMN_FIGURES[name]()
    assert figure.get_figwidth() * 25.4 == pytest.approx(85)
    with figures.house_style(figures.COLUMN_STYLE):
        figures.lay_out(figure)
        figure.draw_without_rendering()
    inside = figure.bbox.padded(0.5)
    beyond = ticks_beyond(figure)
    texts = [text for text in figure.findobj(Text) if text not in beyond]
    written = [text for text in texts if text.get_text() and text.get_visible()]
    assert len(written) > 8
    for text in written:
        assert text.get_fontsize() >= 6, text
        box = text.get_window_extent()
        assert inside.containsx(box.x0), text
        assert inside.containsx(box.x1), text


# What dichromats see: linear RGB -> linear RGB (Machado et al. 2009, table 1, severity 1).
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def seen_as(colour: str, vision: np.ndarray) -> np.ndarray:
    """A colour as CIE L*a*b* (sRGB, D65) of what is seen of it."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(vision @ linear, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = to_xyz @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def page_scores() -> list[tuple[str, ...]]:
    """The score colours of the report page: light, dark, and in print."""
    style = template_text("report.css")
    palettes = [tuple(re.findall(rf"--score-{s}: (#\w+)", style)) for s in range(4)]
    return list(zip(*palettes, strict=True))


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_stay_apart_for_every_colour_vision(vision: str) -> None:
    together = [figures.SCORE_COLOURS, (figures.ACCENT, figures.SECOND, figures.SCORE_COLOURS[1])]
    together += [(figures.INK, figures.SECOND), *page_scores()]
    assert len(together) == 6
    for colours in together:
        for one, other in itertools.combinations(colours, 2):
            difference = seen_as(one, VISIONS[vision]) - seen_as(other, VISIONS[vision])
            assert np.linalg.norm(difference) > 15, (one, other)  # 2.3 is just noticeable


# ------------------------------------------------------------------------------ a user's settings

# What papers, talks and notebooks set. Any of it would show, or fail.
HOSTILE = """
backend: no_such_backend
text.usetex: True
font.family: fantasy
font.size: 31
figure.dpi: 33
savefig.dpi: 44
savefig.bbox: tight
savefig.pad_inches: 1
savefig.transparent: True
savefig.facecolor: black
figure.facecolor: red
figure.constrained_layout.use: False
figure.autolayout: True
axes.facecolor: green
axes.grid: True
axes.xmargin: 0.4
axes.unicode_minus: False
axes.formatter.use_locale: True
axes.prop_cycle: cycler(color=["yellow"])
image.cmap: gray
image.interpolation: nearest
lines.linestyle: --
lines.marker: o
path.sketch: 3, 50, 20
patch.force_edgecolor: True
xtick.direction: in
xtick.minor.visible: True
ytick.labelsize: 2
legend.loc: center
svg.fonttype: path
a line without a meaning
"""
DRAW = """
import sys
from pathlib import Path
from lus_cli.terminal import settle_libraries
settle_libraries()
from lus_cli import figures
from tests.test_figures import COLUMN_FIGURES
for name in ("confusion", "curves"):
    figures.save(COLUMN_FIGURES[name](), Path(sys.argv[1]) / name)
"""
ROOT = Path(__file__).parents[1]


def drawn_with(folder: Path, **environment: str) -> tuple[dict[str, bytes], str]:
    """The files of all figures of a column, and what was printed, in a process of its own."""
    folder.mkdir(exist_ok=True)
    process = subprocess.run(
        [sys.executable, "-c", DRAW, str(folder / "drawn")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    files = {path.name: path.read_bytes() for path in (folder / "drawn").iterdir()}
    return files, process.stdout + process.stderr


def test_no_figure_depends_on_a_users_settings(tmp_path: Path) -> None:
    plain, _ = drawn_with(tmp_path / "plain")
    home = tmp_path / "home"
    (home / "matplotlib").mkdir(parents=True)
    places = {
        "home": {"MPLBACKEND": "no_such_backend", "XDG_CONFIG_HOME": str(home)},
        "here": {
            "MPLBACKEND": "module://no_such_package.backend",
            "MATPLOTLIBRC": str(home / "matplotlib/matplotlibrc"),
            "MPLCONFIGDIR": "/dev/null/no/folder",
        },
    }
    (home / "matplotlib/matplotlibrc").write_text(HOSTILE)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/matplotlibrc").write_text(HOSTILE)
    for name, environment in places.items():
        files, said = drawn_with(tmp_path / name, **environment)
        assert files == plain, name
        assert not said, name


def test_no_figure_depends_on_what_a_program_has_set() -> None:
    plain = [figures.rendered(draw(), "png") for draw in COLUMN_FIGURES.values()]
    changes = {"text.usetex": True, "font.size": 31, "savefig.transparent": True, "axes.grid": True}
    with matplotlib.rc_context(changes):
        assert [figures.rendered(draw(), "png") for draw in COLUMN_FIGURES.values()] == plain
        assert matplotlib.rcParams["font.size"] == 31
