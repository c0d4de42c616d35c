"""The table [figures] of a --config file changes every figure and overlay, and nothing else does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lus_cli import cli, figures
from lus_cli.attention.explained import save_png
from lus_cli.attention.file_names import MaskFolder
from lus_cli.attention.maps import remove_other_look
from lus_cli.cache.drawn import draw_new
from lus_cli.cli.settings import settings_from
from lus_cli.config import FigureLook, PrepareConfig, TrainConfig, figure_look, use_figure_look
from lus_cli.errors import UsageError
from lus_cli.evaluation.confusion_figures import confusion
from lus_cli.pages.base import environment
from lus_cli.pages.overlay import COLOUR_MAPS, Caption, colour_mask, colour_names, draw_card
from tests.drawing import svg_text

CONFUSION = [[5, 2, 0, 0], [1, 6, 0, 3], [0, 0, 9, 0], [0, 0, 0, 0]]
CAPTION = Caption("1017/1048/11/86", "run-1", 2, (0.1, 0.2, 0.6, 0.1))


@pytest.fixture(autouse=True)
def default_look() -> Iterator[None]:
    yield
    use_figure_look(FigureLook())


def settings(tmp_path: Path, text: str, kind: type = PrepareConfig, **flags: Any) -> Any:
    path = tmp_path / "look.toml"
    path.write_text(text)
    return settings_from(kind, {"config": path, **flags})


def test_the_table_stands_next_to_the_options_of_a_command(tmp_path: Path) -> None:
    config = settings(tmp_path, 'size = 64\n[figures]\ncolour_map = "gray"\ntext_size = 11\n')
    assert config.size == 64
    assert (figure_look().colour_map, figure_look().text_size) == ("gray", 11.0)
    assert settings_from(PrepareConfig, {}).size == 256
    assert figure_look() == FigureLook()  # of the next command, which has no such file


def test_a_file_of_figures_alone_goes_with_a_recipe_and_with_resume(tmp_path: Path) -> None:
    table = "[figures]\ntitles = false\n"
    assert settings(tmp_path, table, TrainConfig, recipe="demo").name == "demo"
    assert settings(tmp_path, table, TrainConfig).name == "standard"
    assert settings(tmp_path, table, TrainConfig, resume=True).resume
    assert not figure_look().titles
    with pytest.raises(UsageError, match="cannot be combined with a recipe"):
        settings(tmp_path, f"seed = 1\n{table}", TrainConfig, resume=True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('colour_map = "jet"', "it must be one of inferno"),
        ("colour = 1", "did you mean 'colour_map'"),
        ("text_size = 100", "from 4 to 30"),
        ('formats = ["bmp"]', "formats has 'bmp'"),
        ('font = "No Such Font"', "there is no font 'No Such Font': fonts are"),
    ],
)
def test_a_wrong_value_is_one_line_before_any_work(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "look.toml").write_text(f"[figures]\n{table}\n")
    arguments = ["prepare", str(tmp_path / "none"), "--config", str(tmp_path / "look.toml")]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    with pytest.raises(UsageError, match="it is a table"):
        settings(tmp_path, "figures = 3")


def test_font_and_sizes_reach_a_figure() -> None:
    def sizes(text: str) -> list[float]:
        return sorted({float(size) for size in re.findall(r"font[^;]*?([\d.]+)px", text)})

    before = svg_text(confusion(CONFUSION))
    use_figure_look(FigureLook(font="DejaVu Serif", text_size=13.5))
    after = svg_text(confusion(CONFUSION))
    assert "DejaVu Serif" in after
    assert "DejaVu Serif" not in before
    assert sizes(before)
    assert sizes(after) == pytest.approx([1.5 * size for size in sizes(before)], rel=0.01)


def test_titles_can_be_left_out() -> None:
    assert "True and predicted scores" in svg_text(confusion(CONFUSION))
    use_figure_look(FigureLook(titles=False))
    text = svg_text(confusion(CONFUSION))
    assert "True and predicted scores" not in text
    assert "predicted score" in text


def test_pdf_is_written_next_to_the_others_and_always_the_same(tmp_path: Path) -> None:
    use_figure_look(FigureLook(formats=("pdf",), dpi=100))
    contents = []
    for name in ("one", "two"):
        paths = figures.save(confusion(CONFUSION), tmp_path / name)
        assert [path.suffix for path in paths] == [".svg", ".png", ".pdf"]
        with Image.open(paths[1]) as image:
            assert image.width == int(figures.COLUMN * 100)
        contents.append(paths[2].read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].startswith(b"%PDF")
    assert b"/FontFile2" in contents[0]  # TrueType


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_maps_are_those_of_matplotlib(name: str) -> None:
    use_figure_look(FigureLook(colour_map=name))  # type: ignore[arg-type]
    for place, colour in enumerate(colour_names()):
        rgb = matplotlib.colormaps[name](place / 16, bytes=True)[:3]
        assert np.abs(np.array(rgb, int) - list(bytes.fromhex(colour))).max() <= 8, colour


def test_an_overlay_has_the_colours_of_the_map_and_so_has_a_page() -> None:
    frame, mask = np.full((40, 40), 60, np.uint8), np.linspace(0, 1, 1600).reshape(40, 40)
    coloured = colour_mask(frame, mask)
    use_figure_look(FigureLook(colour_map="gray"))
    gray = colour_mask(frame, mask)
    assert not np.array_equal(coloured, gray)
    assert (gray == gray[..., :1]).all()
    assert environment().globals["overlay"]["colours"] == COLOUR_MAPS["gray"].split()


def test_an_overlay_without_titles_is_the_pictures_and_the_colour_bar() -> None:
    frame, mask = np.full((448, 448), 60, np.uint8), np.full((7, 7), 0.4, np.float32)
    card = draw_card(frame, mask, CAPTION)
    use_figure_look(FigureLook(titles=False))
    bare = draw_card(frame, mask, CAPTION)
    assert bare.shape[0] < card.shape[0] - 100
    other = Caption("2/2/2/2", "another", None, (1.0, 0.0, 0.0, 0.0))
    assert np.array_equal(bare, draw_card(frame, mask, other))
    for picture in (np.repeat(frame[..., None], 3, axis=2), colour_mask(frame, mask)):
        windows = np.lib.stride_tricks.sliding_window_view(bare, picture.shape)
        assert (windows[:, :, 0, ::64, ::64] == picture[::64, ::64]).all(axis=(2, 3, 4)).any()


def test_overlays_are_written_as_pdf_too(tmp_path: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    assert save_png(tmp_path / "a-b-c.png", image) == [tmp_path / "a-b-c.png"]
    assert not (tmp_path / "a-b-c.pdf").exists()
    use_figure_look(FigureLook(formats=("pdf",)))
    for folder in (tmp_path, tmp_path / "again"):
        assert [p.suffix for p in save_png(folder / "a-b-c.png", image)] == [".png", ".pdf"]
    one, two = ((folder / "a-b-c.pdf").read_bytes() for folder in (tmp_path, tmp_path / "again"))
    assert one == two
    assert one.startswith(b"%PDF")


def test_what_was_drawn_with_another_look_is_drawn_again(tmp_path: Path) -> None:
    drawn = []

    def draw(name: str) -> list[Path]:
        drawn.append(name)
        (tmp_path / f"{name}.svg").touch()
        return [tmp_path / f"{name}.svg"]

    for look in (FigureLook(), FigureLook(), FigureLook(text_size=12), FigureLook(text_size=12)):
        use_figure_look(look)
        draw_new(tmp_path, {"one": 1}, draw)
    assert drawn == ["one", "one"]

    use_figure_look(FigureLook())
    folder, picture = MaskFolder(tmp_path / "attention"), tmp_path / "attention" / "a-b-c.png"
    folder.root.mkdir()
    for look, kept in (
        (FigureLook(), True),
        (FigureLook(colour_map="hot", formats=("pdf",)), False),
        (FigureLook(colour_map="hot", formats=("pdf",)), True),
        (FigureLook(), False),
    ):
        picture.touch()
        use_figure_look(look)
        remove_other_look(folder)
        assert picture.exists() == kept
