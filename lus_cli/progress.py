"""What a step reports while it runs, and what it returns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lus_cli.words import duration, formatted

# Seconds between progress lines if stderr is not a terminal. The first line that says how long a task
# will take comes sooner.
LINE_EVERY_S, FIRST_S = 10.0, 4.0
FOLDED, GAP = 16, 3  # characters: of a column that is folded, and between columns


class Progress(Protocol):
    """Callback with which a step reports its progress.

    `task` names the current task, `done` of `total` counts it (`total` None: unknown), and `facts`
    are a few values to display, such as the loss.
    """

    def __call__(self, task: str, done: int, total: int | None = None, **facts: object) -> None: ...


def silent(task: str, done: int, total: int | None = None, **facts: object) -> None:
    """A Progress that displays nothing."""


class PlainProgress:
    """Prints the first and last state of a task, and lines in between, with the time that is left.

    The second line is printed after FIRST_S, the others every LINE_EVERY_S.
    """

    def __init__(
        self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.write, self.clock = write, clock
        self.printed: dict[str, float] = {}  # when the latest line of a task was printed
        self.begun: dict[str, tuple[float, int]] = {}  # when a task began, and how much was done

    def __call__(self, task: str, done: int, total: int | None = None, **facts: object) -> None:
        now = self.clock()
        first = task not in self.begun
        begun, before = self.begun.setdefault(task, (now, done))
        estimated = self.printed.get(task, -LINE_EVERY_S) > begun
        wait = LINE_EVERY_S if first or estimated else FIRST_S
        if done == total:
            del self.begun[task]
        elif now - self.printed.get(task, -LINE_EVERY_S) < wait:
            return
        self.printed[task] = now
        of = f"/{total}" if total is not None else ""
        left = ""
        if total is not None and before < done < total:
            left = f"  about {duration((now - begun) / (done - before) * (total - done))} left"
        self.write(f"{task} {done}{of} {facts_in_words(facts)}".rstrip() + left)


def facts_in_words(facts: dict[str, object]) -> str:
    return "  ".join(f"{name} {formatted(value)}" for name, value in facts.items())


@dataclass(frozen=True)
class Table:
    """A small table of unformatted values for the terminal.

    `spare` names columns that are left out, in this order, on a terminal that is too narrow.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    spare: tuple[str, ...] = ()

    def least_width(self) -> int:
        """The characters of a line in which the table is readable: short cells whole, others folded."""
        rows = [[formatted(value) for value in row] for row in self.rows]
        columns = zip(self.columns, *rows, strict=True)
        return sum(max(min(len(cell), FOLDED) for cell in cells) + GAP for cells in columns)

    def without(self, column: str) -> Table:
        """The same table without a column; `column` need not be in it."""
        kept = [place for place, name in enumerate(self.columns) if name != column]
        rows = [tuple(row[place] for place in kept) for row in self.rows]
        spare = tuple(name for name in self.spare if name != column)
        return Table(self.title, tuple(self.columns[place] for place in kept), rows, spare)


@dataclass(frozen=True)
class Result:
    """The result of a step.

    `numbers` are printed as JSON and `tables` on the terminal, after `text`, which is printed
    unchanged, so that it can be redirected to a file. `files` are the main files that were written.
    `notes` are important remarks. `problems` has a line for each input that was left out; `failed`
    says that they make the command fail (exit code 1), although the rest was done. A `question` is
    asked before the step runs again with `yes`; until then it has done nothing.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failed: bool = False
    text: str = ""
    question: str = ""
