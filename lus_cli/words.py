"""Numbers and lists in words, for messages, tables and pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counted(number: int, noun: str) -> str:
    """A number with its noun: '1 video', '2 videos'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def joined(words: Iterable[object], last: str = "and") -> str:
    """Joins words: 'a', 'a and b', 'a, b and c'; `last` replaces 'and'. Empty for no words."""
    *before, final = [str(word) for word in words] or [""]
    return f"{', '.join(before)} {last} {final}" if before else final


def shortened(words: Sequence[str], most: int = 6) -> str:
    """Joins the first `most` words with commas, and adds how many are left out."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
