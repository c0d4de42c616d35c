"""Spellings of ids: which are the same id, and which may be."""

from __future__ import annotations

import unicodedata

import pytest

from lus_cli.study.ids import VideoId, parse_frame_id
from lus_cli.study.spellings import alike, canonical, groups, spreadsheet_date

NFC, NFD = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (NFD, NFC),
        ("1017 ", "1017"),
        ("\u00a01017\u2009", "1017"),
        ("Anna\u00a0B", "Anna B"),
        ("10\u200b17", "1017"),
        ("10\u00ad17", "1017"),
        ("\ufeff1017\u200e", "1017"),
        ("P\ufe0f1", "P1"),
    ],
)
def test_what_cannot_be_seen_is_no_difference(text: str, same: str) -> None:
    assert canonical(text) == same == canonical(same)
    assert VideoId.parse(f"{text}/1/L1") == VideoId.of(text, "1", "L1") == VideoId(same, "1", "L1")
    assert parse_frame_id(f"{text}/1/L1/7")[0].patient == same


@pytest.mark.parametrize(
    "spelt",
    [
        ("P01", "p01", "P1", "\uff30\uff10\uff11", '"P01"'),
        ("P-01", "P_01", "P 01", "p\u20111", "P  1"),
        ("1017", "1017.0", "1017,0", "1.017E+03", "01017", "\uff11\uff10\uff11\uff17", "'1017"),
        ("Strauß", "STRAUSS"),
        ("e\ufb03cient", "efficient"),
        ("7", "007", "\u0667"),
        ("a-b", "a\u2013b", "A\u2212B", "a_b"),
    ],
)
def test_what_spreadsheets_and_keyboards_change_is_alike(spelt: tuple[str, ...]) -> None:
    assert {alike(name) for name in spelt} == {alike(spelt[0])}


@pytest.mark.parametrize(
    ("one", "other"),
    [("1017", "10170"), ("P1", "P10"), ("a", "ä"), ("1.5", "15"), ("1e2", "100"), ("0", "00x")],
)
def test_other_ids_are_not_alike(one: str, other: str) -> None:
    assert alike(one) != alike(other)


def test_ids_that_are_alike_form_a_group() -> None:
    assert groups(["P1", "p01", "Q1", "P1"]) == {"P1": ["P1", "p01"], "Q1": ["Q1"]}


def test_dates_that_spreadsheets_make_of_ids_are_known() -> None:
    for date in ("01. Feb", "2-Jan", "Feb-01", "03. Mrz", "2024-02-01", "01.02.2024"):
        assert spreadsheet_date(("1", date)) == date
    for name in ("1-2", "scan 12", "L-1", "Ann-3", "1017"):
        assert not spreadsheet_date((name,))
