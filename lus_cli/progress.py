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
FOLDED, GAP = 16, 3  # characters: of a column that is folded or cut, and between columns


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

    On a terminal that is too narrow, the columns that `spare` names are left out, in this order and
    several names at once. The first column has names or ids and is always whole. Of the others, the
    column `cut` is cut with "…"; without one, long cells are folded.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    spare: tuple[str | tuple[str, ...], ...] = ()
    cut: str = ""

    def least_width(self) -> int:
        """The characters of a line in which the table is readable."""
        rows = [[formatted(value) for value in row] for row in self.rows]
        columns = zip(self.columns, *rows, strict=True)
        widths = [max(map(len, cells)) for cells in columns]
        gives = [place > 0 and self.cut in ("", name) for place, name in enumerate(self.columns)]
        return 1 + sum(
            (min(width, FOLDED) if give else width) + GAP
            for width, give in zip(widths, gives, strict=True)
        )

    def fitted(self, width: int) -> Table:
        """The same table for lines of `width` characters."""
        if self.least_width() <= width:
            return self.with_cells_cut(width) if self.cut in self.columns else self
        if not self.spare:
            return self
        left_out, *spare = self.spare
        names = (left_out,) if isinstance(left_out, str) else left_out
        kept = [place for place, name in enumerate(self.columns) if name not in names]
        rows = [tuple(row[place] for place in kept) for row in self.rows]
        columns = tuple(self.columns[place] for place in kept)
        return Table(self.title, columns, rows, tuple(spare), self.cut).fitted(width)

    def with_cells_cut(self, width: int) -> Table:
        place = self.columns.index(self.cut)
        cells = [formatted(row[place]) for row in self.rows]
        longest = max(map(len, (self.cut, *cells)))
        room = width - self.least_width() + min(longest, FOLDED)
        cut = [cell if len(cell) <= room else f"{cell[: room - 1].rstrip(' ,')}…" for cell in cells]
        rows = [
            (*row[:place], cell, *row[place + 1 :])
            for row, cell in zip(self.rows, cut, strict=True)
        ]
        return Table(self.title, self.columns, rows, cut=self.cut)


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
