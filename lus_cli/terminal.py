"""Terminal output: results go to stdout, as tables or JSON; progress, warnings and errors to stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer, current_thread, main_thread
from types import FrameType
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable

from lus_cli.errors import LusError, UsageError, printable
from lus_cli.progress import PlainProgress, Result, Table, facts_in_words, silent
from lus_cli.progress import Progress as ProgressCallback
from lus_cli.streams import discard_output
from lus_cli.torchrun.ending import STOPPED, end_on_sigterm, first_to_end, stopped
from lus_cli.words import formatted, is_words

INTERRUPTED = (
    "interrupted: no incomplete output remains; run the command again (train: with --resume)"
)
AGAIN_S = 0.05  # seconds until an interrupt is tried again
SHORT = 12  # characters of a cell that is not folded
NO_LIMIT = 1_000_000  # columns of an output that is not a terminal


@contextlib.contextmanager
def true_interrupts() -> Iterator[None]:
    """Raises KeyboardInterrupt for Ctrl-C even if a library turned it into another exception.

    C code can do that: safetensors, interrupted while it reads a file, reports a damaged file. While
    a library is imported, Ctrl-C waits: interrupted there, the C code of PyTorch ends the process.
    """
    pressed, before = False, imports(sys._getframe())
    again: list[Timer] = []

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        if imports(frame) > before:
            again.append(Timer(AGAIN_S, interrupt))
            again[-1].start()
        else:
            signal.default_int_handler(number, frame)

    usual = signal.default_int_handler
    if signal.getsignal(signal.SIGINT) is not usual or current_thread() is not main_thread():
        yield
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        for timer in again:  # pressed twice, Ctrl-C would interrupt what follows as well
            timer.cancel()
        signal.signal(signal.SIGINT, usual)


def interrupt() -> None:
    """Presses Ctrl-C, from another thread."""
    if hasattr(signal, "pthread_kill"):
        ident = main_thread().ident
        assert ident is not None
        signal.pthread_kill(ident, signal.SIGINT)
    else:  # Windows, where os.kill would end the process
        signal.raise_signal(signal.SIGINT)


def imports(frame: FrameType | None) -> int:
    """The number of frames that belong to an import in progress: of this frame and its callers."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back
    return count


