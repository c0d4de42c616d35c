"""Figures are drawn only when they would show something new."""

from __future__ import annotations

from pathlib import Path

import pytest

from lus_cli.cache.drawn import RECORD, draw_new


class Pen:
    """Draws a figure of as many pages as its content has letters; knows which it has drawn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drawn: list[str] = []

    def __call__(self, **shows: str) -> dict[str, list[Path]]:
        self.drawn.clear()

        def draw(name: str) -> list[Path]:
            self.drawn.append(name)
            paths = [self.folder / f"{name}_{n}.png" for n in range(len(shows[name]))]
            for path in paths:
                path.write_text(shows[name])
            return paths

        return draw_new(self.folder, shows, draw)


@pytest.fixture
def pen(tmp_path: Path) -> Pen:
    return Pen(tmp_path)


def test_nothing_is_drawn_twice(pen: Pen) -> None:
    first = pen(a="x", b="yz")
    assert pen.drawn == ["a", "b"]
    assert pen(a="x", b="yz") == first
    assert pen.drawn == []


def test_what_shows_something_else_is_drawn_anew(pen: Pen) -> None:
    pen(a="x", b="yz")
    pen(a="x", b="zy")
    assert pen.drawn == ["b"]


def test_a_lost_file_is_drawn_anew(pen: Pen) -> None:
    (_, second) = pen(a="x", b="yz")["b"]
    second.unlink()
    pen(a="x", b="yz")
    assert pen.drawn == ["b"]
    assert second.is_file()


def test_pages_that_are_no_more_are_removed(pen: Pen) -> None:
    pen(a="xyz")
    files = pen(a="x")["a"]
    assert [path.name for path in pen.folder.glob("*.png")] == [path.name for path in files]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 7}', '{"a": ["", 7]}'])
def test_a_record_that_cannot_be_read_draws_all(pen: Pen, content: str) -> None:
    (pen.folder / RECORD).write_text(content)
    pen(a="x")
    assert pen.drawn == ["a"]
    pen(a="x")
    assert pen.drawn == []


def test_a_record_reaches_no_file_elsewhere(pen: Pen, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    pen.folder = folder
    (tmp_path / "mine").touch()
    (folder / RECORD).write_text('{"a": ["", ["../mine"]]}')
    pen(a="x")
    assert (tmp_path / "mine").is_file()
