"""Spellings of ids: which are the same id, and which are probably the same.

A patient with two ids could be in two parts of the split, and the model would then be tested on a
patient it was trained on. Therefore invisible differences are removed (`canonical`), and differences
that spreadsheets, keyboards and web pages make are reported (`alike`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

# Invisible, but not in category Cf: the grapheme joiner and the variation selectors.
INVISIBLE = re.compile("[\u034f\ufe00-\ufe0f]")
DASHES = re.compile(r"[\s_\u2010-\u2015\u2212\u2043\ufe58\uff0d-]+")
QUOTES = re.compile("[\"'`´\u2018-\u201f\u2032\u2033«»\u2039\u203a]")
SCIENTIFIC = re.compile(r"\d(?:[.,]\d+)?e\+\d{2}")
WHOLE = re.compile(r"(\d+)[.,]0+")  # as pandas writes integers of a column with gaps
LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
# Dates into which spreadsheets turn 1-2 or 3/4: 01. Feb, 2-Jan, Jan-02, 2024-02-01, 01.02.2024.
MONTH = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mrz|mai|okt|dez|fév|fev|avr|jui|aoû|"
    r"déc|ene|abr|ago|set|dic|gen|mag|giu|lug|ott|mei|out)[^\W\d]{0,2}\.?"
)
DATE = re.compile(
    rf"\d{{1,2}}\.?[- ]{MONTH}(?:[- ]\d{{2,4}})?|{MONTH}[- ]\d{{1,4}}"
    r"|\d{4}-\d\d-\d\d(?: 00:00:00)?|\d{1,2}\.\d{1,2}\.\d{4}",
    re.IGNORECASE,
)


def canonical(text: str) -> str:
    """The text with composed letters, plain spaces, stripped, and without invisible characters."""
    if text.isascii():  # most ids, of which a study may have a million
        return text.strip(" ")
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
    composed = unicodedata.normalize("NFC", INVISIBLE.sub("", visible))
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in composed).strip(" ")


def alike(text: str) -> str:
    """A key that is equal for ids that may be the same.

    It ignores case, leading zeros, number formats of spreadsheets (1017.0, 1.017E+03), and the kinds
    of dashes, quotes, digits, ligatures and widths.
    """
    if text.isascii() and text.isalnum():
        return LEADING_ZEROS.sub("", text.lower())
    folded = unicodedata.normalize("NFKC", canonical(text)).casefold()
    folded = unicodedata.normalize("NFKC", folded)
    folded = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in folded)
    folded = DASHES.sub("-", QUOTES.sub("", folded).strip())
    if SCIENTIFIC.fullmatch(folded):
        folded = f"{Decimal(folded.replace(',', '.')):f}"
    if whole := WHOLE.fullmatch(folded):
        folded = whole[1]
    return LEADING_ZEROS.sub("", folded) or text


def is_shortened(name: str) -> bool:
    """Whether a spreadsheet shortened a number, such as 1.23457E+11, which may stand for several ids."""
    return bool(SCIENTIFIC.fullmatch(name.casefold()))


def groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Groups of alike names, by the first name of each group, in the order given."""
    by_key: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_key.setdefault(alike(name), []).append(name)
    return {group[0]: group for group in by_key.values()}


def spreadsheet_date(names: Iterable[str]) -> str:
    """The first name that looks like a date made by a spreadsheet; '' if none does."""
    return next((name for name in names if DATE.fullmatch(name)), "")
