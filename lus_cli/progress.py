"""What a step reports while it runs, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class Progress(Protocol):
    """Callback with which a step reports its progress.

    `task` names the current task, `done` of `total` counts it (`total` None: unknown), and `facts`
    are a few values to display, such as the loss.
    """

    def __call__(self, task: str, done: int, total: int | None = None, **facts: object) -> None: ...


def silent(task: str, done: int, total: int | None = None, **facts: object) -> None:
    """A Progress that displays nothing."""


@dataclass(frozen=True)
class Table:
    """A small table of unformatted values for the terminal."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


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