def settle_libraries() -> None:
    """Sets what libraries read from the environment when they are loaded.

    Figures must not depend on the user's settings of matplotlib, and the backend that a notebook
    sets for its subprocesses may not be installed here. The threads of PyTorch sleep while they have
    nothing to do, instead of keeping cores from the threads that read and encode videos.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no warnings about fonts or settings


def can_answer() -> bool:
    """Whether someone sits at a terminal who can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def check_working_folder() -> None:
    """Raises LusError if the working folder no longer exists, in which libraries abort."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise LusError(
            "the working folder no longer exists", "change to an existing folder with cd DIR"
        ) from None


class Screen:
    """The output of one command."""

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.first = os.environ.get("RANK", "0") == "0"  # of those that torchrun started
        quiet = quiet or not self.first
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self.console = Console(stderr=True, highlight=False, emoji=False)
        wide = None if sys.stdout.isatty() else NO_LIMIT
        self.results = Console(highlight=False, emoji=False, width=wide)
        if as_json:
            self.results = self.console
        level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
        handler = LogLines(self.console, level)
        handler.setFormatter(WarningPrefix())
        logger = logging.getLogger("lus")
        logger.setLevel(logging.DEBUG)
        logger.handlers[:] = [handler]

    @contextlib.contextmanager
    def catching_errors(self) -> Iterator[None]:
        """Turns LusError into one line and its exit code, and Ctrl-C into exit code 130.

        Any other exception keeps its traceback. Of several processes of torchrun, the first that ends
        early prints its line, and all exit with its code.
        """
        end_on_sigterm()
        try:
            with true_interrupts():
                yield
        except LusError as error:
            speaks, exit_code = first_to_end(error.exit_code)
            if not speaks:
                raise typer.Exit(exit_code) from None
            if self.as_json:
                document: dict[str, Any] = {"error": error.message, "remedy": error.remedy}
                if error.left_out:
                    document["problems"] = error.left_out
                with contextlib.suppress(LusError):  # it would be about the same full disk
                    write_document(document)
            self.left_out(error.left_out)
            self.error(str(error))
            raise typer.Exit(exit_code) from None
        except KeyboardInterrupt:
            speaks, exit_code = first_to_end(1 if stopped.is_set() else 130)
            if speaks:
                self.error(STOPPED if stopped.is_set() else INTERRUPTED)
            raise typer.Exit(exit_code) from None

    def error(self, line: str) -> None:
        self.console.print(f"[bold red]error[/] {escape(' '.join(line.split()))}", soft_wrap=True)

    def left_out(self, problems: list[str]) -> None:
        """Prints the inputs that were left out: at most ten, or all with -v."""
        shown = problems if self.verbose else problems[:10]
        for line in shown:
            self.console.print(f"[yellow]left out[/] {escape(printable(line))}", soft_wrap=True)
        if len(shown) < len(problems):
            self.console.print(f"[yellow]left out[/] {len(problems) - len(shown)} more (-v)")

    @contextlib.contextmanager
    def progress(self) -> Iterator[ProgressCallback]:
        """A progress callback that draws bars on a terminal and prints plain lines elsewhere."""
        if self.quiet:
            yield silent
        elif not self.console.is_terminal:
            yield PlainProgress(lambda line: self.console.print(escape(line), soft_wrap=True))
        else:
            with Progress(
                TextColumn("{task.description}", style="bold", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[facts]}", style="dim", markup=False),
                console=self.console,
                expand=True,
            ) as bars:
                yield BarProgress(bars)

    def show(self, result: Result) -> None:
        """Prints tables, notes, files and problems; with --json the numbers as JSON instead of tables."""
        if self.as_json and self.first:
            document = result.numbers | {
                "files": {name: str(path) for name, path in result.files.items()},
                "problems": result.problems,
            }
            write_document(without_nan(document), indent=2)
        elif result.text and self.first:
            self.results.file.write(result.text)
            self.results.file.flush()
        if self.quiet:
            return
        if not self.as_json:
            for table in result.tables:
                self.table(table)
        for line in result.notes:
            self.results.print(f"[yellow]note[/] {escape(printable(line))}", soft_wrap=True)
        self.left_out(result.problems)
        width = max(map(len, result.files), default=0)
        for name, path in result.files.items():
            self.results.print(
                f"[green]{name:<{width}}[/]  {escape(shortest(path))}", soft_wrap=True
            )

    def agreed(self, question: str) -> bool:
        """Asks a question that is answered with y or n. Raises UsageError if no one can answer."""
        if self.as_json or self.quiet or not can_answer():
            raise UsageError(
                f"nothing was done: {question!r} cannot be answered here", "give --yes to go on"
            )
        return typer.confirm(question, err=True)

    def table(self, table: Table) -> None:
        """Prints a table, on a terminal as narrow as it is. Names are whole even if they are longer
        than a line."""
        table = table.fitted(self.results.width)
        if table.title:
            self.results.print(f"[bold]{escape(table.title)}[/]", soft_wrap=True)
        with self.results.capture() as captured:
            self.results.print(self.drawn(table), crop=False)
        lines = [line.rstrip() for line in captured.get().splitlines()]
        self.results.file.write("\n".join([*lines[1:], ""]))
        self.results.file.flush()

    def drawn(self, table: Table) -> RichTable:
        """A table whose names and short cells stay on one line."""
        cells = [[formatted(value) for value in row] for row in table.rows]
        least = table.least_width()
        too_wide = least > self.results.width  # the terminal then breaks the lines
        drawn = RichTable(box=box.SIMPLE_HEAD, width=least if too_wide else None)
        for position, column in enumerate(table.columns):
            left = position == 0 or any(is_words(row[position]) for row in table.rows)
            longest = max((len(row[position]) for row in cells), default=0)
            whole = position == 0 or longest <= SHORT or bool(table.cut)
            drawn.add_column(
                escape(column),
                justify="left" if left else "right",
                overflow="fold",
                no_wrap=whole,
                min_width=max(longest, len(column)) if whole else None,
            )
        for row in cells:
            drawn.add_row(*map(escape, row))
        return drawn


def write_document(document: Any, indent: int | None = None) -> None:
    """Writes a JSON document to stdout. Raises LusError if it cannot be written completely."""
    try:
        print(json.dumps(document, indent=indent), flush=True)  # noqa: T201
    except OSError as error:
        discard_output()
        raise LusError(
            f"the JSON document cannot be written to stdout ({error.strerror})",
            "the files of the command are complete; free some space or redirect stdout elsewhere",
        ) from error


class LogLines(logging.Handler):
    """Prints log messages, above the bars if there are any; wraps them on a terminal only."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(
            self.format(record), markup=False, soft_wrap=not self.console.is_terminal
        )


class WarningPrefix(logging.Formatter):
    """Prefixes warnings and errors with their level."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


class BarProgress:
    """Draws each task as a bar, which stays until it is finished and another task starts."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, task: str, done: int, total: int | None = None, **facts: object) -> None:
        if task not in self.tasks or (self.finished(task) and done != total):
            for other in filter(self.finished, list(self.tasks)):
                self.bars.remove_task(self.tasks.pop(other))
            self.tasks[task] = self.bars.add_task(task, total=total, facts="")
        self.bars.update(self.tasks[task], completed=done, total=total, facts=facts_in_words(facts))

    def finished(self, task: str) -> bool:
        bar = next(bar for bar in self.bars.tasks if bar.id == self.tasks[task])
        return bar.finished


def without_nan(value: Any) -> Any:
    """`value` with NaN and infinity, which JSON does not have, as null."""
    if isinstance(value, dict):
        return {str(key): without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def shortest(path: Path) -> str:
    """The shorter of the absolute path and the path relative to the working folder."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
    relative = os.path.relpath(absolute)
    return min(relative, absolute, key=len)
