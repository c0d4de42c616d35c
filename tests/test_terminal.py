"""What the terminal shows of a command at work."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from lus_cli.terminal import BarProgress, PlainProgress, Screen


def test_finished_bars_make_room_for_new_ones() -> None:
    bars = Progress(console=Console(file=io.StringIO()))
    progress = BarProgress(bars)
    progress("epochs", 0, 2)
    for epoch in (1, 2):
        for done in range(3):
            progress(f"epoch {epoch}", done, 2, loss=0.5)
        progress("validate", 1, 2)
        assert [bar.description for bar in bars.tasks] == ["epochs", "validate"]
        progress("validate", 2, 2)
        progress("epochs", epoch, 2)
    progress("validate", 1, 2)
    assert [(bar.description, bar.completed) for bar in bars.tasks] == [("validate", 1)]


def test_elsewhere_than_on_a_terminal_a_line_now_and_then() -> None:
    text = io.StringIO()
    progress = PlainProgress(Console(file=text, width=80))
    for done in range(1001):
        progress("decode", done, 1000, videos=f"{done // 10}/100")
    assert text.getvalue().splitlines() == [
        "decode 0/1000 videos 0/100",
        "decode 1000/1000 videos 100/100",
    ]


@pytest.mark.parametrize(("rank", "speaks"), [(None, True), ("0", True), ("1", False)])
def test_the_first_of_several_processes_speaks(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, speaks: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    screen = Screen(as_json=True, quiet=False, verbose=False)
    assert screen.as_json is speaks
    assert screen.quiet is not speaks
