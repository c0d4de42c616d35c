"""What the terminal shows while a command runs."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.progress import Progress

from lus_cli import terminal
from lus_cli.errors import LusError
from lus_cli.progress import PlainProgress, Result, Table
from lus_cli.terminal import BarProgress, Screen


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


def test_names_of_users_are_shown_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich would take brackets for markup and colons for emoji."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    screen = Screen(as_json=False, quiet=False, verbose=False)
    monkeypatch.setattr(screen.console, "file", text := io.StringIO())
    with screen.progress() as progress:
        progress("draw a[bold]/P[/1/B]", 0, 2, of="[/x] :100:")
        progress("draw a[bold]/P[/1/B]", 2, 2, of="[/x] :100:")
    screen.error("there is no a:100:b[bold]")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.getvalue())
    assert "draw a[bold]/P[/1/B]" in shown
    assert "of [/x] :100:" in shown
    assert "error there is no a:100:b[bold]" in shown


def test_without_a_terminal_a_line_is_printed_now_and_then() -> None:
    text = io.StringIO()
    progress = PlainProgress(lambda line: text.write(f"{line}\n"))
    for done in range(1001):
        progress("decode", done, 1000, videos=f"{done // 10}/100")
    assert text.getvalue().splitlines() == [
        "decode 0/1000 videos 0/100",
        "decode 1000/1000 videos 100/100",
    ]


LONG_ID = f"{'1' * 60}/{'2' * 60}/right-upper-anterior"
FOUND = Result(
    {"kappa": 0.5},
    [Table("scores of " + "a b " * 40, ("video", "score"), [(LONG_ID, 2), ("1/1/1", 0.25)])],
    {"report": Path("report.html")},
    notes=["only 2 patients " * 10],
    problems=["3/1/1: no score"],
)


def test_results_go_to_stdout_and_what_was_left_out_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen(as_json=False, quiet=False, verbose=False).show(FOUND)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        FOUND.tables[0].title,
        f"  {'video':<{len(LONG_ID)}}   score",
        f" {'─' * (len(LONG_ID) + 10)}",
        f"  {LONG_ID}       2",
        f"  {'1/1/1':<{len(LONG_ID)}}   0.250",
        "",
        f"note {FOUND.notes[0]}",
        "report  report.html",
    ]
    assert err == "left out 3/1/1: no score\n"


def test_with_json_no_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(as_json=True, quiet=False, verbose=False).show(FOUND)
    out, err = capsys.readouterr()
    assert json.loads(out)["kappa"] == 0.5
    assert "only 2 patients" in err
    assert LONG_ID[:20] not in err


def on_terminal(table: Table, width: int) -> list[str]:
    """The lines of a table on a terminal of `width` characters."""
    screen = Screen(as_json=False, quiet=False, verbose=False)
    screen.results = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    screen.table(table)
    shown: str = screen.results.file.getvalue()  # type: ignore[attr-defined]
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()


def test_on_a_narrow_terminal_ids_are_neither_folded_nor_cut() -> None:
    lines = on_terminal(FOUND.tables[0], 50)
    assert [line.split()[0] for line in lines[3:-1]] == [LONG_ID, "1/1/1"]
    assert lines[3].split()[1] == "2"


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, ["run", "when", "kappa", "words"]),
        (50, ["run", "kappa", "words"]),
        (32, ["run", "words"]),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns_where_some_can_be_spared(
    width: int, columns: list[str]
) -> None:
    rows = [("standard-1", "2026-11-28 12:43", 0.5, "some words that are folded if need be")]
    table = Table("", ("run", "when", "kappa", "words"), rows, spare=("none", "when", "kappa"))
    lines = on_terminal(table, width)
    assert lines[0].split() == columns
    assert lines[2].split()[0] == "standard-1", "names are not folded"
    assert max(map(len, lines)) <= width


def test_columns_are_left_out_together_and_one_is_cut() -> None:
    name, columns = "r18-none-of-them", ("run", "recipe", "a", "b", "state")
    row = (name, "standard, backbone resnet18, freeze no", 1, 2, "finished")
    table = Table("", columns, [row], spare=(("a", "b"), "recipe"), cut="recipe")
    for width in (60, 79):
        assert len(on_terminal(table, width)) == 4, "no cell is folded"
        assert max(map(len, on_terminal(table, width))) <= width
    assert on_terminal(table, 90)[2].split("  ")[2].strip() == row[1]
    assert on_terminal(table, 60)[0].split() == ["run", "recipe", "a", "b", "state"]
    assert on_terminal(table, 60)[2].split()[-4].endswith("…")
    assert on_terminal(table, 50)[0].split() == ["run", "recipe", "state"]
    assert on_terminal(table, 40)[0].split() == ["run", "state"]


def test_log_lines_are_not_wrapped_where_stderr_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen(as_json=False, quiet=False, verbose=False)
    line = "epoch 1/1 [bold] " + "validation loss 0.1 " * 10
    logging.getLogger("lus.train").info("%s", line)
    logging.getLogger("lus.train").warning("%s", "slow")
    logging.getLogger("lus.train").debug("%s", "hidden")
    assert capsys.readouterr().err == f"{line}\nwarning: slow\n"


def test_what_the_encoding_of_stdout_lacks_is_written_as_an_escape() -> None:
    script = (
        "from lus_cli.progress import Result, Table; from lus_cli import streams, terminal\n"
        "streams.settle_streams()\n"
        "screen = terminal.Screen(as_json=False, quiet=False, verbose=False)\n"
        "screen.show(Result({}, [Table('t', ('a',), [(None,)])], notes=['Müller']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u2013" in done.stdout
    assert b"note M\\xfcller" in done.stdout


def test_within_ten_seconds_a_line_says_how_long_it_will_take() -> None:
    text, now = io.StringIO(), [0.0]
    progress = PlainProgress(lambda line: text.write(f"{line}\n"), clock=lambda: now[0])
    lines = []
    for done in range(101):
        now[0] = 100 + 2.0 * done
        progress("decode", done, 100, loss=0.5)
        lines += [(2.0 * done, line) for line in text.getvalue().splitlines()]
        text.seek(0)
        text.truncate()
    assert lines[:3] == [
        (0.0, "decode 0/100 loss 0.500"),
        (4.0, "decode 2/100 loss 0.500  about 3.3 min left"),
        (14.0, "decode 7/100 loss 0.500  about 3.1 min left"),
    ]
    assert lines[-1] == (200.0, "decode 100/100 loss 0.500")


def test_a_task_that_begins_again_is_timed_again() -> None:
    text, now = io.StringIO(), [0.0]
    progress = PlainProgress(lambda line: text.write(f"{line}\n"), clock=lambda: now[0])
    for start in (0.0, 1000.0):
        for done in (4, 8, 12, 16, 20):  # the first call comes after the first batch
            now[0] = start + 3.0 * done
            progress("validate", done, 20)
    assert (
        text.getvalue().splitlines()
        == [
            "validate 4/20",
            "validate 8/20  about 36 s left",
            "validate 12/20  about 24 s left",
            "validate 16/20  about 12 s left",
            "validate 20/20",
        ]
        * 2
    )


@pytest.mark.parametrize(("rank", "speaks"), [(None, True), ("0", True), ("1", False)])
def test_the_first_of_several_processes_speaks(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, speaks: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    screen = Screen(as_json=True, quiet=False, verbose=False)
    assert screen.first is speaks
    assert screen.quiet is not speaks
    monkeypatch.setattr(sys, "stdout", text := io.StringIO())
    screen.show(Result({"kappa": 0.5}, text="name = 1"))
    assert (json.loads(text.getvalue())["kappa"] == 0.5) if speaks else not text.getvalue()


@pytest.fixture
def pressing() -> Iterator[Callable[[], None]]:
    """A function that presses Ctrl-C, with the default handler of Python."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("as_error", [LusError("best.safetensors is not a lus model"), TypeError()])
