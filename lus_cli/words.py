"""Numbers and lists in words, for messages, tables and pages."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def counted(number: int, noun: str) -> str:
    """A number with its noun: '1 video', '2 videos'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def has_interval(estimate: Mapping[str, Any]) -> bool:
    """Whether an estimate has an interval to show: one without width would look like certainty."""
    return estimate["low"] not in (None, estimate["high"])


def p_value(value: float) -> str:
    """A p-value with its sign: '= 0.012', or '< 0.001' for one that would be rounded to 0."""
    return "< 0.001" if value < 0.0005 else f"= {value:.3f}"


def verb(number: int) -> str:
    """The verb of a number of things: 'is' or 'are'."""
    return "is" if number == 1 else "are"


def joined(words: Iterable[object], last: str = "and") -> str:
    """Joins words: 'a', 'a and b', 'a, b and c'; `last` replaces 'and'. Empty for no words."""
    *before, final = [str(word) for word in words] or [""]
    return f"{', '.join(before)} {last} {final}" if before else final


def shortened(words: Sequence[str], most: int = 6) -> str:
    """Joins the first `most` words with commas, and adds how many are left out."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def nearest(word: str, words: Iterable[str]) -> str:
    """A question that suggests the word that was probably meant; empty if none is similar."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def sentence(words: str) -> str:
    """Words as a sentence: with a capital first letter and a full stop.

    Example:
        >>> sentence("no video has score 3")
        'No video has score 3.'

    """
    return f"{words[0].upper()}{words[1:]}."


def continued(whole: str) -> str:
    """A sentence after a colon: with a small first letter, unless it begins with an abbreviation.

    Example:
        >>> continued("No video has score 3."), continued("AUROC is undefined.")
        ('no video has score 3.', 'AUROC is undefined.')

    """
    rest = whole.split(" ", 1)[0][1:]
    return whole if rest and not rest.islower() else whole[0].lower() + whole[1:]


def duration(seconds: float) -> str:
    """A time in words: '0.4 s', '40 s', '12 min', '3.5 h', '2 days'; one decimal below ten.

    Example:
        >>> duration(33_528)
        '9.3 h'

    """
    for unit, length, most in (("s", 1, 100), ("min", 60, 60), ("h", 3600, 48)):
        if round(seconds / length) < most:
            return f"{tenths(seconds / length)} {unit}"
    return f"{tenths(seconds / 86400)} days"


def size(count: float) -> str:
    """A number of bytes in words: '0 B', '4.5 MB', '120 GB', in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count) < 1000:
            return f"{tenths(count)} {unit}"
        count /= 1000
    return f"{tenths(count)} TB"


def tenths(value: float) -> str:
    """A number with one decimal below ten, if it is not 0, and none above."""
    return f"{value:.1f}".removesuffix(".0") if round(value, 1) < 10 else f"{value:.0f}"


def formatted(value: Any) -> str:
    """A table cell: three decimals for a float, a dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:z.3f}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def is_words(value: Any) -> bool:
    """Whether a table cell is text, and not a number with or without its unit."""
    return isinstance(value, str) and value[:1].isalpha()
