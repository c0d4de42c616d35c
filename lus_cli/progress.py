"""What a step reports while it works, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class Progress(Protocol):
    """Called by a step as it works.

    `task` names what is under way, `done` of `total` counts it (`total` None: not known yet), and
    `facts` are a few short figures worth watching, such as the loss.
    """

    def __call__(self, task: str, done: int, total: int | None = None, **facts: object) -> None: ...


def silent(task: str, done: int, total: int | None = None, **facts: object) -> None:
    """The progress of somebody who does not want to watch."""


@dataclass(frozen=True)
class Table:
    """A small table for the terminal: plain values, formatted by whoever shows them."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Result:
    """What a step hands back.

    `numbers` go out as JSON, `tables` to the terminal, `files` are what a person opens next.
    `notes` are sentences that must not be missed. `problems` are the inputs that were left out, a
    line each; `failed` says that they make the whole command a failure (exit code 1) although the
    rest was done.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failed: bool = False