def test_ctrl_c_is_reported_as_such_whatever_a_library_raises(
    pressing: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    as_error: Exception,
    swallowed: bool,
) -> None:
    """Interrupted while it reads a file, safetensors reports a damaged file."""
    screen = Screen(as_json=False, quiet=False, verbose=False)
    with pytest.raises(typer.Exit) as ended, screen.catching_errors():
        try:
            pressing()
        except KeyboardInterrupt:
            if swallowed:
                raise as_error from None
            raise
    assert ended.value.exit_code == 130
    assert "error interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_that_ended_well_although_ctrl_c_was_pressed_ended_well(
    pressing: Callable[[], None],
) -> None:
    screen = Screen(as_json=False, quiet=False, verbose=False)
    with pytest.raises(typer.Exit) as ended, screen.catching_errors():
        with contextlib.suppress(KeyboardInterrupt):
            pressing()
        raise typer.Exit(0)
    assert ended.value.exit_code == 0


def test_errors_without_ctrl_c_stay_what_they_are(pressing: Callable[[], None]) -> None:
    screen = Screen(as_json=False, quiet=True, verbose=False)
    with pytest.raises(typer.Exit) as ended, screen.catching_errors():
        raise LusError("no exams")
    assert ended.value.exit_code == 1
    with pytest.raises(TypeError), screen.catching_errors():
        raise TypeError


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_waits_for_an_import(
    presses: int, windows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted there, the C code of a library can end the process. What follows the command, such as
    the message, is not interrupted."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_library.py").write_text(
        "import os, signal, time\n"
        + "signal.raise_signal(signal.SIGINT)\n" * presses
        + "time.sleep(0.2)\nwhole = True\n"
    )
    if windows:  # where os.kill ends the process
        monkeypatch.delattr(signal, "pthread_kill", raising=False)
        monkeypatch.delattr(os, "kill")
    with pytest.raises(KeyboardInterrupt), terminal.true_interrupts():
        assert importlib.import_module("slow_library").whole
        for _ in range(6000):
            time.sleep(0.01)
    time.sleep(0.2)
    assert sys.modules.pop("slow_library").whole
    signal.signal(signal.SIGINT, usual)
