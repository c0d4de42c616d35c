"""What a part of the benchmarks returns, and how rounds become one number."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rows:
    """A table to show."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass
class Measured:
    """Sections of bench.json by name, and the tables that show them."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: list[Rows] = field(default_factory=list)


def middle(values: Sequence[float]) -> float:
    """The median, to three digits after the point."""
    return round(statistics.median(values), 3)


def spread_of(values: Sequence[float]) -> str:
    """The smallest and the largest round, shown next to the median."""
    return f"{min(values):.3g} to {max(values):.3g}"
